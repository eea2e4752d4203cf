//! As many calls as may be, and those that wait for one to end.

use std::{future::Future, pin::Pin, time::Duration};

use protosocket::{Blame, Clock, ConnectionConfig};
use protosocket_rpc::{
    Error, Execution, Message,
    client::{CallPermit, Configuration, RpcClient},
};

use crate::common::*;

type Permit = CallPermit<Text, Text>;
type Reserving = Caller<Pin<Box<dyn Future<Output = Result<Permit, Error>>>>>;

fn limited(calls: usize) -> Called {
    Called::configured(Configuration::new().max_concurrent_calls(calls).unwrap())
}

fn reserve(client: &RpcClient<Text, Text>) -> Reserving {
    let client = client.clone();
    Caller::new(Box::pin(async move { client.reserve().await }))
}

#[test]
fn d10_calls_that_are_never_answered_are_limited() {
    let mut called = limited(3);
    let mut callers: Vec<_> = (0..3).map(|_| called.unary("a")).collect();
    for _ in 0..10_000 {
        let error = called.client().send_unary(request("b")).unwrap_err();
        assert!(matches!(error, Error::TooManyCalls(3)), "{error}");
        let error = called.client().send_streaming(request("c")).unwrap_err();
        assert_eq!(
            (error.blame(), error.execution()),
            (Blame::Local, Execution::NeverSent)
        );
        assert!(
            error.to_string().contains("max_concurrent_calls"),
            "{error}"
        );
    }
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    assert_eq!(ids.len(), 3);
    // An answer that nobody takes is memory too.
    called.answer(ids.iter().map(|id| Text::new(*id, NORMAL, "answer")));
    assert!(called.client().send_unary(request("d")).is_err());
    assert_eq!(callers[1].end(), "answer");
    let _next = called.unary("e");
    assert!(called.client().send_unary(request("f")).is_err());
    drop(callers);
    let _after = (called.unary("g"), called.unary("h"));
    assert!(called.client().send_unary(request("i")).is_err());
}

#[test]
fn a_place_is_waited_for_in_line() {
    let mut called = limited(2);
    let mut callers = vec![called.unary("a"), called.unary("b")];
    let mut line: Vec<_> = (0..3).map(|_| reserve(called.client())).collect();
    line.iter_mut()
        .for_each(|reserving| assert!(reserving.poll().is_pending()));
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    called.respond(ids[0], "answer");
    // Not the answer makes room, but that it is taken.
    assert!(!line[0].is_woken());
    assert_eq!(callers.remove(0).end(), "answer");
    assert!(line[0].is_woken() && !line[1].is_woken());
    // Nobody gets in before.
    assert_eq!(
        called.client().send_unary(request("c")).unwrap_err().name(),
        "too_many_calls"
    );
    let mut late = reserve(called.client());
    assert!(late.poll().is_pending());
    let permit = ready(line[0].poll());
    let first = Caller::new(permit.send_unary(request("first")).unwrap());
    called.asked("first");
    // A place that is given back is for the next.
    drop(callers);
    called.settle();
    let permit = ready(line[1].poll());
    assert!(!line[2].is_woken());
    drop(permit);
    let permit = ready(line[2].poll());
    drop(first);
    called.settle();
    drop(ready(late.poll()));
    drop(permit);
    assert_eq!(called.client().in_flight(), 0);
    let _calls = (called.unary("d"), called.unary("e"));
}

#[test]
fn places_that_become_free_together_are_for_as_many_as_wait() {
    let mut called = limited(3);
    let callers = [called.unary("a"), called.unary("b"), called.unary("c")];
    called.settle();
    let mut line: Vec<_> = (0..3).map(|_| reserve(called.client())).collect();
    line.iter_mut()
        .for_each(|reserving| assert!(reserving.poll().is_pending()));
    drop(callers);
    called.settle();
    let permits: Vec<_> = line.iter_mut().map(|it| ready(it.poll())).collect();
    assert_eq!(called.client().in_flight(), permits.len());
}

