//! What is said before all requests.

use crate::common::*;

fn prepared() -> World {
    let lines = Lines {
        preamble: Some("hello"),
        ..Lines::default()
    };
    World::with(lines, config(), None)
}

#[test]
fn requests_wait_for_the_preamble_of_each_connection() {
    let mut world = prepared();
    let mut asked = world.ask("a");
    for _ in 0..2 {
        let peer = world.open();
        assert_eq!(heard(&peer), "hello\n");
        peer.end();
        world.settle();
        asked.waits();
    }
    let peer = world.open();
    peer.send("ok\n");
    world.settle();
    assert_eq!(heard(&peer), "hello\na\n");
    peer.send("1\n");
    world.settle();
    assert_eq!(asked.end(), "1");
}

#[test]
fn a_preamble_that_fails_is_told_and_tried_again() {
    let mut world = prepared();
    let mut asked = world.ask("a");
    let peer = world.open();
    peer.send("wrong password\n");
    world.settle();
    assert_eq!(asked.end(), "preamble, never sent");
    let mut next = world.ask("b");
    let peer = world.open();
    peer.send("ok\n1\n");
    world.settle();
    // The reply came before the request was said: it is nobody's.
    next.waits();
    let peer = world.open();
    peer.send("ok\n");
    world.settle();
    peer.send("2\n");
    world.settle();
    assert_eq!(next.end(), "2");
}
