//! What is behind the port: who is let in, what is told by the first bytes, and where it leads.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use protosocket::{
    ConnectionObserver, EstablishError, Layered, Limits, PeerAddress, SocketListener, TcpOptions,
    TcpSocketListener,
    proxy::{Network, ProxyAcceptor},
};
use protosocket_server::{
    Protocol, ProtosocketServer, ProtosocketServerConfig, Route, Routed, Routes, Sniffer,
};
use protosocket_tls::{Acceptor, DevelopmentCertificate, development_certificate, ring};

use crate::{lines::Lines, resp};

/// Headers of proxies, if there are any, and then the first bytes of the client.
pub(crate) type Port = Layered<Layered<TcpSocketListener, ProxyAcceptor>, Sniffer>;

/// Those inside of TLS.
type Inside = Routed<<Port as SocketListener>::Stream, Acceptor>;

/// Those whose clients agreed on no protocol inside of it.
type Guessed = Routed<<Inside as SocketListener>::Stream, Sniffer>;

/// A server, and the certificate that it has made for itself.
pub(crate) struct Bound {
    pub(crate) server: ProtosocketServer<Routes<Port>>,
    pub(crate) certificate: DevelopmentCertificate,
}

pub(crate) fn bind(address: SocketAddr) -> Result<Bound, Box<dyn Error>> {
    let certificate = development_certificate(["localhost"])?;
    let tls = Acceptor::builder(ring())
        .certificate(certificate.identity.clone())
        .alpn_protocols(["lines", "resp"])
        .build()?;

    let inside = Routes::<Inside>::new()
        .route(
            |stream| stream.alpn_protocol() == Some(b"resp"),
            Route::to(resp::connector()),
        )
        .route(
            |stream| stream.alpn_protocol() == Some(b"lines"),
            Route::to(Lines::new()).limits(patient()),
        )
        // redis-cli agrees on no protocol, and neither do people: then the first bytes tell.
        .otherwise(Route::to(guess()).through(sniffer([Protocol::Resp])));
    let routes = Routes::<Port>::new()
        .route(
            |stream| stream.protocol() == Protocol::Tls,
            Route::to(inside).through(tls),
        )
        .route(
            |stream| stream.protocol() == Protocol::Resp,
            Route::to(resp::connector()),
        )
        .otherwise(Route::to(Lines::new()).limits(patient()));

    let here: [Network; 2] = ["127.0.0.0/8".parse()?, "::1".parse()?];
    let listener = TcpSocketListener::listen(address, TcpOptions::new())?;
    let listener = Layered::new(listener, ProxyAcceptor::optional(here));
    let listener = Layered::new(listener, sniffer([Protocol::Tls, Protocol::Resp]));
    let server = ProtosocketServerConfig::default()
        .limits(patient())
        .observer(Arc::new(Refusals))
        .build_server(listener, routes)?;
    Ok(Bound {
        server,
        certificate,
    })
}

/// For people at a prompt. Until they have typed something nobody can tell what they speak, and that is
/// part of the handshake.
fn patient() -> Limits {
    Limits::server()
        .handshake_timeout(Duration::from_secs(120))
        .first_message_timeout(None)
        .idle_timeout(None)
}

/// Prints who was refused, and why.
#[derive(Debug)]
struct Refusals;

impl ConnectionObserver for Refusals {
    fn handshake_failed(&self, peer: &PeerAddress, error: &EstablishError) {
        println!("{peer} was refused: {error}");
    }
}

/// Takes these, and for lines what is nothing else that is known: clients of other protocols would
/// only be puzzled by echoes.
fn sniffer(protocols: impl IntoIterator<Item = Protocol>) -> Sniffer {
    Sniffer::new(protocols)
        .refuse(Protocol::KNOWN)
        .otherwise(Protocol::Named("lines"))
}

/// What is sniffed inside of TLS.
fn guess() -> Routes<Guessed> {
    Routes::<Guessed>::new()
        .route(
            |stream| stream.protocol() == Protocol::Resp,
            Route::to(resp::connector()),
        )
        .otherwise(Route::to(Lines::new()).limits(patient()))
}
