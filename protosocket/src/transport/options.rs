use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// Options of TCP sockets. All are honoured as they are set here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOptions {
    pub(crate) nodelay: bool,
    pub(crate) reuse_address: bool,
    pub(crate) reuse_port: bool,
    pub(crate) only_v6: Option<bool>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) backlog: u32,
}

/// When the kernel asks a silent peer whether it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer before the connection is given up.
    pub count: u32,
}

impl Keepalive {
    /// A peer that has vanished is noticed after two minutes: 60 s, then six probes 10 s apart.
    pub const DEFAULT: Self = Self {
        time: Duration::from_secs(60),
        interval: Duration::from_secs(10),
        count: 6,
    };
}

impl TcpOptions {
    /// The defaults: see each option.
    pub fn new() -> Self {
        Self {
            nodelay: true,
            reuse_address: true,
            reuse_port: false,
            only_v6: None,
            keepalive: Some(Keepalive::DEFAULT),
            backlog: 4096,
        }
    }

    /// Send small segments at once (`TCP_NODELAY`). On by default: messages are batched before
    /// they are written, and waiting for more costs up to 40 ms.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Bind although old connections of this port are in `TIME_WAIT` (`SO_REUSEADDR`). On by
    /// default, so that a server can be restarted at once.
    #[must_use]
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.reuse_address = reuse;
        self
    }

    /// Share the port with other listeners (`SO_REUSEPORT`), between which the kernel spreads
    /// connections: one listener per core. Off by default, because any other process of the same
    /// user could take a share of the connections too.
    #[must_use]
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// Whether an IPv6 listener refuses IPv4 (`IPV6_V6ONLY`). By default it is as the system says.
    #[must_use]
    pub fn only_v6(mut self, only: bool) -> Self {
        self.only_v6 = Some(only);
        self
    }

    /// Probe silent peers, or do not. [`Keepalive::DEFAULT`] by default.
    #[must_use]
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.keepalive = keepalive.into();
        self
    }

    /// How many connections the kernel completes before they are accepted. 4,096 by default, which
    /// is also where Linux caps it unless told otherwise.
    #[must_use]
    pub fn listen_backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Set what concerns connections: on a connected socket, or on a listener to inherit from.
    pub(super) fn apply(&self, socket: SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        match &self.keepalive {
            Some(keepalive) => socket.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(keepalive.time)
                    .with_interval(keepalive.interval)
                    .with_retries(keepalive.count),
            ),
            None => socket.set_keepalive(false),
        }
    }
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self::new()
    }
}
