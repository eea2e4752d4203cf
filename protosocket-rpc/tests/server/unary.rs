use protosocket_rpc::Message;

use crate::common::{CANCEL, END, Served, Text, calls};

#[test]
fn a_ready_call_is_answered_in_the_poll_that_brings_it() {
    let mut server = Served::new();
    server.call(7, "echo hello");
    assert_eq!(server.said(), ["7:hello"]);
    assert_eq!(server.stage.dropped(), [7], "nothing of it is kept");
    assert_eq!(server.in_flight(), 0);
}

#[test]
fn a_pending_call_is_answered_when_it_was_woken() {
    let mut server = Served::new();
    server.call(1, "wait");
    assert_eq!((server.said(), server.in_flight()), (vec![], 1));
    let polls = server.polls();
    server.stage.give(1, "at last");
    server.settle();
    assert_eq!(server.said(), ["1:at last"]);
    assert_eq!(server.polls(), polls + 1, "one wake, one poll");
    assert_eq!(server.stage.take_polls(), [1, 1]);
    assert_eq!((server.stage.dropped(), server.in_flight()), (vec![1], 0));
}

#[test]
fn calls_are_answered_in_the_order_of_waking() {
    let mut server = Served::new();
    server.send_at_once(calls(1..=5, "wait"));
    for id in [4, 1, 5, 2, 3] {
        server.stage.give(id, "x");
    }
    server.stage.take_polls();
    server.settle();
    assert_eq!(server.said(), ["4:x", "1:x", "5:x", "2:x", "3:x"]);
    assert_eq!(
        server.stage.take_polls(),
        [4, 1, 5, 2, 3],
        "none is polled in vain"
    );
}

#[test]
fn calls_do_not_wait_for_each_other() {
    let mut server = Served::new();
    server.call(1, "wait");
    server.call(2, "echo two");
    server.call(3, "yield 3");
    assert_eq!(server.said(), ["2:two", "3:done"]);
    assert_eq!(server.in_flight(), 1);
}

#[test]
fn an_id_is_free_when_its_call_has_ended() {
    let mut server = Served::new();
    for text in ["echo a", "echo b", "yield 1", "echo c", "reject", "echo d"] {
        server.call(9, text);
    }
    assert_eq!(
        server.said(),
        ["9:a", "9:b", "9:done", "9:c", "9:cancelled", "9:d"]
    );
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    let stats = server.stats();
    assert_eq!((stats.started, stats.finished, stats.rejected), (6, 5, 1));
}

#[test]
fn ids_are_the_clients_whatever_they_are() {
    let mut server = Served::new();
    server.send_at_once(calls([0, u64::MAX, 1 << 63], "yield 1"));
    assert_eq!(
        server.said(),
        [
            "0:done".to_owned(),
            format!("{}:done", u64::MAX),
            format!("{}:done", 1_u64 << 63)
        ]
    );
}

#[test]
fn d29_rejections_are_answered_in_order() {
    let mut server = Served::new();
    server.send_at_once(calls(1..=4, "reject"));
    let expected: Vec<_> = (1..=4).map(Text::cancelled).collect();
    assert_eq!(server.answers(), expected);
}

#[test]
fn a_response_that_cannot_be_encoded_ends_its_call_alone() {
    let mut server = Served::new();
    server.call(1, "wait");
    server.call(2, "echo unspeakable");
    server.call(3, "stream");
    server.stage.give(3, "one");
    server.stage.give(3, "unspeakable");
    server.stage.give(3, "two");
    server.settle();
    server.stage.give(1, "fine");
    server.settle();
    assert_eq!(
        server.said(),
        ["2:cancelled", "3:one", "3:cancelled", "1:fine"]
    );
    assert_eq!(server.stage.dropped(), [2, 3, 1]);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.stats().failed, 2);
}

#[test]
fn d28_a_response_whose_code_is_unknown_is_never_sent() {
    let mut server = Served::new();
    for code in 3..=u8::MAX {
        server.call(1, &format!("code {code}"));
        assert_eq!(server.said(), ["1:cancelled"]);
    }
    assert_eq!(server.in_flight(), 0);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.stats().failed, 253);
}

#[test]
fn a_response_that_cancels_or_ends_its_call_is_sent_as_it_is() {
    let mut server = Served::new();
    server.call(1, &format!("code {CANCEL}"));
    server.call(2, &format!("code {END}"));
    let expected = [Text::new(1, CANCEL, "word"), Text::new(2, END, "word")];
    assert_eq!(server.answers(), expected);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.stats().finished, 2);
}
