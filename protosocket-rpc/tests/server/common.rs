//! A service that does what each request says, and a client that is played by hand.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Future, poll_fn},
    mem,
    ops::{ControlFlow, Deref, DerefMut},
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures_core::Stream;
use protosocket::{CloseReason, channel};
use protosocket_rpc::{
    Message, RpcServerConfig,
    server::{ConnectionService, RpcKind, RpcReactor, RpcStats},
};
use protosocket_testkit::{Driven, Setup};

pub(crate) use crate::text::*;

/// The bytes of a message without text.
pub(crate) const BARE: usize = 2 + 8 + 1;

/// What rpcs of a service did, and what they wait for.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// The id of each poll of an rpc, in order.
    pub(crate) polls: Vec<u64>,
    /// The id of each rpc that was dropped, in order.
    pub(crate) dropped: Vec<u64>,
    /// The texts that rpcs wait for, `None` the end of a stream, and who waits for them.
    gates: HashMap<u64, Gate>,
    /// Every waker that an rpc was polled with last.
    pub(crate) wakers: HashMap<u64, Waker>,
    pub(crate) drained: Option<Instant>,
    pub(crate) ended: Option<(&'static str, RpcStats)>,
    /// Polls of the service.
    pub(crate) service_polls: usize,
    pub(crate) disconnect: bool,
}

#[derive(Debug, Default)]
struct Gate {
    open: std::collections::VecDeque<Option<String>>,
    waker: Option<Waker>,
}

/// A script, to be looked at and played from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage(Arc<Mutex<Script>>);

