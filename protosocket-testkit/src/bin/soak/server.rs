//! The server process: it serves, tells its addresses, and answers a [`Question`] per line.
//!
//! It ends when its input ends, so that none outlives its parent.

use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protosocket::{Limits, TcpSocketListener};
use protosocket_server::{DrainReport, ProtosocketServer, ProtosocketServerConfig, ServerHandle};
use protosocket_testkit::Resources;
use serde::{Deserialize, Serialize};
use tokio::runtime::{self, Runtime};

use crate::args::Orders;
use crate::holding::counted;
use crate::ledger::{Account, Ledger};
use crate::machine;
use crate::reactor::Connector;

/// How many threads serve. Two are the fewest that show what threads do to each other.
const WORKERS: usize = 2;

/// Where the server listens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// With the default deadlines.
    pub(crate) patient: SocketAddr,
    /// With deadlines that traffic of seconds meets, and connections that age.
    pub(crate) impatient: SocketAddr,
}

impl Addresses {
    /// Those of a server that has not told any.
    pub(crate) const NOWHERE: Self = {
        let nowhere = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            patient: nowhere,
            impatient: nowhere,
        }
    };
}

/// What a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// What it holds and has counted: a [`State`].
    State,
    /// To drain within so many milliseconds: a [`Drained`].
    Drain(u64),
    /// To end its threads, and with that itself: how many bytes they gave back. Behind a drain, that
    /// is what they have kept for the connections to come.
    End,
}

/// What a server holds and has counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// Bytes that were allocated and not freed.
    pub(crate) live_bytes: u64,
    /// Allocations that were not freed.
    pub(crate) live_allocations: u64,
    /// Tasks that have not ended.
    pub(crate) tasks: u64,
    /// Connections in the tables of the servers.
    pub(crate) connections: u64,
    pub(crate) account: Account,
}

/// A [`DrainReport`] that crosses a process boundary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Drained {
    /// Messages that were heard and not answered when it began.
    pub(crate) in_flight: u64,
    pub(crate) finished: u64,
    pub(crate) forced: u64,
    pub(crate) failed: u64,
    pub(crate) dropped: u64,
    pub(crate) stuck: u64,
    pub(crate) unsent: u64,
    pub(crate) unanswered: u64,
    pub(crate) milliseconds: u64,
}

impl Drained {
    fn new(in_flight: u64, report: DrainReport) -> Self {
        Self {
            in_flight,
            finished: report.finished as u64,
            forced: report.forced as u64,
            failed: report.failed as u64,
            dropped: report.dropped as u64,
            stuck: report.stuck as u64,
            unsent: report.unsent,
            unanswered: report.unanswered,
            milliseconds: report.elapsed.as_millis() as u64,
        }
    }
}

/// Serve until the input ends.
pub(crate) fn serve(orders: Orders) -> io::Result<()> {
    machine::raise_descriptor_limit()?;
    if let Some(descriptors) = orders.descriptors {
        machine::lower_descriptor_limit(descriptors)?;
    }
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()?;
    let serving = Serving::start(&runtime, orders)?;
    keep_quiet_about_panics_that_were_asked_for();
    say(&serving.addresses)?;
    // The questions are answered by this thread, which a busy runtime does not delay.
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Question::State => say(&serving.state(&runtime))?,
            Question::Drain(deadline) => say(&serving.drain(&runtime, deadline))?,
            Question::End => return say(&end(runtime)),
        }
    }
    Ok(())
}

struct Serving {
    addresses: Addresses,
    ledger: Arc<Ledger>,
    handles: [ServerHandle; 2],
}

impl Serving {
    fn start(runtime: &Runtime, orders: Orders) -> io::Result<Self> {
        let _entered = runtime.enter();
        let ledger = Arc::<Ledger>::default();
        let connector = Connector {
            ledger: ledger.clone(),
            sabotage: orders.sabotage,
            echoes: Arc::default(),
            connections: Arc::default(),
            forgotten: Arc::default(),
            started: Instant::now(),
        };
        let bind = |limits: Limits| -> io::Result<ProtosocketServer<Connector>> {
            ProtosocketServerConfig::default()
                .limits(limits)
                .observer(ledger.clone())
                .bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), connector.clone())
        };
        let (patient, impatient) = (bind(Limits::server())?, bind(impatient())?);
        let serving = Self {
            addresses: Addresses {
                patient: address(&patient)?,
                impatient: address(&impatient)?,
            },
            handles: [patient.handle(), impatient.handle()],
            ledger,
        };
        tokio::spawn(patient);
        tokio::spawn(impatient);
        Ok(serving)
    }

    fn state(&self, runtime: &Runtime) -> State {
        let _entered = runtime.enter();
        let resources = Resources::now();
        State {
            live_bytes: counted(resources.live_bytes),
            live_allocations: counted(resources.live_allocations),
            tasks: resources.tasks.expect("the runtime was entered") as u64,
            connections: self
                .handles
                .iter()
                .map(|handle| handle.connections() as u64)
                .sum(),
            account: self.ledger.account(),
        }
    }

    fn drain(&self, runtime: &Runtime, milliseconds: u64) -> Drained {
        let deadline = Duration::from_millis(milliseconds);
        let in_flight = self.ledger.account().in_flight();
        let drains = self.handles.clone().map(|handle| {
            // At the same time, so that they share the deadline.
            runtime.spawn(async move { handle.drain(deadline).await })
        });
        let reports = drains.map(|drain| {
            runtime
                .block_on(drain)
                .expect("a drain neither panics nor is aborted")
        });
        Drained::new(in_flight, reports.into_iter().sum())
    }
}

/// Ends the threads of the runtime, and tells how many bytes were live until then.
fn end(runtime: Runtime) -> u64 {
    /// A thread that nothing runs on ends at once.
    const PATIENCE: Duration = Duration::from_secs(10);
    let live = || counted(Resources::now().live_bytes);
    let before = live();
    runtime.shutdown_timeout(PATIENCE);
    before.saturating_sub(live())
}

/// Deadlines that traffic of seconds meets.
fn impatient() -> Limits {
    Limits::server()
        .first_message_timeout(Duration::from_millis(500))
        .message_timeout(Duration::from_secs(1))
        .idle_timeout(Duration::from_secs(1))
        .write_timeout(Duration::from_secs(1))
        .linger_timeout(Duration::from_millis(500))
        .drain_timeout(Duration::from_secs(2))
        .max_age(Duration::from_secs(1))
}

fn address(server: &ProtosocketServer<Connector>) -> io::Result<SocketAddr> {
    server
        .listener()
        .map(TcpSocketListener::local_address)
        .ok_or_else(|| io::Error::other("a server that does not listen"))?
}

/// A panic that a request asks for is no news, and thousands of them are no progress line.
fn keep_quiet_about_panics_that_were_asked_for() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some("asked to panic") {
            usual(panic);
        }
    }));
}

fn say(answer: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}
