use std::{
    future::{Ready, ready},
    io,
    net::SocketAddr,
    task::{Context, Poll, ready as ready_poll},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{
    Accepted, ConnectError, PeerAddress, SocketConnector, SocketListener, StreamWithAddress,
    TcpOptions, within,
};
use crate::{Limits, limits::CONNECT_TIMEOUT};

/// Linux hands a listener's socket options on to what it accepts.
const INHERITS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Listens for TCP connections, IPv4 or IPv6.
#[derive(Debug)]
pub struct TcpSocketListener {
    listener: TcpListener,
    options: TcpOptions,
}

impl TcpSocketListener {
    /// Bind `address` and listen. Port 0 lets the system choose; see
    /// [`local_address`](Self::local_address).
    ///
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Options that cannot work ([`TcpOptions::validate`]), and those of the system, with the
    /// address: in use, not available, not permitted.
    pub fn listen(address: SocketAddr, options: TcpOptions) -> io::Result<Self> {
        options.validate()?;
        let listener = bind(address, &options).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        Ok(Self { listener, options })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// Those of the system.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// For options that [`TcpOptions`] does not know, and to look at those that it does.
#[cfg(unix)]
impl std::os::fd::AsFd for TcpSocketListener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn bind(address: SocketAddr, options: &TcpOptions) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    options.apply(SockRef::from(&socket))?;
    socket.set_reuse_address(options.reuse_address)?;
    #[cfg(unix)]
    socket.set_reuse_port(options.reuse_port)?;
    if let (SocketAddr::V6(_), Some(only)) = (address, options.only_v6) {
        socket.set_only_v6(only)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

impl SocketListener for TcpSocketListener {
    type Stream = StreamWithAddress<TcpStream>;
    type Establish = Ready<io::Result<Self::Stream>>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        let (stream, address) = ready_poll!(self.listener.poll_accept(cx))?;
        let options = match INHERITS {
            true => Ok(()),
            false => self.options.apply(SockRef::from(&stream)),
        };
        Poll::Ready(Ok(Accepted {
            peer: PeerAddress::Ip(address),
            establish: ready(options.map(|()| StreamWithAddress::new(stream, address))),
        }))
    }
}

/// Opens TCP connections, IPv4 or IPv6.
#[derive(Debug, Clone)]
pub struct TcpConnector {
    address: SocketAddr,
    options: TcpOptions,
    local: Option<SocketAddr>,
    timeout: Option<Duration>,
}

impl TcpConnector {
    /// Connect to `address`, within 10 seconds.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            options: TcpOptions::new(),
            local: None,
            timeout: Some(CONNECT_TIMEOUT),
        }
    }

    /// Use these socket options.
    #[must_use]
    pub fn options(mut self, options: TcpOptions) -> Self {
        self.options = options;
        self
    }

    /// Connect from this address.
    #[must_use]
    pub fn local_address(mut self, address: SocketAddr) -> Self {
        self.local = Some(address);
        self
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

    async fn open(&self) -> io::Result<TcpStream> {
        self.options.validate()?;
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        self.options.apply(SockRef::from(&socket))?;
        if let Some(local) = self.local {
            socket.set_reuseaddr(self.options.reuse_address)?;
            #[cfg(unix)]
            socket.set_reuseport(self.options.reuse_port)?;
            socket.bind(local)?;
        }
        socket.connect(self.address).await
    }
}

impl SocketConnector for TcpConnector {
    type Stream = StreamWithAddress<TcpStream>;

    async fn connect(&self) -> Result<Self::Stream, ConnectError> {
        let address = PeerAddress::Ip(self.address);
        match within(self.timeout, self.open()).await {
            Some(Ok(stream)) => Ok(StreamWithAddress::new(stream, self.address)),
            Some(Err(source)) => Err(ConnectError { address, source }),
            None => Err(ConnectError::timed_out(address)),
        }
    }
}
