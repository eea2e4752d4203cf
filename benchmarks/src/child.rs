//! A child process: lines in, lines out, and its end.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{self, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How often it is looked whether a child has said something.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A process of this program in another role. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Child {
    role: &'static str,
    process: process::Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Child {
    /// Starts a program, its role as the first argument.
    pub(crate) fn spawn<I>(program: &Path, role: &'static str, arguments: I) -> io::Result<Self>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut process = Command::new(program)
            .arg(role)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
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
        Ok(Self {
            role,
            process,
            stdin,
            lines,
        })
    }

    /// Sends a line.
    ///
    /// # Errors
    ///
    /// When the child has closed its input, which it does only by ending.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        self.stdin
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|error| self.complaint(&error.to_string()))
    }

    /// Waits for a line.
    ///
    /// # Errors
    ///
    /// When none comes in time, or when the child has ended; it says why on the standard error.
    pub(crate) fn hear(&mut self, patience: Duration) -> io::Result<String> {
        self.hear_and(patience, LOOK_EVERY, |_| Ok(()))
    }

    /// Waits for a line, and does something as often as `every` meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`hear`](Self::hear), and what the something says.
    pub(crate) fn hear_and(
        &mut self,
        patience: Duration,
        every: Duration,
        mut meanwhile: impl FnMut(&mut Self) -> io::Result<()>,
    ) -> io::Result<String> {
        // Looks are counted, not time: whoever stops both processes for a while, and lets them go on,
        // has tried nobody's patience.
        let mut left = patience;
        loop {
            match self.lines.recv_timeout(every) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if left > every => {
                    left -= every;
                    meanwhile(self)?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.complaint(&format!("said nothing for {patience:?}")));
                }
                // It has closed its output, which it does when it ends.
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.process.wait()?;
                    return Err(self.complaint(&format!("ended early, {status}")));
                }
            }
        }
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    fn complaint(&self, what: &str) -> io::Error {
        io::Error::other(format!("the {} process: {what}", self.role))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if the process has already ended, which is what they are for.
        let _: io::Result<()> = self.process.kill();
        let _: io::Result<process::ExitStatus> = self.process.wait();
    }
}

/// Sends a line to the parent of this process.
pub(crate) fn say(line: impl std::fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
