//! Whose answer it is (D18).

use std::collections::HashSet;

use protosocket::Blame;
use protosocket_rpc::{Error, Message, client::Configuration};

use crate::common::*;

fn small() -> Called {
    Called::configured(Configuration::new().max_concurrent_calls(4).unwrap())
}

/// A request with an id of the caller's.
fn chosen(id: u64, text: &str) -> Text {
    Text::new(id, NORMAL, text)
}

#[test]
fn d18_ids_are_not_used_again() {
    let mut called = small();
    let mut seen = HashSet::new();
    for round in 0..1000 {
        let mut callers: Vec<_> = (0..=round % 4).map(|_| called.unary("a")).collect();
        let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
        assert!(ids.iter().all(|id| *id != 0 && seen.insert(*id)), "{ids:?}");
        called.answer(ids.iter().map(|id| Text::new(*id, NORMAL, id.to_string())));
        for (caller, id) in callers.iter_mut().zip(&ids) {
            assert_eq!(caller.end(), id.to_string());
        }
    }
    // They stay small, so that they are short on the wire.
    assert!(seen.iter().all(|id| *id < 4 * 3000));
}

#[test]
fn d18_an_id_of_the_callers_choice_is_sent_as_it_is() {
    let mut called = small();
    let ids = [u64::MAX, 1, 1 << 40, 7];
    let mut callers =
        ids.map(|id| Caller::new(called.client().send_unary(chosen(id, "a")).unwrap()));
    let heard: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    assert_eq!(heard, ids);
    called.answer(
        ids.iter()
            .rev()
            .map(|id| Text::new(*id, NORMAL, id.to_string())),
    );
    for (caller, id) in callers.iter_mut().zip(ids) {
        assert_eq!(caller.end(), id.to_string());
    }
    // What is over may be chosen again.
    let mut again = Caller::new(called.client().send_unary(chosen(7, "b")).unwrap());
    assert_eq!(called.asked("b"), 7);
    called.respond(7, "c");
    assert_eq!(again.end(), "c");
}

#[test]
fn d18_an_id_that_is_in_flight_is_refused_and_nothing_else_happens() {
    let mut called = Called::new();
    let mut first = Caller::new(called.client().send_unary(chosen(5, "first")).unwrap());
    let mut assigned = called.unary("assigned");
    let assigned_id = called.heard()[1].id;
    for id in [5, assigned_id] {
        for _ in 0..3 {
            let error = called
                .client()
                .send_unary(chosen(id, "second"))
                .unwrap_err();
            assert!(
                matches!(error, Error::DuplicateId(taken) if taken == id),
                "{error}"
            );
            assert_eq!(error.blame(), Blame::Local);
            let error = called
                .client()
                .send_streaming(chosen(id, "third"))
                .unwrap_err();
            assert_eq!(error.name(), "duplicate_id");
        }
    }
    assert_eq!(called.client().in_flight(), 2);
    assert_eq!(called.heard(), []);
    called.answer([5, assigned_id].map(|id| Text::new(id, NORMAL, id.to_string())));
    assert_eq!(first.end(), "5");
    assert_eq!(assigned.end(), assigned_id.to_string());
}

#[test]
fn d18_an_id_that_a_caller_has_chosen_is_given_to_nobody() {
    let mut called = small();
    // These would be the first four ids of the places of such a table.
    let mut callers = Vec::new();
    for id in [4, 8, 12] {
        callers.push(Caller::new(
            called.client().send_unary(chosen(id, "a")).unwrap(),
        ));
    }
    callers.push(called.unary("b"));
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 4, "{ids:?}");
    called.answer(ids.iter().map(|id| Text::new(*id, NORMAL, id.to_string())));
    for (caller, id) in callers.iter_mut().zip(ids) {
        assert_eq!(caller.end(), id.to_string());
    }
    for round in 0..100 {
        // One that is chosen is at some time the one that would come next.
        let mut own = Caller::new(called.client().send_unary(chosen(200, "own")).unwrap());
        let mut given = called.unary("given");
        let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
        assert_ne!(ids[0], ids[1], "round {round}");
        called.answer(ids.iter().map(|id| Text::new(*id, NORMAL, id.to_string())));
        assert_eq!(own.end(), "200");
        assert_eq!(given.end(), ids[1].to_string());
    }
}

#[test]
fn d18_a_late_response_to_a_call_that_was_given_up_meets_nobody() {
    let mut called = small();
    // All places are used again, by other calls.
    let given_up: Vec<_> = (0..4).map(|_| called.unary("a")).collect();
    let late: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    drop(given_up);
    called.settle();
    let mut callers: Vec<_> = (0..4).map(|_| called.unary("b")).collect();
    called.answer(late.iter().map(|id| Text::new(*id, NORMAL, "late")));
    callers.iter_mut().for_each(Caller::waits);
    let heard = called.heard();
    assert_eq!(
        heard[..4],
        late.iter()
            .map(|id| Text::cancelled(*id))
            .collect::<Vec<_>>()[..]
    );
    called.answer(
        heard[4..]
            .iter()
            .map(|asked| Text::new(asked.id, NORMAL, "right")),
    );
    assert!(callers.iter_mut().all(|caller| caller.end() == "right"));
}

