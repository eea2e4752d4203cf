use std::{io, net::SocketAddr, path::Path, sync::Arc};

use protosocket::{
    Clock, ConfigError, ConnectionConfig, ConnectionObserver, Limits, PeerAddress, SocketListener,
    TcpOptions, TcpSocketListener,
};

use crate::{
    ProtosocketServer, Serve,
    rate::Rate,
    registry::{Admit, Bounds},
};

/// Options of the sockets that a server listens on and accepts.
pub type ProtosocketSocketConfig = TcpOptions;

/// Configures a server: its limits, its socket, and the life of its connections.
///
/// | setting | default | here it means |
/// |---|---|---|
/// | [`max_buffer_length`](Self::max_buffer_length) | 32 MiB | the largest message that is buffered; nothing is reserved for it |
/// | [`max_queued_outbound_messages`](Self::max_queued_outbound_messages) | 1,024 | the bound of the channel into a connection |
/// | [`buffer_allocation_increment`](Self::buffer_allocation_increment) | 256 KiB | what one read takes at most while messages are large |
/// | [`max_connections`](Self::max_connections) | 65,536 | connections in all; a newcomer replaces the oldest that said nothing |
/// | [`max_connections_per_address`](Self::max_connections_per_address) | off | connections from one IPv4 address or IPv6 network |
/// | [`max_connection_rate_per_address`](Self::max_connection_rate_per_address) | off | how fast one of these may open them |
/// | [`admit`](Self::admit) | all | whether the program takes new connections at all |
/// | [`max_handshakes`](Self::max_handshakes) | 1,024 | connections being established; a newcomer replaces the oldest |
///
/// Deadlines are those of [`Limits::server`] unless [`limits`](Self::limits) says otherwise. What
/// cannot work is refused when the server is bound.
#[derive(Debug, Clone)]
pub struct ProtosocketServerConfig {
    limits: Limits,
    socket: ProtosocketSocketConfig,
    bounds: Bounds,
    clock: Option<Arc<dyn Clock>>,
    observer: Option<Arc<dyn ConnectionObserver>>,
}

impl ProtosocketServerConfig {
    /// The largest message that a peer may send, in bytes, framing included. A larger one ends
    /// its connection. Memory grows with what has arrived, so a high limit costs nothing by itself.
    #[must_use]
    pub fn max_buffer_length(mut self, bytes: usize) -> Self {
        self.limits = self.limits.max_message_size(bytes);
        self
    }

    /// How many messages wait in the channel into a connection before `try_send` says that it is
    /// full and `send` waits. What has been encoded is bounded in bytes, see [`Limits`].
    #[must_use]
    pub fn max_queued_outbound_messages(mut self, messages: usize) -> Self {
        self.limits = self.limits.max_queued_messages(messages);
        self
    }

    /// How much one read of a connection takes at most while its messages are large, in bytes.
    /// Connections of small messages share a buffer, and idle ones hold none.
    #[must_use]
    pub fn buffer_allocation_increment(mut self, bytes: usize) -> Self {
        self.limits = self.limits.receive_chunk(bytes);
        self
    }

    /// The deadlines and limits of connections. Replaces what the three settings above said.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Options of the TCP sockets.
    #[must_use]
    pub fn socket_config(mut self, config: ProtosocketSocketConfig) -> Self {
        self.socket = config;
        self
    }

