//! Calls: the client of each system, and the client by hand for those that speak the wire of the
//! loop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::runtime::Runtime;

use super::latency::Times;
use super::{Clocks, Drive, Parent};
use crate::machine::Process;
use crate::work::{Caller, Load, Rpc};

mod by_hand;
mod open_loop;
mod own;

pub(crate) use by_hand::drive as by_hand;
pub(crate) use own::{drive as own, drive_without_streams as own_without_streams};

/// Loads a server with calls.
pub(crate) type OwnClient = fn(&Runtime, &Parent, &Drive, Load) -> io::Result<()>;

/// The client of a library, as its users use it: shared by the tasks that call.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// Connects, and leaves what drives the connection to a task of its own.
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self>> + Send;

    /// Calls for the body.
    fn call(&self, body: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send;
}

/// A client whose servers can stream.
pub(crate) trait StreamingClient: Client {
    /// Calls for the body, so many times.
    fn stream(&self, body: Bytes, items: u32) -> impl Stream<Item = io::Result<Bytes>> + Send;
}

/// A stream has so many bytes: enough that its beginning and its end are a small part of it.
const STREAM: usize = 64 << 20;

/// The consumer that is slow takes an item as often as that.
const SLOW_EVERY: Duration = Duration::from_millis(1);

// LIMIT: what a slow consumer asks for, and a client that does not push back holds.
const SLOW_STREAM: usize = 256 << 20;

/// Loads the server.
pub(super) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    work: Rpc,
) -> io::Result<()> {
    let client = match work.caller {
        Caller::Loop => by_hand,
        Caller::Own => (orders.system.own_client())
            .ok_or_else(|| io::Error::other("this system has no client of its own"))?,
    };
    client(runtime, parent, orders, work.load)
}

/// So many items of that size are a stream of that many bytes.
fn items(bytes: usize, payload: usize) -> u32 {
    u32::try_from(bytes / payload).unwrap_or(u32::MAX)
}

/// Connects and runs twice: the connections of the warm-up are closed, for the reason that echoes
/// have.
fn closed_loop<C>(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    connect: impl AsyncFn() -> io::Result<C>,
    run: impl AsyncFn(C, Duration) -> io::Result<(C, u64)>,
) -> io::Result<()> {
    let warm = runtime.block_on(async { run(connect().await?, orders.warm_up).await })?;
    drop(warm);
    let clients = runtime.block_on(connect())?;
    // Every answer has come before the clocks are read on both sides, and again afterwards: the
    // processor time belongs to exactly the calls that are counted.
    parent.begin()?;
    let clocks = Clocks::start();
    let (_clients, count) = runtime.block_on(run(clients, orders.measured))?;
    parent.end(&clocks.stop(count))
}

/// Connects and runs twice.
fn open_loop<C>(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    connect: impl AsyncFn() -> io::Result<C>,
    run: impl AsyncFn(&mut C, Duration) -> io::Result<Times>,
) -> io::Result<()> {
    let mut client = runtime.block_on(connect())?;
    runtime.block_on(run(&mut client, orders.warm_up))?;
    parent.begin()?;
    let clocks = Clocks::start();
    let times = runtime.block_on(run(&mut client, orders.measured))?;
    let mut report = clocks.stop(times.round_trips.len());
    report.send_delay_p99_ns = Some(times.send_delays.value_at_quantile(0.99));
    parent.end(&report.with_latencies(&times.round_trips))
}

