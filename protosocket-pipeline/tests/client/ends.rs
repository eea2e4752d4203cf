//! How clients and drivers end.

use std::time::Duration;

use protosocket_testkit::StreamEvent;

use crate::common::*;

#[test]
fn with_the_last_handle_the_driver_ends_in_order_when_all_is_answered() {
    let mut world = World::new();
    let peer = world.open();
    let mut asked = world.ask("a");
    world.client = None;
    world.settle();
    assert!(world.ended.is_none());
    peer.send("1\n");
    world.settle();
    assert_eq!(asked.end(), "1");
    assert!(matches!(world.ended, Some(Ok(()))));
    assert!(peer.saw(StreamEvent::Shutdown));
}

#[test]
fn without_a_connection_it_ends_when_nobody_waits_for_one() {
    let mut world = World::new();
    world.client = None;
    world.settle();
    assert!(matches!(world.ended, Some(Ok(()))));

    let mut world = World::new();
    let mut asked = world.ask("a");
    world.client = None;
    world.settle();
    assert!(world.ended.is_none());
    let peer = world.open();
    peer.send("1\n");
    world.settle();
    assert_eq!(asked.end(), "1");
    assert!(world.ended.is_some());
}

#[test]
fn a_client_that_is_closed_finishes_what_it_has_begun_within_its_time() {
    let mut world = World::new();
    let peer = world.open();
    let mut asked = ["a", "b"].map(|request| world.ask(request));
    world.settle();
    world.client.as_ref().unwrap().close(Duration::from_secs(3));
    assert_eq!(world.ask("late").end(), "closed, never sent");
    peer.send("1\n");
    world.settle();
    assert_eq!(asked[0].end(), "1");
    world.advance(Duration::from_secs(2));
    asked[1].waits();
    world.advance(Duration::from_secs(1));
    assert_eq!(asked[1].end(), "closed, maybe executed");
    assert!(matches!(world.ended, Some(Ok(()))));
}

#[test]
fn a_client_that_gives_up_says_so() {
    let mut world = World::with(Lines::default(), config(), Some(2));
    let mut asked = world.ask("a");
    world.settle();
    world.refuse();
    world.refuse();
    world.advance(Duration::from_secs(1));
    assert_eq!(asked.end(), "gave_up, never sent");
    assert!(matches!(world.ended, Some(Err(_))));
    assert_eq!(world.ask("late").end(), "gave_up, never sent");
}
