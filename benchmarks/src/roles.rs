//! What the child processes do: one serves, one drives it.
//!
//! Both take orders from the parent line by line on their standard input and answer on their
//! standard output. Both end when their input ends, so that none outlives its parent.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::process;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;

use crate::client::{Client, latencies};
use crate::machine;
use crate::systems::System;
use crate::work::{Echo, Work};

/// Connections that warm a server up before the memory of the idle ones is measured. They stay
/// open, so that what they leave behind is not handed to those that are counted.
const WARM_CONNECTIONS: usize = 8;

/// Bytes of the one message of an idle connection.
const IDLE_PAYLOAD: usize = 64;

/// What a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Processor time of the process so far, in nanoseconds.
    Cpu,
    /// Resident memory of the process, in bytes.
    Memory,
}

impl Question {
    /// The line that asks it.
    pub(crate) fn line(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

impl FromStr for Question {
    type Err = io::Error;

    fn from_str(line: &str) -> io::Result<Self> {
        [Self::Cpu, Self::Memory]
            .into_iter()
            .find(|question| question.line() == line)
            .ok_or_else(|| io::Error::other(format!("a server was asked for {line:?}")))
    }
}

/// A client's line when it is connected and warm. It goes on when it is sent a line back.
pub(crate) const READY: &str = "ready";

/// A client's line when the idle connections are open.
pub(crate) const OPEN: &str = "open";

/// The orders of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drive {
    /// The processor to run on.
    pub(crate) processor: usize,
    /// The server to load.
    pub(crate) address: SocketAddr,
    /// The load.
    pub(crate) work: Work,
    /// How long an echo runs before it is measured.
    pub(crate) warm_up: Duration,
    /// How long it is measured.
    pub(crate) measured: Duration,
}

/// What a client has seen of an echo while it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EchoReport {
    /// Replies that came.
    pub(crate) messages: u64,
    /// From the first message to the last reply.
    pub(crate) elapsed_ns: u64,
    /// Processor time of the client meanwhile.
    pub(crate) cpu_ns: u64,
    /// Half of the round trips took no longer.
    pub(crate) p50_ns: u64,
    /// 99 of 100 took no longer.
    pub(crate) p99_ns: u64,
    /// 999 of 1,000 took no longer.
    pub(crate) p999_ns: u64,
}

/// The server process: tells its port, then answers a [`Question`] per line.
pub(crate) fn serve(system: &System, processor: usize) -> io::Result<()> {
    prepare(processor)?.block_on(async {
        let server = (system.start)()?;
        say(server.address)?;
        // The answers come from a thread of their own: a busy runtime must not delay them.
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(answer_questions)?;
        server.run.await
    })
}

/// The client process: says [`READY`], waits for a line, loads the server and reports.
pub(crate) fn drive(orders: &Drive) -> io::Result<()> {
    let runtime = prepare(orders.processor)?;
    match orders.work {
        Work::Echo(echo) => drive_echo(&runtime, orders, echo),
        Work::Idle { connections } => drive_idle(&runtime, orders.address, connections),
    }
}

fn prepare(processor: usize) -> io::Result<Runtime> {
    machine::pin(processor)?;
    machine::raise_descriptor_limit()?;
    runtime::Builder::new_current_thread().enable_all().build()
}

fn answer_questions() {
    let served = io::stdin()
        .lock()
        .lines()
        .try_for_each(|line| match line?.parse()? {
            Question::Cpu => say(machine::cpu_time().as_nanos()),
            Question::Memory => say(machine::resident_bytes()?),
        });
    process::exit(i32::from(served.is_err()));
}

fn drive_echo(runtime: &Runtime, orders: &Drive, echo: Echo) -> io::Result<()> {
    // The connections of the warm-up are closed. A server that runs for a while has seen some go,
    // and it matters: the allocator of glibc gives memory back at every lull, and faults it in
    // again, until it has seen a large buffer freed.
    let connected = || {
        connect(
            orders.address,
            echo.connections,
            echo.payload,
            echo.in_flight,
        )
    };
    let (warm, _) = runtime.block_on(async { run(connected().await?, orders.warm_up).await })?;
    drop(warm);
    let clients = runtime.block_on(connected())?;
    // Every reply has come before the clocks are read on both sides, and again afterwards: the
    // processor time belongs to exactly the messages that are counted.
    say(READY)?;
    hear()?;
    let (cpu, start) = (machine::cpu_time(), Instant::now());
    let (_clients, latencies) = runtime.block_on(run(clients, orders.measured))?;
    let (elapsed, cpu) = (start.elapsed(), machine::cpu_time().saturating_sub(cpu));
    let report = EchoReport {
        messages: latencies.len(),
        elapsed_ns: nanoseconds(elapsed),
        cpu_ns: nanoseconds(cpu),
        p50_ns: latencies.value_at_quantile(0.5),
        p99_ns: latencies.value_at_quantile(0.99),
        p999_ns: latencies.value_at_quantile(0.999),
    };
    say(serde_json::to_string(&report)?)?;
    hear()
}

fn drive_idle(runtime: &Runtime, address: SocketAddr, connections: usize) -> io::Result<()> {
    let _warm = runtime.block_on(connect(address, WARM_CONNECTIONS, IDLE_PAYLOAD, 1))?;
    say(READY)?;
    hear()?;
    let _idle = runtime.block_on(connect(address, connections, IDLE_PAYLOAD, 1))?;
    say(OPEN)?;
    hear()
}

async fn connect(
    address: SocketAddr,
    connections: usize,
    payload: usize,
    in_flight: usize,
) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(Client::connect(address, payload, in_flight).await?);
    }
    Ok(clients)
}

/// Runs all clients at once and adds up their latencies.
async fn run(
    clients: Vec<Client>,
    duration: Duration,
) -> io::Result<(Vec<Client>, Histogram<u64>)> {
    let mut running = JoinSet::new();
    for mut client in clients {
        running.spawn(async move {
            let latencies = client.run(duration).await?;
            io::Result::Ok((client, latencies))
        });
    }
    let mut clients = Vec::new();
    let mut total = latencies();
    while let Some(finished) = running.join_next().await {
        let (client, latencies) = finished.map_err(io::Error::other)??;
        clients.push(client);
        total.add(latencies).map_err(io::Error::other)?;
    }
    Ok((clients, total))
}

fn say(line: impl std::fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Waits for a line, or for the end of the input, after which there is nobody to report to.
fn hear() -> io::Result<()> {
    io::stdin().lock().read_line(&mut String::new()).map(|_| ())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
