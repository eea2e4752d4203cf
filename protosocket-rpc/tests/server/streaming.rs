use crate::common::{Served, Text, calls};

#[test]
fn a_stream_is_sent_item_by_item_and_ended() {
    let mut server = Served::new();
    server.call(1, "stream");
    assert_eq!(server.said(), Vec::<String>::new());
    for text in ["a", "b"] {
        server.stage.give(1, text);
        server.settle();
        assert_eq!(server.said(), [format!("1:{text}")]);
    }
    server.stage.give(1, "c");
    server.stage.end(1);
    server.settle();
    assert_eq!(server.said(), ["1:c", "1:ended"]);
    assert_eq!((server.stage.dropped(), server.in_flight()), (vec![1], 0));
}

#[test]
fn a_stream_that_is_always_ready_needs_no_wakes() {
    let mut server = Served::new();
    server.call(1, "count 3000");
    let said = server.said();
    assert_eq!(said.len(), 3001);
    for (index, said) in said[..3000].iter().enumerate() {
        assert_eq!(*said, format!("1:{}", index + 1));
    }
    assert_eq!(said[3000], "1:ended");
}

#[test]
fn an_empty_stream_ends_at_once() {
    let mut server = Served::new();
    server.call(1, "count 0");
    assert_eq!(server.said(), ["1:ended"]);
}

#[test]
fn a_stream_ends_with_an_item_that_says_so() {
    let mut server = Served::new();
    server.call(1, "codes 0010");
    server.call(2, "codes 020");
    assert_eq!(
        server.said(),
        ["1:", "1:", "1:cancelled", "2:", "2:ended"],
        "nothing comes behind a cancellation or an end"
    );
    assert_eq!(server.stage.dropped(), [1, 2]);
    assert_eq!(server.in_flight(), 0);
}

#[test]
fn d28_a_stream_whose_item_has_an_unknown_code_has_failed() {
    let mut server = Served::new();
    server.call(1, "codes 0070");
    server.call(2, "codes 3");
    assert_eq!(server.said(), ["1:", "1:", "1:cancelled", "2:cancelled"]);
    assert_eq!(server.stage.dropped(), [1, 2]);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    let stats = server.stats();
    assert_eq!((stats.failed, stats.finished), (2, 0));
}

#[test]
fn streams_and_unary_calls_share_slots() {
    let mut server = Served::new();
    for round in 0..3 {
        server.send_at_once(
            calls([1, 3], "yield 1")
                .into_iter()
                .chain([Text::new(2, 0, "count 1"), Text::new(4, 0, "count 2")]),
        );
        let mut said = server.said();
        said.sort();
        assert_eq!(
            said,
            [
                "1:done", "2:1", "2:ended", "3:done", "4:1", "4:2", "4:ended"
            ],
            "round {round}"
        );
    }
}
