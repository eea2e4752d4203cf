use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use tokio::task::yield_now;

/// Waits until the tasks that can run have had their turn: for clients of many callers, which enter
/// their requests in a table beside the connection.
///
/// A runtime of many threads runs the task that was woken last first. Of the callers that have their
/// answers the first begins another request, which wakes the connection, and the others would come
/// behind it: each of their requests would be written alone. A reactor that has woken several callers
/// and has heard of fewer requests since [begins](Self::begin) to wait, and takes up requests when
/// that [is over](Self::is_on).
#[derive(Debug)]
pub struct Gather {
    turn: Arc<Turn>,
    waker: Waker,
}

#[derive(Debug)]
struct Turn {
    has_come: AtomicBool,
    connection: AtomicWaker,
}

impl Gather {
    /// One that does not wait.
    pub fn new() -> Self {
        let turn = Arc::new(Turn {
            has_come: AtomicBool::new(true),
            connection: AtomicWaker::new(),
        });
        Self {
            waker: turn.clone().into(),
            turn,
        }
    }

    /// Begin to wait: the task of `cx` will be woken when the others have had their turn.
    pub fn begin(&self, cx: &Context<'_>) {
        self.turn.connection.register(cx.waker());
        self.turn.has_come.store(false, Ordering::Relaxed);
        // It is never ready at once.
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&self.waker));
    }

    /// Whether the others are waited for.
    #[inline]
    pub fn is_on(&self) -> bool {
        !self.turn.has_come.load(Ordering::Acquire)
    }
}

impl Default for Gather {
    fn default() -> Self {
        Self::new()
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_come.store(true, Ordering::Release);
        self.connection.wake();
    }
}
