use std::time::Duration;

use protosocket_rpc::{Message, RpcServerConfig, server::RpcReactor};
use protosocket_testkit::Setup;

use crate::common::{BARE, NORMAL, Served, Service, Text, calls, encoded, limit};

#[test]
fn a_limit_of_nothing_is_refused() {
    let reactor = RpcReactor::new(Service::new(Default::default()), &limit(0));
    let error = reactor.unwrap_err().to_string();
    assert!(error.starts_with("max_concurrent_rpcs"), "{error}");
}

#[test]
fn calls_beyond_the_limit_are_refused_while_all_are_running() {
    let mut server = Served::limited(3);
    server.send_at_once(calls(1..=5, "wait"));
    assert_eq!(server.said(), ["4:cancelled", "5:cancelled"]);
    assert_eq!(server.in_flight(), 3);
    // Cancellations are heard, and make room.
    server.cancel(2);
    server.call(6, "wait");
    assert_eq!((server.said(), server.in_flight()), (vec![], 3));
    server.stage.give(1, "one");
    server.settle();
    server.call(7, "echo seven");
    assert_eq!(server.said(), ["1:one", "7:seven"]);
    server.peer.end();
    server.stage.give(3, "three");
    server.stage.give(6, "six");
    assert_eq!(server.reason(), "end_of_input");
    let stats = server.stats();
    assert_eq!((stats.refused, stats.started, stats.finished), (2, 5, 4));
}

#[test]
fn refusals_come_out_of_the_reserve_while_the_client_does_not_read() {
    let mut server = Served::with(Setup::bulk(4 * BARE), limit(2));
    server.peer.set_window(0);
    server.send_at_once(calls(1..=2, "wait"));
    server.send_at_once(calls(3..=1000, "wait"));
    // The bulk limit, the reserve, and the message that exceeds it.
    let refused = server.connection().stats().unsent as usize;
    assert!((6..=8).contains(&refused), "{refused} refusals wait");
    server.peer.open_window(usize::MAX / 2);
    server.settle();
    let expected: Vec<_> = (3..=1000).map(Text::cancelled).collect();
    assert_eq!(server.answers(), expected);
}

#[test]
fn at_the_limit_input_waits_for_those_that_wait_for_room() {
    let mut server = Served::with(Setup::bulk(2 * BARE), limit(3));
    server.peer.set_window(0);
    server.send_at_once(calls(1..=100, "echo"));
    // Two are answered, three wait for room, one for them, and the others were not looked at.
    assert_eq!(server.in_flight(), 4);
    assert_eq!(server.connection().stats().messages_in, 6);
    server.peer.open_window(usize::MAX);
    server.settle();
    let expected: Vec<_> = (1..=100).map(|id| Text::new(id, NORMAL, "")).collect();
    assert_eq!(server.answers(), expected, "none is refused");
}

#[test]
fn at_the_limit_a_client_that_does_not_read_ends_by_its_deadline() {
    let mut server = Served::with(Setup::bulk(2 * BARE), limit(3));
    server.peer.set_window(0);
    server.send_at_once(calls(1..=100, "echo"));
    server.pass(Duration::from_secs(120));
    let end = server.finish();
    assert_eq!(
        (end.reason.name(), end.stats.unanswered),
        ("write_timeout", 4)
    );
    let stats = server.stats();
    assert_eq!((stats.abandoned, stats.refused), (3, 1));
}

/// A server with three rpcs at the limit, which wait for room, a fourth call, and its end of input.
fn crowded(fourth: &str) -> Served {
    let mut server = Served::with(Setup::bulk(2 * BARE), limit(3));
    server.peer.set_window(0);
    server.send_at_once(calls(1..=5, "echo"));
    server.call(6, fourth);
    server.peer.end();
    server.settle();
    assert_eq!(server.in_flight(), 4, "it counts while it waits");
    server
}

