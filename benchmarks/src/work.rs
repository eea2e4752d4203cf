//! What is measured: the loads and their names.

use std::fmt;
use std::time::Duration;

use crate::figure::Figure;
use crate::machine::Placement;
use crate::systems::{REDIS, REFERENCE};

mod resp;
pub(crate) use resp::{REDIS_BENCHMARK, Resp, RespLoad, Verb};

mod rpc;
pub(crate) use rpc::{Caller, Load, Rpc};

mod tls;
pub(crate) use tls::Tls;

/// Payloads of the closed loops, in bytes.
const ECHO_PAYLOADS: [usize; 4] = [64, 1 << 10, 64 << 10, 1 << 20];

/// The shapes of the closed loops: connections and messages in flight on each. With 1,024 messages
/// of 1 MiB the client holds no more than with one, because it sends slices of one buffer; what is
/// in flight is bounded by the buffers of the system and by what the server is willing to hold.
const ECHO_SHAPES: [(usize, usize); 5] = [(1, 1), (1, 64), (1, 1_024), (64, 1), (64, 16)];

/// Idle connections whose memory is measured. From 1,000 on, a page more or less in the process
/// does not show.
const IDLE_CONNECTIONS: [usize; 2] = [1_000, 5_000];

/// Connections whose memory is measured after a burst of large messages: few for a look, and as many
/// as show whether memory grows with them. The server may keep some MiB for each of them.
const BURST_CONNECTIONS: [usize; 2] = [32, 256];

/// Messages per second of the open loops: far below what any system can do, and a rate at which
/// messages queue up in pipelines.
const LATENCY_RATES: [u32; 2] = [20_000, 200_000];

/// Connections of the open loops.
const LATENCY_CONNECTIONS: usize = 16;

/// Clients that connect and close at the same time.
const CONNECTING: usize = 16;

// LIMIT: a flood is stopped when the server has grown to this.
const FLOOD_MEMORY: u64 = 1 << 30;

// LIMIT: every other work fails when the server has grown to this. There are servers that hold 1 MiB
// for each of 5,000 idle connections, or 1,024 messages of 1 MiB, encoded and not.
const MEMORY: u64 = 6 << 30;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Messages come back as fast as they can.
    Echo(Echo),
    /// One message in flight, with server and client on the same processor: the shortest way there
    /// and back, without waking another processor.
    PingPong {
        /// Bytes per message.
        payload: usize,
    },
    /// Messages in one direction, as fast as the server takes them.
    Stream {
        /// Bytes per message.
        payload: usize,
    },
    /// An echo from a runtime of two workers; neither server nor client are tied to a processor.
    TwoWorkers(Echo),
    /// An open loop: messages leave on schedule, whatever comes back.
    Latency(Schedule),
    /// That many connections have each exchanged one small message and are silent.
    Idle {
        /// How many.
        connections: usize,
    },
    /// That many connections have each exchanged 16 messages of 1 MiB and are silent.
    IdleAfterBurst {
        /// How many.
        connections: usize,
    },
    /// Connect, exchange one message, close.
    Connect {
        /// How many clients do so at the same time.
        clients: usize,
    },
    /// Connections that send as fast as they can, beside a probe that does not.
    Flood(Flood),
    /// A client that sends bursts of 3 MiB and reads 1 MiB per second.
    SlowReader {
        /// Bytes per message.
        payload: usize,
    },
    /// Calls.
    Rpc(Rpc),
    /// What is encrypted.
    Tls(Tls),
    /// Commands of key-value servers.
    Resp(Resp),
}

/// A closed loop: each reply is followed by the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo {
    /// Bytes per message, without the header.
    pub(crate) payload: usize,
    /// Connections that work at the same time.
    pub(crate) connections: usize,
    /// Messages on their way, per connection.
    pub(crate) in_flight: usize,
}

/// Messages at a fixed rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Bytes per message.
    pub(crate) payload: usize,
    /// Connections that take turns.
    pub(crate) connections: usize,
    /// Messages per second, over all connections.
    pub(crate) rate: u32,
}

