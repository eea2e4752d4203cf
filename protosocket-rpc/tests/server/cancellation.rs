use protosocket_rpc::Message;
use protosocket_testkit::Setup;

use crate::common::{BARE, END, NORMAL, Served, Text, calls, limit};

#[test]
fn a_cancelled_call_is_dropped_at_once_and_not_answered() {
    let mut server = Served::new();
    server.send_at_once(calls(1..=3, "wait"));
    server.cancel(2);
    assert_eq!((server.stage.dropped(), server.in_flight()), (vec![2], 2));
    server.stage.give(1, "one");
    server.stage.give(2, "two");
    server.stage.give(3, "three");
    server.settle();
    assert_eq!(server.said(), ["1:one", "3:three"]);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    let stats = server.stats();
    assert_eq!((stats.finished, stats.cancelled), (2, 1));
}

#[test]
fn d19_a_cancellation_is_heard_while_the_client_does_not_read() {
    let mut server = Served::with(Setup::bulk(2 * BARE), limit(100));
    server.peer.set_window(0);
    server.send_at_once(calls(1..=2, "echo"));
    // The first has never been polled, the second has been, and the third is always ready.
    server.call(3, "wait");
    server.call(4, "count 1000000");
    assert_eq!(server.stage.dropped(), [1, 2]);
    let written = server.peer.written_len();
    server.cancel(4);
    assert_eq!(server.stage.dropped(), [1, 2, 4]);
    server.cancel(3);
    assert_eq!(server.stage.dropped(), [1, 2, 4, 3]);
    assert_eq!(server.in_flight(), 0);
    assert_eq!(server.peer.written_len(), written, "it still does not read");
}

#[test]
fn d19_a_stream_that_was_begun_is_cancelled_while_the_client_does_not_read() {
    let mut server = Served::with(Setup::bulk(4 * BARE), limit(100));
    server.peer.set_window(2 * BARE);
    server.call(1, "count 1000000");
    assert_eq!(server.stage.dropped(), []);
    server.cancel(1);
    assert_eq!(server.stage.dropped(), [1]);
    // What was encoded before is still sent, and nothing behind it.
    server.peer.open_window(usize::MAX / 2);
    server.settle();
    let before = server.stage.take_polls().len();
    assert_eq!(server.said().len(), before);
}

#[test]
fn d19_a_cancellation_is_heard_at_the_limit_while_the_client_does_not_read() {
    let mut server = Served::with(Setup::bulk(2 * BARE), limit(3));
    server.peer.set_window(0);
    // Two are answered, and three wait for room.
    server.send_at_once(calls(1..=5, "echo"));
    for id in 3..=5 {
        server.cancel(id);
    }
    assert_eq!(
        (server.stage.dropped(), server.in_flight()),
        (vec![1, 2, 3, 4, 5], 0)
    );
}

#[test]
fn d19_the_only_call_there_may_be_is_cancelled_while_the_client_does_not_read() {
    let mut server = Served::with(Setup::bulk(BARE), limit(1));
    server.peer.set_window(0);
    server.call(1, "count 1000000");
    server.cancel(1);
    assert_eq!(server.stage.dropped(), [1]);
    // Its place is another's.
    server.peer.open_window(usize::MAX / 2);
    server.call(2, "echo two");
    assert_eq!(server.said().last().map(String::as_str), Some("2:two"));
}

#[test]
fn d19_everything_but_requests_is_heard_at_the_limit() {
    let mut server = Served::with(Setup::bulk(2 * BARE), limit(3));
    server.peer.set_window(0);
    server.send_at_once(calls(1..=5, "echo"));
    server.send([
        Text::ended(3),
        Text::new(3, 7, ""),
        Text::cancelled(5),
        Text::new(4, NORMAL, "echo crossed"),
    ]);
    assert_eq!(server.in_flight(), 1);
    server.peer.open_window(usize::MAX / 2);
    server.settle();
    assert_eq!(server.said(), ["1:", "2:", "4:cancelled", "3:"]);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    let stats = server.stats();
    assert_eq!(
        (stats.ignored, stats.unknown_codes, stats.collided),
        (1, 1, 1)
    );
}

#[test]
fn a_cancellation_before_its_call_or_twice_is_ignored() {
    let mut server = Served::new();
    server.cancel(1);
    server.call(1, "wait");
    assert_eq!(server.in_flight(), 1, "the early one does not count");
    server.cancel(1);
    server.cancel(1);
    assert_eq!((server.stage.dropped(), server.in_flight()), (vec![1], 0));
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.said(), Vec::<String>::new());
    let stats = server.stats();
    assert_eq!((stats.cancelled, stats.ignored), (1, 2));
}

#[test]
fn a_late_cancellation_is_ignored() {
    let mut server = Served::new();
    server.call(1, "echo one");
    server.cancel(1);
    server.call(2, "echo two");
    assert_eq!(server.said(), ["1:one", "2:two"]);
}

#[test]
fn a_call_and_its_cancellation_in_one_read() {
    let mut server = Served::new();
    let both = |id, text| [Text::new(id, 0, text), Text::cancelled(id)];
    server.send_at_once([both(1, "wait"), both(2, "echo two"), both(3, "yield 1")].concat());
    assert_eq!(server.said(), ["2:two"]);
    assert_eq!(server.stage.dropped(), [1, 2, 3]);
    // The third had been woken when it was cancelled, and is not polled for that.
    assert_eq!(server.stage.take_polls(), [1, 2, 3]);
}

#[test]
fn an_end_before_its_call_or_during_it_is_ignored() {
    let mut server = Served::new();
    server.send([Text::ended(1)]);
    server.call(1, "wait");
    server.send([Text::ended(1), Text::new(1, END, "with words")]);
    assert_eq!(server.in_flight(), 1);
    server.stage.give(1, "one");
    server.settle();
    assert_eq!(server.said(), ["1:one"]);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.stats().ignored, 3);
}

#[test]
fn a_slot_that_a_cancelled_call_left_is_anothers() {
    let mut server = Served::new();
    server.send([
        Text::new(1, 0, "wait"),
        Text::cancelled(1),
        Text::new(2, 0, "wait"),
    ]);
    server.stage.give(1, "too late");
    server.settle();
    assert_eq!((server.said(), server.in_flight()), (vec![], 1));
    server.stage.give(2, "two");
    server.settle();
    assert_eq!(server.said(), ["2:two"]);
}
