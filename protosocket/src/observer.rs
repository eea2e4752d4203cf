//! What happens to connections, for counters and gauges.

use std::fmt;

use crate::{CloseReason, ConnectionStats, EstablishError, PeerAddress};

/// Hears what happens to connections. Implement it to feed a metrics library.
///
/// Called from the connections' own tasks, so be quick; counters in atomics are. Traffic is
/// counted by each connection and reported once per wake, not per message.
pub trait ConnectionObserver: fmt::Debug + Send + Sync + 'static {
    /// A connection was established.
    fn opened(&self, _peer: &PeerAddress) {}

    /// A connection did something: the difference to the last report.
    fn traffic(&self, _delta: &ConnectionStats) {}

    /// A connection ended. For each [`opened`](Self::opened) there is exactly one call.
    fn closed(&self, _peer: &PeerAddress, _reason: &CloseReason, _stats: &ConnectionStats) {}

    /// A handshake failed or took too long, and this is why; [`refused`](Self::refused) is told
    /// next, for the same connection.
    fn handshake_failed(&self, _peer: &PeerAddress, _error: &EstablishError) {}

    /// A connection was refused before it was established.
    fn refused(&self, _peer: Option<&PeerAddress>, _refusal: Refusal) {}
}

/// Why a connection was refused before it was established.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The server has as many connections as it may (`max_connections`).
    Connections,
    /// This address has as many connections as it may (`max_connections_per_address`).
    ConnectionsPerAddress,
    /// This address opens connections too fast (`max_connection_rate_per_address`).
    RatePerAddress,
    /// The program takes no new connections (`admit`).
    Overload,
    /// Too many handshakes are under way, and this is the oldest (`max_handshakes`).
    Handshakes,
    /// The handshake failed or took too long.
    Handshake,
    /// The peer speaks a protocol that is not spoken here, such as TLS to a plain port.
    Protocol,
    /// The program is out of file descriptors or memory.
    Resources,
    /// Accepting failed for another reason.
    Accept,
    /// The factory of the reactor or codec panicked: a bug of this program.
    Panicked,
    /// The server was draining.
    Draining,
    /// The owner of its future dropped it.
    Dropped,
}

impl Refusal {
    /// A short, stable name for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::RatePerAddress => "rate_per_address",
            Self::Overload => "overload",
            Self::Handshakes => "handshakes",
            Self::Handshake => "handshake",
            Self::Protocol => "protocol",
            Self::Resources => "resources",
            Self::Accept => "accept",
            Self::Panicked => "panicked",
            Self::Draining => "draining",
            Self::Dropped => "dropped",
        }
    }
}
