//! Loads of calls, and their names.

use std::fmt;
use std::time::Duration;

use super::{Echo, Size};
use crate::figure::Figure;
use crate::machine::Placement;

/// The shapes of the closed loops: connections and calls in flight on each.
const SHAPES: [(usize, usize); 4] = [(1, 1), (1, 64), (1, 1_024), (64, 16)];

/// The shapes where both ends have two workers.
const TWO_WORKERS: [(usize, usize); 2] = [(1, 64), (64, 16)];

/// Bytes per item of the streams.
const STREAM_PAYLOADS: [usize; 3] = [64, 1 << 10, 1 << 20];

/// Of the highest rate of the yardstick: so much that queues build up, and so little that every
/// system that is near it can follow.
const LATENCY_PERCENT: u32 = 70;

/// Calls that are never answered: memory that grows with them shows as ten times as much.
const NEVER: [u32; 2] = [10_000, 100_000];

/// A load of calls, and who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rpc {
    /// The client.
    pub(crate) caller: Caller,
    /// What it does.
    pub(crate) load: Load,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The client of the system: both ends are measured.
    Own,
    /// The client of the loop, for systems that speak its wire: the server alone is measured, because
    /// the client is the same for all.
    Loop,
}

/// What is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// A closed loop of unary calls.
    Unary(Echo),
    /// The same from a runtime of two workers. A client of the system has two workers as well.
    TwoWorkers(Echo),
    /// One stream after the other from the server, on one connection.
    Stream {
        /// Bytes per item.
        payload: usize,
    },
    /// An open loop of unary calls on one connection, at a share of the highest rate that the
    /// yardstick has reached just before.
    Latency {
        /// Bytes per call.
        payload: usize,
        /// The share.
        percent: u32,
    },
    /// A stream whose consumer takes an item per millisecond.
    SlowConsumer {
        /// Bytes per item.
        payload: usize,
    },
    /// A client that calls without a pause and never reads.
    DeafToCalls {
        /// Bytes per call.
        payload: usize,
    },
    /// A client that asks for streams without an end and never reads.
    DeafToStreams {
        /// Bytes per item.
        payload: usize,
    },
    /// So many calls whose handlers never finish.
    Never {
        /// How many.
        calls: u32,
    },
}

impl Rpc {
    /// Every load, in the order of the reports.
    pub(super) fn all() -> Vec<Self> {
        let echo = |payload, (connections, in_flight)| Echo {
            payload,
            connections,
            in_flight,
        };
        let mut loads: Vec<Load> = SHAPES.map(|shape| Load::Unary(echo(64, shape))).to_vec();
        loads.extend(STREAM_PAYLOADS.map(|payload| Load::Stream { payload }));
        for payload in [64, 1 << 10] {
            loads.extend(TWO_WORKERS.map(|shape| Load::TwoWorkers(echo(payload, shape))));
        }
        loads.push(Load::Latency {
            payload: 64,
            percent: LATENCY_PERCENT,
        });
        let both = loads
            .iter()
            .flat_map(|&load| [Caller::Own, Caller::Loop].map(|caller| Self { caller, load }));
        let mut all: Vec<Self> = both.collect();
        all.push(Self {
            caller: Caller::Own,
            load: Load::SlowConsumer { payload: 1 << 10 },
        });
        let mut hostile = vec![
            Load::DeafToCalls { payload: 1 << 10 },
            Load::DeafToStreams { payload: 1 << 10 },
        ];
        hostile.extend(NEVER.map(|calls| Load::Never { calls }));
        all.extend(hostile.into_iter().map(|load| Self {
            caller: Caller::Loop,
            load,
        }));
        all
    }

    pub(super) fn is_quick(self) -> bool {
        match (self.caller, self.load) {
            (Caller::Own, Load::Unary(echo)) => (echo.connections, echo.in_flight) == (1, 64),
            (Caller::Loop, Load::Unary(echo)) => (echo.connections, echo.in_flight) == (1, 1_024),
            (Caller::Loop, Load::Stream { payload }) => payload == 1 << 10,
            _ => false,
        }
    }

    pub(super) fn headline(self) -> Figure {
        match self.load {
            Load::Unary(_) | Load::Stream { .. } => Figure::ServerCpu,
            Load::TwoWorkers(_) => Figure::Rate,
            Load::Latency { .. } => Figure::P99,
            Load::SlowConsumer { .. } => Figure::ClientPeakRss,
            Load::DeafToCalls { .. } | Load::DeafToStreams { .. } | Load::Never { .. } => {
                Figure::PeakRss
            }
        }
    }

    pub(super) fn figures(self) -> &'static [Figure] {
        use Figure::{
            ClientCpu, ClientPeakRss, Heap, Max, P50, P99, P999, PeakRss, Rate, Rss, SendDelay,
            ServerCpu,
        };
        match self.load {
            Load::Unary(_) | Load::TwoWorkers(_) | Load::Stream { .. } => {
                &[Rate, ServerCpu, ClientCpu]
            }
            // The client looks at the clock without a pause: its processor time says nothing.
            Load::Latency { .. } => &[Rate, ServerCpu, P50, P99, P999, Max, SendDelay],
            Load::SlowConsumer { .. } => &[PeakRss, ClientPeakRss],
            Load::DeafToCalls { .. } | Load::DeafToStreams { .. } | Load::Never { .. } => {
                &[Rss, Heap, PeakRss]
            }
        }
    }

    pub(super) fn placements(self, [server, client]: [usize; 2]) -> [Placement; 2] {
        match (self.load, self.caller) {
            (Load::TwoWorkers(_), Caller::Own) => [Placement::Workers(2); 2],
            (Load::TwoWorkers(_), Caller::Loop) => [Placement::Workers(2), Placement::Anywhere],
            _ => [Placement::Processor(server), Placement::Processor(client)],
        }
    }

    /// Whether the server is loaded until it has grown to the limit, which is a result.
    pub(super) fn is_hostile(self) -> bool {
        matches!(
            self.load,
            Load::DeafToCalls { .. } | Load::DeafToStreams { .. } | Load::Never { .. }
        )
    }

    pub(super) fn estimate(self, warm_up: Duration, measured: Duration) -> Duration {
        match self.load {
            Load::SlowConsumer { .. } => measured,
            // Twice, because the heap is counted by another program.
            Load::DeafToCalls { .. } | Load::DeafToStreams { .. } => 2 * measured,
            Load::Never { calls } => Duration::from_micros(10) * calls,
            _ => warm_up + measured,
        }
    }

    /// The share of the highest rate of the yardstick at which it runs.
    pub(crate) fn percent(self) -> Option<u32> {
        match self.load {
            Load::Latency { percent, .. } => Some(percent),
            _ => None,
        }
    }
}

impl fmt::Display for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.caller {
            Caller::Own => f.write_str("rpc")?,
            Caller::Loop => f.write_str("rpc-server")?,
        }
        match self.load {
            Load::Unary(echo) => write!(f, "/{echo}"),
            Load::TwoWorkers(echo) => write!(f, "-two-workers/{echo}"),
            Load::Stream { payload } => write!(f, "-stream/{}", Size(payload)),
            Load::Latency { payload, percent } => {
                write!(f, "-latency/{}/{percent}%", Size(payload))
            }
            Load::SlowConsumer { payload } => write!(f, "-slow-consumer/{}", Size(payload)),
            Load::DeafToCalls { payload } => write!(f, "-deaf/{}-calls", Size(payload)),
            Load::DeafToStreams { payload } => write!(f, "-deaf/{}-streams", Size(payload)),
            Load::Never { calls } => write!(f, "-never/{calls}"),
        }
    }
}
