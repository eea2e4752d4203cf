use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

use crate::escaped::Escaped;

/// A stream that a connection can also reset and linger on.
///
/// [`Connection::new`](crate::Connection::new) takes any stream;
/// [`Connection::over`](crate::Connection::over) takes one of these and uses what it knows.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Who is at the other end.
    fn peer_address(&self) -> PeerAddress {
        PeerAddress::Unknown
    }

    /// Whether a graceful end must wait for the peer to read what it was sent.
    ///
    /// A kernel that gets bytes for a TCP socket that is closed answers with a reset, which makes
    /// the peer's kernel throw away what its program has not read yet.
    fn lingers(&self) -> bool {
        false
    }

    /// Make the coming drop of this stream a reset, so that the peer does not take it for an end
    /// in order. Unix sockets and pipes have no reset: their peers see an end of input, and only
    /// the protocol can tell that it came too early.
    fn abort(&mut self) {}
}

impl Transport for TcpStream {
    fn peer_address(&self) -> PeerAddress {
        self.peer_addr()
            .map_or(PeerAddress::Unknown, PeerAddress::Ip)
    }

    fn lingers(&self) -> bool {
        true
    }

    fn abort(&mut self) {
        // A socket that the peer has reset already refuses options: then there is nothing to do.
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }
}

#[cfg(unix)]
impl Transport for tokio::net::UnixStream {
    fn peer_address(&self) -> PeerAddress {
        let path = self.peer_addr().ok();
        PeerAddress::Unix(path.and_then(|address| address.as_pathname().map(PathBuf::from)))
    }
}

impl Transport for DuplexStream {
    fn peer_address(&self) -> PeerAddress {
        PeerAddress::Memory
    }
}

/// Who is at the other end of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerAddress {
    /// An address and port.
    Ip(SocketAddr),
    /// A Unix socket, with its path if it has one.
    Unix(Option<PathBuf>),
    /// The other end of a pipe in this process.
    Memory,
    /// The stream does not know.
    Unknown,
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", Escaped(path.display())),
            Self::Unix(None) => f.write_str("unix"),
            Self::Memory => f.write_str("memory"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// A stream and the address of its peer, which stays known after the peer has gone.
#[derive(Debug)]
pub struct StreamWithAddress<T, A = SocketAddr> {
    stream: T,
    address: A,
}

impl<T, A> StreamWithAddress<T, A> {
    /// Join a stream and the address of its peer.
    pub fn new(stream: T, address: A) -> Self {
        Self { stream, address }
    }

    /// The stream.
    pub fn get_ref(&self) -> &T {
        &self.stream
    }

    /// The stream, to be changed.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.stream
    }

    /// The stream alone.
    pub fn into_inner(self) -> T {
        self.stream
    }
}

impl<T, A: Clone> StreamWithAddress<T, A> {
    /// The address of the peer.
    pub fn address(&self) -> A {
        self.address.clone()
    }
}

impl<T, A> Transport for StreamWithAddress<T, A>
where
    T: Transport,
    A: Clone + Into<PeerAddress> + Unpin + 'static,
{
    fn peer_address(&self) -> PeerAddress {
        self.address().into()
    }

    fn lingers(&self) -> bool {
        self.stream.lingers()
    }

    fn abort(&mut self) {
        self.stream.abort();
    }
}

impl<T: AsyncRead + Unpin, A: Unpin> AsyncRead for StreamWithAddress<T, A> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin, A: Unpin> AsyncWrite for StreamWithAddress<T, A> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
