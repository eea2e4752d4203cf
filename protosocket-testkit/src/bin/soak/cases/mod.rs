//! The cases, and what they share.

mod churn;
mod descriptors;
mod drain;
mod flood;
mod mixed;
mod open;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use protosocket_testkit::Random;
use tokio::runtime::{self, Runtime};

use crate::args::{Form, Orders, Sabotage};
use crate::child::Server;
use crate::client::{Link, connect};
use crate::holding::Holding;
use crate::machine;
use crate::progress::Progress;
use crate::verdict::Verdict;

/// A process that is slow to give everything back, on a machine that is busy with other things, is
/// not judged by that.
const LONG_SETTLING: Duration = Duration::from_secs(15);

/// A load and what is judged of it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    run: Run,
}

type Run =
    for<'a> fn(&'a Context, &'a mut Verdict) -> Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

/// All cases, in the order in which they run.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "open",
        summary: "8,000 connections, all open and all served",
        run: |context, verdict| Box::pin(open::run(context, verdict)),
    },
    Case {
        name: "churn",
        summary: "2,000 connects per second, closed in every manner",
        run: |context, verdict| Box::pin(churn::run(context, verdict)),
    },
    Case {
        name: "drain",
        summary: "1,000 requests in flight when the server is drained",
        run: |context, verdict| Box::pin(drain::run(context, verdict)),
    },
    Case {
        name: "descriptors",
        summary: "a server that runs out of file descriptors, and recovers",
        run: |context, verdict| Box::pin(descriptors::run(context, verdict)),
    },
    Case {
        name: "flood",
        summary: "floods beside a canary: its waits, and the server's memory",
        run: |context, verdict| Box::pin(flood::run(context, verdict)),
    },
    Case {
        name: "mixed",
        summary: "traffic with faults, after which everything is given back",
        run: |context, verdict| Box::pin(mixed::run(context, verdict)),
    },
];

/// What every case is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) form: Form,
    pub(crate) seed: u64,
    sabotage: Option<Sabotage>,
    /// Descriptors that each process may have open.
    descriptors: u64,
    progress: Progress,
    runtime: Runtime,
}

impl Context {
    /// # Errors
    ///
    /// Those of the system.
    pub(crate) fn new(form: Form, sabotage: Option<Sabotage>, seed: u64) -> io::Result<Self> {
        Ok(Self {
            form,
            seed,
            sabotage,
            descriptors: machine::raise_descriptor_limit()?,
            progress: Progress::new(),
            // One thread drives the load, so that the server has something of two processors.
            runtime: runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?,
        })
    }

    /// Runs a case.
    ///
    /// # Errors
    ///
    /// When it could not be judged, because the system lacks something or the server has ended.
    pub(crate) fn run(&self, case: &Case, verdict: &mut Verdict) -> io::Result<()> {
        self.say(format_args!("begins"), case.name);
        let ran = self.runtime.block_on((case.run)(self, verdict));
        self.progress.clear();
        ran
    }

    fn say(&self, what: fmt::Arguments<'_>, case: &str) {
        self.progress.say(format_args!("{case}: {what}"));
    }

    /// Starts a server with as many descriptors as there are.
    fn server(&self) -> io::Result<Server> {
        self.server_with(None)
    }

    /// Starts a server that nobody loads and nothing is wrong with: what its canary waits for, the
    /// machine makes it wait for.
    fn idle_server(&self) -> io::Result<Server> {
        Server::start(Orders::default())
    }

    fn server_with(&self, descriptors: Option<u64>) -> io::Result<Server> {
        Server::start(Orders {
            descriptors,
            sabotage: self.sabotage,
        })
    }

    /// How long a process may take to give everything back. The longest that something is kept on
    /// purpose is a lingering connection, for 2 seconds.
    fn settling(&self) -> Duration {
        self.form
            .choose(Duration::from_secs(5), LONG_SETTLING, LONG_SETTLING)
    }

    /// What this process holds, which is the client.
    fn holding(&self) -> io::Result<Holding> {
        Holding::of_this_process()
    }

    /// What this process holds once that is no more than `baseline`, or when it is not in time.
    async fn settle(&self, baseline: &Holding) -> io::Result<Holding> {
        let give_up = tokio::time::Instant::now() + self.settling();
        loop {
            let holding = self.holding()?;
            if holding.is_back_at(baseline) || tokio::time::Instant::now() > give_up {
                return Ok(holding);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Randomness of this run.
    fn random(&self) -> Random {
        Random::new(self.seed)
    }

    /// # Errors
    ///
    /// When the system does not grant so many descriptors, with what to do about it.
    fn require_descriptors(&self, needed: u64) -> io::Result<()> {
        if self.descriptors >= needed {
            return Ok(());
        }
        Err(machine::lack(format!(
            "this takes {needed} file descriptors in each process, and the hard limit is {}: \
             raise it with `ulimit -Hn {needed}` as root, `LimitNOFILE={needed}` in a systemd \
             unit, or `--ulimit nofile={needed}` for a container",
            self.descriptors
        )))
    }
}

/// Connects and exchanges a message or two with so many connections, one after the other, so that
/// a server has allocated what it keeps for the ones to come.
async fn warm_up(address: SocketAddr, connections: usize) -> io::Result<()> {
    for index in 0..connections {
        let mut link = Link::new(connect(address, index).await?);
        link.exchange(1, 64).await?;
        link.exchange(2, 40_000).await?;
        link.finish().await?;
        link.expect_end().await?;
    }
    Ok(())
}
