//! The connection ends before the calls do (D7, D17).

use std::{error::Error as _, io, sync::Arc, task::Poll, time::Duration};

use protosocket::{Blame, CloseReason, ConnectionConfig, Limits, ManualClock, SendLimits};
use protosocket_rpc::{
    Error,
    client::{self, Configuration},
};
use protosocket_testkit::{Setup, scripted_stream};

use crate::common::*;

/// A client with one call whose request has left, one of whose request a part has, one whose request
/// is encoded, one that waits for room, and one that the connection has not heard of.
struct Steps {
    called: Called,
    callers: Vec<Caller<client::UnaryCompletion<Text, Text>>>,
}

/// Bytes of a request of one letter.
const REQUEST: usize = 2 + 8 + 1 + 1;

impl Steps {
    fn new() -> Self {
        let mut setup = Setup::client();
        setup.limits = setup.limits.send_limits(SendLimits {
            bulk_messages: 2,
            ..SendLimits::DEFAULT
        });
        let mut called = Called::with(setup, Configuration::new());
        called.connection.peer.set_window(REQUEST + REQUEST / 2);
        let mut callers = Vec::new();
        for text in ["a", "b", "c", "d"] {
            callers.push(called.unary(text));
        }
        called.settle();
        callers.push(called.unary("e"));
        Self { called, callers }
    }

    /// What each of them is told, in turn.
    #[track_caller]
    fn expect(&mut self, ends: [&str; 5]) {
        let told: Vec<_> = self.callers.iter_mut().map(Caller::end).collect();
        assert_eq!(told, ends);
        assert_eq!(self.called.client().in_flight(), 0);
        // Late comers are told at once.
        let error = self.called.client().send_unary(request("f")).unwrap_err();
        assert_eq!(name(&error), "connection_lost: never sent");
        assert!(!self.called.client().is_alive());
    }
}

const SENT: &str = "connection_lost: maybe executed";
const UNSENT: &str = "connection_lost: never sent";

#[test]
fn d7_each_call_is_told_whether_it_was_sent() {
    let mut steps = Steps::new();
    steps.called.connection.handle.abort();
    steps.called.settle();
    steps.expect([SENT, SENT, UNSENT, UNSENT, UNSENT]);
    assert_eq!(steps.called.connection.reason(), "aborted");

    for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut] {
        let mut steps = Steps::new();
        steps.called.connection.peer.fail_read(kind);
        steps.called.settle();
        steps.expect([SENT, SENT, UNSENT, UNSENT, UNSENT]);
        let error = steps.called.client().send_unary(request("f")).unwrap_err();
        let Error::ConnectionLost { reason, .. } = &error else {
            panic!("{error}");
        };
        assert!(matches!(**reason, CloseReason::Io { .. }), "{reason}");
        assert_eq!(error.blame(), Blame::Peer);
        // Reports that go down the chain come to what the system said.
        let chain = std::iter::successors(error.source(), |error| (*error).source());
        let root = chain
            .last()
            .and_then(|root| root.downcast_ref::<Arc<io::Error>>());
        assert_eq!(root.map(|root| root.kind()), Some(kind));
    }

    // Bytes that are taken one by one make no difference.
    let mut steps = Steps::new();
    steps.called.connection.peer.open_window(REQUEST);
    steps.called.settle();
    steps.called.connection.handle.abort();
    steps.called.settle();
    steps.expect([SENT, SENT, SENT, UNSENT, UNSENT]);
}

#[test]
fn d7_calls_of_a_connection_that_is_dropped_are_told_at_once() {
    let Steps {
        called,
        mut callers,
    } = Steps::new();
    let client = called.client().clone();
    drop(called);
    let told: Vec<_> = callers.iter_mut().map(Caller::end).collect();
    assert_eq!(told, [SENT, SENT, UNSENT, UNSENT, UNSENT]);
    let error = client.send_streaming(request("f")).unwrap_err();
    assert_eq!(name(&error), UNSENT);
    assert!(
        error.to_string().contains("dropped by its owner"),
        "{error}"
    );
}

