use std::{
    future::{Ready, ready},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    task::{Context, Poll, ready as ready_poll},
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::{
    Accepted, ConnectError, PeerAddress, SocketConnector, SocketListener, StreamWithAddress, within,
};
use crate::{Limits, limits::CONNECT_TIMEOUT};

/// How often a connector asks a listener whose backlog is full. A Unix socket tells nobody when
/// there is room again.
const RETRY: Duration = Duration::from_millis(10);

/// Listens on a Unix socket. The socket's file is removed when the listener is dropped, unless
/// another listener has put its own there meanwhile.
#[derive(Debug)]
pub struct UnixSocketListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file, if the file could be looked at.
    file: Option<(u64, u64)>,
}

impl UnixSocketListener {
    /// Bind `path` and listen. A socket file whose listener is gone is replaced; of two programs
    /// that do so at the same instant, one may take the path from the other.
    ///
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Those of the system, with the path: in use, not permitted, not a socket.
    pub fn listen(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let bound = UnixListener::bind(path).or_else(|error| {
            if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) {
                std::fs::remove_file(path)?;
                return UnixListener::bind(path);
            }
            Err(error)
        });
        let listener = bound.map_err(|error| {
            let path = path.display();
            io::Error::new(error.kind(), format!("cannot listen on {path}: {error}"))
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: identity(path),
        })
    }

    /// The path that is listened on.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether `path` is a socket whose listener is gone.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket
        && connect_at_once(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Connect without waiting for room in a live listener's backlog.
fn connect_at_once(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// What tells one file from its successor at the same path.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

impl Drop for UnixSocketListener {
    fn drop(&mut self) {
        if self.file.is_some() && self.file == identity(&self.path) {
            // Somebody may have removed it just before.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl SocketListener for UnixSocketListener {
    type Stream = StreamWithAddress<UnixStream, PeerAddress>;
    type Establish = Ready<io::Result<Self::Stream>>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        let (stream, address) = ready_poll!(self.listener.poll_accept(cx))?;
        let peer = PeerAddress::Unix(address.as_pathname().map(PathBuf::from));
        Poll::Ready(Ok(Accepted {
            establish: ready(Ok(StreamWithAddress::new(stream, peer.clone()))),
            peer,
        }))
    }
}

/// Opens connections to a Unix socket.
#[derive(Debug, Clone)]
pub struct UnixConnector {
    path: PathBuf,
    timeout: Option<Duration>,
}

impl UnixConnector {
    /// Connect to the socket at `path`, within 10 seconds.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            timeout: Some(CONNECT_TIMEOUT),
        }
    }

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

impl UnixConnector {
    async fn open(&self) -> io::Result<UnixStream> {
        loop {
            match UnixStream::connect(&self.path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(RETRY).await;
                }
                result => return result,
            }
        }
    }
}

impl SocketConnector for UnixConnector {
    type Stream = StreamWithAddress<UnixStream, PeerAddress>;

    async fn connect(&self) -> Result<Self::Stream, ConnectError> {
        let address = PeerAddress::Unix(Some(self.path.clone()));
        match within(self.timeout, self.open()).await {
            Some(Ok(stream)) => Ok(StreamWithAddress::new(stream, address)),
            Some(Err(source)) => Err(ConnectError { address, source }),
            None => Err(ConnectError::timed_out(address)),
        }
    }
}
