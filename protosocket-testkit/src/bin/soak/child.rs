//! The server process, as its parent sees it.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::args::Orders;
use crate::holding::Holding;
use crate::machine;
use crate::server::{Addresses, Drained, Question, State};

/// How long a server may take to answer a question. It has a thread for that.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much free memory glibc's allocator keeps at the top of an arena: its default, but fixed. It
/// would raise that to twice the largest buffer that was ever freed, and what is resident then says
/// more about the allocator than about the server.
const TRIM_THRESHOLD: (&str, &str) = ("MALLOC_TRIM_THRESHOLD_", "131072");

/// A server process. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    addresses: Addresses,
}

impl Server {
    /// Starts this program as a server.
    pub(crate) fn start(orders: Orders) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("serve")
            .args(orders.to_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if std::env::var_os(TRIM_THRESHOLD.0).is_none() {
            command.env(TRIM_THRESHOLD.0, TRIM_THRESHOLD.1);
        }
        let mut process = command.spawn()?;
        let stdin = process.stdin.take().expect("it was just piped");
        let stdout = process.stdout.take().expect("it was just piped");
        let (sender, lines) = mpsc::channel();
        // A read from a pipe cannot time out, a receive from a channel can. The thread ends with
        // the process.
        thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut server = Self {
            process,
            stdin,
            lines,
            // Overwritten by what it says first.
            addresses: Addresses::NOWHERE,
        };
        server.addresses = server.hear(PATIENCE)?;
        Ok(server)
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it holds and has counted.
    ///
    /// # Errors
    ///
    /// When it has ended, and says so on the standard error, or does not answer.
    pub(crate) fn state(&mut self) -> io::Result<State> {
        self.tell(Question::State)?;
        self.hear(PATIENCE)
    }

    /// What it holds, as far as it should give that back.
    ///
    /// # Errors
    ///
    /// Those of [`state`](Self::state), and those of the system.
    pub(crate) fn holding(&mut self) -> io::Result<Holding> {
        let State {
            live_bytes,
            live_allocations,
            tasks,
            ..
        } = self.state()?;
        Ok(Holding {
            resident: machine::resident_bytes(self.id())?,
            live_bytes,
            live_allocations,
            descriptors: machine::open_descriptors(self.id())?,
            tasks,
        })
    }

    /// Begins a drain; [`drained`](Self::drained) waits for its end.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub(crate) fn begin_drain(&mut self, deadline: Duration) -> io::Result<()> {
        self.tell(Question::Drain(deadline.as_millis() as u64))
    }

    /// Waits for the end of a drain.
    ///
    /// # Errors
    ///
    /// When that does not come within `deadline` and some patience.
    pub(crate) fn drained(&mut self, deadline: Duration) -> io::Result<Drained> {
        self.hear(deadline + PATIENCE)
    }

    /// Ends its threads and tells how many bytes they have kept, which must not serve any more.
    ///
    /// # Errors
    ///
    /// When it has ended before.
    pub(crate) fn end(&mut self) -> io::Result<u64> {
        self.tell(Question::End)?;
        self.hear(PATIENCE)
    }

    /// Asks again and again, until its state is as it should be or `patience` is used up.
    ///
    /// # Errors
    ///
    /// Those of [`state`](Self::state).
    pub(crate) async fn wait_until(
        &mut self,
        patience: Duration,
        mut is_so: impl FnMut(&State) -> bool,
    ) -> io::Result<State> {
        let give_up = Instant::now() + patience;
        loop {
            let state = self.state()?;
            if is_so(&state) || Instant::now() > give_up {
                return Ok(state);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it holds no more than `baseline` did, or `patience` is used up.
    ///
    /// # Errors
    ///
    /// Those of [`holding`](Self::holding).
    pub(crate) async fn settle(
        &mut self,
        baseline: Option<&Holding>,
        patience: Duration,
    ) -> io::Result<Holding> {
        let give_up = Instant::now() + patience;
        let mut last = None;
        loop {
            let quiet = self.state()?.connections == 0;
            let holding = self.holding()?;
            let settled = match baseline {
                Some(baseline) => holding.is_back_at(baseline),
                // What is given back is still becoming less.
                None => last.as_ref().is_some_and(|last| holding.is_back_at(last)),
            };
            if quiet && settled || Instant::now() > give_up {
                return Ok(holding);
            }
            last = Some(holding);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn tell(&mut self, question: Question) -> io::Result<()> {
        let line = serde_json::to_string(&question)?;
        self.stdin
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|error| self.complaint(&error.to_string()))
    }

    fn hear<T: DeserializeOwned>(&mut self, patience: Duration) -> io::Result<T> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(serde_json::from_str(&line)?),
            Err(_) => Err(match self.process.try_wait() {
                Ok(Some(status)) => self.complaint(&format!("ended early, {status}")),
                _ => self.complaint(&format!("said nothing for {patience:?}")),
            }),
        }
    }

    fn complaint(&self, what: &str) -> io::Error {
        io::Error::other(format!("the server process: {what}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the process has already ended, which is what they are for.
        let _: io::Result<()> = self.process.kill();
        let _: io::Result<std::process::ExitStatus> = self.process.wait();
    }
}
