//! Where a connection gets the time from.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// The time, and a way to wait for it. All deadlines of a connection are on its clock.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Instant;

    /// An alarm for `at`, which the connection moves as its deadlines change.
    fn alarm(&self, at: Instant) -> Pin<Box<dyn Alarm>>;
}

/// Wakes a task at an instant.
pub trait Alarm: Send {
    /// `Ready` when the instant has come; until then the task is woken at it.
    ///
    /// `Pending` means that the task will be woken, and a connection relies on it: it does not poll the
    /// alarm again before that instant, whatever else it is polled for meanwhile.
    fn poll_due(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    /// Wake at `at` instead.
    fn reset(self: Pin<&mut Self>, at: Instant);
}

/// The clock of the tokio runtime, which tests can pause. The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn alarm(&self, at: Instant) -> Pin<Box<dyn Alarm>> {
        Box::pin(tokio::time::sleep_until(at.into()))
    }
}

impl Alarm for tokio::time::Sleep {
    fn poll_due(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // A task that has used up its budget would be told to come again, and the waker not be kept.
        pin!(tokio::task::unconstrained(self)).poll(cx)
    }

    fn reset(self: Pin<&mut Self>, at: Instant) {
        self.reset(at.into());
    }
}

/// A clock that stands still until it is told to advance.
#[derive(Debug, Clone)]
pub struct ManualClock {
    state: Arc<Mutex<ManualState>>,
}

#[derive(Debug)]
struct ManualState {
    now: Instant,
    next_alarm: u64,
    /// By instant, then in the order of their making, so that runs repeat exactly.
    waiting: BTreeMap<(Instant, u64), Waker>,
}

impl ManualClock {
    /// A clock that stands at an arbitrary instant.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(ManualState {
                now: Instant::now(),
                next_alarm: 0,
                waiting: BTreeMap::new(),
            })),
        }
    }

    /// Move the time forward and wake whoever waited for an instant up to then.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.now += by;
        let now = state.now;
        let later = state.waiting.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.waiting, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
    }

    /// The next instant that somebody waits for.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.lock().waiting.keys().next().map(|key| key.0)
    }

    fn lock(&self) -> MutexGuard<'_, ManualState> {
        self.state
            .lock()
            .expect("no code that panics runs under it")
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.lock().now
    }

    fn alarm(&self, at: Instant) -> Pin<Box<dyn Alarm>> {
        let mut state = self.lock();
        state.next_alarm += 1;
        Box::pin(ManualAlarm {
            key: (at, state.next_alarm),
            clock: self.clone(),
        })
    }
}

struct ManualAlarm {
    clock: ManualClock,
    key: (Instant, u64),
}

impl Alarm for ManualAlarm {
    fn poll_due(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.lock();
        if self.key.0 <= state.now {
            state.waiting.remove(&self.key);
            return Poll::Ready(());
        }
        state.waiting.insert(self.key, cx.waker().clone());
        Poll::Pending
    }

    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.clock.lock().waiting.remove(&self.key);
        self.key.0 = at;
    }
}

impl Drop for ManualAlarm {
    fn drop(&mut self) {
        self.clock.lock().waiting.remove(&self.key);
    }
}
