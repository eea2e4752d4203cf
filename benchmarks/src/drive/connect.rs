//! Connect, exchange one message, close, and again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::client::Client;
use super::layer::Layer;
use super::message::Message;
use super::{Clocks, Drive, Parent};

/// Bytes of the one message.
const PAYLOAD: usize = 64;

// LIMIT: connections of one client in the warm-up, and again while it is measured. A port stays taken
// for a minute after its connection was closed, and there are 28,000 for each pair of addresses.
const MOST_CONNECTIONS: u64 = 12_000;

pub(super) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    layer: &impl Layer,
    clients: usize,
) -> io::Result<()> {
    let message = Message::new(PAYLOAD);
    // The server has closed its connections as well before the clocks are read on both sides, and
    // again afterwards: the processor time belongs to exactly those that are counted.
    runtime.block_on(run(
        orders.address,
        layer,
        &message,
        clients,
        orders.warm_up,
    ))?;
    parent.begin()?;
    let clocks = Clocks::start();
    let connections = runtime.block_on(run(
        orders.address,
        layer,
        &message,
        clients,
        orders.measured,
    ))?;
    parent.end(&clocks.stop(connections))
}

async fn run(
    address: SocketAddr,
    layer: &impl Layer,
    message: &Message,
    clients: usize,
    duration: Duration,
) -> io::Result<u64> {
    let until = Instant::now() + duration;
    let mut running = JoinSet::new();
    for client in 0..clients {
        let (layer, message) = (layer.clone(), message.clone());
        running.spawn(async move {
            come_and_go(address, source(client)?, &layer, &message, until).await
        });
    }
    let mut connections = 0;
    while let Some(finished) = running.join_next().await {
        connections += finished.map_err(io::Error::other)??;
    }
    Ok(connections)
}

/// An address for each client, so that none runs out of ports.
fn source(client: usize) -> io::Result<SocketAddr> {
    let host = u8::try_from(client + 2).map_err(io::Error::other)?;
    Ok(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)))
}

async fn come_and_go(
    address: SocketAddr,
    source: SocketAddr,
    layer: &impl Layer,
    message: &Message,
    until: Instant,
) -> io::Result<u64> {
    let mut connections = 0;
    loop {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(source)?;
        let stream = socket.connect(address).await?;
        Client::over(stream, layer, message, 1)
            .await?
            .close()
            .await?;
        connections += 1;
        if connections == MOST_CONNECTIONS || Instant::now() >= until {
            return Ok(connections);
        }
    }
}
