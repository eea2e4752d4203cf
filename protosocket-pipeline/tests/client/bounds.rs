//! Limits and deadlines.

use std::time::Duration;

use crate::common::*;

#[test]
fn no_more_than_max_in_flight_are_sent_and_no_more_than_max_queued_wait() {
    let config = config().max_in_flight(2).unwrap().max_queued(3).unwrap();
    let mut world = World::with(Lines::default(), config, None);
    let mut asked: Vec<_> = (0..4)
        .map(|number| world.ask(&format!("{number}")))
        .collect();
    assert_eq!(asked[3].end(), "queue_full");
    asked.pop();
    let peer = world.open();
    assert_eq!(heard(&peer), "0\n1\n");
    asked.extend((3..5).map(|number| world.ask(&format!("{number}"))));
    assert_eq!(world.ask("5").end(), "queue_full");
    peer.send("a\n");
    world.settle();
    assert_eq!(asked[0].end(), "a");
    assert_eq!(heard(&peer), "0\n1\n2\n");
    peer.send("b\nc\n");
    world.settle();
    assert_eq!(heard(&peer), "0\n1\n2\n3\n4\n");
}

#[test]
fn whoever_gives_up_makes_room_while_there_is_no_connection() {
    let config = config().max_queued(2).unwrap();
    let mut world = World::with(Lines::default(), config, None);
    for round in 0..1000 {
        let asked = world.ask("a");
        world.settle();
        drop(asked);
        world.settle();
        assert_eq!(world.client.as_ref().unwrap().queued(), 0, "{round}");
    }
    let mut kept = world.ask("kept");
    let peer = world.open();
    assert_eq!(heard(&peer), "kept\n");
    peer.send("1\n");
    world.settle();
    assert_eq!(kept.end(), "1");
}

#[test]
fn a_request_waits_for_a_connection_as_long_as_it_may() {
    let mut world = World::new();
    let mut asked = world.ask("a");
    world.settle();
    world.refuse();
    world.advance(Duration::from_secs(29));
    asked.waits();
    world.advance(Duration::from_secs(1));
    assert_eq!(asked.end(), "deadline_exceeded, never sent");
    let none = world.client.as_ref().unwrap().with_timeout(Duration::ZERO);
    let mut none = Asked::new(none.request("b".into()));
    assert_eq!(none.end(), "deadline_exceeded, never sent");
    assert_eq!(heard(&world.open()), "");
}
