use protosocket_rpc::Message;

use crate::common::{Served, Text, calls};

#[test]
fn d18_an_id_that_is_in_flight_ends_both_calls_with_one_cancellation() {
    let mut server = Served::new();
    server.call(1, "wait");
    server.call(2, "wait");
    server.call(1, "echo crossed");
    assert_eq!(server.said(), ["1:cancelled"]);
    assert_eq!((server.stage.dropped(), server.in_flight()), (vec![1], 1));
    // What the first was waiting for crosses nothing.
    server.stage.give(1, "crossed");
    server.stage.give(2, "two");
    server.settle();
    assert_eq!(server.said(), ["2:two"]);
    // The id can be used again.
    server.call(1, "echo one");
    assert_eq!(server.said(), ["1:one"]);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    let stats = server.stats();
    assert_eq!((stats.started, stats.collided), (3, 1));
}

#[test]
fn d18_a_stream_whose_id_is_used_again_is_over() {
    let mut server = Served::new();
    server.call(1, "stream");
    server.stage.give(1, "a");
    server.settle();
    server.call(1, "count 2");
    server.stage.give(1, "b");
    server.settle();
    assert_eq!(server.said(), ["1:a", "1:cancelled"]);
    server.cancel(1);
    server.call(1, "count 1");
    assert_eq!(server.said(), ["1:1", "1:ended"]);
}

#[test]
fn d18_one_id_for_every_call() {
    let mut server = Served::new();
    server.send_at_once(calls([1; 1001], "wait"));
    // One runs, the next ends it, and so on.
    assert_eq!(server.answers(), vec![Text::cancelled(1); 500]);
    assert_eq!(server.in_flight(), 1);
}

#[test]
fn d28_an_unknown_control_code_begins_nothing_and_ends_nothing() {
    let mut server = Served::new();
    server.call(1, "wait");
    for code in [3, 7, 255] {
        server.send([Text::new(1, code, "echo x"), Text::new(2, code, "echo x")]);
    }
    // Nobody waits for what is not in flight, and what is goes on.
    assert_eq!(server.answers(), vec![Text::cancelled(2); 3]);
    assert_eq!(server.in_flight(), 1);
    server.stage.give(1, "one");
    server.settle();
    assert_eq!(server.said(), ["1:one"]);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    let stats = server.stats();
    assert_eq!((stats.unknown_codes, stats.started), (6, 1));
}
