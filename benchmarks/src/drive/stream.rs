//! Messages in one direction.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::client::closed;
use super::cycle::Cycle;
use super::message::not_an_echo;
use super::{Clocks, Drive, Parent};
use crate::frame::{self, Inbox, SILENT};

/// Bytes after which the server is asked whether it has come so far. The question and its answer
/// are then a small part of the work, whatever the size of the messages.
const BLOCK: usize = 1 << 20;

/// A block has at least so many messages, so that the question is a small part of them as well.
const FEWEST: usize = 16;

/// A small message that is answered.
const QUESTION: [u8; 8] = *b"so far ?";

// LIMIT: blocks of one run, should the clock not end it.
const MOST_BLOCKS: u64 = 1 << 20;

pub(super) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    payload: usize,
) -> io::Result<()> {
    let mut stream = runtime.block_on(Stream::connect(orders.address, payload))?;
    runtime.block_on(stream.run(orders.warm_up))?;
    parent.begin()?;
    let clocks = Clocks::start();
    let messages = runtime.block_on(stream.run(orders.measured))?;
    parent.end(&clocks.stop(messages))
}

/// A connection that sends blocks of messages, each with a question at its end.
struct Stream {
    stream: TcpStream,
    inbox: Inbox,
    outbox: Cycle,
    /// Bytes of a block.
    block: u64,
    /// Messages of a block, but for the question.
    messages: u64,
}

impl Stream {
    async fn connect(address: SocketAddr, payload: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let messages = (BLOCK / (frame::HEADER + payload)).max(FEWEST);
        let payload = vec![SILENT; payload];
        let mut block = Vec::new();
        for _ in 0..messages {
            frame::encode(&payload, &mut block);
        }
        frame::encode(&QUESTION, &mut block);
        Ok(Self {
            stream,
            inbox: Inbox::default(),
            block: block.len() as u64,
            outbox: Cycle::new(Arc::from(block)),
            messages: messages as u64,
        })
    }

    /// Sends for a while, waits for the last answer, and tells how many messages there were.
    async fn run(&mut self, duration: Duration) -> io::Result<u64> {
        let until = Instant::now() + duration;
        let (mut asked, mut answered) = (0, 0);
        poll_fn(|cx| self.poll_run(cx, until, &mut asked, &mut answered)).await?;
        Ok(answered * self.messages)
    }

    fn poll_run(
        &mut self,
        cx: &mut Context<'_>,
        until: Instant,
        asked: &mut u64,
        answered: &mut u64,
    ) -> Poll<io::Result<()>> {
        loop {
            // The next block is there before the last one is written, so that writes stay large.
            let goes_on = *asked < MOST_BLOCKS && (*asked == 0 || Instant::now() < until);
            if goes_on && self.outbox.unsent() < self.block {
                *asked += 1;
                self.outbox.add(self.block);
            }
            let written = self.outbox.poll_write_once(&mut self.stream, cx)?;
            let answers = self.poll_answers(cx)?;
            if let Poll::Ready(count) = answers {
                *answered += count;
                if *answered > *asked {
                    return Poll::Ready(Err(not_an_echo()));
                }
            }
            let idle = self.outbox.unsent() == 0 && !goes_on;
            if idle && *answered == *asked {
                return Poll::Ready(Ok(()));
            }
            if answers.is_pending() && (written.is_pending() || idle) {
                return Poll::Pending;
            }
        }
    }

    /// Takes the answers that one read brings.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        if ready!(self.inbox.poll_read(&mut self.stream, cx))? == 0 {
            return Poll::Ready(Err(closed()));
        }
        let mut count = 0;
        while let Some(answer) = self.inbox.next_payload()? {
            if answer != QUESTION {
                return Poll::Ready(Err(not_an_echo()));
            }
            count += 1;
        }
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{echo_systems, with_server};
    use super::*;

    #[test]
    fn every_system_takes_messages_that_want_no_reply() {
        for (system, start) in echo_systems() {
            for payload in [64, 1 << 20] {
                let counts = with_server(start, async |address| {
                    let mut stream = Stream::connect(address, payload).await?;
                    let shortest = stream.run(Duration::ZERO).await?;
                    let longer = stream.run(Duration::from_millis(20)).await?;
                    io::Result::Ok((shortest, longer))
                });
                let (shortest, longer) = counts.expect(system.name);
                let block = (BLOCK / (frame::HEADER + payload)).max(FEWEST) as u64;
                assert_eq!(shortest, block, "{}", system.name);
                assert_eq!(longer % block, 0, "{}", system.name);
            }
        }
    }
}
