//! Completions that are dropped before their end.

use std::convert::Infallible;

use protosocket::{
    DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer, SendLimits, channel,
};
use protosocket_rpc::{
    Message,
    client::{Configuration, RpcCompletionReactor},
};
use protosocket_testkit::Setup;

use crate::{
    brittle::{Brittle, connection},
    common::*,
};

/// A client whose send buffer takes so many messages, and so many bytes of control.
fn narrow(messages: usize, bytes: usize, control: usize) -> Called {
    Called::with(setup(messages, bytes, control), Configuration::new())
}

fn setup(messages: usize, bytes: usize, control: usize) -> Setup {
    let mut setup = Setup::client();
    setup.limits = setup.limits.send_limits(SendLimits {
        bulk_bytes: bytes,
        bulk_messages: messages,
        control_bytes: control,
    });
    setup
}

#[test]
fn dropping_a_call_tells_the_server_once() {
    let mut called = Called::new();
    let mut unary = called.unary("a");
    let mut stream = called.stream("b");
    unary.waits();
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    called.respond(ids[1], "item");
    assert_eq!(stream.take(), ["item"]);
    drop(unary);
    drop(stream);
    assert_eq!(
        called.heard(),
        ids.iter()
            .map(|id| Text::cancelled(*id))
            .collect::<Vec<_>>()
    );
    assert_eq!(called.client().in_flight(), 0);
    // What comes for them meets nobody.
    called.answer(ids.iter().map(|id| Text::new(*id, NORMAL, "late")));
    assert_eq!(called.client().unmatched_responses(), 2);
    assert_eq!(called.heard(), []);
}

#[test]
fn dropping_what_is_over_tells_nobody() {
    let mut called = Called::new();
    let (mut taken, untaken) = (called.unary("a"), called.unary("b"));
    let (mut ended, unread) = (called.stream("c"), called.stream("d"));
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    called.answer(ids[..2].iter().map(|id| Text::new(*id, NORMAL, "answer")));
    called.answer(
        ids[2..]
            .iter()
            .flat_map(|id| [Text::new(*id, NORMAL, "1"), Text::ended(*id)]),
    );
    assert_eq!(taken.end(), "answer");
    assert_eq!(ended.take(), ["1", "end"]);
    drop((taken, untaken, ended, unread));
    assert_eq!(called.heard(), []);
    assert_eq!(called.client().in_flight(), 0);
}

#[test]
fn a_call_whose_answer_has_arrived_in_the_same_poll_is_not_cancelled() {
    let mut called = Called::new();
    let caller = called.unary("a");
    let id = called.asked("a");
    // The connection hears of the answer first, and then that nobody wants it.
    called
        .connection
        .peer
        .send(encoded([Text::new(id, NORMAL, "answer")]));
    drop(caller);
    assert_eq!(called.heard(), []);
    assert_eq!(called.client().in_flight(), 0);
}

#[test]
fn a_request_that_was_never_sent_is_taken_back() {
    // The connection has not heard of it.
    let mut called = Called::new();
    called.settle();
    let kept = called.unary("kept");
    drop(called.unary("a"));
    drop(called.stream("b"));
    called.asked("kept");
    assert_eq!(called.client().in_flight(), 1);
    drop(kept);
    called.settle();

    // It waits for room, with others of which none, few, many or all are given up.
    for given_up in 0..1 << 6 {
        let is_given_up = |n: &usize| given_up & 1 << n != 0;
        let mut called = narrow(1, 1024, 1024);
        called.connection.peer.set_window(0);
        let _first = called.unary("first");
        let mut callers: Vec<_> = (0..6).map(|n| Some(called.unary(&n.to_string()))).collect();
        called.settle();
        for n in (0..6).filter(is_given_up) {
            callers[n] = None;
            called.settle();
        }
        // Another call in the place of one that is over.
        let _last = called.unary("last");
        let kept = (0..6).filter(|n| !is_given_up(n)).map(|n| n.to_string());
        let expected: Vec<_> = ["first".to_owned()]
            .into_iter()
            .chain(kept)
            .chain(["last".to_owned()])
            .collect();
        assert_eq!(called.client().in_flight(), expected.len());
        called.connection.peer.open_window(usize::MAX);
        let heard: Vec<_> = called.heard().into_iter().map(|asked| asked.text).collect();
        assert_eq!(heard, expected);
    }
}

#[test]
fn requests_that_are_taken_back_take_no_memory() {
    let (client, mut connection) = connection(setup(1, 20, 1024));
    connection.peer.set_window(0);
    let begin = || client.send_unary(Brittle::request("a")).unwrap();
    let kept: Vec<_> = (0..100).map(|_| begin()).collect();
    connection.settle();
    for _ in 0..10_000 {
        drop(begin());
        connection.settle();
        let live = Brittle::live();
        assert!(live <= 2 * kept.len(), "{live} requests");
    }
    connection.peer.open_window(usize::MAX);
    connection.settle();
    assert_eq!(decoded(&connection.peer.written()).len(), kept.len());
    assert_eq!(Brittle::live(), 0);
}

