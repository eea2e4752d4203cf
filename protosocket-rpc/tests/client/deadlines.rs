//! Calls that take too long.

use std::{
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use protosocket::{Blame, MessageReactor, ReactorContext, ReactorStatus, SendBuffer, SendLimits};
use protosocket_rpc::{
    Error, Message,
    client::{Configuration, UnaryCompletion},
};
use protosocket_testkit::Setup;

use crate::common::*;

const SECOND: Duration = Duration::from_secs(1);
const LATE: &str = "deadline_exceeded: maybe executed";
const UNSENT: &str = "deadline_exceeded: never sent";

#[test]
fn a_call_that_is_not_answered_in_time_is_cancelled() {
    let mut called = Called::new();
    let mut caller = called.unary("a");
    let id = called.asked("a");
    called
        .connection
        .advance(Duration::from_secs(30) - Duration::from_nanos(1));
    caller.waits();
    called.connection.advance(Duration::from_nanos(1));
    assert_eq!(caller.end(), LATE);
    assert_eq!(called.heard(), [Text::cancelled(id)]);
    drop(caller);
    called.respond(id, "late");
    assert_eq!(called.client().unmatched_responses(), 1);
    assert_eq!(called.heard(), []);
    assert_eq!(called.client().in_flight(), 0);
}

#[test]
fn streams_may_take_as_long_as_they_like_unless_they_are_told() {
    let mut called = Called::new();
    let mut endless = called.stream("a");
    let client = called.client().with_timeout(5 * SECOND);
    let mut limited = Caller::new(client.send_streaming(request("b")).unwrap());
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    called.connection.advance(4 * SECOND);
    called.answer(ids.iter().map(|id| Text::new(*id, NORMAL, "item")));
    called.connection.advance(SECOND);
    // What has come is given first.
    assert_eq!(limited.take(), ["item", LATE, "end"]);
    assert_eq!(called.heard(), [Text::cancelled(ids[1])]);
    for _ in 0..100 {
        called.connection.advance(3600 * SECOND);
    }
    assert_eq!(endless.take(), ["item"]);
    called.answer([Text::ended(ids[0])]);
    assert_eq!(endless.take(), ["end"]);
}

#[test]
fn each_call_has_a_timeout_of_its_own() {
    let configuration = Configuration::new().call_timeout(10 * SECOND).unwrap();
    let mut called = Called::configured(configuration);
    let timeouts = [7, 3, 0, 5, 0, 3];
    let mut callers = timeouts.map(|seconds| {
        let client = match seconds {
            0 => called.client().clone(),
            seconds => called.client().with_timeout(seconds * SECOND),
        };
        Caller::new(client.send_unary(request("a")).unwrap())
    });
    let mut never = Caller::new(
        called
            .client()
            .with_timeout(None)
            .send_unary(request("b"))
            .unwrap(),
    );
    let asked = called.heard();
    // One of them is answered, so that its deadline is nobody's.
    called.respond(asked[5].id, "answer");
    assert_eq!(callers[5].end(), "answer");
    let mut cancelled = Vec::new();
    for second in 1..=11 {
        called.connection.advance(SECOND);
        for position in [0, 1, 2, 3, 4] {
            let timeout = match timeouts[position] {
                0 => 10,
                timeout => timeout,
            };
            if second == timeout {
                assert_eq!(callers[position].end(), LATE, "after {second} s");
            } else if second < timeout {
                callers[position].waits();
            }
        }
        cancelled.extend(called.heard().into_iter().map(|message| message.id));
    }
    never.waits();
    let order = [1, 3, 0, 2, 4].map(|position: usize| asked[position].id);
    assert_eq!(cancelled, order);
}

#[test]
fn a_call_that_has_no_time_is_not_sent() {
    let mut called = Called::new();
    let client = called.client().with_timeout(Duration::ZERO);
    let mut unary = Caller::new(client.send_unary(request("a")).unwrap());
    let mut stream = Caller::new(client.send_streaming(request("b")).unwrap());
    let mut chosen = Caller::new(client.send_unary(Text::new(7, NORMAL, "c")).unwrap());
    assert_eq!(called.heard(), []);
    assert_eq!(unary.end(), UNSENT);
    assert_eq!(stream.take(), [UNSENT, "end"]);
    assert_eq!(chosen.end(), UNSENT);
    drop((unary, stream));
    // Their places are free, and the id is.
    assert_eq!(called.client().in_flight(), 0);
    let _again = called.client().send_unary(Text::new(7, NORMAL, "d"));
    assert_eq!(called.asked("d"), 7);
}

#[test]
fn a_request_that_waits_for_room_is_taken_back_in_time() {
    let mut setup = Setup::client();
    setup.limits = setup.limits.write_timeout(None).send_limits(SendLimits {
        bulk_messages: 1,
        ..SendLimits::DEFAULT
    });
    let mut called = Called::with(setup, Configuration::new());
    called.connection.peer.set_window(5);
    let mut callers = ["a", "b", "c"].map(|text| called.unary(text));
    called.settle();
    called.connection.advance(15 * SECOND);
    let mut later = called.unary("d");
    called.settle();
    called.connection.advance(15 * SECOND);
    // Of the first, a part has left.
    assert_eq!(
        callers.each_mut().map(|caller| caller.end()),
        [LATE, UNSENT, UNSENT]
    );
    later.waits();
    called.connection.peer.open_window(usize::MAX);
    let heard = called.heard();
    let texts: Vec<_> = heard
        .iter()
        .map(|message| (message.code, &*message.text))
        .collect();
    assert_eq!(texts, [(NORMAL, "a"), (CANCEL, ""), (NORMAL, "d")]);
    assert_eq!(heard[0].id, heard[1].id);
}

#[test]
fn a_deadline_is_kept_while_input_is_paused() {
    let configuration = Configuration::new().max_buffered_items(2).unwrap();
    let mut called = Called::configured(configuration);
    let mut stream = called.stream("items");
    let mut unary = called.unary("a");
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    let items = (0..10).map(|n| Text::new(ids[0], NORMAL, n.to_string()));
    called.answer(items.chain([
        Text::ended(ids[0]),
        Text::new(ids[1], NORMAL, "behind them"),
    ]));
    unary.waits();
    called.connection.advance(30 * SECOND);
    assert_eq!(unary.end(), LATE);
    assert_eq!(called.heard(), [Text::cancelled(ids[1])]);
    let mut items = Vec::new();
    while items.last().is_none_or(|last| last != "end") {
        items.extend(stream.take());
        called.settle();
    }
    assert_eq!(items.len(), 11);
}

/// Who is to blame for a call that took too long, which must not be said in the same words.
#[track_caller]
fn blamed(caller: &mut Caller<UnaryCompletion<Text, Text>>, says_unread: bool) -> Blame {
    let Poll::Ready(Err(error @ Error::DeadlineExceeded { .. })) = caller.poll() else {
        panic!("it is not late");
    };
    assert_eq!(error.to_string().contains("reads nothing"), says_unread);
    error.blame()
}

#[test]
fn a_deadline_is_blamed_on_who_let_it_pass() {
    // The server, which has the request.
    let mut called = Called::new();
    let mut unary = called.unary("a");
    called.asked("a");
    called.connection.advance(30 * SECOND);
    assert_eq!(blamed(&mut unary, false), Blame::Peer);

    // This program, which has not sent it.
    let client = called.client().with_timeout(Duration::ZERO);
    let mut unary = Caller::new(client.send_unary(request("a")).unwrap());
    assert_eq!(blamed(&mut unary, false), Blame::Local);

    // This program, which has ceased to read; and the server again when it reads.
    let configuration = Configuration::new().max_buffered_items(2).unwrap();
    let mut called = Called::configured(configuration);
    let mut stream = called.stream("items");
    let mut unary = called.unary("a");
    let id = called.heard()[0].id;
    called.answer((0..3).map(|n| Text::new(id, NORMAL, n.to_string())));
    called.connection.advance(30 * SECOND);
    assert_eq!(blamed(&mut unary, true), Blame::Local);
    let mut unary = called.unary("b");
    called.settle();
    assert_eq!(stream.take(), ["0", "1"]);
    called.settle();
    assert_eq!(stream.take(), ["2"]);
    called.connection.advance(30 * SECOND);
    assert_eq!(blamed(&mut unary, false), Blame::Peer);
}

#[test]
fn what_has_arrived_is_heard_before_anything_is_late() {
    // The program was stopped for an hour, and the answers to its calls lie there: more than are
    // decoded before something is written.
    let mut called = Called::new();
    let mut callers: Vec<_> = (0..2000).map(|n| called.unary(&n.to_string())).collect();
    let asked = called.heard();
    for answers in asked.chunks(100) {
        let answers = answers
            .iter()
            .map(|asked| Text::new(asked.id, NORMAL, "answer"));
        called.connection.peer.send(encoded(answers));
    }
    called.connection.advance(3600 * SECOND);
    for caller in &mut callers {
        assert_eq!(caller.end(), "answer");
    }
    assert_eq!(called.heard(), []);
}

#[test]
fn a_server_that_never_stops_sending_does_not_put_deadlines_off() {
    // The reactor alone, whose connection finds another message in every round.
    let (client, mut reactor) = Reactor::new(&Configuration::new());
    let mut caller = Caller::new(client.send_unary(request("a")).unwrap());
    caller.waits();
    let (mut codec, mut buffer) = (TextCodec, SendBuffer::new());
    let mut cx = Context::from_waker(Waker::noop());
    let begin = Instant::now();
    let limits = SendLimits::DEFAULT;
    let mut context = ReactorContext::new(&mut codec, &mut buffer, &limits, begin);
    assert_eq!(reactor.poll(&mut cx, &mut context), ReactorStatus::Continue);
    let mut context = ReactorContext::new(&mut codec, &mut buffer, &limits, begin + 31 * SECOND);
    let mut rounds = 0;
    while !caller.is_woken() {
        rounds += 1;
        assert!(rounds < 10_000, "it never acts");
        let nothing = Text::new(u64::MAX, NORMAL, "nothing");
        let statuses = [
            reactor.on_inbound_message(&mut context, nothing),
            reactor.on_deadline(&mut context),
            reactor.poll(&mut cx, &mut context),
        ];
        assert_eq!(statuses, [ReactorStatus::Continue; 3]);
    }
    assert_eq!(caller.end(), UNSENT);
}

#[test]
fn an_idle_client_has_no_deadline() {
    let mut called = Called::new();
    let mut caller = called.unary("a");
    let id = called.asked("a");
    called.respond(id, "b");
    assert_eq!(caller.end(), "b");
    let polls = called.connection.polls();
    called.connection.pass(3600 * SECOND);
    // At most the alarm that was set is heard once more.
    assert!(called.connection.polls() <= polls + 1);
}
