//! The server process: one system, and answers about the process that it runs in, or about the program
//! of somebody else that it has started.

use std::io::{self, BufRead};
use std::str::FromStr;
use std::thread;

use stats_alloc::INSTRUMENTED_SYSTEM;

use crate::child::say;
use crate::machine::{Placement, Process};
use crate::systems::Start;

/// What a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Processor time of the process so far, in nanoseconds.
    Cpu,
    /// Resident memory of the process, in bytes.
    Memory,
    /// The same when it was largest.
    PeakMemory,
    /// What is allocated, in bytes. Only a program with an allocator that counts knows.
    Heap,
}

impl Question {
    const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::PeakMemory, Self::Heap];

    /// The line that asks it.
    pub(crate) fn line(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::PeakMemory => "peak-memory",
            Self::Heap => "heap",
        }
    }

    fn answer(self, process: Process) -> io::Result<u64> {
        match self {
            Self::Cpu => Ok(u64::try_from(process.cpu_time()?.as_nanos()).unwrap_or(u64::MAX)),
            Self::Memory => process.resident_bytes(),
            Self::PeakMemory => process.peak_resident_bytes(),
            Self::Heap => live_heap(),
        }
    }
}

impl FromStr for Question {
    type Err = io::Error;

    fn from_str(line: &str) -> io::Result<Self> {
        Self::ALL
            .into_iter()
            .find(|question| question.line() == line)
            .ok_or_else(|| io::Error::other(format!("a server was asked for {line:?}")))
    }
}

/// Tells its port, then answers a [`Question`] per line, until its input ends: no server outlives
/// the process that has started it.
pub(crate) fn serve(start: Start, placement: Placement) -> io::Result<()> {
    placement.prepare()?.block_on(async {
        let server = start()?;
        say(server.address)?;
        // The answers come from a thread of their own: a busy runtime must not delay them.
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || answer_questions(server.process))?;
        server.run.await
    })
}

fn answer_questions(process: Process) {
    let served = io::stdin()
        .lock()
        .lines()
        .try_for_each(|line| say(line?.parse::<Question>()?.answer(process)?));
    std::process::exit(i32::from(served.is_err()));
}

fn live_heap() -> io::Result<u64> {
    let stats = INSTRUMENTED_SYSTEM.stats();
    // No program gets this far without an allocation.
    if stats.allocations == 0 {
        return Err(io::Error::other("this program does not count allocations"));
    }
    let live = stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated);
    Ok(live as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_understood() {
        for question in Question::ALL {
            assert_eq!(question.line().parse::<Question>().ok(), Some(question));
        }
        assert!("weather".parse::<Question>().is_err());
    }

    #[test]
    fn a_program_that_does_not_count_does_not_guess() {
        assert!(Question::Heap.answer(Process::This).is_err());
    }
}
