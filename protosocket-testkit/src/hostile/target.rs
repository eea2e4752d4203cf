//! Who is attacked, and how hard.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use super::Conversation;

/// The server that hostile peers are pointed at, with the bounds of what they do to it.
///
/// | what | default | allowed |
/// |---|---|---|
/// | [`patience`](Self::patience) | 5 s | 10 ms to 1 h |
/// | [`probe_patience`](Self::probe_patience) | 5 s | 10 ms to 60 s |
/// | [`probe_interval`](Self::probe_interval) | 100 ms | 1 ms to 60 s |
/// | [`max_wait`](Self::max_wait) | 5 s | 1 ms to 1 h |
/// | [`dribble_interval`](Self::dribble_interval) | 250 ms | 1 ms to 60 s |
/// | [`connections`](Self::connections) | 500 | 1 to 20,000 |
/// | [`churn`](Self::churn) | 500 | 1 to 100,000 |
/// | [`churn_rate`](Self::churn_rate) | 500 per second | 1 to 5,000 per second |
/// | [`pipelined`](Self::pipelined) | 20,000 | 1 to 1,000,000 |
/// | [`steps`](Self::steps) | 64 | 2 to 1,000 |
/// | [`max_bytes`](Self::max_bytes) | 64 MiB | 1 KiB to 1 GiB |
/// | [`max_memory_growth`](Self::max_memory_growth) | 64 MiB | up to 1 TiB |
/// | [`seed`](Self::seed) | 0 | any |
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) address: SocketAddr,
    pub(super) conversation: Conversation,
    pub(super) pid: Option<u32>,
    pub(super) strict: bool,
    pub(super) patience: Duration,
    pub(super) probe_patience: Duration,
    pub(super) probe_interval: Duration,
    pub(super) max_wait: Duration,
    pub(super) dribble_interval: Duration,
    pub(super) connections: usize,
    pub(super) churn: usize,
    pub(super) churn_rate: usize,
    pub(super) pipelined: usize,
    pub(super) steps: usize,
    pub(super) max_bytes: u64,
    pub(super) max_memory_growth: u64,
    pub(super) seed: u64,
}

/// Why something is no target. Whoever configures it is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetError {
    /// The address is not of this machine.
    NotLoopback(SocketAddr),
    /// A count or a time is out of bounds.
    OutOfBounds {
        /// What was set.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// From where to where it may go.
        allowed: String,
    },
}

impl std::fmt::Display for TargetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotLoopback(address) => write!(
                f,
                "{address} is not a loopback address, and hostile peers do harm: attack only what \
                 is yours, and say so"
            ),
            Self::OutOfBounds {
                name,
                value,
                allowed,
            } => write!(f, "{name} must be {allowed}, it is {value}"),
        }
    }
}

impl std::error::Error for TargetError {}

// LIMIT: whatever is configured, a case ends and its load stays that of a test.
const PATIENCE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
const PROBE_PATIENCE: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
const MAX_WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const CONNECTIONS: RangeInclusive<usize> = 1..=20_000;
const CHURN: RangeInclusive<usize> = 1..=100_000;
const CHURN_RATE: RangeInclusive<usize> = 1..=5_000;
const PIPELINED: RangeInclusive<usize> = 1..=1_000_000;
const STEPS: RangeInclusive<usize> = 2..=1_000;
const MAX_BYTES: RangeInclusive<u64> = 1024..=1024 * 1024 * 1024;
const MAX_MEMORY_GROWTH: RangeInclusive<u64> = 0..=1024 * 1024 * 1024 * 1024;

