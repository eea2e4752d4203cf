use std::{
    fmt,
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::task::{JoinHandle, spawn_local};

/// An rpc that runs in a task of its own: for what computes, or must go on while its connection is
/// busy with others.
///
/// Its output is the task's. Dropping it aborts the task, so an rpc that its client cancels is
/// stopped at its next `.await` that has to wait. A panic of the task is a panic of this future, as if
/// it had run here.
///
/// What is spawned runs whether or not there is room to send, and while `max_concurrent_rpcs` bounds
/// how many rpcs there are, nothing bounds the tasks: one that computes outlives its rpc, whose place
/// is another's at once. Where a client could call and cancel in a loop, let what computes for long
/// look now and then whether it is still wanted (`tokio::task::yield_now`), or take a permit of a
/// semaphore.
#[must_use = "dropping it aborts the task"]
pub struct Spawned<T> {
    task: JoinHandle<T>,
}

impl<T: 'static> Spawned<T> {
    /// Spawn `future` on the tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new<F>(future: F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        Self {
            task: tokio::spawn(future),
        }
    }

    /// Spawn `future` on this thread's [`LocalSet`](tokio::task::LocalSet).
    ///
    /// # Panics
    /// Outside of one.
    pub fn local<F>(future: F) -> Self
    where
        F: Future<Output = T> + 'static,
    {
        Self {
            task: spawn_local(future),
        }
    }
}

impl<T> Future for Spawned<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match ready!(Pin::new(&mut self.task).poll(cx)) {
            Ok(output) => Poll::Ready(output),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // Nobody but its runtime can have ended it.
                Err(error) => resume_unwind(Box::new(error.to_string())),
            },
        }
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T> fmt::Debug for Spawned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned")
            .field("is_finished", &self.task.is_finished())
            .finish_non_exhaustive()
    }
}
