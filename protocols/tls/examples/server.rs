//! A server that echoes lines over TLS, with a certificate that it makes for itself, or with yours.
//!
//! `cargo run -p protosocket-tls --features dev-certificate --example tls-server` prints what to type
//! next. With `-- 127.0.0.1:8443 chain.pem key.pem` it reads your files, and reads them again when
//! they change. Ctrl-C drains.

#![expect(clippy::print_stdout, reason = "it tells its user what to type next")]

use std::{env, error::Error, fs, net::SocketAddr, time::Duration};

use protosocket::{
    Layered, LinesCodec, MessageReactor, ReactorContext, ReactorStatus, SendError, Sender,
    StreamWithAddress, TcpOptions, TcpSocketListener,
};
use protosocket_server::{ProtosocketServerConfig, ServerConnection, ServerConnector};
use protosocket_tls::{Acceptor, Identity, TlsStream, development_certificate, ring};
use tokio::net::TcpStream;

/// Makes a reactor for each connection that is established.
struct Echoes;

impl ServerConnector for Echoes {
    type Codec = LinesCodec;
    type Reactor = Echo;
    type SocketListener = Layered<TcpSocketListener, Acceptor>;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new()
    }

    fn new_reactor(
        &self,
        _outbound: Sender<String>,
        stream: &TlsStream<StreamWithAddress<TcpStream>>,
    ) -> Echo {
        println!("a client has come: {stream:?}");
        Echo
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

/// Answers each line with itself.
struct Echo;

impl MessageReactor for Echo {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        line: String,
    ) -> ReactorStatus {
        context.reply(line)
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        line: String,
    ) -> Result<(), SendError<String>> {
        context.send(line)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let address = arguments.first().map_or("127.0.0.1:8443", String::as_str);
    let address: SocketAddr = address.parse()?;

    let (identity, ca) = match &arguments[..] {
        [_, chain, key] => (Identity::pem_files(chain, key), chain.clone()),
        _ => {
            let development = development_certificate(["localhost", "127.0.0.1"])?;
            let path = env::temp_dir().join("protosocket-tls-example.pem");
            fs::write(&path, &development.pem)?;
            (development.identity, path.display().to_string())
        }
    };
    let acceptor = Acceptor::builder(ring())
        .certificate(identity)
        .alpn_protocols(["echo"])
        .key_log_from_environment()
        .build()?;
    if let Some(certificates) = acceptor.certificates() {
        tokio::spawn(certificates.clone().watch(Duration::from_secs(10)));
    }

    let listener = TcpSocketListener::listen(address, TcpOptions::new())?;
    let address = listener.local_address()?;
    let server = ProtosocketServerConfig::default()
        .build_server(Layered::new(listener, acceptor), Echoes)?;
    let handle = server.handle();
    tokio::spawn(server);
    println!("listening on {address}; type, in another terminal:");
    println!("  openssl s_client -connect {address} -servername localhost -CAfile {ca} -alpn echo");
    println!("  cargo run -p protosocket-tls --example tls-client -- {address} {ca} hello");

    tokio::signal::ctrl_c().await?;
    println!("drained: {}", handle.drain(Duration::from_secs(10)).await);
    Ok(())
}
