//! Commands to a key-value server: by hand on a schedule, or by `redis-benchmark` as fast as it can.
//!
//! Both send what `redis-benchmark` sends, to the same keys, all of which have a value from the start.
//! The client by hand compares every reply, all bytes of it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::yield_now;

use super::client::closed;
use super::latency::{Times, due, due_at, share};
use super::{Clocks, Drive, Parent, record};
use crate::frame::Outbox;
use crate::machine;
use crate::work::{REDIS_BENCHMARK, Resp, RespLoad, Schedule, Verb};

/// Keys, of which each command picks one.
const KEYS: u32 = 10_000;

/// Bytes of a value.
const VALUE: usize = 64;

/// Commands that set the values at the beginning, at a time.
const AT_ONCE: u32 = 100;

/// Bytes of one read.
const READ: usize = 64 << 10;

/// Commands that `redis-benchmark` sends for each second that it is to measure, about as many as
/// servers take in it: with one at a time, and with a pipeline. It does not look at the clock.
const SENT_PER_SECOND: [u32; 2] = [80_000, 600_000];

pub(super) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    work: Resp,
) -> io::Result<()> {
    runtime.block_on(set_all(orders.address))?;
    match work.load {
        RespLoad::Schedule { rate } => on_schedule(runtime, parent, orders, work, rate),
        RespLoad::Benchmark => benchmark(parent, orders, work),
    }
}

fn on_schedule(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    work: Resp,
    rate: u32,
) -> io::Result<()> {
    let mut load = runtime.block_on(Load::connect(orders.address, work, rate))?;
    runtime.block_on(load.run(orders.warm_up))?;
    parent.begin()?;
    let clocks = Clocks::start();
    let times = runtime.block_on(load.run(orders.measured))?;
    let mut report = clocks.stop(times.round_trips.len());
    report.send_delay_p99_ns = Some(times.send_delays.value_at_quantile(0.99));
    parent.end(&report.with_latencies(&times.round_trips))
}

/// Gives every key its value.
async fn set_all(address: SocketAddr) -> io::Result<()> {
    let mut connection = Connection::connect(address, Verb::Set).await?;
    let commands = commands(Verb::Set);
    for some in commands.chunks(AT_ONCE as usize) {
        for command in some {
            connection.outbox.end().extend_from_slice(command);
        }
        let mut answered = 0;
        poll_fn(|cx| {
            let _: Poll<()> = connection.outbox.poll_write(&mut connection.stream, cx)?;
            while answered < some.len() as u64 {
                answered += ready!(connection.poll_replies(cx))?;
            }
            Poll::Ready(io::Result::Ok(()))
        })
        .await?;
    }
    Ok(())
}

/// A command for each key, as `redis-benchmark` writes it.
fn commands(verb: Verb) -> Vec<Vec<u8>> {
    let name = verb.name();
    let command = |key| {
        let key = format!("key:{key:012}");
        let head = format!("${}\r\n{name}\r\n${}\r\n{key}\r\n", name.len(), key.len());
        match verb {
            Verb::Get => format!("*2\r\n{head}").into_bytes(),
            Verb::Set => format!("*3\r\n{head}${VALUE}\r\n{}\r\n", value()).into_bytes(),
        }
    };
    (0..KEYS).map(command).collect()
}

fn value() -> String {
    "x".repeat(VALUE)
}

/// What every command is answered with.
fn reply(verb: Verb) -> Arc<[u8]> {
    Arc::from(match verb {
        Verb::Get => format!("${VALUE}\r\n{}\r\n", value()).into_bytes(),
        Verb::Set => b"+OK\r\n".to_vec(),
    })
}

/// Connections that take turns: batch `k` of the schedule belongs to connection `k` modulo their
/// number.
struct Load {
    /// Of the batches.
    schedule: Schedule,
    /// Commands of a batch.
    pipeline: u64,
    commands: Vec<Vec<u8>>,
    /// Picks keys.
    random: u64,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    outbox: Outbox,
    read: Box<[u8]>,
    reply: Arc<[u8]>,
    /// Bytes of a reply that have come.
    begun: usize,
    /// Batches.
    sent: u64,
    /// Commands.
    answered: u64,
}

