//! Loads of key-value servers that speak RESP, and their names.

use std::fmt;
use std::time::Duration;

use super::LATENCY_RATES;
use crate::figure::Figure;
use crate::machine;

/// Connections of every load.
const CONNECTIONS: usize = 50;

/// Commands that are sent together, each with the rate of the open loops.
const PIPELINES: [(usize, u32); 2] = [(1, LATENCY_RATES[0]), (16, LATENCY_RATES[1])];

/// A load of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resp {
    /// Which one.
    pub(crate) command: Verb,
    /// How many connections take turns.
    pub(crate) connections: usize,
    /// How many commands are sent together.
    pub(crate) pipeline: usize,
    /// Who sends them.
    pub(crate) load: RespLoad,
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Reads a value.
    Get,
    /// Replaces a value.
    Set,
}

/// Who sends commands, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RespLoad {
    /// An open loop.
    Schedule {
        /// Commands per second, over all connections.
        rate: u32,
    },
    /// `redis-benchmark`, as fast as it can.
    Benchmark,
}

impl Resp {
    /// Every load, in the order of the reports.
    pub(super) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for command in [Verb::Get, Verb::Set] {
            for (pipeline, rate) in PIPELINES {
                all.extend(
                    [RespLoad::Schedule { rate }, RespLoad::Benchmark].map(|load| Self {
                        command,
                        connections: CONNECTIONS,
                        pipeline,
                        load,
                    }),
                );
            }
        }
        all.sort_by_key(|work| work.load == RespLoad::Benchmark);
        all
    }

    pub(super) fn headline(self) -> Figure {
        match self.load {
            RespLoad::Schedule { .. } => Figure::ServerCpu,
            RespLoad::Benchmark => Figure::Rate,
        }
    }

    pub(super) fn figures(self) -> &'static [Figure] {
        use Figure::{Max, P50, P99, P999, Rate, SendDelay, ServerCpu};
        match self.load {
            // The client looks at the clock without a pause: its processor time says nothing.
            RespLoad::Schedule { .. } => &[Rate, ServerCpu, P50, P99, P999, Max, SendDelay],
            RespLoad::Benchmark => &[Rate, ServerCpu],
        }
    }

    /// Programs that its client cannot do without.
    pub(super) fn programs(self) -> &'static [&'static str] {
        match self.load {
            RespLoad::Schedule { .. } => &[],
            RespLoad::Benchmark => &[machine::BOUND_TO_ITS_PARENT, REDIS_BENCHMARK],
        }
    }

    pub(super) fn estimate(self, warm_up: Duration, measured: Duration) -> Duration {
        warm_up + measured
    }
}

/// The client of redis-server that measures it.
pub(crate) const REDIS_BENCHMARK: &str = "redis-benchmark";

impl Verb {
    /// What clients say.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Set => "SET",
        }
    }
}

impl fmt::Display for Resp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = match self.load {
            RespLoad::Schedule { .. } => "resp",
            RespLoad::Benchmark => "resp-benchmark",
        };
        let Self {
            connections,
            pipeline,
            ..
        } = self;
        write!(f, "{load}/{}/{connections}x{pipeline}", self.command.name())
    }
}