#[test]
fn d18_a_chosen_id_that_was_given_up_is_not_used_again_at_once() {
    let mut called = small();
    let caller = called.client().send_unary(chosen(9, "a")).unwrap();
    called.settle();
    drop(caller);
    called.settle();
    // Its response may be on its way.
    for _ in 0..2 {
        let error = called.client().send_unary(chosen(9, "b")).unwrap_err();
        assert_eq!(error.name(), "duplicate_id");
    }
    // Nor is one that was given up by its deadline, or that was given to it.
    let client = called
        .client()
        .with_timeout(std::time::Duration::from_secs(1));
    let mut timed_out = Caller::new(client.send_unary(chosen(10, "c")).unwrap());
    let assigned = client.send_unary(request("d")).unwrap();
    let assigned_id = called.heard().last().unwrap().id;
    drop(assigned);
    called.connection.advance(std::time::Duration::from_secs(1));
    assert_eq!(timed_out.end(), "deadline_exceeded: maybe executed");
    for id in [9, 10, assigned_id] {
        let error = called.client().send_unary(chosen(id, "e")).unwrap_err();
        assert_eq!(error.name(), "duplicate_id", "{id}");
    }
    // 1,024 are remembered.
    for id in 100..100 + 1024 {
        // This one was never sent, so nothing can come for it.
        drop(called.client().send_unary(chosen(id, "f")).unwrap());
        called.settle();
        let caller = called.client().send_unary(chosen(id, "f")).unwrap();
        called.settle();
        drop(caller);
        called.settle();
    }
    let mut again = Caller::new(called.client().send_unary(chosen(9, "g")).unwrap());
    called.settle();
    called.respond(9, "h");
    assert_eq!(again.end(), "h");
    let error = called.client().send_unary(chosen(100, "i")).unwrap_err();
    assert_eq!(error.name(), "duplicate_id");
}

#[test]
fn d18_a_chosen_id_is_free_after_its_last_response() {
    // Of a unary call, the response is the last, and of a stream it is not.
    let last = [
        (NORMAL, true, false),
        (CANCEL, true, true),
        (END, true, true),
        (3, false, false),
    ];
    for (code, ends_unary, ends_stream) in last {
        let mut called = small();
        let unary = called.client().send_unary(chosen(7, "a")).unwrap();
        let stream = called.client().send_streaming(chosen(8, "b")).unwrap();
        called.settle();
        drop((unary, stream));
        called.settle();
        called.answer([7, 8].map(|id| Text::new(id, code, "late")));
        assert_eq!(called.client().unmatched_responses(), 2);
        let free = [7, 8].map(|id| called.client().send_unary(chosen(id, "c")).is_ok());
        assert_eq!(free, [ends_unary, ends_stream], "{code}");
    }

    // It was given up and heard of in the same read.
    let mut called = small();
    let mut unary = Caller::new(called.client().send_unary(chosen(7, "a")).unwrap());
    called.settle();
    called.answer([3, CANCEL].map(|code| Text::new(7, code, "")));
    assert_eq!(unary.end(), "unknown_control_code");
    assert!(called.client().send_unary(chosen(7, "b")).is_ok());

    // It is in use again, and late responses that are repeated change nothing.
    let mut called = small();
    drop_one(&mut called, 7);
    called.respond(7, "late");
    let again = called.client().send_unary(chosen(7, "b")).unwrap();
    let twice = called.client().send_unary(chosen(7, "c")).unwrap_err();
    assert_eq!(twice.name(), "duplicate_id");
    called.settle();
    drop(again);
    called.settle();
    // When the first of its uses is forgotten, the second is not.
    (0..1023).for_each(|n| drop_one(&mut called, 100 + n));
    assert!(called.client().send_unary(chosen(7, "d")).is_err());
    drop_one(&mut called, 99);
    assert!(called.client().send_unary(chosen(7, "d")).is_ok());
}

/// A call that is given up after it was sent.
fn drop_one(called: &mut Called, id: u64) {
    let caller = called.client().send_unary(chosen(id, "a")).unwrap();
    called.settle();
    drop(caller);
    called.settle();
}

#[test]
fn chosen_ids_that_are_given_up_take_no_memory() {
    let mut called = small();
    for id in 1..=10_000 {
        let caller = called.client().send_unary(chosen(id, "a")).unwrap();
        called.settle();
        drop(caller);
        called.settle();
        called.connection.peer.forget_written();
    }
    // All but the last few may be chosen again.
    let mut refused = Vec::new();
    for id in 1..=10_000 {
        if called.client().send_unary(chosen(id, "b")).is_err() {
            refused.push(id);
        }
        called.settle();
    }
    assert!(refused.into_iter().eq(10_000 - 1023..=10_000));
}
