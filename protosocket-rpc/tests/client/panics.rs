//! Wakers that panic, and messages whose drop does: nobody else is left waiting for ever (D7).

use std::{
    fmt::Debug,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use protosocket_rpc::client::UnaryCompletion;
use protosocket_testkit::Setup;

use crate::{
    brittle::{BRITTLE, Brittle, connection},
    common::*,
};

/// A waker that does this on the spot.
struct Spot<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Spot<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Wait for a call with a waker that does `act` on the spot.
fn wait_and<F>(completion: &mut F, act: impl Fn() + Send + Sync + 'static)
where
    F: Future<Output: Debug> + Unpin,
{
    let waker = Waker::from(Arc::new(Spot(act)));
    let polled = Pin::new(completion).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "{polled:?}");
}

fn panics() {
    resume_unwind(Box::new("a waker"));
}

#[test]
fn d7_an_item_whose_drop_panics_does_not_take_the_connections_waker_along() {
    let (client, mut connection) = connection(Setup::client());
    let stream = client.send_streaming(Brittle::request("stream")).unwrap();
    connection.settle();
    let id = decoded(&connection.peer.written())[0].id;
    let item = Text::new(id, NORMAL, BRITTLE);
    connection.peer.send(encoded([item]));
    connection.settle();
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(stream)));
    assert!(dropped.is_err());
    let _next = client.send_unary(Brittle::request("next")).unwrap();
    connection.settle();
    let written = decoded(&connection.peer.written());
    let said: Vec<_> = written.iter().map(|it| (it.code, &*it.text)).collect();
    assert_eq!(said, [(NORMAL, "stream"), (CANCEL, ""), (NORMAL, "next")]);
}

#[test]
fn d7_an_unwanted_answer_whose_drop_panics_leaves_nobody_waiting() {
    let (client, mut connection) = connection(Setup::client());
    let call = |text| client.send_unary(Brittle::request(text)).unwrap();
    // 64 answers are delivered together. When the first of them is, its caller drops on the spot a
    // call whose answer has been decoded when the connection hears of it.
    let mut first = call("first");
    let _others: Vec<_> = (1..64).map(|_| call("other")).collect();
    let unwanted = Mutex::new(Some(call("unwanted")));
    let mut last = Caller::new(call("last"));
    assert!(last.poll().is_pending());
    wait_and(&mut first, move || drop(unwanted.lock().unwrap().take()));
    connection.settle();
    let asked = decoded(&connection.peer.written());
    assert_eq!(asked.len(), 66);
    connection.peer.send(encoded(asked.iter().map(|asked| {
        let text = match &*asked.text {
            "unwanted" => BRITTLE,
            _ => "answer",
        };
        Text::new(asked.id, NORMAL, text)
    })));
    assert_eq!(connection.reason(), "panicked");
    let Poll::Ready(Ok(answer)) = last.poll() else {
        panic!("it was not woken");
    };
    assert_eq!(answer.text(), "answer");
}

/// A call with a waker that panics, and one behind it.
fn called_with_care() -> (Called, UnaryCompletion<Text, Text>, Waiting) {
    let mut called = Called::new();
    let mut first = called.client().send_unary(request("first")).unwrap();
    let mut second = called.unary("second");
    second.waits();
    wait_and(&mut first, panics);
    called.settle();
    (called, first, second)
}

type Waiting = Caller<UnaryCompletion<Text, Text>>;

#[test]
fn d7_a_waker_that_panics_keeps_no_answer_from_others() {
    let (mut called, _first, mut second) = called_with_care();
    let asked = called.heard();
    let answers = asked
        .iter()
        .map(|asked| Text::new(asked.id, NORMAL, "answer"));
    called.connection.peer.send(encoded(answers));
    assert_eq!(called.connection.reason(), "panicked");
    assert_eq!(second.end(), "answer");
}

#[test]
fn d7_a_waker_that_panics_keeps_the_end_from_nobody() {
    let lost = "connection_lost: maybe executed";
    // When the connection ends.
    let (mut called, _first, mut second) = called_with_care();
    called.connection.peer.end();
    called.settle();
    assert_eq!(second.end(), lost);

    // When an answer is delivered because what comes behind it cannot be decoded.
    let (mut called, first, mut second) = called_with_care();
    let id = called.heard()[0].id;
    let mut answer = encoded([Text::new(id, NORMAL, "answer")]);
    answer.extend([0, 1, b'?']);
    called.connection.peer.send(answer);
    called.settle();
    assert_eq!(second.end(), lost);
    assert_eq!(Caller::new(first).end(), "answer");

    // When the connection is dropped.
    let (called, _first, mut second) = called_with_care();
    let Called { connection, .. } = called;
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(connection)));
    assert_eq!(second.end(), lost);
    drop(dropped);
}
