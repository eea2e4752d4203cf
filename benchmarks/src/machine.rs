//! What we ask of the operating system: processors, clocks, memory and descriptors.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{self, Runtime};

/// The first two processors that this process may use.
///
/// # Errors
///
/// When there is only one: a server and a client that take turns on it measure the scheduler.
pub(crate) fn two_processors() -> io::Result<[usize; 2]> {
    let allowed = sched_getaffinity(None)?;
    let mut processors = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    match (processors.next(), processors.next()) {
        (Some(server), Some(client)) => Ok([server, client]),
        _ => Err(io::Error::other(
            "the server and the client need a processor each, got one",
        )),
    }
}

/// Where a process runs, and on what kind of runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// One thread on this processor.
    Processor(usize),
    /// One thread, wherever the system puts it.
    Anywhere,
    /// A runtime of so many workers, wherever the system puts them.
    Workers(usize),
}

impl Placement {
    /// Confines this thread, and those that it starts from here on, and makes their runtime.
    pub(crate) fn prepare(self) -> io::Result<Runtime> {
        raise_descriptor_limit()?;
        let mut builder = match self {
            Self::Processor(processor) => {
                pin(processor)?;
                runtime::Builder::new_current_thread()
            }
            Self::Anywhere => runtime::Builder::new_current_thread(),
            Self::Workers(workers) => {
                let mut builder = runtime::Builder::new_multi_thread();
                builder.worker_threads(workers);
                builder
            }
        };
        builder.enable_all().build()
    }
}

const ANYWHERE: &str = "anywhere";
const WORKERS: &str = "workers:";

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Processor(processor) => write!(f, "{processor}"),
            Self::Anywhere => f.write_str(ANYWHERE),
            Self::Workers(workers) => write!(f, "{WORKERS}{workers}"),
        }
    }
}

impl FromStr for Placement {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANYWHERE {
            return Ok(Self::Anywhere);
        }
        match text.strip_prefix(WORKERS) {
            Some(workers) => workers.parse().map(Self::Workers),
            None => text.parse().map(Self::Processor),
        }
    }
}

fn pin(processor: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor);
    Ok(sched_setaffinity(None, &only)?)
}

/// Lets this process open as many descriptors as the system grants it: the usual 1,024 are too few
/// for the idle connections.
fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Processor time that all threads of this process have used.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

/// A process whose time and memory are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// This one.
    This,
    /// One that this one has started.
    Other(u32),
}

impl Process {
    /// Processor time that all threads have used. What a thread of another process has used since the
    /// scheduler last looked, at the latest when it fell asleep, is not in it, and neither are threads
    /// that have ended.
    pub(crate) fn cpu_time(self) -> io::Result<Duration> {
        let Self::Other(_) = self else {
            return Ok(cpu_time());
        };
        let mut total = 0;
        for thread in fs::read_dir(self.path("task"))? {
            let path = thread?.path().join("schedstat");
            let line = fs::read_to_string(&path)?;
            total += first_number(&line).ok_or_else(|| missing("time", &path))?;
        }
        Ok(Duration::from_nanos(total))
    }

    /// Bytes that are in memory.
    pub(crate) fn resident_bytes(self) -> io::Result<u64> {
        // `VmRSS` in `status` lags behind by pages that are counted per processor; this does not.
        self.kibibytes("smaps_rollup", "Rss:")
    }

    /// Bytes that were in memory when it was largest.
    pub(crate) fn peak_resident_bytes(self) -> io::Result<u64> {
        self.kibibytes("status", "VmHWM:")
    }

    /// Bytes that are in memory, more or less: cheap enough to be asked often.
    pub(crate) fn about_resident_bytes(self) -> io::Result<u64> {
        self.kibibytes("status", "VmRSS:")
    }

    fn kibibytes(self, file: &str, name: &str) -> io::Result<u64> {
        let path = self.path(file);
        kibibytes(&fs::read_to_string(&path)?, name).ok_or_else(|| missing(name, &path))
    }

    fn path(self, file: &str) -> PathBuf {
        let process = match self {
            Self::This => "self".to_owned(),
            Self::Other(id) => id.to_string(),
        };
        ["/proc", &process, file].iter().collect()
    }
}

fn missing(name: &str, path: &Path) -> io::Error {
    io::Error::other(format!("no `{name}` in {}", path.display()))
}

/// Nanoseconds on a processor, which a line of `schedstat` begins with.
fn first_number(line: &str) -> Option<u64> {
    line.split_whitespace().next()?.parse().ok()
}

/// Whether a program of this name is in the path.
pub(crate) fn has_program(name: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

/// A program that ends with the thread that starts it, however that ends, and that has neither input
/// nor, apart from its output, which is piped, anything to say.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(BOUND_TO_ITS_PARENT);
    command.args(["--pdeathsig", "KILL", "--", name]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Of util-linux, which every Linux has: asks the kernel to end the program that it becomes.
pub(crate) const BOUND_TO_ITS_PARENT: &str = "setpriv";

/// The value of a line that begins with `name`, in bytes.
fn kibibytes(lines: &str, name: &str) -> Option<u64> {
    let line = lines.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_size_is_parsed() {
        let rollup = "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:     2316 kB\nPss:  300 kB\n";
        assert_eq!(kibibytes(rollup, "Rss:"), Some(2316 << 10));
        assert_eq!(kibibytes("Pss: 300 kB", "Rss:"), None);
        assert_eq!(kibibytes("Rss: many kB", "Rss:"), None);
    }

    #[test]
    fn a_placement_survives_the_command_line() {
        for placement in [
            Placement::Processor(3),
            Placement::Anywhere,
            Placement::Workers(2),
        ] {
            assert_eq!(placement.to_string().parse(), Ok(placement));
        }
        assert!("somewhere".parse::<Placement>().is_err());
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let held = vec![1_u8; 1 << 20];
        for process in [Process::This, Process::Other(std::process::id())] {
            for size in [
                process.resident_bytes(),
                process.about_resident_bytes(),
                process.peak_resident_bytes(),
            ] {
                let size = size.expect("a size");
                assert!(size >= held.len() as u64, "{size}");
            }
            let time = process.cpu_time().expect("a time");
            assert!(time > Duration::ZERO);
        }
    }
}
