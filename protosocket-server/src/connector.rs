use protosocket::{Codec, Handover, MessageReactor, Sender, SocketListener};

use crate::ServerConnection;

/// What a server does with each connection: which codec it speaks, which reactor serves it, and
/// where its future runs.
pub trait ServerConnector: Sized + 'static {
    /// What connections speak.
    type Codec: Codec;
    /// What serves one connection.
    type Reactor: MessageReactor<Codec = Self::Codec>;
    /// What connections come in through, such as
    /// [`TcpSocketListener`](protosocket::TcpSocketListener).
    type SocketListener: SocketListener;

    /// A codec for a new connection.
    fn codec(&self) -> Self::Codec;

    /// A reactor for a new connection, which has been established.
    ///
    /// Called in the connection's own task: a panic here ends that connection and nothing else.
    ///
    /// `outbound` sends into this connection. A reactor that keeps it keeps a
    /// [`WeakSender`](protosocket::WeakSender) of it, because a strong one says that messages
    /// are still to come, and the connection waits for them when the peer is done.
    fn new_reactor(
        &self,
        outbound: Sender<<Self::Reactor as MessageReactor>::LogicalOutbound>,
        stream: &<Self::SocketListener as SocketListener>::Stream,
    ) -> Self::Reactor;

    /// Spawn a connection: `tokio::spawn`, or `tokio::task::spawn_local` if its reactor is not
    /// `Send`.
    fn spawn_connection(&self, connection: ServerConnection<Self>);

    /// A reactor took its connection's stream over. By default the stream is closed.
    fn on_handover(
        &self,
        _handover: Handover<<Self::SocketListener as SocketListener>::Stream, Self::Reactor>,
    ) {
    }
}
