//! A service that does what each request says, and remembers that it was asked.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures_core::Stream;
use protosocket_rpc::server::{ConnectionService, RpcKind};

use crate::text::{NORMAL, Text, TextCodec};

/// Requests that have been heard, and how often each has.
pub(crate) type Heard = Arc<Mutex<HashMap<String, usize>>>;

/// Answers `echo …` at once, `later N …` after N polls, `count N …` with N items, and `never …`
/// never; rejects `reject …`.
pub(crate) struct Service {
    heard: Heard,
}

impl Service {
    pub(crate) fn new(heard: Heard) -> Self {
        Self { heard }
    }
}

type Unary = Pin<Box<dyn Future<Output = Text> + Send>>;
type Streaming = Pin<Box<Counting>>;

fn response(text: impl Into<String>) -> Text {
    Text::new(0, NORMAL, text)
}

/// Numbered items, of which every third takes a second poll.
pub(crate) struct Counting {
    next: usize,
    count: usize,
    text: String,
    has_waited: bool,
}

impl Stream for Counting {
    type Item = Text;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Text>> {
        if self.next == self.count {
            return Poll::Ready(None);
        }
        if self.next % 3 == 2 && !self.has_waited {
            self.has_waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_waited = false;
        self.next += 1;
        Poll::Ready(Some(response(format!("{} {}", self.next, self.text))))
    }
}

impl ConnectionService for Service {
    type Codec = TextCodec;
    type Request = Text;
    type Response = Text;
    type UnaryFutureType = Unary;
    type StreamType = Streaming;

    fn new_rpc(&mut self, request: Text) -> RpcKind<Unary, Streaming> {
        let text = request.text;
        let mut heard = self.heard.lock().expect("nothing panics under it");
        *heard.entry(text.clone()).or_default() += 1;
        drop(heard);
        let (what, rest) = text.split_once(' ').expect("a verb and more");
        let number = rest.split(' ').next().and_then(|word| word.parse().ok());
        match what {
            "echo" => RpcKind::Unary(Box::pin(std::future::ready(response(text)))),
            "later" => {
                let mut left = number.expect("how often it is polled");
                RpcKind::Unary(Box::pin(poll_fn(move |cx| {
                    if left == 0 {
                        return Poll::Ready(response(text.clone()));
                    }
                    left -= 1;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })))
            }
            "count" => RpcKind::Streaming(Box::pin(Counting {
                next: 0,
                count: number.expect("how many items"),
                text: text.clone(),
                has_waited: false,
            })),
            "never" => RpcKind::Unary(Box::pin(std::future::pending())),
            "reject" => RpcKind::Cancelled,
            other => unreachable!("nobody asks for {other}"),
        }
    }
}
