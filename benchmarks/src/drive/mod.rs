//! The client process: it loads a server and tells what came of it.
//!
//! Every load goes the same way: connect and warm up, say [`READY`], wait for a line, load the
//! server, say a [`Report`], and keep the connections open until there is another line. Between
//! the lines the parent asks the server, so that what it measures belongs to exactly the messages
//! that are counted.

mod client;
mod connect;
mod cycle;
mod echo;
mod flood;
mod idle;
mod latency;
mod layer;
mod message;
mod resp;
mod rpc;
mod slow_reader;
mod stream;

use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::child::say;
use crate::machine::{self, Placement};
use crate::systems::System;
use crate::work::{self, Work};

use layer::{Plain, Tls};
pub(crate) use rpc::{Client, OwnClient, StreamingClient, by_hand, own, own_without_streams};

/// A client's line when it is connected and warm.
pub(crate) const READY: &str = "ready";

/// The line that lets a client go on.
pub(crate) const GO: &str = "go";

/// The line that ends a load early.
pub(crate) const STOP: &str = "stop";

const SLOWEST_NANOSECONDS: u64 = 60_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The orders of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drive {
    /// Where to run.
    pub(crate) placement: Placement,
    /// The server to load.
    pub(crate) address: SocketAddr,
    /// The system that it belongs to.
    pub(crate) system: &'static System,
    /// The load.
    pub(crate) work: Work,
    /// How long the load runs before it is measured.
    pub(crate) warm_up: Duration,
    /// How long it is measured.
    pub(crate) measured: Duration,
    /// Calls per second of an open loop whose rate depends on the run; without it, as many as there
    /// can be.
    pub(crate) rate: Option<NonZeroU32>,
}

/// What a client has seen while it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What the figures are divided by: messages that were answered or taken, or connections.
    pub(crate) count: u64,
    /// From the first message to the last reply.
    pub(crate) elapsed_ns: u64,
    /// Processor time of the client meanwhile.
    pub(crate) cpu_ns: u64,
    /// Of loads that measure round trips.
    pub(crate) latency: Option<Latency>,
    /// Of loads with a schedule: 99 of 100 messages left no later than that.
    pub(crate) send_delay_p99_ns: Option<u64>,
    /// Of loads that measure it: resident bytes by which the client was larger when it was largest.
    pub(crate) peak_growth: Option<u64>,
}

/// Round trips, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Half of them took no longer.
    pub(crate) p50_ns: u64,
    /// 99 of 100 took no longer.
    pub(crate) p99_ns: u64,
    /// 999 of 1,000 took no longer.
    pub(crate) p999_ns: u64,
    /// The longest.
    pub(crate) max_ns: u64,
}

/// Loads the server.
pub(crate) fn drive(orders: &Drive) -> io::Result<()> {
    let runtime = orders.placement.prepare()?;
    let parent = Parent::listen()?;
    match orders.work {
        Work::Echo(load) | Work::TwoWorkers(load) => {
            echo::drive(&runtime, &parent, orders, &Plain, load)
        }
        Work::PingPong { payload } => echo::ping_pong(&runtime, &parent, orders, payload),
        Work::Stream { payload } => stream::drive(&runtime, &parent, orders, payload),
        Work::Latency(schedule) => latency::drive(&runtime, &parent, orders, schedule),
        Work::Idle { connections } => idle::drive(&runtime, &parent, orders, &Plain, connections),
        Work::IdleAfterBurst { connections } => {
            idle::drive_after_burst(&runtime, &parent, orders, connections)
        }
        Work::Connect { clients } => connect::drive(&runtime, &parent, orders, &Plain, clients),
        Work::Flood(flood) => flood::drive(&runtime, &parent, orders, flood),
        Work::SlowReader { payload } => slow_reader::drive(&runtime, &parent, orders, payload),
        Work::Rpc(work) => rpc::drive(&runtime, &parent, orders, work),
        Work::Tls(work) => {
            let layer = Tls::new()?;
            match work {
                work::Tls::Echo(load) => echo::drive(&runtime, &parent, orders, &layer, load),
                work::Tls::Handshake { clients } => {
                    connect::drive(&runtime, &parent, orders, &layer, clients)
                }
                work::Tls::Idle { connections } => {
                    idle::drive(&runtime, &parent, orders, &layer, connections)
                }
            }
        }
        Work::Resp(work) => resp::drive(&runtime, &parent, orders, work),
    }
}

