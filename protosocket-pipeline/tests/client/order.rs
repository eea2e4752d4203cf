//! Replies find their requests.

use std::time::Duration;

use crate::common::*;

#[test]
fn requests_are_pipelined_and_replies_come_in_their_order() {
    let mut world = World::new();
    let mut before = world.ask("before");
    let peer = world.open();
    let mut asked = ["a", "b", "c"].map(|request| world.ask(request));
    world.settle();
    assert_eq!(heard(&peer), "before\na\nb\nc\n");
    before.waits();
    peer.send("0\n1\n2");
    world.settle();
    assert_eq!(before.end(), "0");
    assert_eq!(asked[0].end(), "1");
    asked[1].waits();
    peer.send("\n3\n");
    world.settle();
    assert_eq!([asked[1].end(), asked[2].end()], ["2", "3"]);
}

#[test]
fn a_reply_may_have_parts_and_pushes_between_them_and_a_request_no_reply() {
    let lines = Lines::default();
    let pushes = lines.pushes.clone();
    let mut world = World::with(lines, config(), None);
    let peer = world.open();
    let (mut a, mut quiet, mut b) = (world.ask("a"), world.ask("quiet"), world.ask("b"));
    world.settle();
    assert_eq!(quiet.end(), "said");
    peer.send(">early\n+x\n>between\n+y\nz\nother\n>late\n");
    world.settle();
    assert_eq!([a.end(), b.end()], ["xyz", "other"]);
    assert_eq!(*pushes.lock().unwrap(), [">early", ">between", ">late"]);
}

#[test]
fn who_gives_up_is_not_sent_or_has_the_reply_swallowed() {
    let mut world = World::new();
    let (first, mut second) = (world.ask("first"), world.ask("second"));
    drop(first);
    let peer = world.open();
    assert_eq!(heard(&peer), "second\n");
    let third = world.ask("third");
    let mut fourth = world.ask("fourth");
    world.settle();
    drop(third);
    world.settle();
    // It has the place in which the third was.
    let mut fifth = world.ask("fifth");
    world.settle();
    peer.send("2\n3\n4\n5\n");
    world.settle();
    let ends = [second.end(), fourth.end(), fifth.end()];
    assert_eq!(ends, ["2", "4", "5"]);
    assert_eq!(world.client.as_ref().unwrap().in_flight(), 0);
}

#[test]
fn a_late_reply_is_swallowed() {
    let mut world = World::new();
    let peer = world.open();
    let mut patient = world.client.as_ref().unwrap().with_timeout(None);
    let mut hasty = world.ask("hasty");
    world.settle();
    // A part of the answer is heard meanwhile, so that the server is not taken for dead.
    world.advance(Duration::from_secs(20));
    peer.send("+part\n");
    world.settle();
    let mut asked = Asked::new(patient.request("patient".into()));
    patient = patient.clone();
    world.advance(Duration::from_secs(10));
    assert_eq!(hasty.end(), "deadline_exceeded, maybe executed");
    asked.waits();
    peer.send("late\nanswer\n");
    world.settle();
    assert_eq!(asked.end(), "answer");
    assert!(patient.is_open());
}

#[test]
fn a_request_that_cannot_be_encoded_costs_the_others_nothing() {
    let mut world = World::new();
    let peer = world.open();
    let mut asked = ["a", "unspeakable", "empty", "b"].map(|request| world.ask(request));
    world.settle();
    assert_eq!(heard(&peer), "a\nb\n");
    peer.send("1\n2\n");
    world.settle();
    assert_eq!(
        asked.each_mut().map(Asked::end),
        ["1", "encode", "encode", "2"]
    );
}
