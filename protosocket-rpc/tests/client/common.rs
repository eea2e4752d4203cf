//! A client on a connection that is polled only when it was woken, its callers likewise, and a
//! server that is played by hand.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_core::Stream;
use protosocket::channel;
use protosocket_rpc::{
    Error, Execution,
    client::{
        Configuration, RpcClient, RpcCompletionReactor, StreamingCompletion, UnaryCompletion,
    },
};
use protosocket_testkit::{Driven, Setup};

pub(crate) use crate::text::*;

pub(crate) type Reactor = RpcCompletionReactor<TextCodec>;

/// A request that is given its id.
pub(crate) fn request(text: &str) -> Text {
    Text::new(0, NORMAL, text)
}

/// A client, and its connection to a server that is played by hand.
pub(crate) struct Called {
    pub(crate) connection: Driven<Reactor>,
    client: Option<RpcClient<Text, Text>>,
    /// How much of what was written has been looked at.
    seen: usize,
}

impl Called {
    pub(crate) fn new() -> Self {
        Self::with(Setup::client(), Configuration::new())
    }

    pub(crate) fn configured(configuration: Configuration) -> Self {
        Self::with(Setup::client(), configuration)
    }

    pub(crate) fn with(setup: Setup, configuration: Configuration) -> Self {
        let (client, reactor) = Reactor::new(&configuration);
        let (_, receiver) = channel::<Infallible>(1);
        Self {
            connection: setup.drive(TextCodec, reactor, receiver),
            client: Some(client),
            seen: 0,
        }
    }

    pub(crate) fn client(&self) -> &RpcClient<Text, Text> {
        self.client.as_ref().expect("it has not been dropped")
    }

    pub(crate) fn drop_client(&mut self) {
        self.client = None;
    }

    /// Begin a unary call, without having the connection polled.
    #[track_caller]
    pub(crate) fn unary(&self, text: &str) -> Caller<UnaryCompletion<Text, Text>> {
        Caller::new(self.client().send_unary(request(text)).expect("it begins"))
    }

    /// Begin a streaming call, without having the connection polled.
    #[track_caller]
    pub(crate) fn stream(&self, text: &str) -> Caller<StreamingCompletion<Text, Text>> {
        let begun = self.client().send_streaming(request(text));
        Caller::new(begun.expect("it begins"))
    }

    pub(crate) fn settle(&mut self) {
        self.connection.settle();
    }

    /// What has been sent since this was asked last.
    pub(crate) fn heard(&mut self) -> Vec<Text> {
        self.settle();
        let written = self.connection.peer.written();
        let heard = decoded(&written[self.seen..]);
        self.seen += encoded(heard.clone()).len();
        heard
    }

    /// The one message that has been sent since: its id.
    #[track_caller]
    pub(crate) fn asked(&mut self, text: &str) -> u64 {
        let heard = self.heard();
        let [message] = &heard[..] else {
            panic!("one message was expected, not {heard:?}");
        };
        assert_eq!((message.code, &*message.text), (NORMAL, text));
        message.id
    }

    /// Have the server send these in one piece.
    pub(crate) fn answer(&mut self, messages: impl IntoIterator<Item = Text>) {
        self.connection.peer.send(encoded(messages));
        self.settle();
    }

    pub(crate) fn respond(&mut self, id: u64, text: &str) {
        self.answer([Text::new(id, NORMAL, text)]);
    }
}

/// Somebody who waits for a completion, and polls it only when woken.
pub(crate) struct Caller<F> {
    pub(crate) completion: F,
    wakes: Arc<Wakes>,
    seen: usize,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl<F> Caller<F> {
    pub(crate) fn new(completion: F) -> Self {
        Self {
            completion,
            // The first poll needs no wake.
            wakes: Arc::new(Wakes(AtomicUsize::new(1))),
            seen: 0,
        }
    }

    /// Whether it has been woken since it was polled last.
    pub(crate) fn is_woken(&self) -> bool {
        self.wakes.0.load(Ordering::SeqCst) != self.seen
    }

    /// How many hold its waker, itself included.
    pub(crate) fn held(&self) -> usize {
        Arc::strong_count(&self.wakes)
    }

    /// Drop what it waits for, and tell later how many still hold its waker.
    pub(crate) fn let_go(self) -> impl Fn() -> usize {
        let wakes = self.wakes;
        drop(self.completion);
        move || Arc::strong_count(&wakes)
    }

    fn waker(&mut self) -> Waker {
        self.seen = self.wakes.0.load(Ordering::SeqCst);
        Waker::from(self.wakes.clone())
    }
}

impl<F: Future + Unpin> Caller<F> {
    /// Poll if it was woken.
    pub(crate) fn poll(&mut self) -> Poll<F::Output> {
        if !self.is_woken() {
            return Poll::Pending;
        }
        let waker = self.waker();
        Pin::new(&mut self.completion).poll(&mut Context::from_waker(&waker))
    }
}

impl<F: Future<Output = Result<Text, Error>> + Unpin> Caller<F> {
    /// How the call ended, of which it must have been told.
    #[track_caller]
    pub(crate) fn end(&mut self) -> String {
        match self.poll() {
            Poll::Ready(result) => describe(result),
            Poll::Pending => panic!("it was not told"),
        }
    }

    #[track_caller]
    pub(crate) fn waits(&mut self) {
        let polled = self.poll();
        assert!(polled.is_pending(), "{polled:?}");
    }
}

impl Caller<StreamingCompletion<Text, Text>> {
    pub(crate) fn poll_next(&mut self) -> Poll<Option<Result<Text, Error>>> {
        if !self.is_woken() {
            return Poll::Pending;
        }
        // Whoever got an item asks again.
        let waker = self.waker();
        let polled = Pin::new(&mut self.completion).poll_next(&mut Context::from_waker(&waker));
        if matches!(polled, Poll::Ready(Some(_))) {
            self.seen = usize::MAX;
        }
        polled
    }

    /// Take what there is: the items, and `end` or the error, if it is over.
    pub(crate) fn take(&mut self) -> Vec<String> {
        let mut taken = Vec::new();
        while let Poll::Ready(next) = self.poll_next() {
            match next {
                Some(item) => taken.push(describe(item)),
                None => {
                    taken.push("end".to_owned());
                    break;
                }
            }
        }
        taken
    }
}

pub(crate) fn describe(result: Result<Text, Error>) -> String {
    match result {
        Ok(message) => message.text,
        Err(error) => name(&error),
    }
}

/// The name of the error, and what is said of the execution.
pub(crate) fn name(error: &Error) -> String {
    assert!(!error.to_string().is_empty());
    match (error, error.execution()) {
        (Error::DeadlineExceeded { .. } | Error::ConnectionLost { .. }, Execution::NeverSent) => {
            format!("{}: never sent", error.name())
        }
        (
            Error::DeadlineExceeded { .. } | Error::ConnectionLost { .. },
            Execution::MaybeExecuted,
        ) => {
            format!("{}: maybe executed", error.name())
        }
        _ => error.name().to_owned(),
    }
}

impl<F> fmt::Debug for Caller<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}
