//! A client that sends in bursts and reads slowly, until it reads everything: what a server holds
//! for such a client, and that it loses nothing.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::interval;

use super::client::closed;
use super::message::not_an_echo;
use super::{Clocks, Drive, Parent};
use crate::frame::{HEADER, Inbox, Outbox};

/// Bytes of a burst: three times what a server should hold for a connection.
const BURST: usize = 3 << 20;

// LIMIT: bursts of one run. A server that holds them all holds 48 MiB.
const BURSTS: u32 = 16;

/// What is read at a time, and how often: 1 MiB per second.
const SLICE: usize = 4 << 10;
const SLICE_EVERY: Duration = Duration::from_millis(4);

pub(super) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    payload: usize,
) -> io::Result<()> {
    let mut client = runtime.block_on(SlowReader::connect(orders.address, payload))?;
    parent.begin()?;
    let clocks = Clocks::start();
    let replies = runtime.block_on(client.run(orders.measured))?;
    parent.end(&clocks.stop(replies))
}

struct SlowReader {
    stream: TcpStream,
    inbox: Inbox,
    outbox: Outbox,
    payload: Vec<u8>,
    sent: u64,
    received: u64,
}

impl SlowReader {
    async fn connect(address: SocketAddr, payload: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            payload: vec![1; payload],
            sent: 0,
            received: 0,
        };
        client.send(1);
        poll_fn(|cx| client.poll_rest(cx)).await?;
        Ok(client)
    }

    /// Sends bursts and reads slowly for that long, then reads the rest, and tells how many replies
    /// there were: one for each message, in their order.
    async fn run(&mut self, duration: Duration) -> io::Result<u64> {
        let before = self.received;
        let until = Instant::now() + duration;
        let mut bursts = interval((duration / BURSTS).max(Duration::from_millis(1)));
        let mut slices = interval(SLICE_EVERY);
        let mut left = BURSTS;
        poll_fn(|cx| {
            while self.outbox.poll_write(&mut self.stream, cx)?.is_ready()
                && left > 0
                && bursts.poll_tick(cx).is_ready()
            {
                left -= 1;
                self.send(BURST / (HEADER + self.payload.len()));
            }
            while slices.poll_tick(cx).is_ready() {
                if Instant::now() >= until {
                    return Poll::Ready(io::Result::Ok(()));
                }
                // When there is nothing to read, the slice is left out.
                let _: Poll<()> = self.poll_slice(cx)?;
            }
            Poll::Pending
        })
        .await?;
        poll_fn(|cx| self.poll_rest(cx)).await?;
        Ok(self.received - before)
    }

    fn send(&mut self, messages: usize) {
        for _ in 0..messages {
            stamp(&mut self.payload, self.sent);
            self.sent += 1;
            self.outbox.push(&self.payload);
        }
    }

    /// Ready when everything is sent and answered.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let _: Poll<()> = self.outbox.poll_write(&mut self.stream, cx)?;
            if self.received == self.sent {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.inbox.poll_read(&mut self.stream, cx))? == 0 {
                return Poll::Ready(Err(closed()));
            }
            self.take_replies()?;
        }
    }

    /// Reads a slice.
    fn poll_slice(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slice = [0; SLICE];
        let mut slice = ReadBuf::new(&mut slice);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut slice))?;
        let mut filled = slice.filled();
        if filled.is_empty() {
            return Poll::Ready(Err(closed()));
        }
        while !filled.is_empty() {
            ready!(self.inbox.poll_read(&mut filled, cx))?;
        }
        Poll::Ready(self.take_replies())
    }

    fn take_replies(&mut self) -> io::Result<()> {
        while let Some(reply) = self.inbox.next_payload()? {
            stamp(&mut self.payload, self.received);
            if self.received == self.sent || reply != self.payload {
                return Err(not_an_echo());
            }
            self.received += 1;
        }
        Ok(())
    }
}

/// Gives a message a number, behind its first byte.
fn stamp(payload: &mut [u8], number: u64) {
    payload[1..9].copy_from_slice(&number.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::tests::{echo_systems, with_server};
    use super::*;

    #[test]
    fn every_system_answers_a_slow_reader_in_order_and_loses_nothing() {
        for (system, start) in echo_systems() {
            let replies = with_server(start, async |address| {
                let mut client = SlowReader::connect(address, 64 << 10).await?;
                client.run(Duration::from_millis(50)).await
            });
            let burst = (BURST / (HEADER + (64 << 10))) as u64;
            let replies = replies.expect(system.name);
            assert!(replies >= burst, "{}: {replies}", system.name);
            assert_eq!(replies % burst, 0, "{}", system.name);
        }
    }
}