#[test]
fn d7_a_server_that_finishes_sending_answers_nothing_any_more() {
    let mut steps = Steps::new();
    steps.called.connection.peer.end();
    steps.called.settle();
    // What has been encoded is still being sent, so that it may be carried out.
    steps.expect([SENT, SENT, SENT, UNSENT, UNSENT]);
    // There is still something to be flushed, and a deadline on that.
    assert!(!steps.called.connection.is_ended());
    steps.called.connection.peer.open_window(usize::MAX);
    assert_eq!(steps.called.connection.reason(), "end_of_input");
}

#[test]
fn d7_garbage_ends_all_calls_with_the_reason() {
    let mut steps = Steps::new();
    steps.called.connection.peer.send([0; 9]);
    steps.called.settle();
    steps.expect([SENT, SENT, SENT, UNSENT, UNSENT]);
    let error = steps.called.client().send_unary(request("f")).unwrap_err();
    assert!(error.to_string().contains("9 bytes or more"), "{error}");
    assert_eq!(error.blame(), Blame::Peer);
}

#[test]
fn d7_a_server_that_does_not_read_ends_the_calls_by_the_write_deadline() {
    let mut steps = Steps::new();
    // It would end some of them before.
    for caller in &mut steps.callers {
        caller.waits();
    }
    steps.called.connection.pass(Duration::from_secs(31));
    let told: Vec<_> = steps.callers.iter_mut().map(Caller::end).collect();
    assert_eq!(steps.called.connection.reason(), "write_timeout");
    // The timeouts of calls and of writing are the same by default.
    for (position, end) in told.iter().enumerate() {
        let sent = end.ends_with(": maybe executed");
        assert_eq!(sent, position < 3, "{told:?}");
    }
}

#[test]
fn d7_a_reactor_without_a_connection_does_not_leave_its_calls_hanging() {
    let (client, reactor) = Reactor::new(&Configuration::new());
    let mut caller = Caller::new(client.send_unary(request("a")).unwrap());
    caller.waits();
    drop(reactor);
    assert_eq!(caller.end(), UNSENT);
    assert!(client.send_unary(request("b")).is_err());
}

#[test]
fn d27_a_client_knows_whether_its_connection_is_there() {
    // Before anybody has polled the connection, while it lives, and when its task still does.
    let mut called = Called::new();
    assert!(called.client().is_alive());
    called.settle();
    assert!(called.client().is_alive());
    called.connection.peer.end();
    called.settle();
    assert!(!called.client().is_alive());
    let called = Called::new();
    let client = called.client().clone();
    drop(called);
    assert!(!client.is_alive());
}

#[test]
fn d7_calls_begun_between_the_end_and_its_news_are_told() {
    // The stream fails in the poll that hears of the second call.
    let mut called = Called::new();
    let mut first = called.unary("a");
    called.asked("a");
    called
        .connection
        .peer
        .fail_read(io::ErrorKind::ConnectionReset);
    let mut second = called.unary("b");
    let mut waiting = called
        .client()
        .with_timeout(None)
        .send_streaming(request("c"))
        .map(Caller::new)
        .unwrap();
    called.settle();
    assert_eq!(first.end(), SENT);
    assert_eq!(second.end(), UNSENT);
    assert_eq!(waiting.take(), [UNSENT, "end"]);
}

