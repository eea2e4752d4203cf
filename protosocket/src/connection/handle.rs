use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    task::Waker,
    time::Instant,
};

use futures_util::task::AtomicWaker;

const DRAIN: u8 = 1;
const ABORT: u8 = 2;
const ENDED: u8 = 4;
const HEARD: u8 = 8;

/// Tells a connection to end, from any task or thread. Cheap to clone.
///
/// A handle does not keep its connection alive, nor waiting.
#[derive(Debug, Clone)]
pub struct ConnectionHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    flags: AtomicU8,
    deadline: Mutex<Option<Instant>>,
    waker: AtomicWaker,
}

impl ConnectionHandle {
    /// A handle for a connection that is to be established and will be given it.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                flags: AtomicU8::new(0),
                deadline: Mutex::new(None),
                waker: AtomicWaker::new(),
            }),
        }
    }

    /// Let the connection finish what it has begun, and cut it off at `deadline`, an instant on
    /// its clock. Of several deadlines the earliest counts.
    pub fn drain(&self, deadline: Instant) {
        let mut current = self
            .shared
            .deadline
            .lock()
            .expect("no code that panics runs under it");
        *current = Some(current.map_or(deadline, |earlier| earlier.min(deadline)));
        drop(current);
        self.set(DRAIN);
    }

    /// End the connection at once. What is unsent is counted and lost; the peer sees a reset.
    pub fn abort(&self) {
        self.set(ABORT);
    }

    /// The instant by which the connection is to have ended, if it is being drained.
    pub fn drain_deadline(&self) -> Option<Instant> {
        if !self.has(DRAIN) {
            return None;
        }
        *self
            .shared
            .deadline
            .lock()
            .expect("no code that panics runs under it")
    }

    /// Whether the connection is to end at once.
    pub fn is_aborted(&self) -> bool {
        self.has(ABORT)
    }

    /// Whether the connection has ended.
    pub fn is_ended(&self) -> bool {
        self.has(ENDED)
    }

    /// Whether both handles are of the same connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Note that the connection has ended, or will never be: for whoever made the handle first.
    pub fn mark_ended(&self) {
        self.shared.flags.fetch_or(ENDED, Ordering::Release);
        // A waker keeps the memory of its task, which must not live as long as this handle does.
        drop(self.shared.waker.take());
    }

    /// Whether the connection has received a whole message.
    pub fn has_received(&self) -> bool {
        self.has(HEARD)
    }

    fn set(&self, flag: u8) {
        self.shared.flags.fetch_or(flag, Ordering::AcqRel);
        self.shared.waker.wake();
    }

    fn has(&self, flag: u8) -> bool {
        self.shared.flags.load(Ordering::Acquire) & flag != 0
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.shared.waker.register(waker);
    }

    pub(super) fn set_received(&self) {
        self.shared.flags.fetch_or(HEARD, Ordering::Release);
    }
}

impl Default for ConnectionHandle {
    fn default() -> Self {
        Self::new()
    }
}