/// Connections that send without a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flood {
    /// Bytes per message.
    pub(crate) payload: usize,
    /// How many connections.
    pub(crate) flooders: usize,
    /// Whether they read the replies.
    pub(crate) reading: bool,
}

impl Work {
    /// Every load, in the order of the reports.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for payload in ECHO_PAYLOADS {
            for (connections, in_flight) in ECHO_SHAPES {
                all.push(Self::Echo(Echo {
                    payload,
                    connections,
                    in_flight,
                }));
            }
        }
        all.push(Self::PingPong { payload: 64 });
        all.extend(ECHO_PAYLOADS.map(|payload| Self::Stream { payload }));
        for payload in [64, 1 << 10] {
            for (connections, in_flight) in [(1, 64), (64, 16)] {
                all.push(Self::TwoWorkers(Echo {
                    payload,
                    connections,
                    in_flight,
                }));
            }
        }
        all.extend(LATENCY_RATES.map(|rate| {
            Self::Latency(Schedule {
                payload: 64,
                connections: LATENCY_CONNECTIONS,
                rate,
            })
        }));
        all.extend(IDLE_CONNECTIONS.map(|connections| Self::Idle { connections }));
        all.extend(BURST_CONNECTIONS.map(|connections| Self::IdleAfterBurst { connections }));
        all.push(Self::Connect {
            clients: CONNECTING,
        });
        for payload in [64, 16 << 10] {
            for flooders in [1, 8] {
                all.extend([true, false].map(|reading| {
                    Self::Flood(Flood {
                        payload,
                        flooders,
                        reading,
                    })
                }));
            }
        }
        all.extend([1 << 10, 64 << 10].map(|payload| Self::SlowReader { payload }));
        all.extend(Rpc::all().into_iter().map(Self::Rpc));
        all.extend(Tls::all().into_iter().map(Self::Tls));
        all.extend(Resp::all().into_iter().map(Self::Resp));
        all
    }

    /// The load of that name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::all()
            .into_iter()
            .find(|work| work.to_string() == name)
    }

    /// Whether it is one of the few that tell the most for their time.
    pub(crate) fn is_quick(self) -> bool {
        match self {
            Self::Echo(echo) => matches!(
                (echo.payload, echo.connections, echo.in_flight),
                (64, 1, 1_024) | (1_024, 64, 16)
            ),
            Self::Idle { connections } => connections == IDLE_CONNECTIONS[0],
            Self::Flood(flood) => flood.payload == 64 && flood.flooders == 1 && flood.reading,
            Self::Rpc(rpc) => rpc.is_quick(),
            Self::Tls(tls) => tls.is_quick(),
            _ => false,
        }
    }

    /// The figure by which systems are compared at this load.
    pub(crate) fn headline(self) -> Figure {
        match self {
            Self::Echo(_) | Self::PingPong { .. } | Self::Stream { .. } | Self::TwoWorkers(_) => {
                Figure::ServerCpu
            }
            Self::Latency(_) | Self::Flood(_) => Figure::P99,
            Self::Idle { .. } | Self::IdleAfterBurst { .. } => Figure::Rss,
            Self::Connect { .. } => Figure::Rate,
            Self::SlowReader { .. } => Figure::PeakRss,
            Self::Rpc(rpc) => rpc.headline(),
            Self::Tls(tls) => tls.headline(),
            Self::Resp(resp) => resp.headline(),
        }
    }

    /// The figures that the load has, in the order of the reports.
    pub(crate) fn figures(self) -> &'static [Figure] {
        use Figure::{
            ClientCpu, Heap, Max, P50, P99, P999, PeakRss, Rate, Rss, SendDelay, ServerCpu,
        };
        match self {
            Self::Echo(_) | Self::PingPong { .. } | Self::TwoWorkers(_) => {
                &[Rate, ServerCpu, ClientCpu, P50, P99, P999, Max]
            }
            Self::Stream { .. } | Self::Connect { .. } => &[Rate, ServerCpu, ClientCpu],
            // The client looks at the clock without a pause: its processor time says nothing.
            Self::Latency(_) => &[Rate, ServerCpu, P50, P99, P999, Max, SendDelay],
            Self::Idle { .. } | Self::IdleAfterBurst { .. } => &[Rss, Heap],
            Self::Flood(_) => &[P50, P99, Max, PeakRss],
            Self::SlowReader { .. } => &[ServerCpu, PeakRss],
            Self::Rpc(rpc) => rpc.figures(),
            Self::Tls(tls) => tls.figures(),
            Self::Resp(resp) => resp.figures(),
        }
    }

    /// Where the server and its client run, in this order, given a processor for each.
    pub(crate) fn placements(self, [server, client]: [usize; 2]) -> [Placement; 2] {
        match self {
            Self::PingPong { .. } => [Placement::Processor(server); 2],
            Self::TwoWorkers(_) => [Placement::Workers(2), Placement::Anywhere],
            Self::Rpc(rpc) => rpc.placements([server, client]),
            _ => [Placement::Processor(server), Placement::Processor(client)],
        }
    }

    /// The system that ratios refer to.
    pub(crate) fn reference(self) -> &'static str {
        match self {
            Self::Resp(_) => REDIS,
            _ => REFERENCE,
        }
    }

    /// Programs that must be installed, whatever the system.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Resp(resp) => resp.programs(),
            _ => &[],
        }
    }

    /// The share of the highest rate of the yardstick at which it runs, in percent.
    pub(crate) fn percent(self) -> Option<u32> {
        match self {
            Self::Rpc(rpc) => rpc.percent(),
            _ => None,
        }
    }

    /// Resident bytes up to which the server may grow.
    pub(crate) fn memory_limit(self) -> u64 {
        if self.ends_at_the_memory_limit() {
            FLOOD_MEMORY
        } else {
            MEMORY
        }
    }

    /// Whether a server that has reached its memory limit is a result. The load ends then, and what
    /// was measured until then counts.
    pub(crate) fn ends_at_the_memory_limit(self) -> bool {
        match self {
            Self::Flood(_) => true,
            Self::Rpc(rpc) => rpc.is_hostile(),
            _ => false,
        }
    }

    /// Roughly how long one system is busy with it, for an estimate of the whole. What does not
    /// depend on the time that is asked for was found by trying.
    pub(crate) fn estimate(self, warm_up: Duration, measured: Duration) -> Duration {
        match self {
            Self::Idle { connections } => {
                Duration::from_micros(800) * u32::try_from(connections).unwrap_or(u32::MAX)
            }
            Self::IdleAfterBurst { connections } => {
                Duration::from_millis(50) * u32::try_from(connections).unwrap_or(u32::MAX)
            }
            Self::SlowReader { .. } => measured + Duration::from_millis(200),
            Self::Rpc(rpc) => rpc.estimate(warm_up, measured),
            Self::Tls(tls) => tls.estimate(warm_up, measured),
            Self::Resp(resp) => resp.estimate(warm_up, measured),
            _ => warm_up + measured,
        }
    }

    /// Whether the name contains `pattern`, or, with a `*` in the pattern, is matched by it from
    /// its first to its last character.
    pub(crate) fn matches(&self, pattern: &str) -> bool {
        let name = self.to_string();
        if pattern.contains('*') {
            matches_glob(&name, pattern)
        } else {
            name.contains(pattern)
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Echo(echo) => write!(f, "echo/{echo}"),
            Self::PingPong { payload } => write!(f, "ping-pong/{}", Size(payload)),
            Self::Stream { payload } => write!(f, "stream/{}", Size(payload)),
            Self::TwoWorkers(echo) => write!(f, "two-workers/{echo}"),
            Self::Latency(schedule) => write!(f, "latency/{schedule}"),
            Self::Idle { connections } => write!(f, "idle/{connections}"),
            Self::IdleAfterBurst { connections } => write!(f, "idle-after-burst/{connections}"),
            Self::Connect { clients } => write!(f, "connect/{clients}"),
            Self::Flood(flood) => write!(f, "flood/{flood}"),
            Self::SlowReader { payload } => write!(f, "slow-reader/{}", Size(payload)),
            Self::Rpc(rpc) => rpc.fmt(f),
            Self::Tls(tls) => tls.fmt(f),
            Self::Resp(resp) => resp.fmt(f),
        }
    }
}

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = Size(self.payload);
        write!(f, "{payload}/{}x{}", self.connections, self.in_flight)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = Size(self.payload);
        write!(f, "{payload}/{}x{}", self.connections, self.rate)
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manner = if self.reading { "reading" } else { "deaf" };
        write!(f, "{}/{}-{manner}", Size(self.payload), self.flooders)
    }
}