/// A conversation that is dropped after so many polls of the connection. Whether all of it was heard.
fn dropped_after(polls: usize) -> bool {
    let mut called = Called::new();
    let mut callers: Vec<_> = (0..3).map(|n| called.unary(&n.to_string())).collect();
    let mut stream = called.stream("items");
    called.connection.peer.set_max_write(7);
    let mut polled = 0;
    let mut poll = |called: &mut Called| {
        while called.connection.is_woken() && polled < polls && !called.connection.is_ended() {
            called.connection.poll_once();
            polled += 1;
        }
    };
    poll(&mut called);
    let asked = decoded(&called.connection.peer.written());
    for asked in &asked[..asked.len().min(3)] {
        let answer = encoded([Text::new(asked.id, NORMAL, "answer")]);
        for half in answer.chunks(answer.len() / 2) {
            called.connection.peer.send(half);
            poll(&mut called);
        }
    }
    if let Some(asked) = asked.get(3) {
        called
            .connection
            .peer
            .send(encoded([Text::new(asked.id, NORMAL, "item")]));
        poll(&mut called);
        called
            .connection
            .peer
            .send(encoded([Text::new(asked.id, END, "")]));
        poll(&mut called);
    }
    let client = called.client().clone();
    drop(called);
    let told: Vec<_> = callers.iter_mut().map(Caller::end).collect();
    let items = stream.take();
    for end in &told {
        assert!(
            end == "answer" || *end == SENT || *end == UNSENT,
            "{told:?}"
        );
    }
    assert_eq!(items.last().unwrap(), "end");
    let lost = items.contains(&SENT.to_owned()) || items.contains(&UNSENT.to_owned());
    assert_eq!(lost, items != ["item", "end"], "{items:?}");
    assert!(client.send_unary(request("late")).is_err());
    assert_eq!(client.in_flight(), 0);
    told.iter().all(|end| end == "answer") && !lost
}

#[test]
fn d7_a_connection_that_is_dropped_at_any_poll_leaves_nobody_waiting() {
    let first = (0..100).find(|polls| dropped_after(*polls));
    assert!(first.is_some_and(|polls| polls > 5), "{first:?}");
}

#[test]
fn d17_a_stream_that_is_cut_off_never_looks_finished() {
    type End = fn(&mut Called);
    let ends: [(&str, End); 4] = [
        ("end", |called| called.connection.peer.end()),
        ("reset", |called| {
            called
                .connection
                .peer
                .fail_read(io::ErrorKind::ConnectionReset);
        }),
        ("half a message", |called| {
            called
                .connection
                .peer
                .send(&encoded([Text::new(1, END, "")])[..5]);
            called.connection.peer.end();
        }),
        ("aborted", |called| called.connection.handle.abort()),
    ];
    for (how, end) in ends {
        let mut called = Called::new();
        let mut stream = called.stream("a");
        let mut untouched = called.stream("b");
        let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
        called.answer([
            Text::new(ids[0], NORMAL, "1"),
            Text::new(ids[0], NORMAL, "2"),
        ]);
        end(&mut called);
        called.settle();
        assert_eq!(stream.take(), ["1", "2", SENT, "end"], "{how}");
        assert_eq!(untouched.take(), [SENT, "end"], "{how}");
    }
}

#[test]
fn the_reason_is_that_of_the_connection() {
    let mut called = Called::new();
    let mut caller = called.unary("a");
    let id = called.asked("a");
    called
        .connection
        .peer
        .send(&encoded([Text::new(id, NORMAL, "answer")])[..5]);
    called.connection.peer.end();
    called.settle();
    let Poll::Ready(Err(error)) = caller.poll() else {
        panic!("it was not told");
    };
    assert!(
        error.to_string().contains("ended inside a message"),
        "{error}"
    );
    assert_eq!(called.connection.reason(), "decode");
}

#[test]
fn the_wakers_of_an_ended_connection_are_let_go() {
    let (stream, peer) = scripted_stream();
    let clock = ManualClock::new();
    let connection = ConnectionConfig::client(Limits::client()).unwrap();
    let configuration = Configuration::new()
        .connection(connection.with_clock(Arc::new(clock)))
        .unwrap();
    let (client, connection) = client::over(stream, TextCodec, &configuration);
    let mut connection = Caller::new(Box::pin(connection));
    assert!(connection.poll().is_pending());
    peer.end();
    let Poll::Ready(end) = connection.poll() else {
        panic!("it has ended");
    };
    assert!(matches!(end.reason, CloseReason::EndOfInput));
    assert!(!client.is_alive());
    assert_eq!(connection.held(), 1);
    // One that never heard of its end, because it was dropped.
    let (stream, peer) = scripted_stream();
    let (client, connection) = client::over(stream, TextCodec, &configuration);
    let mut connection = Caller::new(Box::pin(connection));
    assert!(connection.poll().is_pending());
    assert!(connection.held() > 1);
    let held = connection.let_go();
    drop(peer);
    assert_eq!(held(), 1);
    drop(client);
}