    /// Connections in all. At the limit, a newcomer takes the place of the oldest connection that
    /// has not sent a message; without one, the newcomer is closed.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.bounds.connections = connections;
        self
    }

    /// Connections from one client at a time: an IPv4 address, or the /64 network of an IPv6
    /// address, all of which belongs to one host. Off by default: behind a proxy or a NAT all
    /// clients have the same.
    #[must_use]
    pub fn max_connections_per_address(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.bounds.per_address = connections.into();
        self
    }

    /// How many connections one client may open: `per_second` in the long run, and `burst` at once.
    /// More are closed. A client is an IPv4 address, or the /64 network of an IPv6 address.
    ///
    /// Off by default, for the reason that
    /// [`max_connections_per_address`](Self::max_connections_per_address) is. At most 65,536 clients
    /// are remembered, each for `burst / per_second` seconds at most; in a flood from more than
    /// that, those that cannot be remembered are let in.
    #[must_use]
    pub fn max_connection_rate_per_address(mut self, per_second: u32, burst: u32) -> Self {
        self.bounds.rate = Some(Rate { per_second, burst });
        self
    }

    /// Take a new connection only if `admit` says so: for a program that is overloaded, out of
    /// memory ([`MemoryGauge`](crate::MemoryGauge)), or knows whom it does not serve. Connections
    /// that have been taken are kept. Called in the accept loop, so it must be quick.
    #[must_use]
    pub fn admit(mut self, admit: impl Fn(&PeerAddress) -> bool + Send + Sync + 'static) -> Self {
        self.bounds.admit = Some(Admit(Arc::new(admit)));
        self
    }

    /// Connections that are being established: TLS handshakes, proxy headers. At the limit, a
    /// newcomer takes the place of the oldest.
    #[must_use]
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        self.bounds.handshakes = handshakes;
        self
    }

    /// Take the time from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Tell `observer` what happens to connections.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn ConnectionObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Listen on a TCP address. The server must be polled for anything to happen.
    ///
    /// # Errors
    /// Settings that cannot work, and those of the system: address in use, not available, not
    /// permitted.
    pub fn bind_tcp<C>(self, address: SocketAddr, connector: C) -> io::Result<ProtosocketServer<C>>
    where
        C: Serve<Listener = TcpSocketListener>,
    {
        let listener = TcpSocketListener::listen(address, self.socket.clone())?;
        self.build_server(listener, connector)
    }

    /// Listen on a Unix socket at `path`.
    ///
    /// # Errors
    /// Settings that cannot work, and those of the system.
    #[cfg(unix)]
    pub fn bind_unix<C>(
        self,
        path: impl AsRef<Path>,
        connector: C,
    ) -> io::Result<ProtosocketServer<C>>
    where
        C: Serve<Listener = protosocket::UnixSocketListener>,
    {
        let listener = protosocket::UnixSocketListener::listen(path)?;
        self.build_server(listener, connector)
    }

    /// Serve what comes in through any listener.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn build_server<C, L>(
        self,
        listener: L,
        mut connector: C,
    ) -> io::Result<ProtosocketServer<C>>
    where
        C: Serve<Listener = L>,
        L: SocketListener,
    {
        for (name, bound) in [
            ("max_connections", self.bounds.connections),
            ("max_handshakes", self.bounds.handshakes),
            (
                "max_connections_per_address",
                self.bounds.per_address.unwrap_or(usize::MAX),
            ),
            (
                "max_connection_rate_per_address (per_second)",
                self.bounds.rate.map_or(1, |rate| rate.per_second as usize),
            ),
            (
                "max_connection_rate_per_address (burst)",
                self.bounds.rate.map_or(1, |rate| rate.burst as usize),
            ),
        ] {
            if bound == 0 {
                return Err(ConfigError::zero(name).into());
            }
        }
        let mut config = ConnectionConfig::server(self.limits)?;
        if let Some(clock) = self.clock {
            config = config.with_clock(clock);
        }
        if let Some(observer) = self.observer {
            config = config.with_observer(observer);
        }
        connector.configure(&config)?;
        Ok(ProtosocketServer::new(
            listener,
            connector,
            config,
            self.bounds,
        ))
    }
}

impl Default for ProtosocketServerConfig {
    fn default() -> Self {
        Self {
            limits: Limits::server(),
            socket: ProtosocketSocketConfig::default(),
            bounds: Bounds {
                connections: 65_536,
                per_address: None,
                rate: None,
                handshakes: 1024,
                admit: None,
            },
            clock: None,
            observer: None,
        }
    }
}