/// Bytes, in the largest unit that divides them.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1 << 20) {
            write!(f, "{}MiB", self.0 >> 20)
        } else if self.0.is_multiple_of(1 << 10) {
            write!(f, "{}KiB", self.0 >> 10)
        } else {
            write!(f, "{}B", self.0)
        }
    }
}
/// `*` stands for any number of characters, everything else for itself.
fn matches_glob(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((literal, rest)) => name.strip_prefix(literal).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| &tail[at..])
                .chain([""])
                .any(|tail| matches_glob(tail, rest))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_found_by_its_name() {
        let names: Vec<String> = Work::all().iter().map(Work::to_string).collect();
        for name in [
            "echo/64B/1x1",
            "echo/1KiB/64x16",
            "echo/64KiB/1x1024",
            "echo/1MiB/1x64",
            "ping-pong/64B",
            "stream/1MiB",
            "two-workers/64B/64x16",
            "latency/64B/16x200000",
            "idle/5000",
            "idle-after-burst/256",
            "connect/16",
            "flood/64B/1-reading",
            "flood/16KiB/8-deaf",
            "slow-reader/64KiB",
            "rpc/64B/1x1024",
            "rpc-server/64B/64x16",
            "rpc-two-workers/1KiB/1x64",
            "rpc-server-two-workers/64B/64x16",
            "rpc-stream/1MiB",
            "rpc-server-stream/64B",
            "rpc-latency/64B/70%",
            "rpc-slow-consumer/1KiB",
            "rpc-server-deaf/1KiB-calls",
            "rpc-server-deaf/1KiB-streams",
            "rpc-server-never/100000",
            "tls/16KiB/64x16",
            "tls-handshake/16",
            "tls-idle/1000",
            "resp/GET/50x1",
            "resp-benchmark/SET/50x16",
        ] {
            assert!(names.iter().any(|other| other == name), "{name}: {names:?}");
        }
        for (name, work) in names.iter().zip(Work::all()) {
            assert_eq!(Work::find(name), Some(work));
        }
        assert_eq!(Work::find("echo/64B"), None);
    }

    #[test]
    fn the_headline_is_one_of_the_figures_and_they_are_in_the_order_of_the_reports() {
        for work in Work::all() {
            assert!(work.figures().contains(&work.headline()), "{work}");
            assert!(work.figures().is_sorted(), "{work}");
        }
    }

    #[test]
    fn a_pattern_without_a_star_is_a_substring() {
        let work = Work::find("echo/64B/1x64").expect("a load");
        assert!(work.matches(""));
        assert!(work.matches("64B"));
        assert!(work.matches("1x64"));
        assert!(!work.matches("1x1"));
        assert!(!work.matches("echo/1x64"));
    }

    #[test]
    fn a_pattern_with_a_star_matches_the_whole_name() {
        let work = Work::find("echo/64B/1x64").expect("a load");
        for pattern in [
            "*",
            "echo*",
            "*64",
            "echo/*/1x64",
            "*64*64*",
            "echo/64B/1x64*",
            "**",
        ] {
            assert!(work.matches(pattern), "{pattern}");
        }
        for pattern in ["64B*", "*64B", "echo/*/1x6", "*64*64*64*64", "*idle*"] {
            assert!(!work.matches(pattern), "{pattern}");
        }
    }
}
