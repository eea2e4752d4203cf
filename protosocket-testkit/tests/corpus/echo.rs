//! Servers and clients of any codec, which answer each message with itself.

use std::{future::Future, net::SocketAddr};

use protosocket::{
    Codec, Connection, Decoder, Encoder, MessageReactor, ReactorContext, ReactorStatus, SendError,
    Sender, SocketConnector, SocketListener, TcpConnector, TcpSocketListener, channel,
};
use protosocket_server::{ProtosocketServerConfig, ServerConnection, ServerConnector};
use protosocket_testkit::corpus::{Case, ClientSetup, ServerSetup};

/// A server on an address of the system's choice, and what drives it.
pub(crate) fn serve<C>(
    setup: ServerSetup,
    codec: impl Fn(&Case) -> C + 'static,
) -> (SocketAddr, impl Future)
where
    C: Codec + Encoder<Message = <C as Decoder>::Message> + 'static,
{
    let case = setup.case.clone();
    bind(setup, move || (codec(&case), Echo::<C>::new()))
}

/// A server whose connections are made of what `parts` returns.
pub(crate) fn bind<R: MessageReactor>(
    setup: ServerSetup,
    parts: impl Fn() -> (R::Codec, R) + 'static,
) -> (SocketAddr, impl Future) {
    let connector = Connector {
        parts: Box::new(parts),
    };
    let server = ProtosocketServerConfig::default()
        .limits(setup.limits)
        .observer(setup.observer)
        .bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0)), connector);
    let server = server.expect("a port is free");
    let listener = server.listener().expect("it listens");
    let address = listener.local_address().expect("it is bound");
    (address, server)
}

/// A client that echoes.
pub(crate) async fn connect<C>(setup: ClientSetup, codec: C)
where
    C: Codec + Encoder<Message = <C as Decoder>::Message> + 'static,
{
    drive(setup, codec, Echo::new()).await;
}

/// A client of this codec and reactor, which ends when its server has finished.
pub(crate) async fn drive<R: Client>(setup: ClientSetup, codec: R::Codec, mut reactor: R) {
    let stream = TcpConnector::new(setup.address).connect().await;
    let stream = stream.expect("the hostile server listens");
    let (sender, outbound) = channel(1);
    reactor.keep_open(sender);
    Connection::over(stream, codec, reactor, outbound, &setup.config).await;
}

/// A reactor that keeps its connection open until the peer has finished.
pub(crate) trait Client: MessageReactor {
    fn keep_open(&mut self, sender: Sender<Self::LogicalOutbound>);
}

struct Connector<R: MessageReactor> {
    parts: Box<dyn Fn() -> (R::Codec, R)>,
}

impl<R: MessageReactor> ServerConnector for Connector<R> {
    type Codec = R::Codec;
    type Reactor = R;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> R::Codec {
        (self.parts)().0
    }

    fn new_reactor(
        &self,
        _outbound: Sender<R::LogicalOutbound>,
        _stream: &<TcpSocketListener as SocketListener>::Stream,
    ) -> R {
        (self.parts)().1
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::task::spawn_local(connection);
    }
}

/// Answers each message with itself.
pub(crate) struct Echo<C: Codec> {
    open: Option<Sender<<C as Encoder>::Message>>,
}

impl<C: Codec> Echo<C> {
    fn new() -> Self {
        Self { open: None }
    }
}

impl<C> Client for Echo<C>
where
    C: Codec + Encoder<Message = <C as Decoder>::Message> + 'static,
{
    fn keep_open(&mut self, sender: Sender<Self::LogicalOutbound>) {
        self.open = Some(sender);
    }
}

impl<C> MessageReactor for Echo<C>
where
    C: Codec + Encoder<Message = <C as Decoder>::Message> + 'static,
{
    type Codec = C;
    type Inbound = <C as Decoder>::Message;
    type Outbound = <C as Encoder>::Message;
    type LogicalOutbound = <C as Encoder>::Message;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, C>,
        message: Self::Inbound,
    ) -> ReactorStatus {
        context.reply(message)
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, C>,
        message: Self::Outbound,
    ) -> Result<(), SendError<Self::Outbound>> {
        context.send(message)
    }

    fn on_end_of_input(&mut self, _context: &mut ReactorContext<'_, C>) -> ReactorStatus {
        self.open = None;
        ReactorStatus::Continue
    }
}
