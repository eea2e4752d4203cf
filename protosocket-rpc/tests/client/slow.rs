//! Streams whose items are not taken as fast as they come (D10).

use std::{future::poll_fn, pin::Pin, time::Duration};

use futures_core::Stream;
use protosocket::Blame;
use protosocket_rpc::{
    Error, Message,
    client::{self, Configuration, SlowConsumer},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::*;

/// What a slow consumer is given by default.
const GRACE: Duration = Duration::from_secs(1);

fn buffering(items: usize, policy: SlowConsumer) -> Called {
    let configuration = Configuration::new().slow_consumer(policy);
    Called::configured(configuration.max_buffered_items(items).unwrap())
}

/// Items of the stream `id`, numbered from `first`.
fn items(id: u64, numbers: std::ops::Range<usize>) -> impl Iterator<Item = Text> {
    numbers.map(move |n| Text::new(id, NORMAL, n.to_string()))
}

#[test]
fn d10_a_slow_consumer_pauses_its_connection() {
    for limit in [1, 2, 3, 7, 128] {
        let mut called = buffering(limit, SlowConsumer::Pause);
        let mut stream = called.stream("a");
        let mut unary = called.unary("b");
        let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
        // More than is decoded, or read, in one go.
        called.answer(items(ids[0], 0..50_000));
        called.answer([Text::ended(ids[0]), Text::new(ids[1], NORMAL, "answer")]);
        // Of the items.
        let heard = |called: &Called| {
            let heard = called.connection.connection().stats().messages_in as usize;
            heard.min(50_000)
        };
        assert!(heard(&called) <= limit, "{} of {limit}", heard(&called));
        unary.waits();
        let mut taken = 0;
        while taken < 50_000 {
            // One at a time, so that what is taken from the table and not used counts as well.
            let std::task::Poll::Ready(Some(Ok(item))) = stream.poll_next() else {
                panic!("limit {limit}: nothing comes after {taken} items");
            };
            assert_eq!(item.text, taken.to_string());
            taken += 1;
            called.settle();
            assert!(
                heard(&called) <= taken + limit,
                "{} of {taken} + {limit}",
                heard(&called)
            );
        }
        assert_eq!(stream.take(), ["end"]);
        assert_eq!(unary.end(), "answer");
        assert_eq!(called.heard(), []);
    }
}

#[test]
fn d10_items_that_wait_are_weighed() {
    const SIZE: usize = 10_000;
    for (bytes, fits) in [(1, 1), (SIZE, 1), (10 * SIZE, 10), (100 * SIZE, 100)] {
        let configuration = Configuration::new().max_buffered_bytes(bytes).unwrap();
        let mut called = Called::configured(configuration);
        let mut stream = called.stream("a");
        let id = called.asked("a");
        called.answer((0..300).map(|_| Text::new(id, NORMAL, "x".repeat(SIZE))));
        called.answer([Text::ended(id)]);
        let heard = |called: &Called| {
            let heard = called.connection.connection().stats().messages_in as usize;
            heard.min(300)
        };
        assert!(3 * heard(&called) >= fits, "what fits is taken");
        for taken in 0..300 {
            // The last of them may exceed the limit.
            let waiting = heard(&called) - taken;
            assert!(waiting <= fits + 1, "{waiting} wait where {fits} fit");
            let item = stream.poll_next();
            assert!(
                matches!(item, std::task::Poll::Ready(Some(Ok(_)))),
                "{taken}: {item:?}"
            );
            called.settle();
        }
        assert_eq!(stream.take(), ["end"]);
    }
}

#[test]
fn d10_a_slow_consumer_is_ended_after_the_grace_where_that_is_the_policy() {
    for limit in [1, 2, 3, 100, 128] {
        let mut called = buffering(limit, SlowConsumer::End);
        let mut stream = called.stream("a");
        let mut unary = called.unary("b");
        let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
        called.answer(items(ids[0], 0..50_000));
        called.respond(ids[1], "answer");
        called.connection.advance(GRACE - Duration::from_nanos(1));
        unary.waits();
        assert_eq!(called.heard(), []);
        called.connection.advance(Duration::from_nanos(1));
        assert_eq!(unary.end(), "answer");
        assert_eq!(called.heard(), [Text::cancelled(ids[0])]);
        let taken = stream.take();
        let kept = &taken[..taken.len() - 2];
        assert_eq!(kept.len(), limit);
        assert!(
            kept.iter()
                .enumerate()
                .all(|(n, item)| *item == n.to_string())
        );
        assert_eq!(taken[kept.len()..], ["slow_consumer", "end"]);
    }
    let error = Error::SlowConsumer {
        max_items: 1,
        max_bytes: 2,
    };
    assert_eq!(error.blame(), Blame::Local);
}

#[test]
fn d10_one_read_of_many_items_does_not_make_a_consumer_slow() {
    for limit in [1, 2, 3, 128] {
        let mut called = buffering(limit, SlowConsumer::End);
        let mut stream = called.stream("a");
        let id = called.asked("a");
        assert_eq!(stream.take(), Vec::<String>::new());
        called.answer(items(id, 0..10_000).chain([Text::ended(id)]));
        let mut taken = Vec::new();
        while taken.last().is_none_or(|last| last != "end") {
            let more = stream.take();
            assert!(!more.is_empty(), "nothing comes after {}", taken.len());
            taken.extend(more);
            // It takes its time, but less than it has.
            called.connection.advance(GRACE / 2);
        }
        assert_eq!(taken.len(), 10_001);
        assert_eq!(called.heard(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn d10_a_task_that_only_awaits_the_next_item_is_not_slow() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let configuration = Configuration::new().slow_consumer(SlowConsumer::End);
    let (client, connection) = client::over(near, TextCodec, &configuration);
    let connection = tokio::spawn(connection);
    let mut stream = client.send_streaming(request("a")).unwrap();
    let mut asked = vec![0; encoded([Text::new(1 << 12, NORMAL, "a")]).len()];
    far.read_exact(&mut asked).await.unwrap();
    let id = decoded(&asked)[0].id;
    let answer = encoded(items(id, 0..10_000).chain([Text::ended(id)]));
    far.write_all(&answer).await.unwrap();
    let mut taken = 0;
    while let Some(item) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
        assert_eq!(item.unwrap().text, taken.to_string());
        taken += 1;
    }
    assert_eq!(taken, 10_000);
    drop(client);
    assert_eq!(connection.await.unwrap().reason.name(), "no_senders");
}

#[test]
fn one_item_less_than_may_wait_holds_up_nobody() {
    for limit in [1, 2, 3, 7, 128] {
        let mut called = buffering(limit, SlowConsumer::End);
        let mut stream = called.stream("a");
        let id = called.asked("a");
        called.answer(items(id, 0..limit - 1).chain([Text::ended(id)]));
        called.connection.advance(2 * GRACE);
        let taken = stream.take();
        assert_eq!((taken.len(), &*taken[limit - 1]), (limit, "end"));
        assert_eq!(called.heard(), []);
    }
}

#[test]
fn a_consumer_that_keeps_up_is_not_slow() {
    for policy in [SlowConsumer::Pause, SlowConsumer::End] {
        let mut called = buffering(8, policy);
        let mut stream = called.stream("a");
        let id = called.asked("a");
        assert_eq!(stream.take(), Vec::<String>::new());
        for round in 0..1000 {
            let numbers = round * 4..round * 4 + 4;
            called.answer(items(id, numbers.clone()));
            let expected: Vec<_> = numbers.map(|n| n.to_string()).collect();
            assert_eq!(stream.take(), expected, "{policy:?}");
        }
        called.answer([Text::ended(id)]);
        assert_eq!(stream.take(), ["end"]);
        assert_eq!(called.heard(), []);
    }
}

#[test]
fn a_slow_consumer_that_goes_lets_the_others_go_on() {
    let mut called = buffering(4, SlowConsumer::Pause);
    let slow = called.stream("slow");
    let mut other = called.stream("other");
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    let both = (0..100).flat_map(|n| {
        ids.iter()
            .map(move |id| Text::new(*id, NORMAL, n.to_string()))
    });
    called.answer(both.collect::<Vec<_>>());
    // They are paused by the slow one.
    assert!(other.take().len() < 4);
    called.settle();
    assert!(other.take().is_empty());
    drop(slow);
    let mut taken = 0;
    while taken < 90 {
        called.settle();
        let more = other.take().len();
        assert!(more > 0, "nothing comes after {taken} items");
        taken += more;
    }
    assert_eq!(called.heard(), [Text::cancelled(ids[0])]);
}

#[test]
fn two_slow_consumers_wait_for_each_other_and_neither_is_lost() {
    let mut called = buffering(2, SlowConsumer::Pause);
    let mut streams = [called.stream("a"), called.stream("b")];
    let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
    let both = (0..100).flat_map(|n| {
        ids.iter()
            .map(move |id| Text::new(*id, NORMAL, n.to_string()))
    });
    let ends = ids.iter().map(|id| Text::ended(*id));
    called.answer(both.chain(ends).collect::<Vec<_>>());
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..400 {
        for (stream, taken) in streams.iter_mut().zip(&mut taken) {
            taken.extend(stream.take());
            called.settle();
        }
    }
    let mut expected: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    expected.push("end".to_owned());
    assert_eq!(taken, [expected.clone(), expected]);
}

#[test]
fn the_end_of_the_connection_is_noticed_while_input_is_paused() {
    let mut called = buffering(2, SlowConsumer::Pause);
    let mut stream = called.stream("a");
    let mut unary = called.unary("b");
    let id = called.heard()[0].id;
    called.answer(items(id, 0..5));
    called
        .connection
        .peer
        .fail_read(std::io::ErrorKind::ConnectionReset);
    assert_eq!(called.connection.reason(), "io");
    let lost = "connection_lost: maybe executed";
    assert_eq!(unary.end(), lost);
    // What had been decoded is given first.
    assert_eq!(stream.take(), ["0", "1", lost, "end"]);
}
