//! Servers of lines: one as it should be, and the means to build bad ones.

use std::{future::Future, net::SocketAddr, time::Duration};

use protosocket::{
    Limits, LinesCodec, MessageReactor, ReactorContext, ReactorStatus, SendError, Sender,
    StreamWithAddress, TcpSocketListener,
};
use protosocket_server::{
    ProtosocketServerConfig, ServerConnection, ServerConnector, ServerHandle,
};
use protosocket_testkit::hostile::{Conversation, Target};
use tokio::net::{TcpListener, TcpStream};

/// How long a peer waits for what a good server does much earlier. It ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a peer waits for what a bad server never does.
pub(crate) const IN_VAIN: Duration = Duration::from_millis(400);

/// A target that speaks lines and echoes them.
pub(crate) fn line_echo(address: SocketAddr, patience: Duration) -> Target {
    Target::new(address)
        .and_then(|target| target.patience(patience))
        .and_then(|target| target.probe_patience(PATIENCE))
        .and_then(|target| target.max_wait(PATIENCE))
        .and_then(|target| target.probe_interval(Duration::from_millis(20)))
        .and_then(|target| target.connections(120))
        .and_then(|target| target.churn(60))
        .expect("loopback and within bounds")
        .conversation(Conversation::new().say("hello\n").hear("hello\r\n"))
}

/// Echoes lines.
struct Echo;

impl MessageReactor for Echo {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> ReactorStatus {
        context.reply(message)
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> Result<(), SendError<String>> {
        context.send(message)
    }
}

struct Connector;

impl ServerConnector for Connector {
    type Codec = LinesCodec;
    type Reactor = Echo;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new()
    }

    fn new_reactor(&self, _: Sender<String>, _: &StreamWithAddress<TcpStream>) -> Echo {
        Echo
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

/// A server that ends within a second what says nothing, does not finish, does not read or has
/// gone.
pub(crate) fn good() -> (ServerHandle, SocketAddr) {
    good_with(|config| config)
}

/// The same, with more said about it.
pub(crate) fn good_with(
    configure: impl FnOnce(ProtosocketServerConfig) -> ProtosocketServerConfig,
) -> (ServerHandle, SocketAddr) {
    let short = Duration::from_millis(600);
    let limits = Limits::server()
        .first_message_timeout(short)
        .message_timeout(short)
        .write_timeout(short)
        .idle_timeout(short)
        .linger_timeout(short);
    let server = configure(ProtosocketServerConfig::default().limits(limits))
        .bind_tcp(([127, 0, 0, 1], 0).into(), Connector)
        .expect("a port is free");
    let listener = server.listener().expect("it listens");
    let address = listener.local_address().expect("it is bound");
    let handle = server.handle();
    tokio::spawn(server);
    (handle, address)
}

/// A listener on a port of the system's choice, and its address.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// A server that does this with each connection, in a task of its own.
pub(crate) async fn serve<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}
