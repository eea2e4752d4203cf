//! Thousands of open connections, all served.

use std::io;
use std::time::{Duration, Instant};

use protosocket_testkit::Random;
use tokio::task::JoinSet;

use super::{Context, warm_up};
use crate::child::Server;
use crate::client::{Link, connect};
use crate::machine;
use crate::verdict::Verdict;

/// Connections that are being opened at a time.
const AT_A_TIME: usize = 200;

/// Descriptors of a process beyond those of the connections.
const OTHER_DESCRIPTORS: u64 = 100;

/// What an idle connection may cost the server in resident memory, kernel excluded. It holds a
/// task with the state of its connection and no buffer, which is 2 KiB; the rest is what the
/// allocator makes of it.
const PER_CONNECTION: u64 = 6 << 10;

/// How much memory a later wave of connections may take if the first took so much: what that has
/// left behind is used again, but for what the allocator makes of other sizes in another order.
fn memory_of_a_later_wave(first: u64) -> u64 {
    first + first / 8
}

pub(super) async fn run(context: &Context, verdict: &mut Verdict) -> io::Result<()> {
    let connections = context.form.choose(200, 8_000, 8_000);
    let waves = context.form.choose(1, 2, 3);
    context.require_descriptors(connections as u64 + OTHER_DESCRIPTORS)?;

    let mut server = context.server()?;
    let address = server.addresses().patient;
    warm_up(address, 32).await?;
    let baseline = server.settle(None, context.settling()).await?;
    let own_baseline = context.holding()?;
    let opened_before = server.state()?.account.opened;
    verdict.bytes("server memory before", baseline.resident);

    let mut random = context.random();
    let mut first = None;
    for number in 1..=waves {
        let what = match waves {
            1 => String::new(),
            _ => format!("wave {number}: "),
        };
        let resident = wave(
            context,
            &mut server,
            connections,
            &mut random,
            &what,
            verdict,
        )
        .await?;
        match first {
            None => {
                first = Some(resident);
                let per_connection =
                    resident.saturating_sub(baseline.resident) / connections as u64;
                verdict.bytes_at_most(
                    "server memory per connection",
                    PER_CONNECTION,
                    per_connection,
                );
            }
            Some(first) => verdict.bytes_at_most(
                format!("{what}server memory with all open"),
                memory_of_a_later_wave(first),
                resident,
            ),
        }
    }
    let state = server.state()?;
    let account = &state.account;
    verdict.exactly(
        "connections opened",
        (connections * waves) as u64,
        account.opened - opened_before,
    );
    verdict.exactly("connections closed", account.opened, account.closed);
    verdict.exactly("connections refused", 0, account.refused());
    let after = server.settle(Some(&baseline), context.settling()).await?;
    after.judge("server", &baseline, verdict);
    context
        .settle(&own_baseline)
        .await?
        .judge("client", &own_baseline, verdict);
    // The allocator may keep what is free, for the next wave.
    verdict.bytes("server memory afterwards", after.resident);
    Ok(())
}

/// Opens all, exchanges messages, and closes all. Returns the server's memory with all open.
async fn wave(
    context: &Context,
    server: &mut Server,
    connections: usize,
    random: &mut Random,
    what: &str,
    verdict: &mut Verdict,
) -> io::Result<u64> {
    context.say(
        format_args!("{what}opening {connections} connections"),
        "open",
    );
    let address = server.addresses().patient;
    let begun = Instant::now();
    let mut failed = 0;
    let mut links = Vec::with_capacity(connections);
    let mut opening = JoinSet::new();
    for index in 0..connections {
        if opening.len() == AT_A_TIME {
            take(opening.join_next().await, &mut links, &mut failed, verdict);
        }
        opening.spawn(async move {
            let mut link = Link::new(connect(address, index).await?);
            link.exchange(index as u64, 64).await?;
            io::Result::Ok(link)
        });
    }
    while !opening.is_empty() {
        take(opening.join_next().await, &mut links, &mut failed, verdict);
    }
    verdict.time(
        format!("{what}opening all, an exchange on each"),
        begun.elapsed(),
    );
    verdict.exactly(format!("{what}connections that failed"), 0, failed);
    verdict.exactly(
        format!("{what}connections open at the server"),
        connections as u64,
        server.state()?.connections,
    );
    let resident = machine::resident_bytes(server.id())?;
    exchange_on_samples(context, &mut links, random, what, verdict).await?;

    context.say(format_args!("{what}closing"), "open");
    let begun = Instant::now();
    drop(links);
    let state = server
        .wait_until(context.settling(), |state| state.connections == 0)
        .await?;
    verdict.time(format!("{what}closing all"), begun.elapsed());
    verdict.exactly(
        format!("{what}connections left at the server"),
        0,
        state.connections,
    );
    Ok(resident)
}

/// Exchanges a message on some of the connections, again and again.
async fn exchange_on_samples(
    context: &Context,
    links: &mut Vec<Link>,
    random: &mut Random,
    what: &str,
    verdict: &mut Verdict,
) -> io::Result<()> {
    let sample = context.form.choose(50, 1_000, 1_000);
    let rounds = context.form.choose(1, 1, 20);
    let (mut exchanges, mut lost) = (0, 0);
    for round in 1..=rounds {
        context.say(
            format_args!("{what}exchanges, round {round} of {rounds}"),
            "open",
        );
        let mut exchanging = JoinSet::new();
        for _ in 0..sample.min(links.len()) {
            let mut link = links.swap_remove(random.below(links.len()));
            exchanging.spawn(async move {
                let done = link.exchange(7, 64).await;
                done.map(|()| link)
            });
        }
        while let Some(done) = exchanging.join_next().await {
            match done.map_err(io::Error::other)? {
                Ok(link) => {
                    exchanges += 1;
                    links.push(link);
                }
                Err(error) => {
                    lost += 1;
                    verdict.note(format!("an exchange failed: {error}"));
                }
            }
        }
        if round < rounds {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    verdict.count(
        format!("{what}exchanges on a random sample while all are open"),
        exchanges,
    );
    verdict.exactly(format!("{what}exchanges that failed"), 0, lost);
    Ok(())
}

fn take(
    joined: Option<Result<io::Result<Link>, tokio::task::JoinError>>,
    links: &mut Vec<Link>,
    failed: &mut u64,
    verdict: &mut Verdict,
) {
    match joined.map(|joined| joined.map_err(io::Error::other).and_then(|link| link)) {
        Some(Ok(link)) => links.push(link),
        Some(Err(error)) => {
            *failed += 1;
            // One is enough to see what it is about.
            if *failed == 1 {
                verdict.note(format!("a connection failed: {error}"));
            }
        }
        None => {}
    }
}
