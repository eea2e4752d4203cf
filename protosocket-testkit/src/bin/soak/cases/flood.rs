//! Floods beside a canary.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Context, warm_up};
use crate::beside::{self, Beside};
use crate::child::Server;
use crate::client::{connect, within};
use crate::holding::Holding;
use crate::machine;
use crate::protocol::Request;
use crate::verdict::{
    FLOOD_MEMORY, KEPT_BY_THREADS, Verdict, live_after_a_flood, resident_after_a_flood,
    slowest_beside_a_flood,
};

/// How often a flood is tried whose canary waits for too long, which other programs on the machine
/// make it do as well. Losses of every attempt count.
const ATTEMPTS: usize = 5;

/// Bytes that a flooder hands to the kernel at once.
const CHUNK: usize = 64 * 1024;

/// Bytes that a flooder sends ahead of the answers that it has read, if it reads them. With more, the
/// receive buffer of a socket on loopback grows to its largest size and fills up; the kernel then
/// drops segments of both directions, and its retransmission timers back off to ten seconds and more
/// in which neither program gets a byte.
const UNANSWERED: u64 = 4 << 20;

/// A flood.
#[derive(Debug, Clone, Copy)]
struct Flood {
    flooders: usize,
    /// Bytes of a request's payload.
    size: usize,
    style: Style,
}

/// What flooders do with the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Read those to one chunk before the next is sent.
    Reading,
    /// Leave them.
    NotReading,
    /// Send without waiting for them, and read them meanwhile.
    Pipelining,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = match self.style {
            Style::Reading => "reading",
            Style::NotReading => "not reading",
            Style::Pipelining => "pipelining",
        };
        write!(f, "{}x{} B {style}", self.flooders, self.size)
    }
}

fn floods() -> Vec<Flood> {
    let mut floods = Vec::new();
    for flooders in [1, 8] {
        let mut add = |size, style| {
            floods.push(Flood {
                flooders,
                size,
                style,
            });
        };
        for size in [64, 16 * 1024] {
            add(size, Style::Reading);
            add(size, Style::NotReading);
        }
        add(8, Style::Pipelining);
        add(64, Style::Pipelining);
    }
    floods
}

pub(super) async fn run(context: &Context, verdict: &mut Verdict) -> io::Result<()> {
    let time = Duration::from_millis(context.form.choose(200, 1_000, 10_000));
    let quiet_time = Duration::from_millis(context.form.choose(500, 2_000, 10_000));
    // Of every kind, because threads keep for the next connection what the last one has needed.
    let warm_time = Duration::from_millis(context.form.choose(20, 250, 250));
    let afterwards = Duration::from_millis(context.form.choose(500, 10_000, 10_000));
    let after_each = context.form.choose(false, false, true);

    let mut server = context.server()?;
    let address = server.addresses().patient;
    warm_up(address, 64).await?;
    context.say(format_args!("warming up"), "flood");
    let mut warm = Flooded::default();
    for flood in floods() {
        warm.add(flood.run(address, warm_time).await?);
    }
    verdict.exactly("warm-up: requests unanswered", 0, warm.unanswered);
    verdict.exactly("warm-up: flooders that could not go on", 0, warm.failed);
    context.say(format_args!("quiet"), "flood");
    let idle = context.idle_server()?;
    warm_up(idle.addresses().patient, 1).await?;
    let quiet_canary = Beside::listen(idle.addresses().patient, quiet_time).await?;
    let quiet_p99 = quiet_canary.p99;
    verdict.time("quiet: canary p99", quiet_p99);
    beside::judge("quiet", &[quiet_canary], verdict);
    let quiet = server.settle(None, context.settling()).await?;
    verdict.bytes("quiet: server memory", quiet.resident);
    verdict.bytes("quiet: live bytes of it", quiet.live_bytes);

    let (mut peak, mut after) = (0, None);
    for flood in floods() {
        let servers = [&server, &idle];
        let flood_peak = judge_one(context, servers, flood, time, quiet_p99, verdict).await?;
        let above = flood_peak.saturating_sub(quiet.resident);
        verdict.bytes_at_most(
            format!("{flood}: server memory above quiet"),
            FLOOD_MEMORY,
            above,
        );
        peak = above.max(peak);
        if after_each {
            let what = format!("{flood}: ");
            after = Some(afterwards_of(&what, context, &mut server, afterwards, verdict).await?);
        }
    }
    verdict.bytes("the most memory above quiet", peak);
    let after = match after {
        Some(after) => after,
        None => afterwards_of("", context, &mut server, afterwards, verdict).await?,
    };
    let state = server
        .wait_until(context.settling(), |state| state.connections == 0)
        .await?;
    verdict.exactly("connections left at the server", 0, state.connections);
    verdict.exactly(
        "messages answered or counted",
        state.account.ended.messages_in,
        state.account.accounted_for(),
    );
    server
        .settle(Some(&quiet), context.settling())
        .await?
        .judge("server", &quiet, verdict);
    judge_at_the_end(&mut server, &quiet, &after, verdict)
}