/// Connects and consumes slowly, and tells how much larger this process was meanwhile.
fn slow_consumer<C>(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    connect: impl AsyncFn() -> io::Result<C>,
    consume: impl AsyncFn(&mut C, Duration) -> io::Result<u64>,
) -> io::Result<()> {
    let mut client = runtime.block_on(connect())?;
    parent.begin()?;
    let before = Process::This.resident_bytes()?;
    let clocks = Clocks::start();
    let items = runtime.block_on(consume(&mut client, orders.measured))?;
    let mut report = clocks.stop(items);
    report.peak_growth = Some(Process::This.peak_resident_bytes()?.saturating_sub(before));
    parent.end(&report)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::super::tests::{block_on, systems_for, with_server};
    use super::by_hand::Caller;
    use super::open_loop::OpenLoop;
    use super::*;
    use crate::call::{self, END, Request, Response};

    /// Ends as soon as it may: every load does its work at least once.
    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn every_server_of_the_wire_answers() {
        for (system, start) in systems_for("rpc-server/64B/1x64") {
            for (payload, in_flight) in [(0, 1), (64, 64), (1 << 10, 1_024), (1 << 20, 3)] {
                let count = with_server(start, async |address| {
                    let mut caller = Caller::connect(address, payload, in_flight).await?;
                    caller.call(AT_ONCE).await?;
                    caller.call(AT_ONCE).await
                });
                let count = count.expect(system.name);
                assert!(count >= in_flight as u64, "{}: {count}", system.name);
            }
        }
    }

    #[test]
    fn every_server_of_the_wire_streams() {
        for (system, start) in systems_for("rpc-server-stream/64B") {
            for (payload, items) in [(64, 3_000), (1 << 10, 300), (1 << 20, 9)] {
                let count = with_server(start, async |address| {
                    let mut caller = Caller::connect(address, payload, 1).await?;
                    caller.stream(items, AT_ONCE).await?;
                    caller.stream(items, AT_ONCE).await
                });
                assert_eq!(
                    count.expect(system.name),
                    u64::from(items),
                    "{}",
                    system.name
                );
            }
        }
    }

    #[test]
    fn every_server_of_the_wire_keeps_a_schedule() {
        let duration = Duration::from_millis(20);
        for (system, start) in systems_for("rpc-server-latency/64B/70%") {
            for (rate, least, most) in [(NonZeroU32::new(1_000), 21, 21), (None, 1_024, u64::MAX)] {
                let times = with_server(start, async |address| {
                    let mut caller = Caller::connect(address, 64, 1).await?;
                    let calls = OpenLoop::new(64, rate, duration);
                    caller.call_on_schedule(calls).await
                });
                let count = times.expect(system.name).round_trips.len();
                assert!((least..=most).contains(&count), "{}: {count}", system.name);
            }
        }
    }

    #[test]
    fn no_server_of_the_wire_breaks_under_those_who_do_not_read() {
        for (system, start) in systems_for("rpc-server-deaf/1KiB-calls") {
            for streams in [None, Some(3)] {
                let deaf = with_server(start, async |address| {
                    let mut caller = Caller::connect(address, 1 << 10, 1).await?;
                    let stopped = Arc::new(AtomicBool::new(false));
                    let duration = Duration::from_millis(20);
                    caller.deafen(duration, &stopped, streams).await
                });
                deaf.expect(system.name);
            }
        }
    }

    #[test]
    fn every_server_of_the_wire_takes_calls_that_it_never_answers() {
        for (system, start) in systems_for("rpc-server-never/10000") {
            let taken = with_server(start, async |address| {
                let mut caller = Caller::connect(address, 64, 1).await?;
                let stopped = Arc::new(AtomicBool::new(false));
                caller.call_in_vain(3_000, &stopped).await
            });
            taken.expect(system.name);
        }
    }

    /// Answers one call with something else.
    fn answer_with(change: fn(Request) -> Response) -> io::Error {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut frame = [0; 64];
            let count = stream.read(&mut frame)?;
            let mut answer = Vec::new();
            call::encode(&change(call::decode(&frame[1..count])?), &mut answer);
            stream.write_all(&answer)
        });
        let error = block_on(Caller::connect(address, 8, 1)).expect_err("another answer");
        server.join().expect("no panic").expect("a client");
        error
    }

    #[test]
    fn a_wrong_answer_is_an_error() {
        let wrong: [fn(Request) -> Response; 4] = [
            |request| Response {
                code: END,
                ..request.into()
            },
            |request| Response::from(Request::unary(request.body)),
            |request| Response {
                id: request.id + 1,
                ..request.into()
            },
            |request| Response {
                body: request.body.slice(1..),
                ..request.into()
            },
        ];
        for change in wrong {
            assert_eq!(answer_with(change).kind(), io::ErrorKind::InvalidData);
        }
    }
}
