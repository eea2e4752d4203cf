//! Open loops: messages leave on a schedule, and their latency counts from it.
//!
//! A closed loop waits for a slow reply and so does not send what would have been slow as well. Here
//! whatever is late counts as late, be it the server or this client; the client's own part is told
//! as the delay of sending, and the rate that was reached beside the rate that was asked for.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::yield_now;

use super::client::closed;
use super::cycle::Cycle;
use super::message::{Echoes, Message, not_an_echo};
use super::{Clocks, Drive, Parent, latencies, nanoseconds, record};
use crate::frame::Inbox;
use crate::work::Schedule;

pub(super) fn drive(
    runtime: &Runtime,
    parent: &Parent,
    orders: &Drive,
    schedule: Schedule,
) -> io::Result<()> {
    let mut load = runtime.block_on(Load::connect(orders.address, schedule))?;
    runtime.block_on(load.run(orders.warm_up))?;
    parent.begin()?;
    let clocks = Clocks::start();
    let times = runtime.block_on(load.run(orders.measured))?;
    let mut report = clocks.stop(times.round_trips.len());
    report.send_delay_p99_ns = Some(times.send_delays.value_at_quantile(0.99));
    parent.end(&report.with_latencies(&times.round_trips))
}

/// Connections that take turns: message `k` of the schedule belongs to connection `k` modulo their
/// number.
struct Load {
    schedule: Schedule,
    connections: Vec<Connection>,
    /// Bytes of a message on the wire.
    length: u64,
}

struct Connection {
    stream: TcpStream,
    inbox: Inbox,
    outbox: Cycle,
    echoes: Echoes,
    sent: u64,
    answered: u64,
}

/// What a schedule came to.
pub(super) struct Times {
    /// From when a message was due to its answer.
    pub(super) round_trips: Histogram<u64>,
    /// From when a message was due to when it left.
    pub(super) send_delays: Histogram<u64>,
}

impl Times {
    pub(super) fn new() -> Self {
        Self {
            round_trips: latencies(),
            send_delays: latencies(),
        }
    }
}

