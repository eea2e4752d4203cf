use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{Clock, ConfigError, ConnectionObserver, Limits, TokioClock, jitter::Jitter};

/// What connections have in common: limits, clock, observer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionConfig(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    limits: Limits,
    role: Role,
    clock: Arc<dyn Clock>,
    observer: Option<Arc<dyn ConnectionObserver>>,
    /// The seed of the next connection, if seeds are given.
    seeds: Option<Arc<AtomicU64>>,
}

/// Who opened the connection, which decides what the absence of senders means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The peer did: as long as it can send, the connection goes on.
    Server,
    /// This program did: without a sender, and with nothing in flight, there is nothing to do.
    Client,
}

impl ConnectionConfig {
    /// For connections that others open to this program. Without senders they go on for as long
    /// as the peer can send.
    ///
    /// # Errors
    /// Limits that cannot work, as [`Limits::validate`] says.
    pub fn server(limits: Limits) -> Result<Self, ConfigError> {
        Self::new(limits, Role::Server)
    }

    /// For connections that this program opens. They end when the last
    /// [`Sender`](crate::Sender) has been dropped and nothing is in flight.
    ///
    /// # Errors
    /// Limits that cannot work, as [`Limits::validate`] says.
    pub fn client(limits: Limits) -> Result<Self, ConfigError> {
        Self::new(limits, Role::Client)
    }

    fn new(limits: Limits, role: Role) -> Result<Self, ConfigError> {
        limits.validate()?;
        Ok(Self(Arc::new(Inner {
            limits,
            role,
            clock: Arc::new(TokioClock),
            observer: None,
            seeds: None,
        })))
    }

    /// The same with other limits: for connections of another protocol beside these.
    ///
    /// # Errors
    /// Limits that cannot work, as [`Limits::validate`] says.
    pub fn with_limits(mut self, limits: Limits) -> Result<Self, ConfigError> {
        limits.validate()?;
        Arc::make_mut(&mut self.0).limits = limits;
        Ok(self)
    }

    /// Take the time from `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        Arc::make_mut(&mut self.0).clock = clock;
        self
    }

    /// Tell `observer` what happens.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn ConnectionObserver>) -> Self {
        Arc::make_mut(&mut self.0).observer = Some(observer);
        self
    }

    /// Draw the jitter of the connections' ages from `seed`, so that a simulation repeats.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        Arc::make_mut(&mut self.0).seeds = Some(Arc::new(AtomicU64::new(seed)));
        self
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// The observer, if there is one.
    pub fn observer(&self) -> Option<&dyn ConnectionObserver> {
        self.0.observer.as_deref()
    }

    /// Whether it is for connections that this program opens.
    pub fn is_client(&self) -> bool {
        self.0.role == Role::Client
    }

    /// When a connection that is opened at `now` reaches its age, jitter included.
    pub(super) fn end_of_age(&self, now: Instant) -> Option<Instant> {
        let age = self.0.limits.max_age?;
        let mut jitter = match &self.0.seeds {
            Some(seeds) => Jitter::from_seed(seeds.fetch_add(1, Ordering::Relaxed)),
            None => Jitter::new(),
        };
        Some(now + age + (age / 10).mul_f64(jitter.fraction()))
    }
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self::server(Limits::server()).expect("the defaults are valid, a test says so")
    }
}
