use std::time::Duration;

use protosocket::{Clock, Limits, SendLimits};
use protosocket_rpc::RpcServerConfig;
use protosocket_testkit::Setup;

use crate::common::{BARE, Served, calls};

#[test]
fn answers_still_go_out_after_the_end_of_input() {
    let mut server = Served::new();
    server.call(1, "wait");
    server.call(2, "stream");
    server.peer.end();
    server.settle();
    assert!(!server.is_ended(), "two are running");
    server.stage.give(2, "a");
    server.settle();
    server.stage.give(1, "one");
    server.settle();
    server.stage.end(2);
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.said(), ["2:a", "1:one", "2:ended"]);
    assert_eq!(server.stats().finished, 2);
}

/// A server whose clients may be silent for so long when they have finished sending.
fn patient(timeout: impl Into<Option<Duration>>) -> Served {
    let config = RpcServerConfig::default().end_of_input_timeout(timeout);
    Served::with(Setup::default(), config)
}

#[test]
fn a_client_that_has_finished_sending_is_not_served_for_ever() {
    let mut server = patient(Duration::from_secs(5));
    server.send_at_once(calls(1..=2, "wait"));
    server.stage.give(1, "one");
    server.peer.end();
    server.settle();
    server.advance(Duration::from_secs(4));
    assert!(!server.is_ended(), "one is running");
    assert_eq!(server.said(), ["1:one"]);
    server.advance(Duration::from_secs(1));
    let end = server.finish();
    assert_eq!((end.reason.name(), end.stats.unanswered), ("protocol", 1));
    let why = end.reason.to_string();
    assert!(why.contains("end_of_input_timeout"), "{why}");
    assert_eq!(server.stage.dropped(), [1, 2]);
}

#[test]
fn a_client_that_has_finished_sending_is_served_for_as_long_as_it_is_answered() {
    let mut server = patient(Duration::from_secs(5));
    server.call(1, "stream");
    server.call(2, "wait");
    server.peer.end();
    server.settle();
    for item in 0..10 {
        server.advance(Duration::from_secs(4));
        server.stage.give(1, "item");
        server.settle();
        assert_eq!(server.said(), ["1:item"], "item {item}");
    }
    server.advance(Duration::from_secs(4));
    server.stage.end(1);
    server.settle();
    server.advance(Duration::from_secs(4));
    assert!(!server.is_ended(), "the end of a stream is an answer too");
    server.advance(Duration::from_secs(1));
    assert_eq!(server.reason(), "protocol");
    assert_eq!(server.stats().abandoned, 1);
}

#[test]
fn a_client_that_has_finished_sending_and_reads_slowly_is_served() {
    let limits = Limits::server().send_limits(SendLimits {
        bulk_bytes: 4 * BARE,
        ..SendLimits::DEFAULT
    });
    let limits = limits.min_write_progress(BARE);
    let config = RpcServerConfig::default().end_of_input_timeout(Duration::from_secs(5));
    let mut server = Served::with(Setup::limits(limits), config);
    server.peer.set_window(0);
    let large = format!("echo {}", "x".repeat(99 * BARE));
    server.call(1, &large);
    server.call(2, "echo two");
    server.peer.end();
    // For 400 seconds there is no room for another answer.
    for _ in 0..100 {
        server.advance(Duration::from_secs(4));
        server.peer.open_window(BARE);
        server.settle();
    }
    server.peer.open_window(2 * BARE);
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.answers().len(), 2);
}

#[test]
fn a_client_that_has_finished_sending_may_be_served_for_ever() {
    for timeout in [None, Some(Duration::MAX)] {
        let mut server = patient(timeout);
        server.call(1, "stream");
        server.peer.end();
        for _ in 0..2 {
            server.advance(Duration::from_secs(1_000_000_000));
            server.stage.give(1, "item");
            server.settle();
        }
        server.stage.end(1);
        assert_eq!(server.reason(), "end_of_input");
        assert_eq!(server.said(), ["1:item", "1:item", "1:ended"]);
    }
}

#[test]
fn a_drain_waits_for_what_runs() {
    let mut server = Served::new();
    server.call(1, "wait");
    let deadline = server.clock.now() + Duration::from_secs(5);
    server.handle.drain(deadline);
    server.settle();
    assert_eq!(server.stage.lock().drained, Some(deadline));
    assert!(!server.is_ended(), "one is running");
    // The client cannot know, and is served.
    server.call(2, "echo two");
    server.stage.give(1, "one");
    assert_eq!(server.reason(), "drained");
    assert_eq!(server.said(), ["2:two", "1:one"]);
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let mut server = Served::new();
    server.send_at_once(calls(1..=2, "wait"));
    let deadline = server.clock.now() + Duration::from_secs(5);
    server.handle.drain(deadline);
    server.advance(Duration::from_secs(4));
    assert!(!server.is_ended());
    server.advance(Duration::from_secs(1));
    let end = server.finish();
    assert_eq!(
        (end.reason.name(), end.stats.unanswered),
        ("drain_timeout", 2)
    );
    assert_eq!(server.stage.dropped(), [1, 2]);
    assert_eq!(server.stats().abandoned, 2);
}

#[test]
fn a_connection_that_is_dropped_drops_its_rpcs() {
    let mut server = Served::new();
    server.send_at_once(calls(1..=3, "wait"));
    let stage = server.stage.clone();
    let wakers: Vec<_> = stage.lock().wakers.drain().collect();
    drop(server);
    assert_eq!(stage.dropped(), [1, 2, 3]);
    // Wakers that outlive them do no harm.
    for (_, waker) in wakers {
        waker.wake();
    }
}

#[test]
fn a_connection_with_a_running_call_is_not_idle() {
    let limits = Limits::server().idle_timeout(Duration::from_secs(10));
    let mut server = Served::with(Setup::limits(limits), RpcServerConfig::default());
    server.call(1, "wait");
    server.advance(Duration::from_secs(60));
    assert!(!server.is_ended());
    server.stage.give(1, "one");
    server.settle();
    server.advance(Duration::from_secs(10));
    assert_eq!(server.reason(), "idle_timeout");
    assert_eq!(server.said(), ["1:one"]);
}

#[test]
fn a_service_can_end_its_connection() {
    let mut server = Served::new();
    server.call(1, "wait");
    let polls = server.stage.lock().service_polls;
    assert!(polls > 0, "it is polled");
    server.stage.lock().disconnect = true;
    server.call(2, "echo two");
    let end = server.finish();
    assert_eq!((end.reason.name(), end.stats.unanswered), ("disconnect", 1));
    assert_eq!(server.said(), ["2:two"], "what was answered is sent");
    assert_eq!(server.stage.dropped(), [2, 1]);
}

#[test]
fn what_can_no_longer_be_answered_is_dropped_before_the_client_has_gone() {
    let setup = Setup::default();
    setup.peer.set_lingers();
    let mut server = Served::with(setup, RpcServerConfig::default());
    server.call(1, "wait");
    server.stage.lock().disconnect = true;
    server.peer.send([0]);
    server.settle();
    assert!(!server.is_ended(), "it lingers");
    assert_eq!(server.stage.dropped(), [1]);
}
