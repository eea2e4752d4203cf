//! The way from an application's tasks to a connection.

mod shared;
pub use shared::{Closed, Receiver, SendFuture, Sender, TrySendError, WeakSender, channel};

/// What the channel is built from, in one place so that a model checker can put in its own.
mod primitives {
    pub(super) use futures_util::task::AtomicWaker;
    pub(super) use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    };
    pub(super) use std::thread::yield_now;

    use std::task::{Context, Poll};

    /// Queues of a channel. Senders share them round-robin: one would do for one thread, more
    /// cost every idle connection memory.
    const CONCURRENCY: usize = 2;

    #[derive(Debug)]
    pub(super) struct QueueSender<T>(spillway::Sender<T>);

    #[derive(Debug)]
    pub(super) struct QueueReceiver<T>(spillway::Receiver<T>);

    pub(super) fn queue<T>() -> (QueueSender<T>, QueueReceiver<T>) {
        let (sender, receiver) = spillway::channel_with_concurrency(CONCURRENCY);
        (QueueSender(sender), QueueReceiver(receiver))
    }

    impl<T> Clone for QueueSender<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> QueueSender<T> {
        #[inline]
        pub(super) fn push(&self, value: T) {
            // The queue has no bound of its own, and its receiver is never gone before it is
            // closed and drained, so there is nothing that it could refuse.
            assert!(self.0.send(value).is_ok(), "the queue took no message");
        }
    }

    impl<T> QueueReceiver<T> {
        /// The next message. Registers the waker if there is none.
        #[inline]
        pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<T> {
            self.0.poll_next(cx).map(|message| {
                message.expect("the channel keeps a sender of the queue for as long as it lives")
            })
        }
    }
}