#[test]
fn a_cancel_needs_no_room() {
    let mut called = narrow(1, 20, 1024);
    let first = called.unary("the first of them");
    let id = called.asked("the first of them");
    called.connection.peer.set_window(0);
    let second = called.unary("the second of them");
    let third = called.unary("the third of them");
    called.settle();
    assert!(called.connection.peer.is_write_blocked());
    drop(first);
    drop(second);
    called.settle();
    let queued = called.connection.connection().stats().unsent;
    assert_eq!(queued, 3, "a request and two cancels");
    called.connection.peer.open_window(usize::MAX);
    let heard = called.heard();
    assert_eq!(heard.len(), 4);
    assert_eq!(heard[1], Text::cancelled(id));
    assert_eq!(heard[2], Text::cancelled(heard[0].id));
    assert_eq!(
        (heard[3].code, &*heard[3].text),
        (NORMAL, "the third of them")
    );
    drop(third);
}

#[test]
fn cancels_that_exceed_the_reserve_are_sent_as_soon_as_they_can() {
    // 100 calls are in flight, and there is control room for two or three cancels.
    let mut called = narrow(1000, 2000, 20);
    let callers: Vec<_> = (0..100).map(|n| called.unary(&n.to_string())).collect();
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    assert_eq!(ids.len(), 100);
    called.connection.peer.set_window(0);
    let _blocks = called.unary(&"x".repeat(2000));
    called.settle();
    drop(callers);
    called.settle();
    let queued = called.connection.connection().stats().unsent;
    assert!(queued < 10, "{queued} messages");
    // Their places are free already, and a new call waits behind the cancels.
    assert_eq!(called.client().in_flight(), 1);
    let _next = called.unary("next");
    called.settle();
    let mut heard = Vec::new();
    for _ in 0..200 {
        called.connection.peer.open_window(50);
        heard.extend(called.heard());
    }
    assert_eq!(
        heard[1..101],
        ids.iter()
            .map(|id| Text::cancelled(*id))
            .collect::<Vec<_>>()[..]
    );
    assert_eq!((heard.len(), &*heard[101].text), (102, "next"));
}

#[test]
fn calls_that_come_and_go_while_the_server_does_not_read_take_no_memory() {
    let mut called = narrow(1, 20, 40);
    called.connection.peer.set_window(0);
    let _blocks = called.unary(&"x".repeat(100));
    let _waits = called.unary("waits");
    called.settle();
    let before = called.connection.connection().stats();
    for round in 0..10_000 {
        let caller = called.unary("a");
        if round % 3 != 0 {
            called.settle();
        }
        drop(caller);
        if round % 7 == 0 {
            called.settle();
        }
        assert!(called.client().in_flight() <= 20);
    }
    called.settle();
    assert_eq!(called.client().in_flight(), 2);
    assert_eq!(called.connection.connection().stats(), before);
    called.connection.peer.open_window(usize::MAX);
    assert_eq!(called.heard().len(), 2);
}

/// Its encoder takes back, for a cancel, some of what was encoded before it, or refuses to say it.
#[derive(Debug)]
struct Careless {
    shrinks: bool,
}

impl Decoder for Careless {
    type Message = Text;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Text>, DecodeError> {
        TextCodec.decode(input)
    }
}

impl Encoder for Careless {
    type Message = Text;

    fn encode(&mut self, message: Text, output: &mut SendBuffer) -> Result<(), EncodeError> {
        match (message.code, self.shrinks) {
            (CANCEL, true) => output.contiguous().truncate(5),
            (CANCEL, false) => return Err(EncodeError::invalid("it has no word for that")),
            _ => return TextCodec.encode(message, output),
        }
        Ok(())
    }
}

/// Two calls, of which the second is dropped while both their requests wait to be written, and a
/// third one after that. What was written in the end, and why the connection ended, if it did.
fn cancelling_with(codec: Careless) -> (Vec<u8>, Option<String>, Vec<String>) {
    let (client, reactor) = RpcCompletionReactor::new(&Configuration::new());
    let (_, receiver) = channel::<Infallible>(1);
    let mut connection = Setup::client().drive(codec, reactor, receiver);
    connection.peer.set_window(0);
    let begin = |text| Caller::new(client.send_unary(request(text)).unwrap());
    let (mut first, second) = (begin("first"), begin("second"));
    first.waits();
    connection.settle();
    let mut third = begin("third");
    third.waits();
    drop(second);
    connection.settle();
    connection.peer.open_window(usize::MAX);
    connection.settle();
    let reason = (!client.is_alive()).then(|| connection.reason());
    let ends = [&mut first, &mut third]
        .into_iter()
        .filter(|caller| caller.is_woken())
        .map(Caller::end);
    let ends = ends.collect();
    (
        connection.peer.written(),
        reason.map(ToString::to_string),
        ends,
    )
}

#[test]
fn a_cancel_that_cannot_be_said_changes_nothing_else() {
    let (written, reason, ends) = cancelling_with(Careless { shrinks: false });
    let heard: Vec<_> = decoded(&written).into_iter().map(|it| it.text).collect();
    assert_eq!(heard, ["first", "second", "third"]);
    assert_eq!((reason, ends), (None, Vec::new()));
}

#[test]
fn a_cancel_that_takes_back_other_messages_ends_the_connection() {
    let (written, reason, ends) = cancelling_with(Careless { shrinks: true });
    assert_eq!(reason.as_deref(), Some("encode"));
    // Nothing is added to what cannot be trusted.
    assert_eq!(decoded(&written), []);
    assert_eq!(
        ends,
        [
            "connection_lost: maybe executed",
            "connection_lost: never sent"
        ]
    );
}
