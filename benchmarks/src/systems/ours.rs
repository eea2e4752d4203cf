//! `ours`: this project in its default configuration, answering from the reactor; `ours-channel`,
//! answering through the connection's channel; `ours-machine`, a machine behind the adapter.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    marker::PhantomData,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use protosocket::{
    ActionId, Host, HostContext, InputPolicy, Layered, LengthDelimitedCodec, LocalBytes, Machine,
    MachineReactor, MessageReactor, Output, Payload, PooledBuffer, ReactorContext, ReactorStatus,
    Rejected, Room, SendError, Sender, SocketListener, TcpSocketListener, U32, WeakSender,
};
use protosocket_server::{
    ProtosocketServerConfig, ProtosocketSocketConfig, ServerConnection, ServerConnector,
};
use protosocket_tls::Acceptor;
use rustls::ServerConfig;

use super::Server;
use crate::frame;

type Codec<M> = LengthDelimitedCodec<U32, M>;

pub(super) fn start() -> io::Result<Server> {
    serve(|_| Echo)
}

pub(super) fn start_over_tls(config: Arc<ServerConfig>) -> io::Result<Server> {
    let connector = Connector {
        make: |_| Echo,
        of: PhantomData,
    };
    let acceptor = Acceptor::from_config(config);
    serve_on(connector, |listener| Layered::new(listener, acceptor))
}

pub(super) fn start_channel() -> io::Result<Server> {
    serve(|outbound| ChannelEcho {
        outbound: outbound.downgrade(),
        sender: None,
    })
}

pub(super) fn start_machine() -> io::Result<Server> {
    serve(|_| MachineReactor::new(EchoMachine::default(), NoHost))
}

fn serve<R, M>(make: fn(Sender<R::LogicalOutbound>) -> R) -> io::Result<Server>
where
    R: MessageReactor<Codec = Codec<M>, LogicalOutbound: Send> + Send,
    M: Payload,
{
    serve_tcp(Connector {
        make,
        of: PhantomData,
    })
}

/// Listens in the default configuration.
pub(super) fn serve_tcp<C>(connector: C) -> io::Result<Server>
where
    C: ServerConnector<SocketListener = TcpSocketListener>,
{
    serve_on(connector, |listener| listener)
}

/// Listens in the default configuration, with something below the connections.
fn serve_on<C, L>(connector: C, below: impl FnOnce(TcpSocketListener) -> L) -> io::Result<Server>
where
    C: ServerConnector<SocketListener = L>,
    L: SocketListener,
{
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpSocketListener::listen(address, ProtosocketSocketConfig::default())?;
    let address = listener.local_address()?;
    let server = ProtosocketServerConfig::default().build_server(below(listener), connector)?;
    Ok(Server::here(address, async move {
        server.await;
        Ok(())
    }))
}

struct Connector<R: MessageReactor, L> {
    make: fn(Sender<R::LogicalOutbound>) -> R,
    of: PhantomData<fn() -> L>,
}

impl<R, M, L> ServerConnector for Connector<R, L>
where
    R: MessageReactor<Codec = Codec<M>, LogicalOutbound: Send> + Send,
    M: Payload,
    L: SocketListener<Stream: Send, Establish: Send>,
{
    type Codec = R::Codec;
    type Reactor = R;
    type SocketListener = L;

    fn codec(&self) -> Codec<M> {
        Codec::new()
    }

    fn new_reactor(&self, outbound: Sender<R::LogicalOutbound>, _: &L::Stream) -> R {
        (self.make)(outbound)
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

struct Echo;

impl MessageReactor for Echo {
    type Codec = Codec<LocalBytes>;
    type Inbound = LocalBytes;
    type Outbound = LocalBytes;
    type LogicalOutbound = Infallible;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec<LocalBytes>>,
        message: LocalBytes,
    ) -> ReactorStatus {
        if frame::wants_reply(&message) {
            context.reply(message)
        } else {
            ReactorStatus::Continue
        }
    }

    fn on_outbound_message(
        &mut self,
        _: &mut ReactorContext<'_, Codec<LocalBytes>>,
        message: Infallible,
    ) -> Result<(), SendError<LocalBytes>> {
        match message {}
    }
}

struct ChannelEcho {
    outbound: WeakSender<PooledBuffer>,
    sender: Option<Sender<PooledBuffer>>,
}

impl MessageReactor for ChannelEcho {
    type Codec = Codec<PooledBuffer>;
    type Inbound = PooledBuffer;
    type Outbound = PooledBuffer;
    type LogicalOutbound = PooledBuffer;

    fn on_inbound_message(
        &mut self,
        _: &mut ReactorContext<'_, Codec<PooledBuffer>>,
        message: PooledBuffer,
    ) -> ReactorStatus {
        if !frame::wants_reply(&message) {
            return ReactorStatus::Continue;
        }
        if self.sender.is_none() {
            self.sender = self.outbound.upgrade();
        }
        match self.sender.as_ref().map(|sender| sender.try_send(message)) {
            Some(Ok(())) => ReactorStatus::Continue,
            _ => ReactorStatus::Abort,
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec<PooledBuffer>>,
        message: PooledBuffer,
    ) -> Result<(), SendError<PooledBuffer>> {
        context.send(message)
    }

    /// A strong sender would say that there are more messages to come.
    fn on_end_of_input(
        &mut self,
        _: &mut ReactorContext<'_, Codec<PooledBuffer>>,
    ) -> ReactorStatus {
        self.sender = None;
        ReactorStatus::Continue
    }
}

#[derive(Default)]
struct EchoMachine {
    replies: VecDeque<PooledBuffer>,
}

impl Machine for EchoMachine {
    type Codec = Codec<PooledBuffer>;
    type Command = Infallible;
    type Event = Infallible;
    type Action = Infallible;
    type ActionResult = Infallible;
    type Error = io::Error;

    fn handle_inbound(&mut self, _: Instant, message: PooledBuffer) -> Result<(), io::Error> {
        if frame::wants_reply(&message) {
            self.replies.push_back(message);
        }
        Ok(())
    }

    fn handle_command(
        &mut self,
        _: Instant,
        command: Infallible,
    ) -> Result<(), Rejected<Infallible>> {
        match command {}
    }

    fn poll_event(&mut self) -> Option<Infallible> {
        None
    }

    fn poll_output(&mut self, _: Instant, room: Room) -> Option<Output<PooledBuffer>> {
        if room.is_empty() {
            return None;
        }
        self.replies.pop_front().map(Output::Bulk)
    }

    /// A client that does not read its replies cannot ask for more.
    fn input_policy(&self) -> InputPolicy {
        InputPolicy::Answering
    }

    fn is_idle(&self) -> bool {
        self.replies.is_empty()
    }
}

struct NoHost;

impl Host<EchoMachine> for NoHost {
    type Message = Infallible;

    fn on_event(&mut self, _: &mut HostContext<'_, EchoMachine>, event: Infallible) {
        match event {}
    }

    fn on_action(&mut self, _: &mut HostContext<'_, EchoMachine>, _: ActionId, action: Infallible) {
        match action {}
    }

    fn on_message(&mut self, _: &mut HostContext<'_, EchoMachine>, message: Infallible) {
        match message {}
    }
}