impl Load {
    async fn connect(address: SocketAddr, schedule: Schedule) -> io::Result<Self> {
        let message = Message::new(schedule.payload);
        let mut connections = Vec::new();
        for _ in 0..schedule.connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connections.push(Connection {
                stream,
                inbox: Inbox::default(),
                outbox: message.cycle(),
                echoes: message.echoes(),
                sent: 0,
                answered: 0,
            });
        }
        Ok(Self {
            schedule,
            connections,
            length: message.length(),
        })
    }

    /// Sends what the schedule has for that long, and waits for the last reply.
    ///
    /// The client looks at the clock all the time, for timers are too coarse. It lets the runtime
    /// look for events in between.
    async fn run(&mut self, duration: Duration) -> io::Result<Times> {
        for connection in &mut self.connections {
            (connection.sent, connection.answered) = (0, 0);
        }
        let total = due(self.schedule, duration);
        let mut times = Times::new();
        let start = Instant::now();
        while times.round_trips.len() < total {
            let due = due(self.schedule, start.elapsed()).min(total);
            poll_fn(|cx| Poll::Ready(self.poll_all(cx, start, due, &mut times))).await?;
            yield_now().await;
        }
        Ok(times)
    }

    /// Sends the first `due` messages, as far as they are not sent, and takes the replies.
    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        start: Instant,
        due: u64,
        times: &mut Times,
    ) -> io::Result<()> {
        let schedule = self.schedule;
        let count = schedule.connections as u64;
        for (turn, connection) in (0..).zip(&mut self.connections) {
            let at = |message: u64| start + due_at(schedule, message * count + turn);
            let all = share(due, count, turn);
            if connection.sent < all {
                let now = Instant::now();
                for message in connection.sent..all {
                    record(&mut times.send_delays, now - at(message), 1);
                }
                connection.outbox.add((all - connection.sent) * self.length);
                connection.sent = all;
            }
            let _: Poll<()> = connection.outbox.poll_write(&mut connection.stream, cx)?;
            if let Poll::Ready(replies) = connection.poll_replies(cx)? {
                let now = Instant::now();
                for message in connection.answered..connection.answered + replies {
                    record(&mut times.round_trips, now - at(message), 1);
                }
                connection.answered += replies;
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Takes what one read brings.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match self.inbox.poll_read(&mut self.stream, cx)? {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(0) => return Poll::Ready(Err(closed())),
            Poll::Ready(_) => {}
        }
        let mut count = 0;
        while let Some(echo) = self.inbox.next_payload()? {
            self.echoes.check(echo)?;
            count += 1;
        }
        if self.answered + count > self.sent {
            return Poll::Ready(Err(not_an_echo()));
        }
        Poll::Ready(Ok(count))
    }
}

/// Messages that are due after that time: the first one is due at once.
pub(super) fn due(schedule: Schedule, elapsed: Duration) -> u64 {
    let whole = u128::from(nanoseconds(elapsed)) * u128::from(schedule.rate) / 1_000_000_000;
    u64::try_from(whole).map_or(u64::MAX, |whole| whole + 1)
}

/// How many of the messages that are due belong to a connection.
pub(super) fn share(due: u64, connections: u64, turn: u64) -> u64 {
    (due + connections - 1 - turn) / connections
}

/// When a message is due, counted from the start.
pub(super) fn due_at(schedule: Schedule, message: u64) -> Duration {
    let nanoseconds = u128::from(message) * 1_000_000_000 / u128::from(schedule.rate);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{echo_systems, reference, with_server};
    use super::*;

    #[test]
    fn every_message_of_the_schedule_is_answered_and_counts_from_its_time() {
        let schedule = Schedule {
            payload: 64,
            connections: 3,
            rate: 1_000,
        };
        let duration = Duration::from_millis(20);
        for (system, start) in echo_systems() {
            let times = with_server(start, async |address| {
                let mut load = Load::connect(address, schedule).await?;
                load.run(duration).await?;
                load.run(duration).await
            });
            let times = times.expect(system.name);
            assert_eq!(times.round_trips.len(), 21, "{}", system.name);
            assert_eq!(times.send_delays.len(), 21, "{}", system.name);
            assert!(times.round_trips.max() >= times.send_delays.max());
        }
    }

    #[test]
    fn what_leaves_late_has_a_delay() {
        let second = Duration::from_secs(1);
        let schedule = Schedule {
            payload: 64,
            connections: 2,
            rate: 1_000,
        };
        let delays = with_server(reference(), async |address| {
            let mut load = Load::connect(address, schedule).await?;
            let mut times = Times::new();
            let start = Instant::now().checked_sub(second).expect("no fresh clock");
            poll_fn(|cx| Poll::Ready(load.poll_all(cx, start, 5, &mut times))).await?;
            io::Result::Ok(times.send_delays)
        });
        let delays = delays.expect("a connection");
        assert_eq!(delays.len(), 5);
        let least = second - due_at(schedule, 5);
        assert!(delays.min() >= nanoseconds(least), "{}", delays.min());
    }

    #[test]
    fn connections_take_turns() {
        for due in 0..40 {
            for connections in 1..7 {
                for turn in 0..connections {
                    let own = (0..due).filter(|message| message % connections == turn);
                    assert_eq!(share(due, connections, turn), own.count() as u64);
                }
            }
        }
    }

    #[test]
    fn a_message_is_due_at_its_time_and_not_before() {
        let nanosecond = Duration::from_nanos(1);
        for rate in [3, 1_000, 200_000] {
            let schedule = Schedule {
                payload: 64,
                connections: 16,
                rate,
            };
            assert_eq!(due(schedule, Duration::ZERO), 1);
            for message in [1, 2, 17, 1_000_000] {
                let at = due_at(schedule, message);
                assert_eq!(due(schedule, at - nanosecond), message, "rate {rate}");
                assert_eq!(due(schedule, at + nanosecond), message + 1, "rate {rate}");
            }
        }
    }
}