#[test]
fn who_gives_up_waiting_passes_the_place_on() {
    let mut called = limited(1);
    let caller = called.unary("a");
    let mut line: Vec<_> = (0..3).map(|_| reserve(called.client())).collect();
    line.iter_mut()
        .for_each(|reserving| assert!(reserving.poll().is_pending()));
    drop(caller);
    called.settle();
    assert!(line[0].is_woken());
    drop(line.remove(0));
    assert!(line[0].is_woken());
    drop(ready(line[0].poll()));
    drop(ready(line[1].poll()));
}

#[test]
fn who_waits_is_told_of_the_end() {
    let mut called = limited(1);
    let mut caller = called.unary("a");
    let mut waiting = reserve(called.client());
    assert!(waiting.poll().is_pending());
    called.settle();
    called.connection.handle.abort();
    called.settle();
    let error = failed(waiting.poll());
    assert_eq!(name(&error), "connection_lost: never sent");
    caller.end();
    let error = failed(reserve(called.client()).poll());
    assert_eq!(name(&error), "connection_lost: never sent");

    // A connection that is being drained takes no more calls, those with a place included.
    let mut called = limited(2);
    let mut caller = called.unary("a");
    let permit = ready(reserve(called.client()).poll());
    let mut waiting = reserve(called.client());
    assert!(waiting.poll().is_pending());
    let id = called.asked("a");
    let deadline = called.connection.clock.now() + Duration::from_secs(5);
    called.connection.handle.drain(deadline);
    called.settle();
    assert_eq!(failed(waiting.poll()).name(), "draining");
    assert_eq!(
        permit.send_unary(request("b")).unwrap_err().name(),
        "draining"
    );
    called.respond(id, "answer");
    assert_eq!(caller.end(), "answer");
    assert_eq!(called.connection.reason(), "drained");
}

#[test]
fn a_permit_keeps_the_connection_and_has_the_timeout_of_its_client() {
    let mut called = limited(1);
    let client = called.client().with_timeout(Duration::from_secs(1));
    let permit = ready(reserve(&client).poll());
    drop(client);
    called.drop_client();
    called.settle();
    assert!(!called.connection.is_ended());
    let mut stream = Caller::new(permit.send_streaming(request("a")).unwrap());
    let id = called.asked("a");
    called.connection.advance(Duration::from_secs(1));
    assert_eq!(stream.take(), ["deadline_exceeded: maybe executed", "end"]);
    assert_eq!(called.heard(), [Text::cancelled(id)]);
    assert_eq!(called.connection.reason(), "no_senders");
}

#[test]
fn nonsense_is_refused_by_name() {
    let zero = Duration::ZERO;
    let refused = [
        (
            "max_concurrent_calls",
            Configuration::new().max_concurrent_calls(0),
        ),
        (
            "max_concurrent_calls",
            Configuration::new().max_concurrent_calls(usize::MAX),
        ),
        (
            "slow_consumer_grace",
            Configuration::new().slow_consumer_grace(zero),
        ),
        (
            "connection",
            Configuration::new().connection(ConnectionConfig::default()),
        ),
        ("call_timeout", Configuration::new().call_timeout(zero)),
        ("stream_timeout", Configuration::new().stream_timeout(zero)),
        (
            "max_buffered_items",
            Configuration::new().max_buffered_items(0),
        ),
    ];
    for (name, refused) in refused {
        let error = refused.unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
    assert!(Configuration::new().max_concurrent_calls(1 << 20).is_ok());
}

#[track_caller]
fn ready(polled: std::task::Poll<Result<Permit, Error>>) -> Permit {
    match polled {
        std::task::Poll::Ready(Ok(permit)) => permit,
        other => panic!("it has no place: {other:?}"),
    }
}

#[track_caller]
fn failed(polled: std::task::Poll<Result<Permit, Error>>) -> Error {
    match polled {
        std::task::Poll::Ready(Err(error)) => error,
        other => panic!("it was not told: {other:?}"),
    }
}
