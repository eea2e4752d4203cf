//! Wakers that panic: nobody else is left waiting for ever (D7).

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use protosocket_pipeline::Response;
use protosocket_testkit::StreamPeer;

use crate::common::*;

fn panics() {
    resume_unwind(Box::new("a waker"));
}

/// A request with a waker that panics, and one behind it, both sent.
fn asked_with_care() -> (World, StreamPeer, Response<Lines>, Asked) {
    let mut world = World::new();
    let peer = world.open();
    let first = world.ask("first").wait_and(panics);
    let mut second = world.ask("second");
    second.waits();
    world.settle();
    (world, peer, first, second)
}

#[test]
fn d7_a_waker_that_panics_keeps_no_reply_from_others_nor_the_client_from_going_on() {
    let (mut world, peer, first, mut second) = asked_with_care();
    peer.send("1\n2\n");
    world.settle();
    assert_eq!(second.end(), "2");
    assert_eq!(Asked::new(first).end(), "1");
    let mut third = world.ask("third");
    let peer = world.open();
    peer.send("3\n");
    world.settle();
    assert_eq!(third.end(), "3");
}

#[test]
fn d7_a_waker_that_panics_keeps_the_end_of_a_connection_from_nobody() {
    let (mut world, peer, _first, mut second) = asked_with_care();
    peer.end();
    world.settle();
    assert_eq!(
        second.end(),
        "connection_lost, maybe executed: end_of_input"
    );
}

#[test]
fn d7_a_waker_that_panics_keeps_the_end_of_the_driver_from_nobody() {
    let (mut world, _peer, _first, mut second) = asked_with_care();
    let mut unheard = world.ask("unheard");
    unheard.waits();
    let driver = world.driver.take();
    // The connection has told those whose requests it had before.
    catch_unwind(AssertUnwindSafe(|| drop(driver))).ok();
    assert_eq!(second.end(), "connection_lost, maybe executed: dropped");
    assert_eq!(unheard.end(), "connection_lost, never sent");

    // Without a connection.
    let mut world = World::new();
    let _first = world.ask("first").wait_and(panics);
    world.settle();
    let mut second = world.ask("second");
    second.waits();
    let driver = world.driver.take();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(driver))).is_err());
    assert_eq!(second.end(), "connection_lost, never sent");
    assert_eq!(world.ask("third").end(), "connection_lost, never sent");
}

#[test]
fn d7_a_waker_that_panics_while_there_is_no_connection_ends_the_driver_and_everybody_is_told() {
    let mut world = World::new();
    let [_first, _other] = ["first", "other"].map(|it| world.ask(it).wait_and(panics));
    let mut second = world.ask("second");
    second.waits();
    world.settle();
    let patient = world.client.as_ref().unwrap().with_timeout(None);
    let _patient = Asked::new(patient.request("a".into())).wait_and(panics);
    let mut third = Asked::new(patient.request("b".into()));
    third.waits();
    world.settle();
    let late = catch_unwind(AssertUnwindSafe(|| world.advance(Duration::from_secs(30))));
    assert!(late.is_err());
    assert_eq!(second.end(), "deadline_exceeded, never sent");
    let driver = world.driver.take();
    catch_unwind(AssertUnwindSafe(|| drop(driver))).ok();
    assert_eq!(third.end(), "connection_lost, never sent");
}
