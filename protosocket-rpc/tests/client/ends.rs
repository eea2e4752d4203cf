//! How calls end while the connection goes on.

use std::{task::Poll, time::Duration};

use protosocket::{Blame, Clock, SendLimits};
use protosocket_rpc::{
    Error, Execution, Message,
    client::{CallPermit, Configuration, RpcClient},
};
use protosocket_testkit::Setup;

use crate::common::*;

#[test]
fn a_response_ends_a_unary_call() {
    let mut called = Called::new();
    let mut caller = called.unary("hello");
    caller.waits();
    let id = called.asked("hello");
    assert_ne!(id, 0);
    assert!(!caller.is_woken());
    called.respond(id, "world");
    assert_eq!(caller.end(), "world");
    assert_eq!(called.client().in_flight(), 0);
    assert_eq!(called.heard(), []);
}

#[test]
fn answers_find_their_calls_in_any_order() {
    let mut called = Called::new();
    let mut callers: Vec<_> = (0..200).map(|n| called.unary(&n.to_string())).collect();
    let asked = called.heard();
    assert_eq!(asked.len(), 200);
    let answers = asked.into_iter().rev();
    called.answer(answers.map(|asked| Text::new(asked.id, NORMAL, asked.text)));
    for (n, caller) in callers.iter_mut().enumerate() {
        assert_eq!(caller.end(), n.to_string());
    }
}

#[test]
fn only_the_end_ends_a_stream() {
    let mut called = Called::new();
    let mut caller = called.stream("numbers");
    assert!(caller.take().is_empty());
    let id = called.asked("numbers");
    called.respond(id, "1");
    assert_eq!(caller.take(), ["1"]);
    called.answer(["2", "3"].map(|item| Text::new(id, NORMAL, item)));
    assert_eq!(caller.take(), ["2", "3"]);
    assert!(!caller.is_woken());
    called.answer([Text::new(id, NORMAL, "4"), Text::new(id, END, "")]);
    assert_eq!(caller.take(), ["4", "end"]);
    assert_eq!(called.client().in_flight(), 0);
    drop(caller);
    assert_eq!(called.heard(), []);
}

#[test]
fn a_server_may_cancel_or_refuse() {
    let mut called = Called::new();
    let (mut unary, mut stream) = (called.unary("a"), called.stream("b"));
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    called.answer([Text::new(ids[1], NORMAL, "an item")]);
    called.answer(ids.iter().map(|id| Text::new(*id, CANCEL, "")));
    assert_eq!(unary.end(), "cancelled_remotely");
    assert_eq!(stream.take(), ["an item", "cancelled_remotely", "end"]);
    // Again, which nobody cares about.
    called.answer(ids.iter().map(|id| Text::new(*id, CANCEL, "")));
    drop((unary, stream));
    assert_eq!(called.heard(), []);
    assert_eq!(called.client().unmatched_responses(), 2);
    assert_eq!(Error::CancelledRemotely.blame(), Blame::Peer);
}

#[test]
fn only_a_request_begins_a_call() {
    let mut called = Called::new();
    for code in [CANCEL, END, 3, 255] {
        let begin: [&dyn Fn(Text) -> Option<Error>; 4] = [
            &|message| called.client().send_unary(message).err(),
            &|message| called.client().send_streaming(message).err(),
            &|message| ready(called.client()).send_unary(message).err(),
            &|message| ready(called.client()).send_streaming(message).err(),
        ];
        for begin in begin {
            let error = begin(Text::new(0, code, "a")).expect("it is no request");
            assert!(error.to_string().contains(&code.to_string()), "{error}");
            assert_eq!(
                (error.name(), error.blame(), error.execution()),
                ("not_a_request", Blame::Local, Execution::NeverSent)
            );
        }
    }
    assert_eq!(called.client().in_flight(), 0);
    assert_eq!(called.heard(), []);
}

fn ready(client: &RpcClient<Text, Text>) -> CallPermit<Text, Text> {
    match Caller::new(Box::pin(client.reserve())).poll() {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("it has no place: {other:?}"),
    }
}

#[test]
fn an_end_is_no_response() {
    let mut called = Called::new();
    let mut caller = called.unary("a");
    let id = called.asked("a");
    called.answer([Text::new(id, END, "")]);
    assert_eq!(caller.end(), "no_response");
    // The server has ended it, so there is nothing to cancel.
    assert_eq!(called.heard(), []);
}

#[test]
fn d28_an_unknown_control_code_is_an_error_and_no_cancel() {
    for code in 3..=u8::MAX {
        let mut called = Called::new();
        let (mut unary, mut stream) = (called.unary("a"), called.stream("b"));
        let mut other = called.unary("c");
        let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
        called.answer(ids[..2].iter().map(|id| Text::new(*id, code, "")));
        assert_eq!(unary.end(), "unknown_control_code");
        assert_eq!(stream.take(), ["unknown_control_code", "end"]);
        // The server may still be at work on them.
        let cancels = ids[..2].iter().map(|id| Text::new(*id, CANCEL, ""));
        assert_eq!(called.heard(), cancels.collect::<Vec<_>>());
        called.respond(ids[2], "and others go on");
        assert_eq!(other.end(), "and others go on");
    }
    let error = Error::UnknownControlCode(7);
    assert_eq!(error.blame(), Blame::Peer);
    assert!(error.to_string().contains("code 7"), "{error}");
}

