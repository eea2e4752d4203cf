//! Connections that are lost, and what becomes of the requests.

use std::{
    io,
    task::{Context, Waker},
    time::Duration,
};

use crate::common::*;

#[test]
fn what_was_sent_fails_at_once_and_what_was_not_goes_to_the_next_connection() {
    let mut world = World::new();
    let peer = world.open();
    // Of the second request a part leaves, of the third nothing, though it is encoded.
    peer.set_window(3);
    let mut asked = ["a", "b", "c"].map(|request| world.ask(request));
    world.settle();
    let mut dropped = world.ask("dropped");
    world.settle();
    dropped.waits();
    drop(dropped);
    peer.fail_read(io::ErrorKind::ConnectionReset);
    world.settle();
    assert_eq!(asked[0].end(), "connection_lost, maybe executed: io");
    assert_eq!(asked[1].end(), "connection_lost, maybe executed: io");
    asked[2].waits();
    let mut later = world.ask("later");
    let peer = world.open();
    assert_eq!(heard(&peer), "c\nlater\n");
    peer.send("3\n4\n");
    world.settle();
    assert_eq!([asked[2].end(), later.end()], ["3", "4"]);
    assert_eq!(world.client.as_ref().unwrap().queued(), 0);
}

#[test]
fn what_has_no_reply_is_said_when_it_was_written_and_otherwise_goes_to_the_next_connection() {
    let mut world = World::new();
    let peer = world.open();
    // The first leaves, the second in part, the third not at all.
    peer.set_window("quiet 1\nqui".len());
    let mut quiet = ["quiet 1", "quiet 2", "quiet 3"].map(|request| world.ask(request));
    let mut asked = world.ask("a");
    let mut last = world.ask("quiet 4");
    world.settle();
    assert_eq!(quiet[0].end(), "said");
    quiet[1].waits();
    peer.fail_read(io::ErrorKind::ConnectionReset);
    world.settle();
    assert_eq!(quiet[1].end(), "connection_lost, maybe executed: io");
    quiet[2].waits();
    let peer = world.open();
    assert_eq!(heard(&peer), "quiet 3\na\nquiet 4\n");
    assert_eq!([quiet[2].end(), last.end()], ["said", "said"]);
    peer.send("1\n");
    world.settle();
    assert_eq!(asked.end(), "1");
    assert_eq!(world.client.as_ref().unwrap().in_flight(), 0);
}

#[test]
fn what_has_no_reply_is_not_said_to_a_server_that_has_closed() {
    let mut world = World::new();
    let peer = world.open();
    peer.set_window(0);
    let mut quiet = world.ask("quiet");
    world.settle();
    peer.end();
    world.settle();
    quiet.waits();
    assert_eq!(heard(&world.open()), "quiet\n");
    assert_eq!(quiet.end(), "said");
}

#[test]
fn what_has_no_reply_has_a_deadline_until_it_is_written() {
    let mut world = World::new();
    let peer = world.open();
    peer.set_window(0);
    let mut quiet = world.ask("quiet");
    world.settle();
    world.advance(Duration::from_secs(29));
    quiet.waits();
    world.advance(Duration::from_secs(1));
    assert_eq!(quiet.end(), "deadline_exceeded, maybe executed");
}

#[test]
fn what_was_written_in_the_last_poll_of_a_connection_is_said() {
    let mut world = World::new();
    let peer = world.open();
    // A poll ends after so many writes, before the reactor is asked again.
    peer.set_max_write(1);
    let mut quiet: Vec<_> = (0..7).map(|_| world.ask("quiet")).collect();
    let driver = world.driver.as_mut().unwrap().as_mut();
    assert!(
        driver
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    let written = heard(&peer);
    assert_eq!(written, "quiet\n".repeat(5) + "q");
    world.driver = None;
    let ends: Vec<_> = quiet.iter_mut().map(Asked::end).collect();
    assert_eq!(ends[..5], ["said"; 5]);
    assert_eq!(ends[5], "connection_lost, maybe executed: dropped");
    assert_eq!(ends[6], "connection_lost, never sent");
}

#[test]
fn a_client_without_handles_ends_when_what_has_no_reply_is_written() {
    let mut world = World::new();
    let peer = world.open();
    peer.set_window(3);
    let mut quiet = world.ask("quiet");
    world.client = None;
    world.settle();
    assert!(world.ended.is_none());
    quiet.waits();
    peer.open_window(100);
    world.settle();
    assert_eq!(quiet.end(), "said");
    assert_eq!(heard(&peer), "quiet\n");
    assert!(matches!(world.ended, Some(Ok(()))));
}

#[test]
fn a_server_that_closes_answers_nothing_any_more() {
    let mut world = World::new();
    let peer = world.open();
    let mut asked = world.ask("a");
    world.settle();
    peer.end();
    world.settle();
    assert_eq!(asked.end(), "connection_lost, maybe executed: end_of_input");
}

#[test]
fn what_no_request_waits_for_ends_the_connection() {
    for (sent, request) in [("unasked\n", None), ("+part\n", None), ("?\n", Some("a"))] {
        let mut world = World::new();
        let peer = world.open();
        let mut asked = request.map(|request| world.ask(request));
        world.settle();
        peer.send(sent);
        world.settle();
        if let Some(asked) = &mut asked {
            assert_eq!(asked.end(), "connection_lost, maybe executed: protocol");
        }
        // The next one serves.
        let mut next = world.ask("next");
        let peer = world.open();
        peer.send("1\n");
        world.settle();
        assert_eq!(next.end(), "1");
    }
}

#[test]
fn a_server_that_answers_nothing_is_replaced() {
    let config = config().answer_timeout(Duration::from_secs(5)).unwrap();
    let mut world = World::with(Lines::default(), config, None);
    let peer = world.open();
    // Nobody asks: it may be silent for as long as it likes.
    world.advance(Duration::from_secs(60));
    let mut asked = world.ask("a");
    world.settle();
    world.advance(Duration::from_secs(4));
    // A part of an answer is one, and a push is none.
    peer.send("+part\n");
    world.settle();
    world.advance(Duration::from_secs(4));
    peer.send(">alive\n");
    world.settle();
    asked.waits();
    world.advance(Duration::from_secs(1));
    assert_eq!(asked.end(), "connection_lost, maybe executed: protocol");
    let mut next = world.ask("next");
    let peer = world.open();
    peer.send("1\n");
    world.settle();
    assert_eq!(next.end(), "1");
}

#[test]
fn a_driver_that_is_dropped_tells_everybody_at_once() {
    let mut world = World::new();
    let peer = world.open();
    peer.set_window(2);
    let mut asked = ["a", "b"].map(|request| world.ask(request));
    world.settle();
    let mut unheard = world.ask("c");
    world.driver = None;
    assert_eq!(asked[0].end(), "connection_lost, maybe executed: dropped");
    assert_eq!(asked[1].end(), "connection_lost, never sent");
    assert_eq!(unheard.end(), "connection_lost, never sent");
    assert_eq!(world.ask("late").end(), "connection_lost, never sent");
}