impl Load {
    async fn connect(address: SocketAddr, work: Resp, rate: u32) -> io::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..work.connections {
            connections.push(Connection::connect(address, work.command).await?);
        }
        let pipeline = u32::try_from(work.pipeline).map_err(io::Error::other)?;
        Ok(Self {
            schedule: Schedule {
                payload: VALUE,
                connections: work.connections,
                rate: rate / pipeline,
            },
            pipeline: u64::from(pipeline),
            commands: commands(work.command),
            random: 1,
            connections,
        })
    }

    /// Sends what the schedule has for that long, and waits for the last reply.
    ///
    /// The client looks at the clock all the time, for timers are too coarse. It lets the runtime
    /// look for events in between.
    async fn run(&mut self, duration: Duration) -> io::Result<Times> {
        for connection in &mut self.connections {
            (connection.sent, connection.answered) = (0, 0);
        }
        let total = due(self.schedule, duration);
        let mut times = Times::new();
        let start = Instant::now();
        while times.round_trips.len() < total * self.pipeline {
            let due = due(self.schedule, start.elapsed()).min(total);
            poll_fn(|cx| Poll::Ready(self.poll_all(cx, start, due, &mut times))).await?;
            yield_now().await;
        }
        Ok(times)
    }

    /// Sends the first `due` batches, as far as they are not sent, and takes the replies.
    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        start: Instant,
        due: u64,
        times: &mut Times,
    ) -> io::Result<()> {
        let schedule = self.schedule;
        let count = schedule.connections as u64;
        for (turn, connection) in (0..).zip(&mut self.connections) {
            let at = |batch: u64| start + due_at(schedule, batch * count + turn);
            let all = share(due, count, turn);
            if connection.sent < all {
                let now = Instant::now();
                for batch in connection.sent..all {
                    record(&mut times.send_delays, now - at(batch), 1);
                    for _ in 0..self.pipeline {
                        let key = next(&mut self.random) as usize % self.commands.len();
                        let command = &self.commands[key];
                        connection.outbox.end().extend_from_slice(command);
                    }
                }
                connection.sent = all;
            }
            let _: Poll<()> = connection.outbox.poll_write(&mut connection.stream, cx)?;
            if let Poll::Ready(replies) = connection.poll_replies(cx)? {
                let now = Instant::now();
                for command in connection.answered..connection.answered + replies {
                    record(&mut times.round_trips, now - at(command / self.pipeline), 1);
                }
                connection.answered += replies;
                if connection.answered > connection.sent * self.pipeline {
                    return Err(not_the_reply());
                }
            }
        }
        Ok(())
    }
}

/// The next of a sequence without a visible order: xorshift, which never is zero.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

impl Connection {
    async fn connect(address: SocketAddr, verb: Verb) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            outbox: Outbox::default(),
            read: vec![0; READ].into_boxed_slice(),
            reply: reply(verb),
            begun: 0,
            sent: 0,
            answered: 0,
        })
    }

    /// Takes what one read brings, and counts the replies that are complete.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let mut read = ReadBuf::new(&mut self.read);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        let mut bytes = read.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(closed()));
        }
        let mut count = 0;
        while !bytes.is_empty() {
            let expected = &self.reply[self.begun..];
            let length = expected.len().min(bytes.len());
            if bytes[..length] != expected[..length] {
                return Poll::Ready(Err(not_the_reply()));
            }
            bytes = &bytes[length..];
            self.begun = (self.begun + length) % self.reply.len();
            count += u64::from(self.begun == 0);
        }
        Poll::Ready(Ok(count))
    }
}

#[cold]
fn not_the_reply() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the server sent something else than the reply",
    )
}