impl Stage {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().expect("nothing panics under it")
    }

    /// Let the rpc have this text.
    pub(crate) fn give(&self, id: u64, text: &str) {
        self.open(id, Some(text.to_owned()));
    }

    /// Let the stream end.
    pub(crate) fn end(&self, id: u64) {
        self.open(id, None);
    }

    fn open(&self, id: u64, text: Option<String>) {
        let mut script = self.lock();
        let gate = script.gates.entry(id).or_default();
        gate.open.push_back(text);
        let waker = gate.waker.take();
        drop(script);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The polls since this was asked last.
    pub(crate) fn take_polls(&self) -> Vec<u64> {
        mem::take(&mut self.lock().polls)
    }

    pub(crate) fn dropped(&self) -> Vec<u64> {
        self.lock().dropped.clone()
    }

    fn poll_gate(&self, id: u64, cx: &mut Context<'_>) -> Poll<Option<String>> {
        let mut script = self.lock();
        let gate = script.gates.entry(id).or_default();
        match gate.open.pop_front() {
            Some(text) => Poll::Ready(text),
            None => {
                gate.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Notes that its rpc was dropped.
struct Guard {
    id: u64,
    stage: Stage,
    panics: bool,
}

impl Guard {
    /// Note that it is polled.
    fn poll(&self, cx: &mut Context<'_>) {
        let mut script = self.stage.lock();
        script.polls.push(self.id);
        script.wakers.insert(self.id, cx.waker().clone());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stage.lock().dropped.push(self.id);
        if self.panics {
            panic_quietly("an rpc that panics when it is dropped");
        }
    }
}

/// Does what each request says.
pub(crate) struct Service {
    stage: Stage,
}

impl Service {
    pub(crate) fn new(stage: Stage) -> Self {
        Self { stage }
    }
}

type Unary = Pin<Box<dyn Future<Output = Text>>>;
type Streaming = Pin<Box<dyn Stream<Item = Text>>>;

/// A stream out of a closure; `futures_core` has none.
struct PollFn<F>(F);

impl<F> Stream for PollFn<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Option<Text>> + Unpin,
{
    type Item = Text;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Text>> {
        (self.0)(cx)
    }
}

/// Panic without a word: some tests panic often.
fn panic_quietly(what: &'static str) -> ! {
    resume_unwind(Box::new(what))
}

/// A response, whose id is for the connection to set.
fn response(text: impl Into<String>) -> Text {
    Text::new(u64::MAX, NORMAL, text)
}

impl ConnectionService for Service {
    type Codec = TextCodec;
    type Request = Text;
    type Response = Text;
    type UnaryFutureType = Unary;
    type StreamType = Streaming;

    fn new_rpc(&mut self, request: Text) -> RpcKind<Unary, Streaming> {
        let stage = self.stage.clone();
        let Text { id, text, .. } = request;
        let (what, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let rest = rest.to_owned();
        let mut guard = Guard {
            id,
            stage: stage.clone(),
            panics: false,
        };
        match what {
            // Ready with the rest.
            "echo" => RpcKind::Unary(Box::pin(poll_fn(move |cx| {
                guard.poll(cx);
                Poll::Ready(response(rest.clone()))
            }))),
            // Pending until it is given something.
            "wait" => RpcKind::Unary(Box::pin(poll_fn(move |cx| {
                guard.poll(cx);
                stage
                    .poll_gate(id, cx)
                    .map(|text| response(text.unwrap_or_default()))
            }))),
            // Pending so many times, each of which it wakes itself.
            "yield" => {
                let mut left: u64 = rest.parse().expect("a number");
                RpcKind::Unary(Box::pin(poll_fn(move |cx| {
                    guard.poll(cx);
                    if left == 0 {
                        return Poll::Ready(response("done"));
                    }
                    left -= 1;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })))
            }
            // Items and an end when it is given them.
            "stream" => RpcKind::Streaming(Box::pin(PollFn(move |cx: &mut Context<'_>| {
                guard.poll(cx);
                stage.poll_gate(id, cx).map(|text| text.map(response))
            }))),
            // So many items, all ready.
            "count" => {
                let count: u64 = rest.parse().expect("a number");
                let mut next = 0;
                RpcKind::Streaming(Box::pin(PollFn(move |cx: &mut Context<'_>| {
                    guard.poll(cx);
                    next += 1;
                    Poll::Ready((next <= count).then(|| response(next.to_string())))
                })))
            }
            // The same, and each time it wakes itself.
            "eager" => {
                let count: u64 = rest.parse().expect("a number");
                let mut next = 0;
                RpcKind::Streaming(Box::pin(PollFn(move |cx: &mut Context<'_>| {
                    guard.poll(cx);
                    cx.waker().wake_by_ref();
                    next += 1;
                    Poll::Ready((next <= count).then(|| response(next.to_string())))
                })))
            }
            // Ready with this control code.
            "code" => {
                let code = rest.parse().expect("a number");
                RpcKind::Unary(Box::pin(poll_fn(move |cx| {
                    guard.poll(cx);
                    Poll::Ready(Text::new(0, code, "word"))
                })))
            }
            // Items whose control codes are these.
            "codes" => {
                let codes: Vec<u8> = rest.bytes().map(|digit| digit - b'0').collect();
                let mut codes = codes.into_iter();
                RpcKind::Streaming(Box::pin(PollFn(move |cx: &mut Context<'_>| {
                    guard.poll(cx);
                    Poll::Ready(codes.next().map(|code| Text::new(0, code, "")))
                })))
            }
            "reject" => RpcKind::Cancelled,
            "panic-new" => panic_quietly("a request that panics"),
            "panic-poll" => RpcKind::Unary(Box::pin(poll_fn(move |cx| {
                guard.poll(cx);
                if rest == "later" && stage.poll_gate(id, cx).is_pending() {
                    return Poll::Pending;
                }
                panic_quietly("an rpc that panics")
            }))),
            "panic-stream" => {
                let mut first = true;
                RpcKind::Streaming(Box::pin(PollFn(move |cx: &mut Context<'_>| {
                    guard.poll(cx);
                    if !mem::take(&mut first) {
                        panic_quietly("a stream that panics");
                    }
                    Poll::Ready(Some(response("one")))
                })))
            }
            // Panics when it is dropped, ready or not.
            "panic-drop" => {
                guard.panics = true;
                RpcKind::Unary(Box::pin(poll_fn(move |cx| {
                    guard.poll(cx);
                    match rest.as_str() {
                        "ready" => Poll::Ready(response("said")),
                        _ => stage
                            .poll_gate(id, cx)
                            .map(|text| response(text.unwrap_or_default())),
                    }
                })))
            }
            other => panic!("a test asked for {other}"),
        }
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> ControlFlow<()> {
        let mut script = self.stage.lock();
        script.service_polls += 1;
        match script.disconnect {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn on_drain(&mut self, deadline: Instant) {
        self.stage.lock().drained = Some(deadline);
    }

    fn on_end(&mut self, reason: &CloseReason, stats: &RpcStats) {
        let mut script = self.stage.lock();
        assert_eq!(script.ended, None, "it ends once");
        script.ended = Some((reason.name(), *stats));
    }
}

/// A server's connection that is polled only when it was woken, and its client.
pub(crate) struct Served {
    pub(crate) connection: Driven<RpcReactor<Service>>,
    pub(crate) stage: Stage,
    /// How much of what was written has been looked at.
    seen: usize,
}

impl Deref for Served {
    type Target = Driven<RpcReactor<Service>>;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl DerefMut for Served {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default(), RpcServerConfig::default())
    }

    /// With so many rpcs at a time.
    pub(crate) fn limited(rpcs: usize) -> Self {
        Self::with(Setup::default(), limit(rpcs))
    }

    pub(crate) fn with(setup: Setup, config: RpcServerConfig) -> Self {
        let stage = Stage::default();
        let reactor = RpcReactor::new(Service::new(stage.clone()), &config).expect("it is valid");
        let (_, receiver) = channel::<Infallible>(1);
        Self {
            connection: setup.drive(TextCodec, reactor, receiver),
            stage,
            seen: 0,
        }
    }

    /// Send these, each in a read of its own, and settle.
    pub(crate) fn send(&mut self, messages: impl IntoIterator<Item = Text>) {
        for message in messages {
            self.peer.send(encoded([message]));
        }
        self.settle();
    }

    /// Begin a call, and settle.
    pub(crate) fn call(&mut self, id: u64, text: &str) {
        self.send([Text::new(id, NORMAL, text)]);
    }

    /// Send these in one read, and settle.
    pub(crate) fn send_at_once(&mut self, messages: impl IntoIterator<Item = Text>) {
        self.peer.send(encoded(messages));
        self.settle();
    }

    pub(crate) fn cancel(&mut self, id: u64) {
        self.send([Text::cancelled(id)]);
    }

    /// What has been answered since this was asked last.
    #[track_caller]
    pub(crate) fn answers(&mut self) -> Vec<Text> {
        let written = self.peer.written();
        let answers = decoded(&written[self.seen..]);
        let bytes: usize = answers.iter().map(|answer| BARE + answer.text.len()).sum();
        assert_eq!(self.seen + bytes, written.len(), "the last one is whole");
        self.seen = written.len();
        answers
    }

    /// The same, as `id:text`, `id:cancelled` or `id:ended`.
    pub(crate) fn said(&mut self) -> Vec<String> {
        self.answers().into_iter().map(describe).collect()
    }

    /// How many rpcs are in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        self.connection().stats().unanswered
    }

    /// What became of the calls, when the connection has ended.
    #[track_caller]
    pub(crate) fn stats(&self) -> RpcStats {
        let ended = self.stage.lock().ended;
        let stats = ended.expect("it has ended").1;
        let ends = stats.finished
            + stats.cancelled
            + stats.rejected
            + stats.failed
            + stats.collided
            + stats.abandoned;
        assert_eq!(stats.started, ends, "{stats:?}");
        stats
    }
}

pub(crate) fn limit(rpcs: usize) -> RpcServerConfig {
    RpcServerConfig::default().max_concurrent_rpcs(rpcs)
}

pub(crate) fn describe(message: Text) -> String {
    let Text { id, code, text } = message;
    match code {
        NORMAL => format!("{id}:{text}"),
        CANCEL => format!("{id}:cancelled"),
        END => format!("{id}:ended"),
        code => format!("{id}:code {code}"),
    }
}

pub(crate) fn calls(ids: impl IntoIterator<Item = u64>, text: &str) -> Vec<Text> {
    ids.into_iter()
        .map(|id| Text::new(id, NORMAL, text))
        .collect()
}

impl Stage {
    /// Forget what was noted, in a test of many calls.
    pub(crate) fn forget(&self) {
        let mut script = self.lock();
        script.polls.clear();
        script.dropped.clear();
        script.wakers.clear();
    }
}

impl Served {
    /// Forget what has been looked at, in a test of many answers.
    pub(crate) fn forget_answers(&mut self) {
        self.peer.forget_written();
        self.seen = 0;
    }
}
