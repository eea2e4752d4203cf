use protosocket::Limits;
use protosocket_rpc::RpcServerConfig;
use protosocket_testkit::Setup;

use crate::common::{BARE, NORMAL, Served, Text, calls, encoded};

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
