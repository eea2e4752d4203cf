//! Connections that come and go, thousands a second.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Context;
use crate::child::Server;
use crate::client::{Link, connect};
use crate::protocol::{Operation, Request};
use crate::verdict::Verdict;

/// Connects per second.
const RATE: u32 = 2_000;

/// Connections of the client that may be under way at a time. Above it, the server does not keep
/// up, which shows in the rate.
const AT_A_TIME: usize = 2_000;

/// How often it is tried to reach the rate, which other programs on the machine may prevent.
/// Losses and leaks of every attempt count.
const ATTEMPTS: u32 = 3;

/// The part of the rate that must be reached: what is left under way in the last instant counts
/// as time.
const REACHED: f64 = 0.95;

/// Who ends a connection, and how.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// The client, in order, after its answer.
    ClientFin,
    /// The server, in order, behind its answer.
    ServerFin,
    /// The client, with a reset, after its answer.
    ClientReset,
    /// The server, with a reset, after its answer.
    ServerReset,
    /// The client says at once that no request follows, and is answered after that.
    HalfClose,
}

const MANNERS: [Manner; 5] = [
    Manner::ClientFin,
    Manner::ServerFin,
    Manner::ClientReset,
    Manner::ServerReset,
    Manner::HalfClose,
];

#[derive(Debug, Default)]
struct Churned {
    connections: u64,
    failed: u64,
    failure: Option<String>,
    rate: f64,
}

pub(super) async fn run(context: &Context, verdict: &mut Verdict) -> io::Result<()> {
    let seconds = context.form.choose(1, 5, 60);
    let connections = RATE * context.form.choose(0, 5, 60) + context.form.choose(300, 0, 0);
    let rate = f64::from(context.form.choose(300, RATE, RATE));
    let mut server = context.server()?;
    let address = server.addresses().patient;
    context.say(format_args!("warming up"), "churn");
    let warm = churn(address, 500, 500.0).await?;
    let baseline = server.settle(None, context.settling()).await?;
    let own_baseline = context.holding()?;

    let (mut made, mut failed, mut best) = (warm.connections, warm.failed, 0.0);
    let mut failure = warm.failure;
    for attempt in 1..=ATTEMPTS {
        context.say(
            format_args!("{rate} connects per second for {seconds} s, attempt {attempt}"),
            "churn",
        );
        let churned = churn(address, connections, rate).await?;
        made += churned.connections;
        failed += churned.failed;
        failure = failure.or(churned.failure);
        best = churned.rate.max(best);
        if best >= rate * REACHED {
            break;
        }
    }
    verdict.count("connections made", made);
    verdict.rate_at_least("rate", rate * REACHED, best);
    verdict.exactly("connections refused, cut off or unanswered", 0, failed);
    if let Some(failure) = failure {
        verdict.note(format!("one failed: {failure}"));
    }
    judge(context, &mut server, made, verdict).await?;
    server
        .settle(Some(&baseline), context.settling())
        .await?
        .judge("server", &baseline, verdict);
    context
        .settle(&own_baseline)
        .await?
        .judge("client", &own_baseline, verdict);
    Ok(())
}

/// Judges what the server has counted of `made` connections.
async fn judge(
    context: &Context,
    server: &mut Server,
    made: u64,
    verdict: &mut Verdict,
) -> io::Result<()> {
    let state = server
        .wait_until(context.settling(), |state| {
            state.connections == 0 && state.account.closed == state.account.opened
        })
        .await?;
    let account = &state.account;
    verdict.exactly("connections left at the server", 0, state.connections);
    verdict.exactly("connections opened at the server", made, account.opened);
    verdict.exactly("connections closed at the server", made, account.closed);
    verdict.exactly("reactors told of their end", made, account.told);
    verdict.exactly("connections refused by the server", 0, account.refused());
    verdict.exactly(
        "messages answered or counted",
        account.ended.messages_in,
        account.accounted_for(),
    );
    verdict.exactly("messages unsent", 0, account.ended.unsent);
    verdict.exactly("messages unanswered", 0, account.ended.unanswered);
    verdict.exactly(
        "connections that the server ended in order, at its turn",
        made.div_ceil(5),
        account.ended_by("disconnect"),
    );
    verdict.exactly(
        "connections that the server aborted, at its turn",
        made.div_ceil(5),
        account.ended_by("aborted"),
    );
    Ok(())
}

/// Makes so many connections, so many a second, each in the next manner.
async fn churn(address: SocketAddr, connections: u32, rate: f64) -> io::Result<Churned> {
    const TICK: Duration = Duration::from_millis(5);
    let mut churned = Churned::default();
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    // What was missed is made up for, so that the rate is reached on average.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let mut started = 0;
    while started < connections {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate) as u32;
        while started < due.min(connections) {
            if under_way.len() >= AT_A_TIME {
                count(under_way.join_next().await, &mut churned)?;
            }
            let index = started as usize;
            under_way.spawn(connection(address, index, MANNERS[index % MANNERS.len()]));
            started += 1;
        }
        while let Some(done) = under_way.try_join_next() {
            count(Some(done), &mut churned)?;
        }
    }
    while !under_way.is_empty() {
        count(under_way.join_next().await, &mut churned)?;
    }
    churned.rate = f64::from(connections) / begun.elapsed().as_secs_f64();
    Ok(churned)
}

fn count(
    joined: Option<Result<io::Result<()>, tokio::task::JoinError>>,
    churned: &mut Churned,
) -> io::Result<()> {
    let Some(joined) = joined else { return Ok(()) };
    churned.connections += 1;
    if let Err(error) = joined.map_err(io::Error::other)? {
        churned.failed += 1;
        churned.failure.get_or_insert(error.to_string());
    }
    Ok(())
}

/// One connection: an exchange, and an end.
async fn connection(address: SocketAddr, index: usize, manner: Manner) -> io::Result<()> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{manner:?}: {error}"));
    let stream = connect(address, index).await.map_err(told)?;
    exchange_and_end(Link::new(stream), manner)
        .await
        .map_err(told)
}

async fn exchange_and_end(mut link: Link, manner: Manner) -> io::Result<()> {
    match manner {
        Manner::ClientFin => {
            link.exchange(1, 64).await?;
            link.finish().await?;
            link.expect_end().await
        }
        Manner::ServerFin => {
            link.send(Request::new(Operation::Goodbye, 1, 0), 64)
                .await?;
            link.expect(1, 64).await?;
            link.expect_end().await
        }
        Manner::ClientReset => {
            link.exchange(1, 64).await?;
            link.reset();
            Ok(())
        }
        Manner::ServerReset => {
            link.exchange(1, 64).await?;
            link.send(Request::new(Operation::Abort, 2, 0), 64).await?;
            match link.expect_end().await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
                Err(error) => Err(error),
                Ok(()) => Err(io::Error::other("expected a reset, got an end in order")),
            }
        }
        Manner::HalfClose => {
            link.send(Request::echo(1), 64).await?;
            link.finish().await?;
            link.expect(1, 64).await?;
            link.expect_end().await
        }
    }
}
