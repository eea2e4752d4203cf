//! Connections that send as fast as they can, and a probe beside them.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::client::closed;
use super::cycle::Cycle;
use super::message::{Echoes, Message, not_an_echo};
use super::{Clocks, Drive, Parent, latencies, record};
use crate::frame::{self, Inbox};
use crate::work::Flood;

/// How often a message of the probe is due.
const EVERY: Duration = Duration::from_millis(2);

/// Bytes of the probe's messages.
const PROBE_PAYLOAD: usize = 64;

/// How often it is looked whether the load is to end.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The lowest priority that there is: the flood shares its processor with the probe, and what is
/// measured is how long the server lets the probe wait.
const LOWEST_PRIORITY: i32 = 19;

pub(super) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    flood: Flood,
) -> io::Result<()> {
    let stopped = parent.stopped();
    let mut probe = Probe::connect(orders.address)?;
    let now = Instant::now();
    probe.run(now, now + orders.warm_up, &stopped)?;
    let message = Message::new(flood.payload);
    let flooders = runtime.block_on(connect(orders.address, &message, flood))?;
    parent.begin()?;
    let clocks = Clocks::start();
    let until = clocks.start + orders.measured;
    let probing = thread::Builder::new().name("probe".to_owned()).spawn({
        let (stopped, start) = (Arc::clone(&stopped), clocks.start);
        move || {
            probe
                .run(start, until, &stopped)
                .map(|latencies| (probe, latencies))
        }
    })?;
    setpriority_process(Some(gettid()), LOWEST_PRIORITY)?;
    let flooded = runtime.block_on(run(flooders, until, &stopped));
    stopped.store(true, Ordering::Relaxed);
    let latencies = probing
        .join()
        .map_err(|_| io::Error::other("the probe panicked"))?;
    // The flood says why the server ended the connections, if it did.
    let _flooders = flooded?;
    let (_probe, latencies) = latencies?;
    let report = clocks.stop(latencies.len());
    parent.end(&report.with_latencies(&latencies))
}

async fn connect(address: SocketAddr, message: &Message, flood: Flood) -> io::Result<Vec<Flooder>> {
    let mut flooders = Vec::with_capacity(flood.flooders);
    for _ in 0..flood.flooders {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut outbox = message.cycle();
        outbox.add(u64::MAX);
        flooders.push(Flooder {
            stream,
            outbox,
            inbox: Inbox::default(),
            echoes: message.echoes(),
            reading: flood.reading,
        });
    }
    Ok(flooders)
}

/// Floods until it is time or until it is told to stop. The connections stay open after that.
async fn run(
    flooders: Vec<Flooder>,
    until: Instant,
    stopped: &Arc<AtomicBool>,
) -> io::Result<Vec<Flooder>> {
    let mut flooding = JoinSet::new();
    for mut flooder in flooders {
        let stopped = Arc::clone(stopped);
        flooding.spawn(async move {
            let mut look = interval(LOOK_EVERY);
            poll_fn(|cx| {
                while look.poll_tick(cx).is_ready() {
                    if stopped.load(Ordering::Relaxed) || Instant::now() >= until {
                        return Poll::Ready(Ok(()));
                    }
                }
                flooder.poll_flood(cx).map(Err)
            })
            .await?;
            io::Result::Ok(flooder)
        });
    }
    let mut flooders = Vec::new();
    while let Some(finished) = flooding.join_next().await {
        flooders.push(finished.map_err(io::Error::other)??);
    }
    Ok(flooders)
}

/// A connection that sends without a pause.
struct Flooder {
    stream: tokio::net::TcpStream,
    outbox: Cycle,
    inbox: Inbox,
    echoes: Echoes,
    reading: bool,
}

impl Flooder {
    /// Ready when the connection has failed.
    fn poll_flood(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let written = self.outbox.poll_write_once(&mut self.stream, cx);
            if let Poll::Ready(Err(error)) = written {
                return Poll::Ready(error);
            }
            let replies = if self.reading {
                self.poll_replies(cx)
            } else {
                Poll::Pending
            };
            if let Poll::Ready(Err(error)) = replies {
                return Poll::Ready(error);
            }
            if written.is_pending() && replies.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Takes what one read brings.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if ready!(self.inbox.poll_read(&mut self.stream, cx))? == 0 {
            return Poll::Ready(Err(closed()));
        }
        while let Some(echo) = self.inbox.next_payload()? {
            self.echoes.check(echo)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// A connection with one small message in flight, from a thread of its own.
struct Probe {
    stream: TcpStream,
    message: Vec<u8>,
}

impl Probe {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
        let mut message = Vec::new();
        frame::encode(&[1; PROBE_PAYLOAD], &mut message);
        Ok(Self { stream, message })
    }

    /// Round trips from when their message was due: whatever keeps one back, be it the reply to the
    /// one before, belongs to it. What has no reply in the end counts as long as it has waited.
    fn run(
        &mut self,
        start: Instant,
        until: Instant,
        stopped: &AtomicBool,
    ) -> io::Result<Histogram<u64>> {
        let mut latencies = latencies();
        let mut due = start;
        while due < until && !stopped.load(Ordering::Relaxed) {
            wait_until(due);
            let answered = self.exchange(until, stopped)?;
            let now = Instant::now();
            if answered {
                record(&mut latencies, now - due, 1);
                due += EVERY;
            } else {
                while due < now.min(until) {
                    record(&mut latencies, now - due, 1);
                    due += EVERY;
                }
                break;
            }
        }
        Ok(latencies)
    }

    /// Whether the reply came before the load ended.
    fn exchange(&mut self, until: Instant, stopped: &AtomicBool) -> io::Result<bool> {
        self.stream.write_all(&self.message)?;
        let mut reply = vec![0; self.message.len()];
        let mut received = 0;
        while received < reply.len() {
            match self.stream.read(&mut reply[received..]) {
                Ok(0) => return Err(closed()),
                Ok(count) => received += count,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if stopped.load(Ordering::Relaxed) || Instant::now() >= until {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if reply == self.message {
            Ok(true)
        } else {
            Err(not_an_echo())
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the probe is paced by real time, and timers of the runtime are too coarse for it"
)]
fn wait_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}
