use protosocket_testkit::Setup;

use crate::common::{BARE, Served, calls, limit};

/// A server with room for so many answers without text, and a client that does not read.
fn crowded(answers: usize) -> Served {
    let server = Served::with(Setup::bulk(answers * BARE), limit(100));
    server.peer.set_window(0);
    server
}

/// Let the client read so many bytes more.
fn read(server: &mut Served, bytes: usize) {
    server.peer.open_window(bytes);
    server.settle();
}

#[test]
fn nothing_is_polled_without_room_and_all_is_polled_with_room_again() {
    let mut server = crowded(3);
    server.send_at_once(calls(1..=5, "echo"));
    assert_eq!(
        server.stage.take_polls(),
        [1, 2, 3],
        "as many as there is room for"
    );
    assert_eq!(server.in_flight(), 2);
    server.call(6, "wait");
    assert_eq!(server.stage.take_polls(), []);
    // Room for one.
    read(&mut server, BARE);
    assert_eq!(server.stage.take_polls(), [4]);
    read(&mut server, usize::MAX - 2 * BARE);
    assert_eq!(server.stage.take_polls(), [5, 6]);
    assert_eq!(server.said(), ["1:", "2:", "3:", "4:", "5:"]);
}

#[test]
fn a_call_that_is_woken_without_room_is_polled_when_there_is_some() {
    let mut server = crowded(2);
    server.call(1, "wait");
    server.call(2, "stream");
    server.send(calls(3..=4, "echo"));
    server.stage.take_polls();
    server.stage.give(2, "item");
    server.stage.give(1, "answer");
    server.settle();
    assert_eq!(server.stage.take_polls(), [], "there is no room");
    read(&mut server, usize::MAX);
    assert_eq!(server.stage.take_polls(), [2, 1, 2]);
    assert_eq!(server.said(), ["3:", "4:", "2:item", "1:answer"]);
}

#[test]
fn a_stream_stops_where_the_client_stops_reading() {
    let mut server = crowded(4);
    server.call(1, "count 1000000");
    let polls = server.stage.take_polls().len();
    assert!(polls <= 5, "{polls} items for a client that reads nothing");
    read(&mut server, 10 * BARE);
    let more = server.stage.take_polls().len();
    assert!((8..=12).contains(&more), "{more} items for room for ten");
    assert_eq!(server.stage.dropped(), []);
}

#[test]
fn requests_that_wait_for_room_are_bounded_in_bytes() {
    const SIZE: usize = 10_000;
    let text = format!("echo {}", "x".repeat(SIZE));
    for fits in [1, 5, 50] {
        let config = limit(1000).max_waiting_bytes(fits * SIZE);
        let mut server = Served::with(Setup::bulk(SIZE), config);
        server.peer.set_window(0);
        server.send_at_once(calls(1..=200, &text));
        // One is answered into the send buffer, one exceeds the limit, and one stands before the rest.
        let taken = server.connection().stats().messages_in as usize;
        assert!(
            (fits..=fits + 3).contains(&taken),
            "{taken} where {fits} fit"
        );
        read(&mut server, usize::MAX);
        let said = server.said().len();
        assert_eq!(said, 200, "all are answered when the client reads");
    }
}

#[test]
fn calls_that_wait_for_themselves_do_not_hold_up_others() {
    let text = format!("wait {}", "x".repeat(10_000));
    let mut server = Served::with(Setup::bulk(BARE), limit(100).max_waiting_bytes(1));
    server.peer.set_window(0);
    server.call(100, "echo");
    // Without room they are not polled, and nothing but the first of them is taken.
    server.send_at_once(calls(1..=10, &text));
    assert_eq!(server.in_flight(), 2);
    // With room all of them are, one after the other, and none of them has anything to say.
    read(&mut server, usize::MAX);
    assert_eq!(server.in_flight(), 10);
    server.call(11, "echo");
    assert_eq!(server.said(), ["100:", "11:"]);
}

#[test]
fn d10_a_client_that_never_reads_ends_by_its_deadline() {
    let mut server = crowded(4);
    server.call(1, "count 1000000");
    server.pass(std::time::Duration::from_secs(120));
    assert_eq!(server.reason(), "write_timeout");
    assert_eq!(server.stage.dropped(), [1]);
    assert_eq!(server.stats().abandoned, 1);
}