#[test]
fn a_call_that_waits_at_the_limit_is_begun_when_another_has_ended() {
    for (fourth, said) in [
        ("echo six", "6:six"),
        ("count 0", "6:ended"),
        ("reject", "6:cancelled"),
        ("panic-new", "6:cancelled"),
    ] {
        let mut server = crowded(fourth);
        // Room for one answer and then another, so that it is begun with room and without.
        for _ in 0..6 {
            server.peer.open_window(BARE);
            server.settle();
        }
        server.peer.open_window(usize::MAX / 2);
        assert_eq!(server.reason(), "end_of_input");
        let mut answers = server.said();
        assert_eq!(answers.len(), 6, "{answers:?}");
        answers.retain(|answer| answer.starts_with("6:"));
        assert_eq!(answers, [said]);
        assert_eq!(server.stats().refused, 0);
    }
}

#[test]
fn a_call_that_waits_at_the_limit_is_refused_when_all_have_had_their_turn() {
    let mut server = Served::limited(2);
    server.send_at_once(calls(1..=2, "wait"));
    // Both can go on, as far as anybody knows before they have been polled.
    for waker in server.stage.lock().wakers.values() {
        waker.wake_by_ref();
    }
    server.send_at_once(calls(3..=5, "wait"));
    assert_eq!(server.said(), ["3:cancelled", "4:cancelled", "5:cancelled"]);
    assert_eq!(server.in_flight(), 2);
}

#[test]
fn a_call_that_waits_at_the_limit_is_refused_beside_endless_streams() {
    let mut server = Served::with(Setup::bulk(10 * BARE), limit(2));
    server.peer.set_window(0);
    server.send_at_once(calls(1..=2, "count 100"));
    server.call(3, "echo three");
    assert_eq!(server.in_flight(), 3, "it waits");
    server.peer.open_window(usize::MAX / 2);
    server.settle();
    let said = server.said();
    let at = said.iter().position(|said| said == "3:cancelled");
    assert!(at.is_some_and(|at| at < 20), "{said:?}");
}

#[test]
fn a_call_that_waits_at_the_limit_is_dropped_with_its_connection() {
    let mut server = crowded("echo six");
    server.handle.abort();
    let end = server.finish();
    assert_eq!((end.reason.name(), end.stats.unanswered), ("aborted", 4));
    let stats = server.stats();
    assert_eq!((stats.started, stats.abandoned, stats.refused), (5, 3, 1));
}

#[test]
fn cancellations_are_heard_beside_as_many_endless_streams_as_there_may_be() {
    let mut server = Served::with(Setup::bulk(100 * BARE), limit(4));
    server
        .peer
        .send(encoded(calls(1..=4, &format!("count {}", u64::MAX))));
    for _ in 0..3 {
        server.poll_once();
    }
    server.peer.send(encoded((1..=4).map(Text::cancelled)));
    // They never come to an end of their own, and never are anything but ready.
    server.settle();
    assert_eq!(server.stage.dropped(), [1, 2, 3, 4]);
}

#[test]
fn short_streams_beyond_the_limit_are_begun_as_others_end() {
    let mut server = Served::limited(4);
    server.send_at_once(calls(1..=1000, "count 1"));
    let answers = server.answers();
    assert_eq!(answers.len(), 2000);
    assert!(
        answers.iter().all(|answer| answer.code != 1),
        "none is refused"
    );
}

#[test]
fn a_million_calls_in_one_write_are_all_answered() {
    const CALLS: u64 = 1_000_000;
    let mut server = Served::with(Setup::default(), RpcServerConfig::default());
    // The client reads a little at a time, so that all of them are in each other's way.
    server.peer.set_window(0);
    server.peer.send(encoded(calls(1..=CALLS, "echo")));
    let mut next = 1;
    while next <= CALLS {
        assert!(!server.is_ended());
        server.peer.open_window(BARE * 50_000);
        server.settle();
        let stats = server.connection().stats();
        assert!(stats.unanswered <= 4096 + 1, "{stats:?}");
        for answer in server.answers() {
            assert_eq!(answer, Text::new(next, NORMAL, ""));
            next += 1;
        }
        server.forget_answers();
        server.stage.forget();
    }
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.stats().finished, CALLS);
}
