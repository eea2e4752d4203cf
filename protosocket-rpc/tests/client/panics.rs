//! Wakers that panic, and messages whose drop does: nobody else is left waiting for ever (D7).

use std::{
    convert::Infallible,
    fmt::Debug,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use protosocket::{
    DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer, channel,
};
use protosocket_rpc::{
    Message, ProtosocketControlCode,
    client::{Configuration, RpcClient, RpcCompletionReactor, UnaryCompletion},
};
use protosocket_testkit::{Driven, Setup};

use crate::common::*;

/// What a message says whose drop panics.
const BRITTLE: &str = "brittle";

#[derive(Debug)]
struct Brittle(Text);

impl Brittle {
    fn request(text: &str) -> Self {
        Self(request(text))
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        if self.0.text == BRITTLE {
            resume_unwind(Box::new("the drop of a message"));
        }
    }
}

impl Message for Brittle {
    fn message_id(&self) -> u64 {
        self.0.id
    }

    fn control_code(&self) -> ProtosocketControlCode {
        self.0.control_code()
    }

    fn set_message_id(&mut self, message_id: u64) {
        self.0.id = message_id;
    }

    fn cancelled(message_id: u64) -> Self {
        Self(Text::cancelled(message_id))
    }

    fn ended(message_id: u64) -> Self {
        Self(Text::ended(message_id))
    }
}

#[derive(Debug, Clone, Default)]
struct BrittleCodec;

impl Decoder for BrittleCodec {
    type Message = Brittle;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Brittle>, DecodeError> {
        Ok(match TextCodec.decode(input)? {
            Decoded::Message(message) => Decoded::Message(Brittle(message)),
            Decoded::Need(bytes) => Decoded::Need(bytes),
            other => panic!("it decodes no {other:?}"),
        })
    }
}

impl Encoder for BrittleCodec {
    type Message = Brittle;

    fn encode(&mut self, message: Brittle, output: &mut SendBuffer) -> Result<(), EncodeError> {
        TextCodec.encode(message.0.clone(), output)
    }
}

type Connection = Driven<RpcCompletionReactor<BrittleCodec>>;

fn connection() -> (RpcClient<Brittle, Brittle>, Connection) {
    let (client, reactor) = RpcCompletionReactor::new(&Configuration::new());
    let (_, receiver) = channel::<Infallible>(1);
    (
        client,
        Setup::client().drive(BrittleCodec, reactor, receiver),
    )
}

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
    let (client, mut connection) = connection();
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
    let (client, mut connection) = connection();
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
    assert_eq!(answer.0.text, "answer");
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
