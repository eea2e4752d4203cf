//! The line of those that wait for room in the queue.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use protosocket_pipeline::{Error, PipelineClient, RequestPermit};

use crate::common::*;

type Permit = RequestPermit<Lines>;

/// Somebody who waits for room, and polls only when woken.
struct Reserving {
    future: Pin<Box<dyn Future<Output = Result<Permit, Error>>>>,
    flag: Arc<Flag>,
}

impl Reserving {
    fn new(client: &PipelineClient<Lines>) -> Self {
        let client = client.clone();
        Self {
            future: Box::pin(async move { client.reserve().await }),
            flag: Flag::set(),
        }
    }

    fn poll(&mut self) -> Option<Result<Permit, Error>> {
        if !self.flag.take() {
            return None;
        }
        let waker = Waker::from(self.flag.clone());
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    #[track_caller]
    fn waits(&mut self) {
        assert!(self.poll().is_none(), "it has not waited");
    }

    #[track_caller]
    fn permit(&mut self) -> Permit {
        self.poll().expect("it was not told").expect("it failed")
    }

    #[track_caller]
    fn end(&mut self) -> String {
        let result = self.poll().expect("it was not told");
        describe(result.map(|_| "a permit".into()))
    }
}

/// A client that may have one request in flight, and so many in its queue, which are there.
fn full(queued: usize) -> (World, Vec<Asked>) {
    let config = config().max_in_flight(1).unwrap();
    let config = config.max_queued(queued).unwrap();
    let mut world = World::with(Lines::default(), config, None);
    let asked = (0..queued).map(|number| world.ask(&format!("{number}")));
    let asked = asked.collect();
    world.settle();
    (world, asked)
}

fn reserve(world: &World) -> Reserving {
    let mut reserving = Reserving::new(world.client.as_ref().unwrap());
    reserving.waits();
    reserving
}

#[test]
fn room_in_the_queue_is_waited_for_in_line() {
    let (mut world, mut asked) = full(2);
    let mut line: Vec<_> = (0..3).map(|_| reserve(&world)).collect();
    // The first request leaves, which makes room for one.
    let peer = world.open();
    assert_eq!(world.ask("overtakes").end(), "queue_full");
    let mut late = reserve(&world);
    line[1].waits();
    let permit = line[0].permit();
    line[1].waits();
    let client = world.client.as_ref().unwrap();
    assert_eq!((client.queued(), client.in_flight()), (2, 3));
    asked.push(Asked::new(permit.request("first".into())));
    // The next request leaves, and its place is needed, too.
    peer.send("a\n");
    world.settle();
    line[1].waits();
    assert_eq!(asked.remove(0).end(), "a");
    line[2].waits();
    // What is given back is for the next.
    let permit = line[1].permit();
    line[2].waits();
    drop(permit);
    late.waits();
    asked.push(Asked::new(line[2].permit().request("third".into())));
    for (asked, reply) in asked.iter_mut().zip(["b", "c", "d"]) {
        peer.send(format!("{reply}\n"));
        world.settle();
        assert_eq!(asked.end(), reply);
    }
    drop(late.permit());
    assert_eq!(heard(&peer), "0\n1\nfirst\nthird\n");
    assert_eq!(world.client.as_ref().unwrap().queued(), 0);
}

#[test]
fn room_that_is_made_at_once_is_for_as_many_as_wait_and_the_rest_for_others() {
    let (mut world, asked) = full(3);
    let mut line = [reserve(&world), reserve(&world)];
    drop(asked);
    world.settle();
    // One place is left, and only one.
    let mut newcomer = world.ask("newcomer");
    newcomer.waits();
    assert_eq!(world.ask("another").end(), "queue_full");
    let permits = [line[0].permit(), line[1].permit()];
    assert_eq!(world.client.as_ref().unwrap().queued(), 3);
    drop(permits);
    assert_eq!(world.client.as_ref().unwrap().queued(), 1);
}

#[test]
fn replies_that_nobody_takes_are_waited_for() {
    for is_taken in [true, false] {
        let (mut world, mut asked) = full(1);
        let peer = world.open();
        asked.push(world.ask("1"));
        for reply in ["a\n", "b\n"] {
            peer.send(reply);
            world.settle();
        }
        let mut waiting = reserve(&world);
        match is_taken {
            true => assert_eq!(asked[0].end(), "a"),
            false => drop(asked),
        }
        drop(waiting.permit());
    }
}

#[test]
fn who_gives_up_waiting_passes_the_room_on() {
    let (mut world, asked) = full(1);
    let mut line: Vec<_> = (0..4).map(|_| reserve(&world)).collect();
    // One who was not told yet, one who was, and one who has a permit.
    drop(line.remove(1));
    drop(asked);
    world.settle();
    drop(line.remove(0));
    drop(line[0].permit());
    drop(line[1].permit());
    let _asked = world.ask("a");
}

#[test]
fn who_waits_is_told_of_the_end() {
    // Of its own doing.
    let (mut world, _asked) = full(1);
    let mut line = [reserve(&world), reserve(&world)];
    world.client.as_ref().unwrap().close(Duration::from_secs(3));
    assert_eq!(line[0].end(), "closed, never sent");
    assert_eq!(line[1].end(), "closed, never sent");
    world.settle();

    // When the client gives up.
    let config = config().max_queued(1).unwrap();
    let mut world = World::with(Lines::default(), config, Some(1));
    let _asked = world.ask("a");
    let mut waiting = reserve(&world);
    world.refuse();
    assert_eq!(waiting.end(), "gave_up, never sent");

    // When its driver is dropped.
    let (mut world, _asked) = full(1);
    let mut waiting = reserve(&world);
    world.driver = None;
    assert_eq!(waiting.end(), "connection_lost, never sent");
}

#[test]
fn a_permit_keeps_the_connection_and_is_of_no_use_when_the_client_is_closed() {
    let mut world = World::new();
    let peer = world.open();
    let client = world.client.take().unwrap();
    let hasty = client.with_timeout(Duration::ZERO);
    let [permit, hasty, unused] = [&client, &hasty, &client].map(|it| Reserving::new(it).permit());
    world.settle();
    assert!(world.ended.is_none());
    let mut asked = Asked::new(permit.request("a".into()));
    let late = "deadline_exceeded, never sent";
    assert_eq!(Asked::new(hasty.request("b".into())).end(), late);
    world.settle();
    peer.send("1\n");
    world.settle();
    assert_eq!(asked.end(), "1");
    client.close(Duration::from_secs(3));
    world.settle();
    let closed = "closed, never sent";
    assert_eq!(Asked::new(unused.request("c".into())).end(), closed);
    assert_eq!((client.queued(), client.in_flight()), (0, 0));
}