#[test]
fn what_comes_after_the_end_meets_nobody() {
    let mut called = Called::new();
    let (mut unary, mut stream) = (called.unary("a"), called.stream("b"));
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    called.answer([
        Text::new(ids[0], NORMAL, "first"),
        Text::new(ids[0], NORMAL, "second"),
        Text::new(ids[1], NORMAL, "item"),
        Text::new(ids[1], END, ""),
        Text::new(ids[1], NORMAL, "late"),
        Text::new(ids[1], END, ""),
    ]);
    assert_eq!(unary.end(), "first");
    assert_eq!(stream.take(), ["item", "end"]);
    // Their places are used again, and what still comes does not belong to who is there.
    let mut next = [called.unary("c"), called.unary("d")];
    let next_ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    called.answer(ids.iter().map(|id| Text::new(*id, NORMAL, "late")));
    next.iter_mut().for_each(Caller::waits);
    called.answer(next_ids.iter().map(|id| Text::new(*id, NORMAL, "right")));
    assert_eq!(next.each_mut().map(|caller| caller.end()), ["right"; 2]);
    assert_eq!(called.client().unmatched_responses(), 5);
}

#[test]
fn a_million_responses_for_nobody_change_nothing() {
    let mut called = Called::new();
    let mut caller = called.unary("a");
    let id = called.asked("a");
    // Also for calls that have not begun, and for those that cannot be told from free places.
    let mut strange = (0..).filter(|strange| *strange != id);
    let mut sent = 0;
    while sent < 1_000_000 {
        let piece = strange.by_ref().take(10_000);
        called.answer(piece.map(|id| Text::new(id, (id % 4) as u8, "")));
        sent += 10_000;
    }
    caller.waits();
    assert_eq!(called.client().unmatched_responses(), 1_000_000);
    called.respond(id, "still there");
    assert_eq!(caller.end(), "still there");
    assert_eq!(called.heard(), []);
}

#[test]
fn an_answer_that_comes_before_the_question_meets_nobody() {
    let mut setup = Setup::client();
    setup.limits = setup.limits.send_limits(SendLimits {
        bulk_messages: 1,
        ..SendLimits::DEFAULT
    });
    let mut called = Called::with(setup, Configuration::new());
    let mut first = called.unary("a");
    let id = called.asked("a");
    called.connection.peer.set_window(0);
    let _ahead = called.unary("ahead");
    let mut behind = called.unary("behind");
    // Ids can be guessed: the places of these two lie side by side.
    called.settle();
    called.respond(id + 2, "guessed");
    behind.waits();
    called.connection.peer.open_window(usize::MAX);
    assert_eq!(called.heard()[1].id, id + 2);
    behind.waits();
    called.answer([id, id + 2].map(|id| Text::new(id, NORMAL, "answered")));
    assert_eq!([first.end(), behind.end()], ["answered"; 2]);
    assert_eq!(called.client().unmatched_responses(), 1);
}

#[test]
fn a_request_that_cannot_be_encoded_fails_alone() {
    let mut called = Called::new();
    let mut callers = ["a", UNSPEAKABLE, "b"].map(|text| called.unary(text));
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(callers[1].end(), "encode");
    called.answer(ids.iter().map(|id| Text::new(*id, NORMAL, "answer")));
    assert_eq!(callers[0].end(), "answer");
    assert_eq!(callers[2].end(), "answer");
    assert_eq!(called.client().in_flight(), 0);
}

#[test]
fn a_drained_connection_finishes_what_was_begun_and_refuses_the_rest() {
    let mut called = Called::new();
    let mut begun = called.unary("a");
    let deadline = called.connection.clock.now() + Duration::from_secs(5);
    called.connection.handle.drain(deadline);
    let id = called.asked("a");
    let error = called.client().send_unary(request("b")).unwrap_err();
    assert_eq!(error.name(), "draining");
    assert_eq!(error.execution(), Execution::NeverSent);
    assert!(!called.client().is_alive());
    assert!(!called.connection.is_ended());
    called.respond(id, "done");
    assert_eq!(begun.end(), "done");
    assert_eq!(called.connection.reason(), "drained");
}

#[test]
fn the_last_handle_ends_the_connection_when_nothing_is_in_flight() {
    let mut called = Called::new();
    called.settle();
    let clone = called.client().clone();
    called.drop_client();
    called.settle();
    assert!(!called.connection.is_ended());
    drop(clone);
    assert_eq!(called.connection.reason(), "no_senders");

    let mut called = Called::new();
    let mut caller = called.unary("a");
    let mut stream = called.stream("b");
    called.drop_client();
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    called.respond(ids[0], "answered");
    assert_eq!(caller.end(), "answered");
    assert!(!called.connection.is_ended());
    called.answer([
        Text::new(ids[1], NORMAL, "item"),
        Text::new(ids[1], END, ""),
    ]);
    assert_eq!(called.connection.reason(), "no_senders");
    // What has come is kept for whoever holds the completion.
    assert_eq!(stream.take(), ["item", "end"]);

    // A call that is dropped is cancelled first.
    let mut called = Called::new();
    let caller = called.unary("a");
    called.drop_client();
    let id = called.asked("a");
    drop(caller);
    assert_eq!(called.heard(), [Text::cancelled(id)]);
    assert_eq!(called.connection.reason(), "no_senders");
}
