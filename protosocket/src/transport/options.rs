use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use crate::ConfigError;

/// Options of TCP sockets. All are honoured as they are set here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOptions {
    pub(crate) nodelay: bool,
    pub(crate) reuse_address: bool,
    pub(crate) reuse_port: bool,
    pub(crate) only_v6: Option<bool>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) user_timeout: Option<Duration>,
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

/// As long as [`Keepalive::DEFAULT`] takes to notice the same.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

impl TcpOptions {
    /// The defaults: see each option.
    pub fn new() -> Self {
        Self {
            nodelay: true,
            reuse_address: true,
            reuse_port: false,
            only_v6: None,
            keepalive: Some(Keepalive::DEFAULT),
            user_timeout: Some(USER_TIMEOUT),
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

    /// How long data may wait for the peer's kernel to acknowledge it, before the kernel gives the
    /// connection up (`TCP_USER_TIMEOUT`; Linux only, and ignored elsewhere). 120 seconds by default.
    ///
    /// A peer that has vanished with data on its way is asked by no keepalive probe: without this
    /// option the kernel sends the data again for a quarter of an hour. It also ends a connection
    /// whose peer lets nothing in for that long, which `write_timeout` does earlier, and takes the
    /// place of [`Keepalive::count`]: whoever probes for longer sets both.
    #[must_use]
    pub fn user_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.user_timeout = timeout.into();
        self
    }

    /// How many connections the kernel completes before they are accepted. 4,096 by default, which
    /// is also where Linux caps it unless told otherwise.
    #[must_use]
    pub fn listen_backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Refuse what cannot work.
    ///
    /// # Errors
    /// The caller is to blame: a time or count of zero, or one that the kernel does not take.
    pub fn validate(&self) -> Result<(), ConfigError> {
        /// What the kernel takes, in seconds.
        const LONGEST: u64 = 32_767;
        /// And in probes.
        const MOST: u32 = 127;
        if self.backlog == 0 {
            return Err(ConfigError::new("listen_backlog", "must not be zero"));
        }
        if let Some(timeout) = self.user_timeout
            && !(1..=u128::from(i32::MAX as u32)).contains(&timeout.as_millis())
        {
            let problem = "must be between a millisecond and 24 days; switch it off with None";
            return Err(ConfigError::new("user_timeout", problem));
        }
        let Some(keepalive) = self.keepalive else {
            return Ok(());
        };
        for (name, time) in [
            ("keepalive.time", keepalive.time),
            ("keepalive.interval", keepalive.interval),
        ] {
            if !(1..=LONGEST).contains(&time.as_secs()) {
                let problem = "must be between 1 and 32,767 whole seconds";
                return Err(ConfigError::new(name, problem));
            }
        }
        if !(1..=MOST).contains(&keepalive.count) {
            let problem = "must be between 1 and 127 probes";
            return Err(ConfigError::new("keepalive.count", problem));
        }
        Ok(())
    }

    /// Set what concerns connections: on a connected socket, or on a listener to inherit from.
    pub(super) fn apply(&self, socket: SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket.set_tcp_user_timeout(self.user_timeout)?;
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
