//! A connection in a closed loop: one hand-written loop, in the style of the reference.
//!
//! Replies are compared with their message, so that no system gains by sending something else.
//! Apart from that the client is lean, for with many messages in flight it is the slower half of
//! the cheapest servers: it writes slices of prepared messages, and reads the clock once per batch
//! instead of twice per message.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::cycle::Cycle;
use super::layer::Layer;
use super::message::{Echoes, Message, not_an_echo};
use super::{latencies, record};
use crate::frame::Inbox;

// LIMIT: messages of one run, should the clock not end it.
const MOST_MESSAGES: u64 = 1 << 30;

/// After so many bytes of replies the next messages are sent, although there may be more to read:
/// the server need not wait until the client has read everything.
const BATCH: usize = 1 << 20;

/// One connection to a system under test.
#[derive(Debug)]
pub(super) struct Client<S = TcpStream> {
    stream: S,
    inbox: Inbox,
    outbox: Cycle,
    /// Bytes of a message on the wire.
    length: u64,
    echoes: Echoes,
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

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Connects and exchanges one message.
    ///
    /// # Errors
    ///
    /// Those of the connection, and `InvalidData` if the reply is no echo.
    pub(super) async fn connect(
        address: SocketAddr,
        layer: &impl Layer<Stream = S>,
        message: &Message,
        in_flight: usize,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        Self::over(stream, layer, message, in_flight).await
    }

