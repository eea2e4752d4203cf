use std::{
    future::Future,
    io,
    task::{Context, Poll},
    time::Duration,
};

use super::{PeerAddress, Transport};
use crate::Deadline;

/// Something that connections come in through.
///
/// What takes time (TLS, a proxy header, a look at the first bytes) is not done in
/// [`poll_accept`](Self::poll_accept) but in the future that it returns, which a server drives
/// beside its accept loop, with a deadline and a bound on how many there are. Listeners wrap each
/// other that way.
pub trait SocketListener: Unpin + 'static {
    /// What connections run over.
    type Stream: Transport;
    /// Makes a stream of what was accepted.
    type Establish: Future<Output = io::Result<Self::Stream>> + Unpin + 'static;

    /// The next connection.
    ///
    /// # Errors
    /// That this one could not be accepted. The server counts it, waits where that helps, and
    /// asks again: an error is never the end of a listener.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>>;

    /// Whether `peer` connects on behalf of others, whom the stream names once it is established:
    /// a proxy whose headers are believed. A server's limits per address are about those others
    /// and wait for them. By default nobody does.
    fn is_proxy(&self, _peer: &PeerAddress) -> bool {
        false
    }
}

/// A connection that was accepted and is not established.
#[derive(Debug)]
pub struct Accepted<E> {
    /// Who connected.
    pub peer: PeerAddress,
    /// Makes a stream of it.
    pub establish: E,
}

/// Something that opens connections.
pub trait SocketConnector {
    /// What connections run over.
    type Stream: Transport;

    /// Open one connection, within the connector's own deadline.
    ///
    /// # Errors
    /// [`ConnectError`] names the address and what went wrong. Nothing was sent.
    fn connect(&self) -> impl Future<Output = Result<Self::Stream, ConnectError>> + Send;
}

/// The output of `future`, or `None` if it takes longer than that.
pub(super) async fn within<F: Future>(timeout: Option<Duration>, future: F) -> Option<F::Output> {
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, future).await.ok(),
        None => Some(future.await),
    }
}

/// A connection could not be opened. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("could not connect to {address}: {source}")]
pub struct ConnectError {
    /// Where to.
    pub address: PeerAddress,
    /// What went wrong; of the kind `TimedOut` if the deadline passed.
    pub source: io::Error,
}

impl ConnectError {
    /// The connection could not be opened in time.
    pub fn timed_out(address: PeerAddress) -> Self {
        Self {
            address,
            source: io::Error::new(io::ErrorKind::TimedOut, Deadline::Connect),
        }
    }

    /// The connection was opened, and what stands on it could not be established in time.
    pub fn handshake_timed_out(address: PeerAddress) -> Self {
        Self {
            address,
            source: io::Error::new(io::ErrorKind::TimedOut, Deadline::Handshake),
        }
    }
}
