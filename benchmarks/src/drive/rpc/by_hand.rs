//! The client of the loop: by hand, with prost.
//!
//! It is the other half of the practical limit, and it drives every server that speaks its wire: what
//! those servers cost is then told apart by nothing else.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{MissedTickBehavior, interval};

use super::super::client::closed;
use super::super::latency::Times;
use super::super::message::{Echoes, not_an_echo, payload};
use super::super::{Clocks, Drive, Parent};
use super::open_loop::OpenLoop;
use super::{SLOW_EVERY, SLOW_STREAM, STREAM, closed_loop, items, open_loop, slow_consumer};
use crate::call::{self, CANCEL, END, NORMAL, Request, Response, Varint};
use crate::frame::{Inbox, Outbox};
use crate::work::Load;

/// After so many bytes of answers the next calls are sent, although there may be more to read.
const BATCH: usize = 1 << 20;

/// Bytes of calls that are encoded before they are written, where nothing else says how many.
const CHUNK: usize = 64 << 10;

/// Streams that a client asks for and does not read.
const DEAF_STREAMS: u64 = 16;

/// How often it is looked whether the load is to end.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(crate) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    load: Load,
) -> io::Result<()> {
    let address = orders.address;
    let connect = async |payload| Caller::connect(address, payload, 1).await;
    match load {
        Load::Unary(load) | Load::TwoWorkers(load) => closed_loop(
            runtime,
            parent,
            orders,
            async || {
                let mut callers = Vec::with_capacity(load.connections);
                for _ in 0..load.connections {
                    callers.push(Caller::connect(address, load.payload, load.in_flight).await?);
                }
                Ok(callers)
            },
            call,
        ),
        Load::Stream { payload } => closed_loop(
            runtime,
            parent,
            orders,
            async || connect(payload).await,
            async |mut caller, duration| {
                let count = caller.stream(items(STREAM, payload), duration).await?;
                Ok((caller, count))
            },
        ),
        Load::Latency { payload, .. } => open_loop(
            runtime,
            parent,
            orders,
            async || connect(payload).await,
            async |caller, duration| {
                let calls = OpenLoop::new(payload, orders.rate, duration);
                caller.call_on_schedule(calls).await
            },
        ),
        Load::SlowConsumer { payload } => slow_consumer(
            runtime,
            parent,
            orders,
            async || connect(payload).await,
            async |caller, duration| {
                let length = items(SLOW_STREAM, payload);
                caller.consume_slowly(length, duration).await
            },
        ),
        Load::DeafToCalls { payload } => {
            hostile(runtime, parent, orders, payload, async |caller| {
                caller
                    .deafen(orders.measured, &parent.stopped(), None)
                    .await
            })
        }
        Load::DeafToStreams { payload } => {
            hostile(runtime, parent, orders, payload, async |caller| {
                let streams = Some(DEAF_STREAMS);
                caller
                    .deafen(orders.measured, &parent.stopped(), streams)
                    .await
            })
        }
        Load::Never { calls } => hostile(runtime, parent, orders, 64, async |caller| {
            caller
                .call_in_vain(u64::from(calls), &parent.stopped())
                .await
        }),
    }
}

/// Runs a load whose figures are those of its one connection.
fn hostile(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    payload: usize,
    run: impl AsyncFn(&mut Caller) -> io::Result<()>,
) -> io::Result<()> {
    let mut caller = runtime.block_on(Caller::connect(orders.address, payload, 1))?;
    parent.begin()?;
    let clocks = Clocks::start();
    runtime.block_on(run(&mut caller))?;
    parent.end(&clocks.stop(1))
}

/// Runs all callers at once, and counts their calls.
async fn call(callers: Vec<Caller>, duration: Duration) -> io::Result<(Vec<Caller>, u64)> {
    let mut calling = JoinSet::new();
    for mut caller in callers {
        calling.spawn(async move {
            let count = caller.call(duration).await?;
            io::Result::Ok((caller, count))
        });
    }
    let (mut callers, mut total) = (Vec::new(), 0);
    while let Some(finished) = calling.join_next().await {
        let (caller, count) = finished.map_err(io::Error::other)??;
        callers.push(caller);
        total += count;
    }
    Ok((callers, total))
}