/// A flood of the first of the servers, its canary, and one of the idle server; returns the most
/// memory that the flooded one had meanwhile.
async fn judge_one(
    context: &Context,
    [server, idle]: [&Server; 2],
    flood: Flood,
    time: Duration,
    quiet_p99: Duration,
    verdict: &mut Verdict,
) -> io::Result<u64> {
    let address = server.addresses().patient;
    let attempts = context.form.choose(1, ATTEMPTS, ATTEMPTS);
    let mut reports = Vec::new();
    let mut flooded = Flooded::default();
    let (mut limit, mut p99) = (Duration::ZERO, Duration::MAX);
    machine::forget_peak(server.id())?;
    while reports.len() < attempts && p99 > limit {
        let attempt = reports.len() + 1;
        context.say(format_args!("{flood}, attempt {attempt}"), "flood");
        let quiet = Beside::start(idle.addresses().patient)?;
        let canary = Beside::start(address)?;
        flooded.add(flood.run(address, time).await?);
        let (heard, quiet) = (canary.stop()?, quiet.stop()?);
        limit = slowest_beside_a_flood(quiet_p99.max(quiet.p99));
        p99 = heard.p99;
        reports.push(heard);
    }
    beside::judge(&flood.to_string(), &reports, verdict);
    verdict.time_at_most(format!("{flood}: canary p99"), limit, p99);
    if reports.len() > 1 {
        let attempts = reports.len();
        verdict.note(format!("{flood}: p99 is that of attempt {attempts}"));
    }
    verdict.at_least(format!("{flood}: requests"), 1, flooded.requests);
    verdict.exactly(
        format!("{flood}: requests unanswered"),
        0,
        flooded.unanswered,
    );
    verdict.exactly(
        format!("{flood}: flooders that could not go on"),
        0,
        flooded.failed,
    );
    if let Some(failure) = flooded.failure {
        verdict.note(format!("{flood}: {failure}"));
    }
    machine::peak_bytes(server.id())
}

/// What the server holds some time after a flood.
async fn afterwards_of(
    what: &str,
    context: &Context,
    server: &mut Server,
    wait: Duration,
    verdict: &mut Verdict,
) -> io::Result<Holding> {
    context.say(format_args!("afterwards"), "flood");
    tokio::time::sleep(wait).await;
    let after = server.holding()?;
    let seconds = wait.as_secs_f64();
    verdict.bytes(
        format!("{what}server memory {seconds} s afterwards"),
        after.resident,
    );
    verdict.bytes(format!("{what}live bytes of it"), after.live_bytes);
    Ok(after)
}

/// Ends the server, and judges what it held after the last flood, without what its threads kept for
/// the connections to come: only their end tells how much that was.
fn judge_at_the_end(
    server: &mut Server,
    quiet: &Holding,
    after: &Holding,
    verdict: &mut Verdict,
) -> io::Result<()> {
    const DEADLINE: Duration = Duration::from_secs(1);
    server.begin_drain(DEADLINE)?;
    server.drained(DEADLINE)?;
    let kept = server.end()?;
    verdict.bytes_at_most(
        "given back by its threads at their end",
        KEPT_BY_THREADS,
        kept,
    );
    verdict.percent_at_most(
        "server memory without these, of quiet",
        quiet.resident,
        resident_after_a_flood(quiet.resident),
        after.resident.saturating_sub(kept),
    );
    verdict.bytes_at_most(
        "live bytes without these",
        live_after_a_flood(quiet.live_bytes),
        after.live_bytes.saturating_sub(kept),
    );
    Ok(())
}

/// What flooders have done.
#[derive(Debug, Default)]
struct Flooded {
    requests: u64,
    /// Requests of flooders that read their answers, without one.
    unanswered: u64,
    /// Flooders that could not go on, and why the first of them could not.
    failed: u64,
    failure: Option<String>,
}

impl Flooded {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.unanswered += other.unanswered;
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
    }
}

