use std::{
    net::SocketAddr,
    pin::pin,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use futures_util::{
    future::{self, Either},
    stream::BoxStream,
};
use tokio::sync::oneshot;

use crate::{Call, Seen};

/// How a call ended that has no answer, in words that both sides have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The server cancelled it.
    Cancelled,
    /// The connection was lost.
    Lost(String),
}

/// A client of either side, on a connection of its own.
pub trait Client: Clone + Send + Sync + 'static {
    /// Whether a call that is dropped at once is cancelled behind its request. A client of 2.0.2 puts
    /// both into its channel by different senders, between which there is no order.
    const CANCELS_IN_ORDER: bool;

    /// Call, wait, and answer.
    fn unary(&self, request: Call) -> impl Future<Output = Result<Call, End>> + Send;

    /// Call, and read a stream of answers. The end of the stream is `None`, and only a client that
    /// can tell makes more of it.
    fn streaming(
        &self,
        request: Call,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Call, End>>, End>> + Send;
}

/// A server of either side, in a thread and a runtime of its own. It is stopped when it is dropped,
/// and its connections with it, in the middle of whatever they do.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    seen: Seen,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Start what `bind` makes: where it listens, and the future that accepts.
    pub fn start<F: Future>(bind: impl FnOnce(Seen) -> (SocketAddr, F) + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let seen = Seen::new();
        let seen_by_server = seen.clone();
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build();
            runtime.expect("a runtime can be built").block_on(async {
                let (address, server) = bind(seen_by_server);
                tell.send(address).expect("who starts it waits");
                let server = pin!(server);
                let first = future::select(server, stopped).await;
                assert!(
                    matches!(first, Either::Right(_)),
                    "a server ends when it is told to"
                );
            });
        });
        Self {
            address: told.recv().expect("a server can be bound"),
            seen,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen of its rpcs.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || thread::panicking(),
                "a server has panicked"
            );
        }
    }
}