impl Target {
    /// How long a hostile connection waits for the server unless told otherwise: the deadlines of
    /// most servers are longer, but a run of all cases should not take an hour.
    pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);

    /// A server on a loopback address.
    ///
    /// # Errors
    /// The caller is to blame: the address is one of other machines.
    pub fn new(address: SocketAddr) -> Result<Self, TargetError> {
        match address.ip().to_canonical().is_loopback() {
            true => Ok(Self::that_may_be_attacked(address)),
            false => Err(TargetError::NotLoopback(address)),
        }
    }

    /// A server anywhere. Floods and stalled connections are attacks: its owner must have agreed
    /// to them, and so must the owners of the network between.
    pub fn that_may_be_attacked(address: SocketAddr) -> Self {
        Self {
            address,
            conversation: Conversation::new(),
            pid: None,
            strict: false,
            patience: Self::DEFAULT_PATIENCE,
            probe_patience: Duration::from_secs(5),
            probe_interval: Duration::from_millis(100),
            max_wait: Duration::from_secs(5),
            dribble_interval: Duration::from_millis(250),
            connections: 500,
            churn: 500,
            churn_rate: 500,
            pipelined: 20_000,
            steps: 64,
            max_bytes: 64 * 1024 * 1024,
            max_memory_growth: 64 * 1024 * 1024,
            seed: 0,
        }
    }

    /// What a well-behaved client says and hears.
    #[must_use]
    pub fn conversation(mut self, conversation: Conversation) -> Self {
        self.conversation = conversation;
        self
    }

    /// The server's process, if it runs on this machine: its memory and its life are watched. Only
    /// on Linux.
    #[must_use]
    pub fn pid(mut self, pid: impl Into<Option<u32>>) -> Self {
        self.pid = pid.into();
        self
    }

    /// Fail a case whose connection the server neither answers nor closes within
    /// [`patience`](Self::patience). Off by default, because the deadlines of most servers are
    /// longer than a test wants to be.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// How long a hostile connection waits for the server to close it. To see a deadline of the
    /// server, this must be longer.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn patience(mut self, patience: Duration) -> Result<Self, TargetError> {
        self.patience = time("patience", patience, &PATIENCE)?;
        Ok(self)
    }

    /// How long a probe waits for its connection and for each answer, before it counts as lost. A
    /// lost SYN is repeated after one second, and again after two more.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn probe_patience(mut self, patience: Duration) -> Result<Self, TargetError> {
        self.probe_patience = time("probe_patience", patience, &PROBE_PATIENCE)?;
        Ok(self)
    }

    /// How long to wait between two probes while a case goes on, and between two conversations of
    /// the neighbour. Raise it for a server that ends a connection after so many requests.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn probe_interval(mut self, interval: Duration) -> Result<Self, TargetError> {
        self.probe_interval = time("probe_interval", interval, &INTERVAL)?;
        Ok(self)
    }

    /// How long one of the others may wait beside a hostile peer and after it, from its connect or,
    /// on the neighbour's connection, from its request to the end of the conversation. Who waits
    /// longer is served too late, and the case fails.
    ///
    /// The default of 5 s lets a SYN get lost twice, which takes 3 s and is no fault of the server;
    /// what it catches is a server that stands still. Lower it to what your clients put up with,
    /// and raise it with [`probe_patience`](Self::probe_patience).
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn max_wait(mut self, wait: Duration) -> Result<Self, TargetError> {
        self.max_wait = time("max_wait", wait, &MAX_WAIT)?;
        Ok(self)
    }

    /// How long to wait between two bytes of [`Dribble`](super::Case::Dribble) and
    /// [`TinyWindow`](super::Case::TinyWindow). A short request is stretched over the patience.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn dribble_interval(mut self, interval: Duration) -> Result<Self, TargetError> {
        self.dribble_interval = time("dribble_interval", interval, &INTERVAL)?;
        Ok(self)
    }

    /// How many connections a flood opens. Half of the file descriptors that this process may
    /// still open is the most that it gets.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn connections(mut self, connections: usize) -> Result<Self, TargetError> {
        self.connections = count("connections", connections, &CONNECTIONS)?;
        Ok(self)
    }

    /// How often churn connects.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn churn(mut self, connects: usize) -> Result<Self, TargetError> {
        self.churn = count("churn", connects, &CHURN)?;
        Ok(self)
    }

    /// How often churn connects in a second, at most.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn churn_rate(mut self, per_second: usize) -> Result<Self, TargetError> {
        self.churn_rate = count("churn_rate", per_second, &CHURN_RATE)?;
        Ok(self)
    }

    /// How often the conversation is repeated in a pipelining flood.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn pipelined(mut self, times: usize) -> Result<Self, TargetError> {
        self.pipelined = count("pipelined", times, &PIPELINED)?;
        Ok(self)
    }

    /// At how many places in the conversation [`Reset`](super::Case::Reset) and
    /// [`Fin`](super::Case::Fin) end it. If there are more, the first and the last are taken and
    /// others by chance.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn steps(mut self, steps: usize) -> Result<Self, TargetError> {
        self.steps = count("steps", steps, &STEPS)?;
        Ok(self)
    }

    /// How many bytes a peer that does not read sends at most, and a pipelining flood.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn max_bytes(mut self, bytes: u64) -> Result<Self, TargetError> {
        self.max_bytes = count("max_bytes", bytes, &MAX_BYTES)?;
        Ok(self)
    }

    /// How many bytes the resident memory of the server's process may grow in a case, above what
    /// it was before that case; and in several cases, as [`memory_kept`](super::memory_kept) judges it.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn max_memory_growth(mut self, bytes: u64) -> Result<Self, TargetError> {
        self.max_memory_growth = count("max_memory_growth", bytes, &MAX_MEMORY_GROWTH)?;
        Ok(self)
    }

    /// What everything random comes from. The same seed gives the same bytes again.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

fn time(
    name: &'static str,
    value: Duration,
    allowed: &RangeInclusive<Duration>,
) -> Result<Duration, TargetError> {
    match allowed.contains(&value) {
        true => Ok(value),
        false => Err(TargetError::OutOfBounds {
            name,
            value: format!("{value:?}"),
            allowed: format!("{:?} to {:?}", allowed.start(), allowed.end()),
        }),
    }
}

fn count<T: PartialOrd + std::fmt::Display>(
    name: &'static str,
    value: T,
    allowed: &RangeInclusive<T>,
) -> Result<T, TargetError> {
    match allowed.contains(&value) {
        true => Ok(value),
        false => Err(TargetError::OutOfBounds {
            name,
            value: value.to_string(),
            allowed: format!("{} to {}", allowed.start(), allowed.end()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Result<Target, TargetError> {
        Target::new(address.parse().expect("an address"))
    }

    #[test]
    fn only_loopback_is_attacked_unasked() {
        for address in [
            "127.0.0.1:1",
            "127.8.9.1:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(target(address).is_ok(), "{address}");
        }
        for address in ["192.0.2.1:1", "0.0.0.0:1", "[2001:db8::1]:1", "[::]:1"] {
            let error = target(address).unwrap_err();
            assert!(error.to_string().contains("loopback"), "{error}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let target = || target("127.0.0.1:1").expect("loopback");
        let long = Duration::from_secs(4000);
        for (name, refused) in [
            ("patience", target().patience(long)),
            ("probe_patience", target().probe_patience(long)),
            ("probe_interval", target().probe_interval(Duration::ZERO)),
            ("max_wait", target().max_wait(Duration::ZERO)),
            ("dribble_interval", target().dribble_interval(long)),
            ("connections", target().connections(20_001)),
            ("churn", target().churn(0)),
            ("churn_rate", target().churn_rate(5_001)),
            ("pipelined", target().pipelined(0)),
            ("steps", target().steps(1)),
            ("max_bytes", target().max_bytes(1)),
            ("max_memory_growth", target().max_memory_growth(u64::MAX)),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
