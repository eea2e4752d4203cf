use std::{
    future::{Ready, ready},
    io,
    task::{Context, Poll},
};

use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

use super::{Accepted, ConnectError, PeerAddress, SocketConnector, SocketListener};

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
        MemoryConnector { sender, buffer },
    )
}

/// Accepts what a [`MemoryConnector`] opens.
#[derive(Debug)]
pub struct MemoryListener {
    receiver: mpsc::Receiver<DuplexStream>,
}

impl SocketListener for MemoryListener {
    type Stream = DuplexStream;
    type Establish = Ready<io::Result<DuplexStream>>;

    /// Never ready again once every connector is gone.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        match self.receiver.poll_recv(cx) {
            Poll::Ready(Some(stream)) => Poll::Ready(Ok(Accepted {
                peer: PeerAddress::Memory,
                establish: ready(Ok(stream)),
            })),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Opens connections to a [`MemoryListener`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryConnector {
    sender: mpsc::Sender<DuplexStream>,
    buffer: usize,
}

impl SocketConnector for MemoryConnector {
    type Stream = DuplexStream;

    async fn connect(&self) -> Result<DuplexStream, ConnectError> {
        let (near, far) = duplex(self.buffer);
        match self.sender.send(far).await {
            Ok(()) => Ok(near),
            Err(_) => Err(ConnectError {
                address: PeerAddress::Memory,
                source: io::ErrorKind::ConnectionRefused.into(),
            }),
        }
    }
}