    /// Exchanges one message on a connection.
    ///
    /// # Errors
    ///
    /// Those of the connection, and `InvalidData` if the reply is no echo.
    pub(super) async fn over(
        stream: TcpStream,
        layer: &impl Layer<Stream = S>,
        message: &Message,
        in_flight: usize,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream: layer.wrap(stream).await?,
            inbox: Inbox::default(),
            outbox: message.cycle(),
            length: message.length(),
            echoes: message.echoes(),
            in_flight,
            batches: VecDeque::new(),
        };
        client.exchange(1).await?;
        Ok(client)
    }

    /// Sends so many messages at once and waits for their replies.
    ///
    /// # Errors
    ///
    /// Those of the connection, and `InvalidData` if a reply is no echo.
    pub(super) async fn exchange(&mut self, count: usize) -> io::Result<()> {
        let now = Instant::now();
        self.send(count, now);
        poll_fn(|cx| self.poll_run(cx, now, None)).await
    }

    /// Keeps the messages in flight for a while, then waits for the outstanding replies.
    ///
    /// The time from sending to receiving is recorded in nanoseconds for each message.
    ///
    /// # Errors
    ///
    /// Those of the connection, and `InvalidData` if a reply is no echo.
    pub(super) async fn run(&mut self, duration: Duration) -> io::Result<Histogram<u64>> {
        let mut latencies = latencies();
        let start = Instant::now();
        self.send(self.in_flight, start);
        let until = start + duration;
        poll_fn(|cx| self.poll_run(cx, until, Some(&mut latencies))).await?;
        Ok(latencies)
    }

    /// Gives the receive buffer back, which is as large as the largest message. Nothing may be half
    /// received, as is so when all replies have come.
    pub(super) fn shrink(&mut self) {
        self.inbox = Inbox::default();
    }

    /// Ends the output and waits until the server has closed as well.
    ///
    /// # Errors
    ///
    /// Those of the connection, and `InvalidData` if something else came.
    pub(super) async fn close(mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
        match poll_fn(|cx| self.inbox.poll_read(&mut self.stream, cx)).await? {
            0 => Ok(()),
            _ => Err(not_an_echo()),
        }
    }

    fn poll_run(
        &mut self,
        cx: &mut Context<'_>,
        until: Instant,
        mut latencies: Option<&mut Histogram<u64>>,
    ) -> Poll<io::Result<()>> {
        loop {
            // Replies are read even while the server does not accept more messages.
            let _: Poll<()> = self.outbox.poll_write(&mut self.stream, cx)?;
            let _: Poll<()> = Pin::new(&mut self.stream).poll_flush(cx)?;
            let count = ready!(self.poll_replies(cx))?;
            let now = Instant::now();
            self.settle(count, now, latencies.as_deref_mut())?;
            let recorded = latencies.as_ref().map_or(0, |latencies| latencies.len());
            if now < until && recorded < MOST_MESSAGES {
                self.send(count, now);
            } else if self.batches.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes all replies that have come, at least one.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (mut count, mut read) = (0, 0);
        while count == 0 || read < BATCH {
            let Poll::Ready(bytes) = self.inbox.poll_read(&mut self.stream, cx)? else {
                break;
            };
            if bytes == 0 {
                return Poll::Ready(Err(closed()));
            }
            read += bytes;
            while let Some(echo) = self.inbox.next_payload()? {
                self.echoes.check(echo)?;
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
        self.outbox.add(count as u64 * self.length);
    }

    /// Replies come in the order of their messages, so they answer the oldest batches.
    fn settle(
        &mut self,
        mut count: usize,
        now: Instant,
        mut latencies: Option<&mut Histogram<u64>>,
    ) -> io::Result<()> {
        while count > 0 {
            let oldest = self.batches.front_mut().ok_or_else(not_an_echo)?;
            let answered = oldest.count.min(count);
            if let Some(latencies) = latencies.as_deref_mut() {
                record(latencies, now.duration_since(oldest.at), answered as u64);
            }
            count -= answered;
            oldest.count -= answered;
            if oldest.count == 0 {
                self.batches.pop_front();
            }
        }
        Ok(())
    }
}

#[cold]
pub(super) fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the server has closed a connection that was in use",
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use tokio::time::timeout;

    use super::super::layer::Plain;
    use super::super::tests::{block_on, echo_systems, reference, with_server};
    use super::*;
    use crate::frame::HEADER;

    #[test]
    fn every_system_echoes() {
        for (system, start) in echo_systems() {
            for (payload, in_flight) in [(0, 1), (64, 64), (1 << 10, 1_024), (1 << 20, 20)] {
                let latencies = with_server(start, async |address| {
                    let message = Message::new(payload);
                    let mut client = Client::connect(address, &Plain, &message, in_flight).await?;
                    client.run(Duration::from_millis(20)).await
                });
                let latencies = latencies.expect(system.name);
                assert!(latencies.len() >= in_flight as u64, "{}", system.name);
            }
        }
    }

    #[test]
    fn a_run_leaves_nothing_behind() {
        let counts = with_server(reference(), async |address| {
            let mut client = Client::connect(address, &Plain, &Message::new(64), 8).await?;
            let mut counts = Vec::new();
            for _ in 0..3 {
                counts.push(client.run(Duration::ZERO).await?.len());
            }
            io::Result::Ok(counts)
        });
        assert_eq!(counts.expect("echoes"), [8, 8, 8]);
    }

    #[test]
    fn every_system_closes_when_its_client_has_finished() {
        for (system, start) in echo_systems() {
            let closed = with_server(start, async |address| {
                let client = Client::connect(address, &Plain, &Message::new(64), 1).await?;
                // Only a server that does not close needs any patience.
                timeout(Duration::from_secs(10), client.close()).await?
            });
            closed.expect(system.name);
        }
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
        let error = block_on(Client::connect(address, &Plain, &Message::new(8), 1))
            .expect_err("another byte");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        server.join().expect("no panic").expect("a client");
    }

    #[test]
    fn replies_are_recorded_against_the_batches_that_they_answer() {
        let mut client = with_server(reference(), async |address| {
            Client::connect(address, &Plain, &Message::new(8), 4).await
        })
        .expect("an echo");
        let mut latencies = latencies();
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        client.send(3, after(0));
        client.send(2, after(1));
        client
            .settle(4, after(2), Some(&mut latencies))
            .expect("five messages are out");
        client
            .settle(1, after(11), Some(&mut latencies))
            .expect("one message is out");
        assert_eq!(latencies.len(), 5);
        for (quantile, milliseconds) in [(0.1, 1), (0.5, 2), (1.0, 10)] {
            let expected = milliseconds * 1_000_000;
            let off = latencies.value_at_quantile(quantile).abs_diff(expected);
            assert!(off < expected / 500, "{quantile}: {off}");
        }
        assert!(client.settle(1, after(12), None).is_err());
    }
}
