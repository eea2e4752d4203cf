//! `ours`: this project in its default configuration, answering from the reactor; `ours-channel`,
//! answering through the connection's channel; `ours-machine`, a machine behind the adapter.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use protosocket::{
    ActionId, Host, HostContext, InputPolicy, LengthDelimitedCodec, LocalBytes, Machine,
    MachineReactor, MessageReactor, Output, Payload, PooledBuffer, ReactorContext, ReactorStatus,
    Rejected, Room, SendError, Sender, StreamWithAddress, TcpSocketListener, U32, WeakSender,
};
use protosocket_server::{ProtosocketServerConfig, ServerConnection, ServerConnector};
use tokio::net::TcpStream;

use super::Server;
use crate::frame;

type Codec<M> = LengthDelimitedCodec<U32, M>;

pub(super) fn start() -> io::Result<Server> {
    serve(|_| Echo)
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
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = ProtosocketServerConfig::default().bind_tcp(address, Connector { make })?;
    let listener = server
        .listener()
        .ok_or_else(|| io::Error::other("a server that does not listen"))?;
    Ok(Server {
        address: listener.local_address()?,
        run: Box::pin(async move {
            server.await;
            Ok(())
        }),
    })
}

struct Connector<R: MessageReactor> {
    make: fn(Sender<R::LogicalOutbound>) -> R,
}

impl<R, M> ServerConnector for Connector<R>
where
    R: MessageReactor<Codec = Codec<M>, LogicalOutbound: Send> + Send,
    M: Payload,
{
    type Codec = R::Codec;
    type Reactor = R;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> Codec<M> {
        Codec::new()
    }

    fn new_reactor(
        &self,
        outbound: Sender<R::LogicalOutbound>,
        _: &StreamWithAddress<TcpStream>,
    ) -> R {
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