impl Flood {
    /// Floods for `time`.
    ///
    /// # Errors
    ///
    /// When it could not connect.
    async fn run(self, address: SocketAddr, time: Duration) -> io::Result<Flooded> {
        let frame = match self.size {
            // Too short to be more than an echo.
            8 => Bytes::from_static(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]),
            size => Request::echo(1).frame(size),
        };
        let count = (CHUNK / frame.len()).max(1);
        let chunk: Bytes = frame.repeat(count).into();
        let until = Instant::now() + time;
        let mut flooders = JoinSet::new();
        for index in 0..self.flooders {
            let stream = connect(address, index).await?;
            let flooder = Flooder::new(stream, chunk.clone());
            flooders.spawn(flooder.flood(self.style, until));
        }
        let mut flooded = Flooded::default();
        for (written, read, failure) in flooders.join_all().await {
            flooded.requests += written / frame.len() as u64;
            if self.style != Style::NotReading {
                let missing = written - read.min(written);
                flooded.unanswered += missing.div_ceil(frame.len() as u64);
            }
            if let Some(failure) = failure {
                flooded.failed += 1;
                flooded.failure.get_or_insert(failure);
            }
        }
        Ok(flooded)
    }
}

/// One connection that floods.
struct Flooder {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    chunk: Bytes,
    written: u64,
    read: u64,
}

impl Flooder {
    fn new(stream: TcpStream, chunk: Bytes) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader,
            writer,
            chunk,
            written: 0,
            read: 0,
        }
    }

    /// Returns how many bytes were written and read, and what went wrong.
    async fn flood(mut self, style: Style, until: Instant) -> (u64, u64, Option<String>) {
        let result = match style {
            Style::Reading => self.flood_reading(until).await,
            Style::NotReading => self.write_until(until).await,
            Style::Pipelining => self.flood_pipelining(until).await,
        };
        let Self { written, read, .. } = self;
        let failure = result.err().map(|error| {
            format!("{error}, after {written} bytes had been written and {read} been read")
        });
        (written, read, failure)
    }

    async fn flood_reading(&mut self, until: Instant) -> io::Result<()> {
        let mut buffer = vec![0; self.chunk.len()];
        while Instant::now() < until {
            within(self.writer.write_all(&self.chunk)).await?;
            self.written += self.chunk.len() as u64;
            within(self.reader.read_exact(&mut buffer)).await?;
            self.read += buffer.len() as u64;
        }
        within(self.writer.shutdown()).await?;
        let rest = AtomicU64::new(0);
        let ended = read_all(&mut self.reader, &rest).await;
        self.read += rest.into_inner();
        ended
    }

    async fn flood_pipelining(&mut self, until: Instant) -> io::Result<()> {
        let read = AtomicU64::new(0);
        let (reader, writer, chunk) = (&mut self.reader, &mut self.writer, &self.chunk);
        let written = async {
            let mut written = write_until(writer, chunk, until, &read).await?;
            // What was cut off by the end of the time is completed: half a request is none.
            let rest = (written % chunk.len() as u64) as usize;
            if rest > 0 {
                within(writer.write_all(&chunk[rest..])).await?;
                written += (chunk.len() - rest) as u64;
            }
            within(writer.shutdown()).await?;
            io::Result::Ok(written)
        };
        // The reader comes first, so that the writer sees what was read before it waits for more.
        let (ended, written) = join(read_all(reader, &read), written).await;
        self.read = read.into_inner();
        self.written = written?;
        ended
    }

    async fn write_until(&mut self, until: Instant) -> io::Result<()> {
        let nothing = AtomicU64::new(u64::MAX);
        self.written = write_until(&mut self.writer, &self.chunk, until, &nothing).await?;
        Ok(())
    }
}

/// Both at the same time.
async fn join<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut a, mut b) = (None, None);
    poll_fn(move |cx| {
        if a.is_none()
            && let Poll::Ready(value) = first.as_mut().poll(cx)
        {
            a = Some(value);
        }
        if b.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(cx)
        {
            b = Some(value);
        }
        match (a.take(), b.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (first, second) => {
                (a, b) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}

/// Writes the chunk again and again, no more than [`UNANSWERED`] ahead of what was `read`. Returns
/// how many bytes were taken.
async fn write_until(
    writer: &mut OwnedWriteHalf,
    chunk: &[u8],
    until: Instant,
    read: &AtomicU64,
) -> io::Result<u64> {
    let mut written: u64 = 0;
    loop {
        let rest = &chunk[(written % chunk.len() as u64) as usize..];
        let write = async {
            // Whoever reads wakes this task as well.
            poll_fn(|_| {
                let ahead = written.saturating_sub(read.load(Ordering::Relaxed));
                match ahead < UNANSWERED {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            writer.write(rest).await
        };
        match timeout_at(until, write).await {
            Ok(count) => written += count? as u64,
            Err(_) => return Ok(written),
        }
    }
}

/// Reads to the end, and counts in `read` how many bytes came.
async fn read_all(reader: &mut OwnedReadHalf, read: &AtomicU64) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.clear();
        match within(reader.read_buf(&mut buffer)).await? {
            0 => return Ok(()),
            count => read.fetch_add(count as u64, Ordering::Relaxed),
        };
    }
}
