use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::table::Table;
use crate::{Error, Message};

/// The response to a unary call, to be awaited.
///
/// Dropping it before its end cancels the call: the server is told, unless the request was never
/// sent, which is taken back then.
#[must_use = "a call whose completion is dropped is cancelled"]
pub struct UnaryCompletion<Response: Message, Request: Message> {
    table: Arc<Table<Request, Response>>,
    index: u32,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Begun,
    Polled,
    Done,
}

impl<Response: Message, Request: Message> UnaryCompletion<Response, Request> {
    pub(super) fn new(table: Arc<Table<Request, Response>>, index: u32) -> Self {
        Self {
            table,
            index,
            progress: Progress::Begun,
        }
    }
}

impl<Response: Message, Request: Message> Future for UnaryCompletion<Response, Request> {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(self.progress != Progress::Done, "polled after it was done");
        let is_first = self.progress == Progress::Begun;
        let polled = self.table.poll_answer(self.index, is_first, cx);
        self.progress = match polled {
            Poll::Ready(_) => Progress::Done,
            Poll::Pending => Progress::Polled,
        };
        polled
    }
}

impl<Response: Message, Request: Message> Drop for UnaryCompletion<Response, Request> {
    fn drop(&mut self) {
        if self.progress != Progress::Done {
            self.table.abandon(self.index);
        }
    }
}

impl<Response: Message, Request: Message> fmt::Debug for UnaryCompletion<Response, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnaryCompletion")
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// The responses to a streaming call, in order.
///
/// `None` says that the server has ended the stream: it is complete. A stream that ends in any other
/// way says so in a last item, an error, and is over then. What had come before that is given first.
///
/// Dropping it before its end cancels the call: the server is told, unless the request was never
/// sent, which is taken back then.
#[must_use = "a call whose completion is dropped is cancelled"]
pub struct StreamingCompletion<Response: Message, Request: Message> {
    table: Arc<Table<Request, Response>>,
    index: u32,
    /// Items that were taken from the table together.
    batch: VecDeque<Response>,
    is_done: bool,
}

// Nothing in it is ever pinned.
impl<Response: Message, Request: Message> Unpin for StreamingCompletion<Response, Request> {}

impl<Response: Message, Request: Message> StreamingCompletion<Response, Request> {
    pub(super) fn new(table: Arc<Table<Request, Response>>, index: u32) -> Self {
        Self {
            table,
            index,
            batch: VecDeque::new(),
            is_done: false,
        }
    }
}

impl<Response: Message, Request: Message> Stream for StreamingCompletion<Response, Request> {
    type Item = Result<Response, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(item) = this.batch.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            if this.is_done {
                return Poll::Ready(None);
            }
            match this.table.poll_items(this.index, &mut this.batch, cx) {
                Poll::Ready(None) => {}
                Poll::Ready(Some(end)) => {
                    this.is_done = true;
                    return Poll::Ready(end.err().map(Err));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<Response: Message, Request: Message> Drop for StreamingCompletion<Response, Request> {
    fn drop(&mut self) {
        if !self.is_done {
            self.table.abandon(self.index);
        }
    }
}

impl<Response: Message, Request: Message> fmt::Debug for StreamingCompletion<Response, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingCompletion")
            .field("buffered", &self.batch.len())
            .field("is_done", &self.is_done)
            .finish_non_exhaustive()
    }
}
