//! Loads over TLS, and their names.

use std::fmt;
use std::time::Duration;

use super::{CONNECTING, Echo, IDLE_CONNECTIONS};
use crate::figure::Figure;

/// Payloads of the closed loops, in bytes: the last one fills a record.
const PAYLOADS: [usize; 3] = [64, 1 << 10, 16 << 10];

/// The shapes of the closed loops: connections and messages in flight on each.
const SHAPES: [(usize, usize); 3] = [(1, 1), (1, 64), (64, 16)];

/// A load over TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Messages come back as fast as they can.
    Echo(Echo),
    /// Connect, shake hands in full, exchange one message, close.
    Handshake {
        /// How many clients do so at the same time.
        clients: usize,
    },
    /// That many connections have each exchanged one small message and are silent.
    Idle {
        /// How many.
        connections: usize,
    },
}

impl Tls {
    /// Every load, in the order of the reports.
    pub(super) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for payload in PAYLOADS {
            all.extend(SHAPES.map(|(connections, in_flight)| {
                Self::Echo(Echo {
                    payload,
                    connections,
                    in_flight,
                })
            }));
        }
        all.push(Self::Handshake {
            clients: CONNECTING,
        });
        all.push(Self::Idle {
            connections: IDLE_CONNECTIONS[0],
        });
        all
    }

    pub(super) fn is_quick(self) -> bool {
        match self {
            Self::Echo(echo) => (echo.payload, echo.connections) == (1 << 10, 64),
            _ => false,
        }
    }

    pub(super) fn headline(self) -> Figure {
        match self {
            Self::Echo(_) => Figure::ServerCpu,
            Self::Handshake { .. } => Figure::Rate,
            Self::Idle { .. } => Figure::Rss,
        }
    }

    pub(super) fn figures(self) -> &'static [Figure] {
        use Figure::{ClientCpu, Heap, Max, P50, P99, P999, Rate, Rss, ServerCpu};
        match self {
            Self::Echo(_) => &[Rate, ServerCpu, ClientCpu, P50, P99, P999, Max],
            Self::Handshake { .. } => &[Rate, ServerCpu, ClientCpu],
            Self::Idle { .. } => &[Rss, Heap],
        }
    }

    pub(super) fn estimate(self, warm_up: Duration, measured: Duration) -> Duration {
        match self {
            Self::Echo(_) | Self::Handshake { .. } => warm_up + measured,
            Self::Idle { connections } => {
                Duration::from_millis(1) * u32::try_from(connections).unwrap_or(u32::MAX)
            }
        }
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo(echo) => write!(f, "tls/{echo}"),
            Self::Handshake { clients } => write!(f, "tls-handshake/{clients}"),
            Self::Idle { connections } => write!(f, "tls-idle/{connections}"),
        }
    }
}
