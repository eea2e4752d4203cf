//! The client of a library: a task for each call in flight, as its users write it.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::latency::Times;
use super::super::message::{Echoes, not_an_echo, payload};
use super::super::{Drive, Parent};
use super::open_loop::OpenLoop;
use super::{
    Client, SLOW_EVERY, SLOW_STREAM, STREAM, StreamingClient, closed_loop, items, open_loop,
    slow_consumer,
};
use crate::work::{Echo, Load};

/// Loads the server through a client that knows streams.
pub(crate) fn drive<C: StreamingClient>(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    load: Load,
) -> io::Result<()> {
    let connect = async || connect::<C>(orders, 1).await;
    match load {
        Load::Stream { payload } => closed_loop(
            runtime,
            parent,
            orders,
            connect,
            async |clients: Vec<C>, duration| {
                let length = items(STREAM, payload);
                let count = stream(&clients[0], payload, length, duration).await?;
                Ok((clients, count))
            },
        ),
        Load::SlowConsumer { payload } => slow_consumer(
            runtime,
            parent,
            orders,
            connect,
            async |clients: &mut Vec<C>, duration| {
                consume_slowly(&clients[0], payload, duration).await
            },
        ),
        _ => drive_without_streams::<C>(runtime, parent, orders, load),
    }
}

/// Loads the server through a client that does not.
pub(crate) fn drive_without_streams<C: Client>(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    load: Load,
) -> io::Result<()> {
    match load {
        Load::Unary(load) | Load::TwoWorkers(load) => closed_loop(
            runtime,
            parent,
            orders,
            async || connect::<C>(orders, load.connections).await,
            async |clients: Vec<C>, duration| {
                let count = call(&clients, load, duration).await?;
                Ok((clients, count))
            },
        ),
        Load::Latency { payload, .. } => open_loop(
            runtime,
            parent,
            orders,
            async || connect::<C>(orders, 1).await,
            async |clients: &mut Vec<C>, duration| {
                call_on_schedule(
                    &clients[0],
                    OpenLoop::new(payload, orders.rate, duration),
                    payload,
                )
                .await
            },
        ),
        other => Err(io::Error::other(format!(
            "the client of a library cannot do {other:?}"
        ))),
    }
}

/// Opens connections, and exchanges one call on each.
async fn connect<C: Client>(orders: &Drive, connections: usize) -> io::Result<Vec<C>> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        let client = C::connect(orders.address).await?;
        Echoes::of(1).check(&client.call(payload(1)).await?)?;
        clients.push(client);
    }
    Ok(clients)
}

/// Keeps the calls in flight for a while, and counts them.
async fn call<C: Client>(clients: &[C], load: Echo, duration: Duration) -> io::Result<u64> {
    let stopped = Arc::new(AtomicBool::new(false));
    let mut calling = JoinSet::new();
    for client in clients {
        for _ in 0..load.in_flight {
            let (client, stopped) = (client.clone(), Arc::clone(&stopped));
            calling.spawn(async move {
                let body = payload::<bytes::Bytes>(load.payload);
                let mut echoes = Echoes::of(load.payload);
                let mut count = 0;
                while count == 0 || !stopped.load(Ordering::Relaxed) {
                    echoes.check(&client.call(body.clone()).await?)?;
                    count += 1;
                }
                io::Result::Ok(count)
            });
        }
    }
    // A clock that each call reads would be a part of what is measured.
    sleep(duration).await;
    stopped.store(true, Ordering::Relaxed);
    let mut total = 0;
    while let Some(finished) = calling.join_next().await {
        total += finished.map_err(io::Error::other)??;
    }
    Ok(total)
}

/// Makes the calls when they are due. The client looks at the clock all the time, for timers are too
/// coarse.
async fn call_on_schedule<C: Client>(
    client: &C,
    mut calls: OpenLoop,
    length: usize,
) -> io::Result<Times> {
    let body: bytes::Bytes = payload(length);
    let mut echoes = Echoes::of(length);
    let mut outstanding = FuturesUnordered::new();
    let mut answered = Vec::new();
    loop {
        let now = Instant::now();
        while let Some(slot) = calls.next(now) {
            outstanding.push(client.call(body.clone()).map(move |body| (slot, body)));
        }
        while let Poll::Ready(Some((slot, body))) =
            std::future::poll_fn(|cx| Poll::Ready(outstanding.poll_next_unpin(cx))).await
        {
            echoes.check(&body?)?;
            answered.push(slot);
        }
        let now = Instant::now();
        for slot in answered.drain(..) {
            calls.answered(slot, now)?;
        }
        if calls.is_done(now) {
            return Ok(calls.into_times());
        }
        yield_now().await;
    }
}

/// Takes one stream after the other for a while, and counts their items.
async fn stream<C: StreamingClient>(
    client: &C,
    length: usize,
    items: u32,
    duration: Duration,
) -> io::Result<u64> {
    let body: bytes::Bytes = payload(length);
    let mut echoes = Echoes::of(length);
    let until = Instant::now() + duration;
    let mut total = 0;
    while total == 0 || Instant::now() < until {
        let mut stream = pin!(client.stream(body.clone(), items));
        let mut count = 0;
        while let Some(item) = stream.next().await {
            echoes.check(&item?)?;
            count += 1;
        }
        if count != u64::from(items) {
            return Err(not_an_echo());
        }
        total += count;
    }
    Ok(total)
}

/// Takes an item now and then, and leaves the others where they are.
async fn consume_slowly<C: StreamingClient>(
    client: &C,
    length: usize,
    duration: Duration,
) -> io::Result<u64> {
    let mut echoes = Echoes::of(length);
    let mut stream = pin!(client.stream(payload(length), items(SLOW_STREAM, length)));
    let mut ticks = interval(SLOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until = Instant::now() + duration;
    let mut count = 0;
    while count == 0 || Instant::now() < until {
        ticks.tick().await;
        let item = stream.next().await.ok_or_else(not_an_echo)?;
        echoes.check(&item?)?;
        count += 1;
    }
    Ok(count)
}
