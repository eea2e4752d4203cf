//! Connections that are silent, for the memory that they cost.

use std::io;

use tokio::runtime::Runtime;

use super::echo::connect;
use super::layer::{Layer, Plain};
use super::message::Message;
use super::{Clocks, Drive, Parent};

/// Connections that warm a server up before the memory of the idle ones is measured. They stay
/// open, so that what they leave behind is not handed to those that are counted.
const WARM_CONNECTIONS: usize = 8;

/// Bytes of the one message of an idle connection.
const IDLE_PAYLOAD: usize = 64;

/// A burst: messages that each connection exchanges, and their bytes.
const BURST: usize = 16;
const BURST_PAYLOAD: usize = 1 << 20;

// LIMIT: messages of a burst that are on their way at the same time. No more than one connection is
// in its burst at a time, so neither process holds more than that for it.
const BURST_IN_FLIGHT: usize = 4;

pub(super) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    layer: &impl Layer,
    connections: usize,
) -> io::Result<()> {
    let message = Message::new(IDLE_PAYLOAD);
    let _warm = runtime.block_on(connect(orders, layer, &message, WARM_CONNECTIONS, 1))?;
    parent.begin()?;
    let clocks = Clocks::start();
    let _idle = runtime.block_on(connect(orders, layer, &message, connections, 1))?;
    parent.end(&clocks.stop(connections as u64))
}

pub(super) fn drive_after_burst(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    connections: usize,
) -> io::Result<()> {
    let small = Message::new(IDLE_PAYLOAD);
    let _warm = runtime.block_on(connect(orders, &Plain, &small, WARM_CONNECTIONS, 1))?;
    let message = Message::new(BURST_PAYLOAD);
    parent.begin()?;
    let clocks = Clocks::start();
    let mut silent = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut client = runtime.block_on(connect(orders, &Plain, &message, 1, 1))?;
        for client in &mut client {
            // Connecting has exchanged the first message.
            let mut left = BURST - 1;
            while left > 0 {
                let count = left.min(BURST_IN_FLIGHT);
                runtime.block_on(client.exchange(count))?;
                left -= count;
            }
            client.shrink();
        }
        silent.append(&mut client);
    }
    parent.end(&clocks.stop(silent.len() as u64))
}