/// One connection to a system under test.
#[derive(Debug)]
pub(super) struct Caller {
    stream: TcpStream,
    inbox: Inbox<Varint>,
    outbox: Outbox,
    body: Bytes,
    echoes: Echoes,
    /// Whether a call is in flight, by its id less one.
    in_flight: Vec<bool>,
    outstanding: usize,
    /// Ids of calls that were answered and are not in flight again.
    free: Vec<u64>,
    /// The last id of a call that has one for itself.
    last_id: u64,
}

impl Caller {
    /// Connects and exchanges one call.
    pub(super) async fn connect(
        address: SocketAddr,
        length: usize,
        in_flight: usize,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut caller = Self {
            stream,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            body: payload(length),
            echoes: Echoes::of(length),
            in_flight: vec![false; in_flight],
            outstanding: 0,
            free: vec![1],
            last_id: in_flight as u64,
        };
        let now = Instant::now();
        poll_fn(|cx| caller.poll_call(cx, now, &mut 0)).await?;
        Ok(caller)
    }

    /// Keeps the calls in flight for a while, waits for the outstanding answers, and counts them.
    pub(super) async fn call(&mut self, duration: Duration) -> io::Result<u64> {
        self.free = (1..=self.in_flight.len() as u64).collect();
        let until = Instant::now() + duration;
        let mut count = 0;
        poll_fn(|cx| self.poll_call(cx, until, &mut count)).await?;
        Ok(count)
    }

    fn poll_call(
        &mut self,
        cx: &mut Context<'_>,
        until: Instant,
        count: &mut u64,
    ) -> Poll<io::Result<()>> {
        loop {
            // Every call is made once, even if there is no time.
            if *count == 0 || Instant::now() < until {
                self.call_again();
            } else if self.outstanding == 0 {
                return Poll::Ready(Ok(()));
            }
            // Answers are read even while the server does not accept more calls.
            let _: Poll<()> = self.outbox.poll_write(&mut self.stream, cx)?;
            *count += ready!(self.poll_answers(cx))?;
        }
    }

    fn call_again(&mut self) {
        let Self {
            outbox, body, free, ..
        } = self;
        self.outstanding += free.len();
        for id in free.drain(..) {
            self.in_flight[id as usize - 1] = true;
            let request = Request {
                id,
                ..Request::unary(body.clone())
            };
            call::encode(&request, outbox.end());
        }
    }

