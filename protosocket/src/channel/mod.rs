//! The way from an application's tasks to a connection.

mod queue;
mod shared;
pub use shared::{Closed, Receiver, SendFuture, Sender, TrySendError, WeakSender, channel};

/// What the channel is built from, in one place so that a model checker can put in its own.
mod primitives {
    pub(super) use ::spillway;
    pub(super) use futures_util::task::AtomicWaker;
    pub(super) use std::sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };
    pub(super) use std::thread::yield_now;
}
