use std::{future, sync::Arc, task::Poll};

use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tokio::sync::watch;

use crate::{Call, Operation};

/// What a server has seen of its rpcs.
#[derive(Debug, Clone)]
pub struct Seen(Arc<watch::Sender<SeenNow>>);

/// Rpcs of a server, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeenNow {
    /// Requests that were heard.
    pub begun: u64,
    /// Rpcs that exist.
    pub running: u64,
    /// Rpcs that were dropped before their end.
    pub dropped: u64,
}

impl Seen {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    /// Wait until `condition` holds of what was seen.
    pub async fn until(&self, condition: impl FnMut(&SeenNow) -> bool) -> SeenNow {
        let mut seen = self.0.subscribe();
        let now = seen.wait_for(condition).await;
        *now.expect("the sender is in this very value")
    }

    fn running(&self) -> Running {
        self.0.send_modify(|seen| seen.running += 1);
        Running {
            seen: self.clone(),
            is_finished: false,
        }
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self::new()
    }
}

/// Lives as long as an rpc, and tells of its end.
struct Running {
    seen: Seen,
    is_finished: bool,
}

impl Running {
    fn finish(&mut self) {
        self.is_finished = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let dropped = !self.is_finished;
        self.seen.0.send_modify(|seen| {
            seen.running -= 1;
            seen.dropped += u64::from(dropped);
        });
    }
}

/// What comes of a request, whichever the server is.
pub enum Rpc {
    /// One answer.
    Unary(BoxFuture<'static, Call>),
    /// A stream of them.
    Streaming(BoxStream<'static, Call>),
    /// None.
    Rejected,
}

/// Begin what `request` asks for.
pub fn begin(seen: &Seen, request: Call) -> Rpc {
    seen.0.send_modify(|seen| seen.begun += 1);
    let mut running = seen.running();
    match request.operation() {
        Operation::Reject => {
            running.finish();
            Rpc::Rejected
        }
        Operation::Echo => {
            running.finish();
            Rpc::Unary(future::ready(request.answer(request.count)).boxed())
        }
        Operation::Later => Rpc::Unary(Box::pin(async move {
            pending_once().await;
            running.finish();
            request.answer(request.count)
        })),
        Operation::Forever => Rpc::Unary(Box::pin(async move {
            let _running = running;
            future::pending().await
        })),
        Operation::Stream => {
            let items = stream::iter(0..request.count);
            let items = items.map(move |count| {
                if count + 1 == request.count {
                    running.finish();
                }
                request.answer(count)
            });
            Rpc::Streaming(items.boxed())
        }
        Operation::Endless => {
            let items = stream::iter(0..request.count).chain(stream::pending());
            let items = items.map(move |count| {
                let _running = &running;
                request.answer(count)
            });
            Rpc::Streaming(items.boxed())
        }
    }
}

/// Wakes itself and is pending, once.
fn pending_once() -> impl Future<Output = ()> {
    let mut is_ready = false;
    future::poll_fn(move |cx| {
        if std::mem::replace(&mut is_ready, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}
