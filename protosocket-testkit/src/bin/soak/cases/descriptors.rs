//! A server that runs out of file descriptors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Context, warm_up};
use crate::beside::{self, Beside};
use crate::child::Server;
use crate::client::{Link, connect, within};
use crate::verdict::Verdict;

/// What the server may open. It has a dozen for itself.
const DESCRIPTORS: u64 = 80;

/// Connections that are there before the flood and must notice nothing.
const EARLY: usize = 20;

/// Connections of the flood, most of which find no descriptor.
const FLOOD: usize = 200;

/// How long it may take until a client is served, once there are descriptors. The server looks
/// again after half a second at the latest; this leaves as much again, and twice that for a machine
/// that is busy with other things.
const RECOVERY: Duration = Duration::from_secs(2);

pub(super) async fn run(context: &Context, verdict: &mut Verdict) -> io::Result<()> {
    let rounds = context.form.choose(1, 2, 10);
    let mut server = context.server_with(Some(DESCRIPTORS))?;
    let address = server.addresses().patient;
    warm_up(address, 16).await?;
    let baseline = server.settle(None, context.settling()).await?;

    let mut early = Vec::new();
    for index in 0..EARLY {
        let mut link = Link::new(connect(address, index).await?);
        link.exchange(0, 64).await?;
        early.push(link);
    }
    let canary = Beside::start(address)?;
    let before = server
        .wait_until(context.settling(), |state| state.connections > EARLY as u64)
        .await?
        .account;

    let (mut served, mut shed, mut reset, mut hung) = (0, 0, 0, 0);
    let (mut disturbed, mut slowest) = (0, Duration::ZERO);
    for round in 1..=rounds {
        context.say(format_args!("flood {round} of {rounds}"), "descriptors");
        let flood = Flood::connect(address).await?;
        disturbed += exchange_all(&mut early).await;
        let others = EARLY as u64 + 1;
        let ended = flood
            .wait_for_ends(&mut server, others, context.settling())
            .await?;
        disturbed += exchange_all(&mut early).await;
        shed += ended.shed;
        reset += ended.reset;
        let mut kept = ended.open;
        // Those that were neither served nor told hang.
        let silent = exchange_all(&mut kept).await;
        hung += silent;
        served += kept.len() as u64 - silent;

        // The descriptors are free again, and so is the way for others.
        let begun = Instant::now();
        drop(kept);
        slowest = slowest.max(until_served(address).await?.duration_since(begun));
        disturbed += exchange_all(&mut early).await;
    }
    verdict.exactly("exchanges of early connections that failed", 0, disturbed);
    beside::judge("early connections", &[canary.stop()?], verdict);
    verdict.count("connections of the floods that were served", served);
    verdict.at_least(
        "connections that found no descriptor and were told so",
        (FLOOD as u64 * rounds) / 2,
        shed + reset,
    );
    verdict.exactly("of these, reset instead of ended in order", 0, reset);
    verdict.exactly("connections that were left hanging", 0, hung);
    verdict.time_at_most(
        "time until the server accepts again, the slowest",
        RECOVERY,
        slowest,
    );

    drop(early);
    let state = server
        .wait_until(context.settling(), |state| state.connections == 0)
        .await?;
    let lacks = state.account.refusals.get("resources").copied();
    verdict.at_least(
        "lacks of descriptors that the server counted",
        shed + reset,
        lacks.unwrap_or(0),
    );
    verdict.exactly(
        "connections opened and closed again",
        state.account.opened,
        state.account.closed,
    );
    verdict.at_least(
        "connections opened beyond the early ones",
        served,
        state.account.opened - before.opened,
    );
    server
        .settle(Some(&baseline), context.settling())
        .await?
        .judge("server", &baseline, verdict);
    Ok(())
}

/// Connections that say nothing.
struct Flood {
    waiting: JoinSet<io::Result<TcpStream>>,
    /// Every one of them has been served or told.
    decided: Arc<AtomicBool>,
}

/// What became of them.
#[derive(Default)]
struct Ended {
    open: Vec<Link>,
    shed: u64,
    reset: u64,
}

impl Flood {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut waiting = JoinSet::new();
        let decided = Arc::<AtomicBool>::default();
        for index in 0..FLOOD {
            // The kernel accepts them on behalf of the server.
            let stream = connect(address, index).await?;
            waiting.spawn(end_of(stream, decided.clone()));
        }
        Ok(Self { waiting, decided })
    }

    /// Waits until the server has as many of them as have not ended, beside `others`.
    async fn wait_for_ends(
        mut self,
        server: &mut Server,
        others: u64,
        patience: Duration,
    ) -> io::Result<Ended> {
        server
            .wait_until(patience, |state| {
                state.connections == others + self.waiting_count()
            })
            .await?;
        self.decided.store(true, Ordering::Relaxed);
        let mut ended = Ended::default();
        while let Some(end) = self.waiting.join_next().await {
            match end.map_err(io::Error::other)? {
                Ok(stream) => ended.open.push(Link::new(stream)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => ended.shed += 1,
                Err(_) => ended.reset += 1,
            }
        }
        Ok(ended)
    }

    fn waiting_count(&self) -> u64 {
        // Those that have ended hold no clone any more.
        Arc::strong_count(&self.decided) as u64 - 1
    }
}

/// Waits for the end of a connection that nothing was said on; gives it back if it is still open
/// when all are decided.
async fn end_of(mut stream: TcpStream, decided: Arc<AtomicBool>) -> io::Result<TcpStream> {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    while !decided.load(Ordering::Relaxed) {
        match tokio::time::timeout(LOOK_EVERY, stream.read_u8()).await {
            Err(_) => {}
            Ok(Ok(byte)) => return Err(io::Error::other(format!("an answer to nothing: {byte}"))),
            Ok(Err(error)) => return Err(error),
        }
    }
    Ok(stream)
}

/// Exchanges a message on each, and tells how many failed.
async fn exchange_all(links: &mut [Link]) -> u64 {
    let mut failed = 0;
    for link in links {
        failed += u64::from(link.exchange(1, 64).await.is_err());
    }
    failed
}

/// Connects until a connection is served.
async fn until_served(address: SocketAddr) -> io::Result<Instant> {
    within(async {
        loop {
            let mut link = Link::new(connect(address, 0).await?);
            if link.exchange(1, 64).await.is_ok() {
                return Ok(Instant::now());
            }
        }
    })
    .await
}
