//! Closed loops.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::client::Client;
use super::layer::{Layer, Plain};
use super::message::Message;
use super::{Clocks, Drive, Parent, latencies};
use crate::work::Echo;

pub(super) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    layer: &impl Layer,
    load: Echo,
) -> io::Result<()> {
    // The connections of the warm-up are closed. A server that runs for a while has seen some go,
    // and it matters: the allocator of glibc gives memory back at every lull, and faults it in
    // again, until it has seen a large buffer freed.
    let message = Message::new(load.payload);
    let connected = || connect(orders, layer, &message, load.connections, load.in_flight);
    let warm = runtime.block_on(async { run(connected().await?, orders.warm_up).await })?;
    drop(warm);
    let clients = runtime.block_on(connected())?;
    // Every reply has come before the clocks are read on both sides, and again afterwards: the
    // processor time belongs to exactly the messages that are counted.
    parent.begin()?;
    let clocks = Clocks::start();
    let (_clients, latencies) = runtime.block_on(run(clients, orders.measured))?;
    let report = clocks.stop(latencies.len());
    parent.end(&report.with_latencies(&latencies))
}

pub(super) fn ping_pong(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    payload: usize,
) -> io::Result<()> {
    let load = Echo {
        payload,
        connections: 1,
        in_flight: 1,
    };
    drive(runtime, parent, orders, &Plain, load)
}

/// Opens connections, one after the other.
pub(super) async fn connect<L: Layer>(
    orders: &Drive,
    layer: &L,
    message: &Message,
    connections: usize,
    in_flight: usize,
) -> io::Result<Vec<Client<L::Stream>>> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(Client::connect(orders.address, layer, message, in_flight).await?);
    }
    Ok(clients)
}

/// Runs all clients at once and adds up their latencies.
async fn run<S>(
    clients: Vec<Client<S>>,
    duration: Duration,
) -> io::Result<(Vec<Client<S>>, Histogram<u64>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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
