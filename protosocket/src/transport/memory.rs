use std::{
    future::{Ready, ready},
    io,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

use super::{
    Accepted, ConnectError, PeerAddress, SocketConnector, SocketListener, StreamWithAddress, within,
};
use crate::{Limits, limits::CONNECT_TIMEOUT};

/// Connections that wait to be accepted, at most.
const BACKLOG: usize = 128;

/// A listener and a connector in one process, joined by pipes that hold `buffer` bytes each way.
///
/// # Panics
/// If `buffer` is 0: nothing could be written.
pub fn memory_listener(buffer: usize) -> (MemoryListener, MemoryConnector) {
    assert!(buffer > 0, "a pipe must hold at least one byte");
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (
        MemoryListener { receiver },
        MemoryConnector {
            sender,
            buffer,
            timeout: Some(CONNECT_TIMEOUT),
        },
    )
}

/// Accepts what a [`MemoryConnector`] opens.
#[derive(Debug)]
pub struct MemoryListener {
    receiver: mpsc::Receiver<DuplexStream>,
}

impl SocketListener for MemoryListener {
    type Stream = StreamWithAddress<DuplexStream, PeerAddress>;
    type Establish = Ready<io::Result<Self::Stream>>;

    /// Never ready again once every connector is gone.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        match self.receiver.poll_recv(cx) {
            Poll::Ready(Some(stream)) => Poll::Ready(Ok(Accepted {
                peer: PeerAddress::Memory,
                establish: ready(Ok(StreamWithAddress::new(stream, PeerAddress::Memory))),
            })),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Opens connections to a [`MemoryListener`], within 10 seconds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryConnector {
    sender: mpsc::Sender<DuplexStream>,
    buffer: usize,
    timeout: Option<Duration>,
}

impl MemoryConnector {
    /// Give up after the `connect_timeout` of `limits`.
    #[must_use]
    pub fn limits(mut self, limits: &Limits) -> Self {
        self.timeout = limits.connect_timeout;
        self
    }

    /// Give up after this time; see [`Limits::connect_timeout`](crate::Limits::connect_timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }
}

impl SocketConnector for MemoryConnector {
    type Stream = StreamWithAddress<DuplexStream, PeerAddress>;

    async fn connect(&self) -> Result<Self::Stream, ConnectError> {
        let (near, far) = duplex(self.buffer);
        match within(self.timeout, self.sender.send(far)).await {
            Some(Ok(())) => Ok(StreamWithAddress::new(near, PeerAddress::Memory)),
            Some(Err(_)) => Err(ConnectError {
                address: PeerAddress::Memory,
                source: io::ErrorKind::ConnectionRefused.into(),
            }),
            None => Err(ConnectError::timed_out(PeerAddress::Memory)),
        }
    }
}
