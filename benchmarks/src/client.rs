//! The client that loads every system: one hand-written loop, in the style of the reference.
//!
//! Every reply is compared with its message, so that no system gains by sending something else.
//! Apart from that the client is lean, for with many messages in flight it is the slower half of
//! the cheapest servers: it reads the clock once per batch instead of twice per message.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::net::TcpStream;

use crate::frame::{Inbox, Outbox};

// LIMIT: messages of one run, should the clock not end it.
const MOST_MESSAGES: u64 = 1 << 30;

const SLOWEST_NANOSECONDS: u64 = 60_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// One connection to a system under test.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    inbox: Inbox,
    outbox: Outbox,
    payload: Vec<u8>,
    in_flight: usize,
    /// Messages without a reply, oldest first.
    batches: VecDeque<Batch>,
}

/// Messages that were handed to the connection at the same time.
#[derive(Debug)]
struct Batch {
    at: Instant,
    count: usize,
}

impl Client {
    /// Connects and exchanges one message.
    ///
    /// # Errors
    ///
    /// Those of the connection, and `InvalidData` if the reply is no echo.
    pub(crate) async fn connect(
        address: SocketAddr,
        payload: usize,
        in_flight: usize,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            payload: pattern(payload),
            in_flight,
            batches: VecDeque::new(),
        };
        let mut latencies = latencies();
        client.send(1, Instant::now());
        poll_fn(|cx| client.poll_run(cx, Instant::now(), &mut latencies)).await?;
        Ok(client)
    }

    /// Keeps the messages in flight for a while, then waits for the outstanding replies.
    ///
    /// The time from sending to receiving is recorded in nanoseconds for each message.
    ///
    /// # Errors
    ///
    /// Those of the connection, and `InvalidData` if a reply is no echo.
    pub(crate) async fn run(&mut self, duration: Duration) -> io::Result<Histogram<u64>> {
        let mut latencies = latencies();
        let start = Instant::now();
        self.send(self.in_flight, start);
        let until = start + duration;
        poll_fn(|cx| self.poll_run(cx, until, &mut latencies)).await?;
        Ok(latencies)
    }

    fn poll_run(
        &mut self,
        cx: &mut Context<'_>,
        until: Instant,
        latencies: &mut Histogram<u64>,
    ) -> Poll<io::Result<()>> {
        loop {
            // Replies are read even while the server does not accept more messages.
            let _: Poll<()> = self.outbox.poll_write(&mut self.stream, cx)?;
            let count = ready!(self.poll_replies(cx))?;
            let now = Instant::now();
            self.record(count, now, latencies)?;
            if now < until && latencies.len() < MOST_MESSAGES {
                self.send(count, now);
            } else if self.batches.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes all replies that have come, at least one.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut count = 0;
        while let Poll::Ready(bytes) = self.inbox.poll_read(&mut self.stream, cx)? {
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            while let Some(echo) = self.inbox.next_payload()? {
                if echo != self.payload {
                    return Poll::Ready(Err(not_an_echo()));
                }
                count += 1;
            }
        }
        if count > 0 {
            Poll::Ready(Ok(count))
        } else {
            Poll::Pending
        }
    }

    fn send(&mut self, count: usize, at: Instant) {
        self.batches.push_back(Batch { at, count });
        for _ in 0..count {
            self.outbox.push(&self.payload);
        }
    }

    /// Replies come in the order of their messages, so they answer the oldest batches.
    fn record(
        &mut self,
        mut count: usize,
        now: Instant,
        latencies: &mut Histogram<u64>,
    ) -> io::Result<()> {
        while count > 0 {
            let oldest = self.batches.front_mut().ok_or_else(not_an_echo)?;
            let answered = oldest.count.min(count);
            let nanoseconds = now.duration_since(oldest.at).as_nanos();
            let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
            latencies.saturating_record_n(nanoseconds.max(1), answered as u64);
            count -= answered;
            oldest.count -= answered;
            if oldest.count == 0 {
                self.batches.pop_front();
            }
        }
        Ok(())
    }
}

/// Room for the latencies of a run, in nanoseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, SLOWEST_NANOSECONDS, SIGNIFICANT_DIGITS)
        .expect("the bounds are in order and the digits are below six")
}

/// A payload in which a shift by a few bytes shows.
fn pattern(length: usize) -> Vec<u8> {
    (1..=250).cycle().take(length).collect()
}

#[cold]
fn not_an_echo() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the server sent something else than an echo",
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use tokio::runtime;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::frame::HEADER;
    use crate::systems::{SYSTEMS, System};

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        LocalSet::new().block_on(&runtime, future)
    }

    async fn connect(system: &System, payload: usize, in_flight: usize) -> Client {
        let server = (system.start)().expect("a free port");
        spawn_local(server.run);
        Client::connect(server.address, payload, in_flight)
            .await
            .expect("an echo")
    }

    #[test]
    fn every_system_echoes() {
        for system in SYSTEMS {
            for (payload, in_flight) in [(0, 1), (64, 64), (1 << 10, 1_024), (1 << 20, 20)] {
                let latencies = block_on(async {
                    let mut client = connect(system, payload, in_flight).await;
                    client.run(Duration::from_millis(20)).await.expect("echoes")
                });
                assert!(latencies.len() >= in_flight as u64, "{}", system.name);
            }
        }
    }

    #[test]
    fn a_run_leaves_nothing_behind() {
        block_on(async {
            let mut client = connect(&SYSTEMS[0], 64, 8).await;
            for _ in 0..3 {
                let latencies = client.run(Duration::ZERO).await.expect("echoes");
                assert_eq!(latencies.len(), 8);
            }
        });
    }

    #[test]
    fn a_wrong_echo_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut message = [0; HEADER + 8];
            stream.read_exact(&mut message)?;
            message[HEADER + 7] ^= 1;
            stream.write_all(&message)
        });
        let error = block_on(Client::connect(address, 8, 1)).expect_err("another byte");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        server.join().expect("no panic").expect("a client");
    }

    #[test]
    fn replies_are_recorded_against_the_batches_that_they_answer() {
        let mut client = block_on(connect(&SYSTEMS[0], 8, 4));
        let mut latencies = latencies();
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        client.send(3, after(0));
        client.send(2, after(1));
        client
            .record(4, after(2), &mut latencies)
            .expect("five messages are out");
        client
            .record(1, after(11), &mut latencies)
            .expect("one message is out");
        assert_eq!(latencies.len(), 5);
        for (quantile, milliseconds) in [(0.1, 1), (0.5, 2), (1.0, 10)] {
            let expected = milliseconds * 1_000_000;
            let off = latencies.value_at_quantile(quantile).abs_diff(expected);
            assert!(off < expected / 500, "{quantile}: {off}");
        }
        assert!(client.record(1, after(12), &mut latencies).is_err());
    }
}