/// The lines of the process that has started this one.
pub(crate) struct Parent {
    go: Receiver<()>,
    stopped: Arc<AtomicBool>,
}

impl Parent {
    fn listen() -> io::Result<Self> {
        let (sender, go) = mpsc::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                for line in io::stdin().lock().lines().map_while(Result::ok) {
                    if line == STOP {
                        stop.store(true, Ordering::Relaxed);
                    } else if sender.send(()).is_err() {
                        return;
                    }
                }
                // There is nobody to report to.
                process::exit(0);
            })?;
        Ok(Self { go, stopped })
    }

    /// Says that the load can begin, and waits until it may.
    fn begin(&self) -> io::Result<()> {
        say(READY)?;
        self.wait()
    }

    /// Reports, and waits until the connections may be closed.
    fn end(&self, report: &Report) -> io::Result<()> {
        say(serde_json::to_string(report)?)?;
        self.wait()
    }

    /// Becomes true when the load is to end early.
    fn stopped(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopped)
    }

    fn wait(&self) -> io::Result<()> {
        self.go.recv().map_err(io::Error::other)
    }
}

/// The clocks of the client, read when the load begins.
struct Clocks {
    start: Instant,
    cpu: Duration,
}

impl Clocks {
    fn start() -> Self {
        Self {
            start: Instant::now(),
            cpu: machine::cpu_time(),
        }
    }

    fn stop(&self, count: u64) -> Report {
        Report {
            count,
            elapsed_ns: nanoseconds(self.start.elapsed()),
            cpu_ns: nanoseconds(machine::cpu_time().saturating_sub(self.cpu)),
            latency: None,
            send_delay_p99_ns: None,
            peak_growth: None,
        }
    }
}

impl Report {
    fn with_latencies(mut self, latencies: &Histogram<u64>) -> Self {
        self.latency = Some(Latency {
            p50_ns: latencies.value_at_quantile(0.5),
            p99_ns: latencies.value_at_quantile(0.99),
            p999_ns: latencies.value_at_quantile(0.999),
            max_ns: latencies.max(),
        });
        self
    }
}

/// Room for the latencies of a run, in nanoseconds.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, SLOWEST_NANOSECONDS, SIGNIFICANT_DIGITS)
        .expect("the bounds are in order and the digits are below six")
}

/// Records the same time for `count` messages.
#[inline]
fn record(latencies: &mut Histogram<u64>, time: Duration, count: u64) {
    latencies.saturating_record_n(nanoseconds(time).max(1), count);
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::runtime;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::systems::{SYSTEMS, Start, System};

    /// Every system that echoes, with its server.
    pub(super) fn echo_systems() -> impl Iterator<Item = (&'static System, Start)> {
        systems_for("echo/64B/1x1")
    }

    /// The echo server by hand.
    pub(super) fn reference() -> Start {
        let (_, start) = echo_systems().next().expect("a reference");
        start
    }

    /// Every system that does this work, with its server.
    pub(crate) fn systems_for(work: &str) -> impl Iterator<Item = (&'static System, Start)> {
        let work = Work::find(work).expect("a load");
        SYSTEMS
            .iter()
            .filter_map(move |system| Some((system, system.server(work)?)))
    }

    /// Runs a client beside a server on the same thread.
    pub(crate) fn with_server<T>(start: Start, client: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        block_on(async {
            let server = start().expect("a free port");
            spawn_local(server.run);
            client(server.address).await
        })
    }

    pub(super) fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        LocalSet::new().block_on(&runtime, future)
    }
}