    /// Takes all answers that have come, at least one.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let (mut count, mut read) = (0, 0);
        while count == 0 || read < BATCH {
            let Poll::Ready(bytes) = self.poll_read(cx)? else {
                break;
            };
            read += bytes;
            while let Some(response) = next_response(&mut self.inbox)? {
                self.echoes.check_answer(&response)?;
                let index = usize::try_from(response.id).unwrap_or(usize::MAX);
                let call = self.in_flight.get_mut(index.wrapping_sub(1));
                if !call.is_some_and(std::mem::take) {
                    return Poll::Ready(Err(not_an_echo()));
                }
                self.free.push(response.id);
                count += 1;
            }
        }
        self.outstanding -= count as usize;
        if count > 0 {
            Poll::Ready(Ok(count))
        } else {
            Poll::Pending
        }
    }

    /// Takes one stream after the other for a while, and counts their items.
    pub(super) async fn stream(&mut self, items: u32, duration: Duration) -> io::Result<u64> {
        let until = Instant::now() + duration;
        let mut total = 0;
        while total == 0 || Instant::now() < until {
            let id = self.ask_for_stream(items);
            let mut count = 0;
            while let Some(item) = self.next_item(id).await? {
                self.echoes.check(&item)?;
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
    async fn consume_slowly(&mut self, items: u32, duration: Duration) -> io::Result<u64> {
        let id = self.ask_for_stream(items);
        let mut ticks = interval(SLOW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let until = Instant::now() + duration;
        let mut count = 0;
        while count == 0 || Instant::now() < until {
            ticks.tick().await;
            let item = self.next_item(id).await?.ok_or_else(not_an_echo)?;
            self.echoes.check(&item)?;
            count += 1;
        }
        Ok(count)
    }

    fn ask_for_stream(&mut self, items: u32) -> u64 {
        let request = Request {
            id: self.next_id(),
            ..Request::stream(self.body.clone(), items)
        };
        call::encode(&request, self.outbox.end());
        request.id
    }

    /// The next item of the only stream, `None` behind its last.
    async fn next_item(&mut self, id: u64) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| {
            loop {
                if let Some(response) = next_response(&mut self.inbox)? {
                    return Poll::Ready(match response.code {
                        NORMAL if response.id == id => Ok(Some(response.body)),
                        END if response.id == id => Ok(None),
                        _ => Err(not_an_echo()),
                    });
                }
                let _: Poll<()> = self.outbox.poll_write(&mut self.stream, cx)?;
                ready!(self.poll_read(cx))?;
            }
        })
        .await
    }

    /// Makes the calls when they are due. The client looks at the clock all the time, for timers are
    /// too coarse.
    pub(super) async fn call_on_schedule(&mut self, mut calls: OpenLoop) -> io::Result<Times> {
        while !calls.is_done(Instant::now()) {
            poll_fn(|cx| Poll::Ready(self.poll_schedule(cx, &mut calls))).await?;
            yield_now().await;
        }
        Ok(calls.into_times())
    }

    fn poll_schedule(&mut self, cx: &mut Context<'_>, calls: &mut OpenLoop) -> io::Result<()> {
        let now = Instant::now();
        while let Some(slot) = calls.next(now) {
            let request = Request {
                id: slot as u64 + 1,
                ..Request::unary(self.body.clone())
            };
            call::encode(&request, self.outbox.end());
        }
        let _: Poll<()> = self.outbox.poll_write(&mut self.stream, cx)?;
        if self.poll_read(cx)?.is_ready() {
            let now = Instant::now();
            while let Some(response) = next_response(&mut self.inbox)? {
                self.echoes.check_answer(&response)?;
                let slot = usize::try_from(response.id).unwrap_or(usize::MAX);
                calls.answered(slot.wrapping_sub(1), now)?;
            }
        }
        Ok(())
    }

    /// Calls without a pause, or only for so many streams, and never reads.
    pub(super) async fn deafen(
        &mut self,
        duration: Duration,
        stopped: &Arc<AtomicBool>,
        streams: Option<u64>,
    ) -> io::Result<()> {
        let until = Instant::now() + duration;
        for _ in 0..streams.unwrap_or(0) {
            self.ask_for_stream(u32::MAX);
        }
        let mut look = interval(LOOK_EVERY);
        poll_fn(|cx| {
            loop {
                while look.poll_tick(cx).is_ready() {
                    if stopped.load(Ordering::Relaxed) || Instant::now() >= until {
                        return Poll::Ready(Ok(()));
                    }
                }
                ready!(self.outbox.poll_write(&mut self.stream, cx))?;
                if streams.is_some() {
                    return Poll::Pending;
                }
                self.fill(u64::MAX, |request| request);
            }
        })
        .await
    }

    /// Makes so many calls that are never answered, and one more, whose answer says that the server has
    /// taken them all. A server may refuse some of them, the last one too.
    pub(super) async fn call_in_vain(
        &mut self,
        calls: u64,
        stopped: &Arc<AtomicBool>,
    ) -> io::Result<()> {
        let last = self.last_id + calls + 1;
        poll_fn(|cx| {
            loop {
                if stopped.load(Ordering::Relaxed) {
                    return Poll::Ready(Ok(()));
                }
                while let Some(response) = next_response(&mut self.inbox)? {
                    let expected = response.code == CANCEL || response.id == last;
                    if !expected || response.id > last {
                        return Poll::Ready(Err(not_an_echo()));
                    }
                    if response.id == last {
                        return Poll::Ready(Ok(()));
                    }
                }
                if self.outbox.len() == 0 {
                    self.fill(last, |request| Request {
                        never: request.id < last,
                        ..request
                    });
                }
                let written = self.outbox.poll_write(&mut self.stream, cx)?;
                let read = self.poll_read(cx)?;
                let idle = written.is_pending() || self.last_id == last;
                if read.is_pending() && idle {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Encodes a few calls, each with an id of its own, up to the last one.
    fn fill(&mut self, last: u64, change: impl Fn(Request) -> Request) {
        while self.last_id < last && self.outbox.len() < CHUNK {
            let request = change(Request {
                id: self.next_id(),
                ..Request::unary(self.body.clone())
            });
            call::encode(&request, self.outbox.end());
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Reads once.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match ready!(self.inbox.poll_read(&mut self.stream, cx))? {
            0 => Poll::Ready(Err(closed())),
            count => Poll::Ready(Ok(count)),
        }
    }
}

#[inline]
fn next_response(inbox: &mut Inbox<Varint>) -> io::Result<Option<Response>> {
    inbox.next_payload()?.map(call::decode).transpose()
}
