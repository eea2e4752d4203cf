//! The queue below the channel: spillway, with the wake-up moved out of its lock.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use super::primitives::{AtomicBool, Ordering, spillway};

/// Queues of a channel. Senders share them round-robin: one would do for one thread, more
/// cost every idle connection memory.
const CONCURRENCY: usize = 2;

pub(super) fn queue<T>() -> (QueueSender<T>, QueueReceiver<T>) {
    let (sender, receiver) = spillway::channel_with_concurrency(CONCURRENCY);
    let edge = Arc::new(Edge(AtomicBool::new(false)));
    let sender = QueueSender {
        queue: sender,
        edge: edge.clone(),
    };
    let receiver = QueueReceiver {
        queue: receiver,
        waker: edge.clone().into(),
        edge,
    };
    (sender, receiver)
}

/// The waker that spillway sees: a note that the queue was empty and is not any more.
///
/// Spillway wakes while it holds the lock of the queue. A waker that runs its task on the spot
/// would send or receive under that lock, which is a deadlock, and one that panics would poison
/// it. So the note is taken, and whoever pushed acts on it once the lock is free.
struct Edge(AtomicBool);

impl Edge {
    #[inline]
    fn take(&self) -> bool {
        // Whoever passed the edge reads its own note here, unless another has taken it over and
        // acts on it. So the load needs no ordering, and the swap is rare.
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Edge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

pub(super) struct QueueSender<T> {
    queue: spillway::Sender<T>,
    edge: Arc<Edge>,
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            edge: self.edge.clone(),
        }
    }
}

impl<T> QueueSender<T> {
    /// Append a value. Whether the receiver has to be woken, because it has seen or may have seen
    /// the queue empty.
    #[inline]
    pub(super) fn push(&self, value: T) -> bool {
        // The queue has no bound of its own, and its receiver is never gone before it is
        // closed and drained, so there is nothing that it could refuse.
        assert!(self.queue.send(value).is_ok(), "the queue took no message");
        self.edge.take()
    }
}

pub(super) struct QueueReceiver<T> {
    queue: spillway::Receiver<T>,
    waker: Waker,
    edge: Arc<Edge>,
}

impl<T> QueueReceiver<T> {
    /// The next value. If there is none, the push that ends this says that it does.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        loop {
            match self.queue.poll_next(&mut Context::from_waker(&self.waker)) {
                Poll::Ready(value) => {
                    return Some(value.expect(
                        "the channel keeps a sender of the queue for as long as it lives",
                    ));
                }
                // A note here is one that came while the waker was being registered, or one whose
                // writer has not come to act on it. Either way, the queue has not been empty.
                Poll::Pending if self.edge.take() => {}
                Poll::Pending => return None,
            }
        }
    }
}
