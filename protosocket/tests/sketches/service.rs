//! The smallest stand-in for the service types of the ecosystem: a request and a response whose
//! bodies stream, and a function from one to the future of the other. All of it is `Send`, so that
//! a service may pass a body on to another task, whatever the reactor is.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Body,
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Body,
}

pub(crate) type ResponseFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Serves requests; `&self`, because requests of one connection overlap.
pub(crate) trait Service: Send + 'static {
    fn call(&self, request: Request) -> ResponseFuture;
}

impl<F, T> Service for F
where
    F: Fn(Request) -> T + Send + 'static,
    T: Future<Output = Response> + Send + 'static,
{
    fn call(&self, request: Request) -> ResponseFuture {
        Box::pin(self(request))
    }
}

/// LIMIT: chunks that a body holds before its producer waits.
const CHUNKS: usize = 4;

#[derive(Default)]
struct Shared {
    chunks: VecDeque<Bytes>,
    ended: bool,
    /// Somebody has asked for the body.
    polled: bool,
    consumer: Option<Waker>,
    producer: Option<Waker>,
}

type Channel = Arc<Mutex<Shared>>;

fn lock(channel: &Channel) -> MutexGuard<'_, Shared> {
    channel.lock().expect("nothing panics under it")
}

/// The end of a body that is read.
pub(crate) struct Body(Channel);

/// The end of a body that is written to.
pub(crate) struct BodySender(Channel);

pub(crate) fn body() -> (BodySender, Body) {
    let channel = Channel::default();
    (BodySender(channel.clone()), Body(channel))
}

impl Body {
    /// A body that is complete.
    pub(crate) fn of(bytes: impl Into<Bytes>) -> Self {
        let (mut sender, body) = body();
        sender.push(bytes.into());
        sender.end();
        body
    }

    /// The next chunk, or `None` at the end.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut shared = lock(&self.0);
        shared.polled = true;
        // The producer waits for room, or for the first poll.
        if let Some(producer) = shared.producer.take() {
            producer.wake();
        }
        match shared.chunks.pop_front() {
            Some(chunk) => Poll::Ready(Some(chunk)),
            None if shared.ended => Poll::Ready(None),
            None => {
                shared.consumer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) async fn chunk(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }
}

impl BodySender {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        let mut shared = lock(&self.0);
        assert!(shared.chunks.len() < CHUNKS, "it was not ready");
        shared.chunks.push_back(chunk);
        if let Some(consumer) = shared.consumer.take() {
            consumer.wake();
        }
    }

    pub(crate) fn end(&mut self) {
        let mut shared = lock(&self.0);
        shared.ended = true;
        if let Some(consumer) = shared.consumer.take() {
            consumer.wake();
        }
    }

    /// Whether there is room for a chunk.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = lock(&self.0);
        if shared.chunks.len() < CHUNKS {
            return Poll::Ready(());
        }
        shared.producer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether somebody has asked for the body.
    pub(crate) fn poll_polled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = lock(&self.0);
        if shared.polled {
            return Poll::Ready(());
        }
        shared.producer = Some(cx.waker().clone());
        Poll::Pending
    }
}
