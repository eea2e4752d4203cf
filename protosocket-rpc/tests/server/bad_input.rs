use std::time::Duration;

use protosocket::{Limits, SendLimits};
use protosocket_rpc::{Message, RpcServerConfig};
use protosocket_testkit::{Setup, for_each_seed};

use crate::common::{BARE, CANCEL, NORMAL, Served, Text, UNSPEAKABLE, calls, encoded, limit};

#[test]
fn garbage_ends_the_connection_and_says_why() {
    let mut server = Served::new();
    server.call(1, "wait");
    server.call(2, "echo two");
    server.peer.send([0, 3, 1, 2, 3]);
    let end = server.finish();
    assert_eq!(end.reason.name(), "decode");
    let reason = end.reason.to_string();
    assert!(reason.contains("9 bytes or more, not 3"), "{reason}");
    assert_eq!(end.stats.unanswered, 1);
    assert_eq!(server.said(), ["2:two"]);
    assert_eq!(server.stage.dropped(), [2, 1]);
    assert_eq!(server.stats().abandoned, 1);
}

#[test]
fn a_request_above_the_limit_ends_the_connection_and_names_the_limit() {
    let limits = Limits::server().max_message_size(100);
    let mut server = Served::with(Setup::limits(limits), RpcServerConfig::default());
    server.send([Text::new(1, NORMAL, "echo short")]);
    server.peer.send([0xff, 0xff]);
    let end = server.finish();
    assert_eq!(end.reason.name(), "decode");
    let reason = end.reason.to_string();
    assert!(
        reason.contains("65537") && reason.contains("100"),
        "{reason}"
    );
    assert_eq!(server.said(), ["1:short"]);
}

#[test]
fn a_request_that_is_cut_off_is_named_when_the_others_are_answered() {
    let mut server = Served::new();
    server.call(1, "wait");
    let request = encoded(calls([2], "echo two"));
    server.peer.send(&request[..request.len() - 1]);
    server.peer.end();
    server.settle();
    assert!(!server.is_ended(), "the first is running");
    server.stage.give(1, "one");
    assert_eq!(server.reason(), "decode");
    assert_eq!(server.said(), ["1:one"]);
}

#[test]
fn requests_in_pieces_of_any_size() {
    let bytes = encoded(calls(1..=20, "yield 1"));
    for size in 1..=2 * BARE {
        let mut server = Served::new();
        for piece in bytes.chunks(size) {
            server.peer.send(piece);
            server.settle();
        }
        assert_eq!(server.said().len(), 20);
    }
}

/// Messages of any kind in any order, with a client that reads and pauses when it likes: every call
/// has one end, and everything is counted.
#[test]
fn any_messages_in_any_order() {
    for_each_seed(0..300, |random| {
        let send_limits = SendLimits {
            bulk_bytes: 20 * BARE,
            control_bytes: 10 * BARE,
            ..SendLimits::DEFAULT
        };
        // Time passes, and none of it is too much.
        let limits = Limits::server()
            .send_limits(send_limits)
            .first_message_timeout(None)
            .message_timeout(None)
            .idle_timeout(None)
            .write_timeout(None);
        let mut server = Served::with(Setup::limits(limits), limit(8));
        let mut calls_sent = 0;
        for _ in 0..400 {
            let id = random.below(IDS) as u64;
            match random.below(18) {
                0..=6 => {
                    server
                        .peer
                        .send(encoded(calls([id], REQUESTS[random.below(REQUESTS.len())])));
                    calls_sent += 1;
                }
                7 => server.peer.send(encoded([Text::cancelled(id)])),
                8 => server.peer.send(encoded([Text::ended(id)])),
                9..=10 => server.stage.give(id, "x"),
                11 => server.stage.give(id, UNSPEAKABLE),
                12 => server.peer.set_window(random.below(5) * BARE),
                13 => server.peer.open_window(random.below(100) * BARE),
                14 => server.pass(Duration::from_millis(random.below(30_000) as u64)),
                // It gives up what it has begun, and pauses.
                15 => {
                    server
                        .peer
                        .send(encoded((0..IDS as u64).map(Text::cancelled)));
                    server.pass(Duration::from_secs(60));
                }
                _ => server.settle(),
            }
        }
        // The client reads all, and whatever still runs is given what it waits for.
        server.peer.open_window(usize::MAX / 2);
        server.settle();
        (0..IDS as u64).for_each(|id| server.stage.give(id, "x"));
        server.settle();
        (0..IDS as u64).for_each(|id| server.stage.end(id));
        server.settle();
        assert_eq!(server.in_flight(), 0, "no wake is lost");
        server.peer.end();
        assert_eq!(server.reason(), "end_of_input");
        let answers = server.answers();
        let stats = server.stats();
        let begun = stats.started + stats.refused + stats.collided;
        assert_eq!(begun, calls_sent, "{stats:?}");
        let cancelled = answers.iter().filter(|answer| answer.code == CANCEL);
        let refusals = stats.rejected + stats.failed + stats.refused + stats.collided;
        assert_eq!(cancelled.count() as u64, refusals, "{stats:?}");
        let dropped = server.stage.dropped().len() as u64;
        assert_eq!(dropped, stats.started, "{stats:?}");
    });
}

/// Few, so that they meet, and more than there may be calls at a time.
const IDS: usize = 12;

const REQUESTS: [&str; 12] = [
    "echo x",
    "echo unspeakable",
    "wait",
    "wait",
    "yield 2",
    "stream",
    "stream",
    "count 30",
    "reject",
    "panic-poll later",
    "panic-drop",
    "panic-stream",
];
