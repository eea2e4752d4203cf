use std::{fmt, future::Future, ops::ControlFlow, task::Context, time::Instant};

use futures_core::Stream;
use protosocket::{CloseReason, Codec, Decoder, Encoder, SocketListener};

use super::{RpcConnection, RpcStats};
use crate::Message;

/// What a server of calls does with each connection: which codec it speaks, which service answers
/// its calls, and where its future runs.
///
/// Give it to an [`RpcConnector`](super::RpcConnector), and bind that.
pub trait SocketService: Sized + 'static {
    /// What answers the calls of one connection.
    type ConnectionService: ConnectionService;
    /// What connections come in through, such as
    /// [`TcpSocketListener`](protosocket::TcpSocketListener).
    type SocketListener: SocketListener;

    /// A codec for a new connection.
    fn codec(&self) -> <Self::ConnectionService as ConnectionService>::Codec;

    /// A service for a new connection, which has been established.
    ///
    /// Called in the connection's own task: a panic here ends that connection and nothing else.
    fn new_stream_service(
        &self,
        stream: &<Self::SocketListener as SocketListener>::Stream,
    ) -> Self::ConnectionService;

    /// Spawn a connection: `tokio::spawn(connection)`, or `tokio::task::spawn_local(connection)` if
    /// its service is not `Send`.
    fn spawn_connection(&self, connection: RpcConnection<Self>);
}

/// Answers the calls of one connection.
///
/// Each request becomes an rpc: a future of one response, or a stream of them. They live in the
/// connection's task, so none of them has to be `Send`, nor `Unpin`, and are polled only while there
/// is room to send: a client that does not read stops its own rpcs, and a stream that models lag
/// (a broadcast channel) meets that model instead of a growing queue. An rpc that computes for long
/// holds up the others of its connection, and the cancellations of all; [`Spawned`](super::Spawned) runs it elsewhere.
///
/// # What becomes of an rpc
/// - It finishes: its response is sent, or the end of its stream.
/// - Its client cancels it: it is dropped at once, whether or not the client reads. A client that
///   goes away cancels all; one that only finishes sending, as one that goes away in order does too,
///   leaves them [some time](crate::RpcServerConfig::end_of_input_timeout).
/// - It panics, as a future, when it is dropped, or in [`new_rpc`](Self::new_rpc): its client is sent
///   a cancellation. The other rpcs go on, and so does this service, with what the panic left of it.
/// - Its response cannot be encoded, or has an [`Unknown`](crate::ProtosocketControlCode::Unknown)
///   control code: the same, and nothing of that response is sent.
/// - Its id is used for another call while it runs: it cannot be told any more which of them a
///   response is for, so it is dropped, the other is not begun, and the id is cancelled.
///
/// # Panics
/// What is not an rpc's own is not caught with it: a panic of the codec, of a
/// [message](crate::Message) as its id is set or it is made, or of [`poll`](Self::poll) ends the
/// connection, because what it leaves in the send buffer or in this service cannot be trusted.
pub trait ConnectionService: 'static {
    /// What the connection speaks.
    type Codec: Codec + Decoder<Message = Self::Request> + Encoder<Message = Self::Response>;
    /// What begins an rpc.
    type Request: Message;
    /// What it is answered with. The connection sets its id.
    type Response: Message;
    /// An rpc with one response. It is sent whether its control code is
    /// [`Normal`](crate::ProtosocketControlCode::Normal), `Cancel`, which makes it a rejection, or
    /// `End`, which tells the client that this was a stream and is complete: to one that called for a
    /// single response, an [error](crate::Error::NoResponse).
    type UnaryFutureType: Future<Output = Self::Response>;
    /// An rpc with a stream of responses. An item whose control code is not
    /// [`Normal`](crate::ProtosocketControlCode::Normal) is sent and ends it.
    type StreamType: Stream<Item = Self::Response>;

    /// Begin the rpc that `initiating_message` asks for.
    ///
    /// Nothing else of this connection happens meanwhile, so return quickly.
    fn new_rpc(
        &mut self,
        initiating_message: Self::Request,
    ) -> RpcKind<Self::UnaryFutureType, Self::StreamType>;

    /// Drive what belongs to this service and not to one rpc: timers, bookkeeping.
    ///
    /// Called on every wake of the connection, whether there is room to send or not. `Break` ends
    /// the connection when everything that has been answered is sent.
    fn poll(&mut self, _cx: &mut Context<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// The connection is to finish what it has begun and end; at `deadline` it is cut off.
    ///
    /// Running rpcs go on until then, and so do those that are still begun: streams without an end
    /// of their own should come to one.
    fn on_drain(&mut self, _deadline: Instant) {}

    /// The connection has ended, for `reason`; this is what its calls came to. Called once, last of
    /// all.
    fn on_end(&mut self, _reason: &CloseReason, _stats: &RpcStats) {}
}

/// An rpc, by the number of its responses.
pub enum RpcKind<Unary, Streaming> {
    /// It has one response.
    Unary(Unary),
    /// It has a stream of responses.
    Streaming(Streaming),
    /// It is rejected: its client is sent a cancellation.
    Cancelled,
}

impl<Unary, Streaming> fmt::Debug for RpcKind<Unary, Streaming> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unary(_) => "Unary",
            Self::Streaming(_) => "Streaming",
            Self::Cancelled => "Cancelled",
        })
    }
}