fn benchmark(parent: &Parent, orders: &Drive, work: Resp) -> io::Result<()> {
    run_benchmark(orders.address, work, orders.warm_up)?;
    parent.begin()?;
    let clocks = Clocks::start();
    let (count, rate) = run_benchmark(orders.address, work, orders.measured)?;
    let mut report = clocks.stop(count);
    // It takes its time to start and to end, in which it sends nothing.
    report.elapsed_ns = (count as f64 * 1e9 / rate) as u64;
    parent.end(&report)
}

/// Commands that were sent, and its commands per second.
fn run_benchmark(address: SocketAddr, work: Resp, duration: Duration) -> io::Result<(u64, f64)> {
    let per_second = SENT_PER_SECOND[usize::from(work.pipeline > 1)];
    let count = ((f64::from(per_second) * duration.as_secs_f64()) as u64).max(1_000);
    let arguments = [
        ("-h", address.ip().to_string()),
        ("-p", address.port().to_string()),
        ("-t", work.command.name().to_lowercase()),
        ("-n", count.to_string()),
        ("-c", work.connections.to_string()),
        ("-P", work.pipeline.to_string()),
        ("-d", VALUE.to_string()),
        ("-r", KEYS.to_string()),
    ];
    let output = machine::program(REDIS_BENCHMARK)
        .args(arguments.iter().flat_map(|(name, value)| [*name, value]))
        .arg("--csv")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = rate(&text, work.command).filter(|_| output.status.success());
    match rate {
        Some(rate) => Ok((count, rate)),
        None => Err(io::Error::other(format!(
            "{REDIS_BENCHMARK} ended with {} and said {text:?}",
            output.status
        ))),
    }
}

/// The second column of the row of the command.
fn rate(csv: &str, verb: Verb) -> Option<f64> {
    let rows = csv.lines().map(|line| line.split(','));
    let mut cells = rows.map(|cells| cells.map(|cell| cell.trim_matches('"')));
    let mut row = cells.find_map(|mut row| (row.next() == Some(verb.name())).then_some(row))?;
    row.next()?.parse().ok().filter(|rate| *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_server;
    use super::*;
    use crate::systems;
    use crate::work::Work;

    fn start() -> systems::Start {
        let work = Work::find("resp/GET/50x1").expect("a load");
        let ours = systems::find("ours").expect("a system");
        ours.server(work).expect("it is a key-value server")
    }

    #[test]
    fn every_command_of_the_schedule_is_answered() {
        for command in [Verb::Get, Verb::Set] {
            for pipeline in [1, 16] {
                let work = Resp {
                    command,
                    connections: 3,
                    pipeline,
                    load: RespLoad::Benchmark,
                };
                let times = with_server(start(), async |address| {
                    set_all(address).await?;
                    let mut load = Load::connect(address, work, 1_600).await?;
                    load.run(Duration::from_millis(20)).await?;
                    load.run(Duration::from_millis(20)).await
                });
                let times = times.expect("replies");
                let batches = 1_600 / pipeline as u64 / 50 + 1;
                assert_eq!(times.send_delays.len(), batches, "{work}");
                assert_eq!(times.round_trips.len(), batches * pipeline as u64, "{work}");
            }
        }
    }

    #[test]
    fn a_key_without_a_value_is_noticed() {
        let work = Resp {
            command: Verb::Get,
            connections: 1,
            pipeline: 1,
            load: RespLoad::Benchmark,
        };
        let times = with_server(start(), async |address| {
            let mut load = Load::connect(address, work, 100).await?;
            load.run(Duration::ZERO).await
        });
        let error = times.err().expect("nothing was set");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_rate_is_found_below_its_heading() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET\",\"98039.22\",\"0.261\"\n";
        assert_eq!(rate(csv, Verb::Get), Some(98_039.22));
        assert_eq!(rate(csv, Verb::Set), None);
        assert_eq!(rate("\"GET\",\"nan\",\"0\"\n", Verb::Get), None);
        assert_eq!(rate("", Verb::Get), None);
    }
}
