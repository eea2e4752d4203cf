//! Each protocol on the one port, over real sockets.

use std::{future::Future, net::SocketAddr, time::Duration};

use protosocket::{
    Layered, SocketConnector, TcpConnector,
    proxy::{Addresses, ProxyHeader, ProxySender},
};
use protosocket_server::ServerHandle;
use protosocket_tls::{Connector, DevelopmentCertificate, Roots, ring};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::port::{self, Bound};

const PATIENCE: Duration = Duration::from_secs(30);

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const WHOAMI: &[u8] = b"*1\r\n$6\r\nWHOAMI\r\n";

struct Served {
    address: SocketAddr,
    certificate: DevelopmentCertificate,
    handle: ServerHandle,
}

fn serve() -> Served {
    let any = "127.0.0.1:0".parse().expect("it is an address");
    let bound = port::bind(any);
    let Bound {
        server,
        certificate,
    } = bound.expect("a port is free");
    let listener = server.listener().expect("it listens");
    let address = listener.get_ref().get_ref().local_address();
    let handle = server.handle();
    tokio::spawn(server);
    Served {
        address: address.expect("it is bound"),
        certificate,
        handle,
    }
}

impl Served {
    fn tcp(&self) -> TcpConnector {
        TcpConnector::new(self.address)
    }

    fn tls(&self, alpn: &[&str]) -> Connector {
        let roots = Roots::from_pem(self.certificate.pem.as_bytes()).expect("it is one");
        let connector = Connector::builder(ring())
            .server_name("localhost")
            .roots(roots)
            .alpn_protocols(alpn.iter().copied());
        connector.build().expect("it is a configuration")
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.expect("it happens before the test loses its patience")
}

/// What is answered, all of it: the client sends no more after `said`.
async fn ask<C>(connector: &C, said: &[u8]) -> String
where
    C: SocketConnector<Stream: AsyncRead + AsyncWrite + Unpin>,
{
    soon(async {
        let mut stream = connector.connect().await.expect("it listens");
        stream.write_all(said).await.expect("it reads");
        stream.shutdown().await.expect("it reads");
        let mut answer = String::new();
        // Who is refused may see a reset.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    })
    .await
}

#[tokio::test]
async fn each_client_is_answered_in_its_own_protocol() {
    let served = serve();
    assert_eq!(ask(&served.tcp(), b"hello\r\n").await, "hello\r\n");
    assert_eq!(ask(&served.tcp(), PING).await, "+PONG\r\n");
    for (alpn, said, answer) in [
        (&["lines"][..], &b"hello\n"[..], "hello\r\n"),
        // What was agreed on counts, whatever it looks like.
        (&["lines"], b"*1\r\n", "*1\r\n"),
        (&["resp"], PING, "+PONG\r\n"),
        (&["resp"], b"PING\r\n", "+PONG\r\n"),
        (&[], b"hello\n", "hello\r\n"),
        (&[], PING, "+PONG\r\n"),
    ] {
        let connector = Layered::new(served.tcp(), served.tls(alpn));
        assert_eq!(ask(&connector, said).await, answer, "{alpn:?}");
    }
    let report = soon(served.handle.drain(PATIENCE)).await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test]
async fn who_speaks_what_is_not_served_is_refused() {
    let served = serve();
    for said in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ] {
        assert_eq!(ask(&served.tcp(), said).await, "");
    }
    assert_eq!(ask(&served.tcp(), b"hello\n").await, "hello\r\n");
}

#[tokio::test]
async fn a_proxy_names_its_client_before_each_protocol() {
    let served = serve();
    let [client, port] = ["192.0.2.1:40000", "198.51.100.1:9000"]
        .map(|text| text.parse().expect("it is an address"));
    let addresses = Addresses::tcp(client, port).expect("they are of one family");
    let header = ProxyHeader::proxy(addresses);
    for sender in [ProxySender::v1(&header), ProxySender::v2(&header)] {
        let proxied = Layered::new(served.tcp(), sender.expect("it fits"));
        let told = "$15\r\n192.0.2.1:40000\r\n";
        assert_eq!(ask(&proxied, WHOAMI).await, told);
        assert_eq!(ask(&proxied, b"hello\n").await, "hello\r\n");
        let inside = Layered::new(proxied, served.tls(&["resp"]));
        assert_eq!(ask(&inside, WHOAMI).await, told);
    }
}
