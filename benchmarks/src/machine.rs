//! What we ask of the operating system: processors, clocks, memory and descriptors.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

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

/// Confines this thread, and those that it starts from here on, to one processor.
pub(crate) fn pin(processor: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor);
    Ok(sched_setaffinity(None, &only)?)
}

/// Processor time that all threads of this process have used.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

/// Bytes of this process that are in memory.
pub(crate) fn resident_bytes() -> io::Result<u64> {
    // `VmRSS` in `status` lags behind by pages that are counted per processor; this does not.
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    parse_rss(&rollup).ok_or_else(|| io::Error::other("no `Rss` in /proc/self/smaps_rollup"))
}

fn parse_rss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Lets this process open as many descriptors as the system grants it: the usual 1,024 are too few
/// for the idle connections.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_size_is_parsed() {
        let rollup = "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:     2316 kB\nPss:  300 kB\n";
        assert_eq!(parse_rss(rollup), Some(2316 << 10));
        assert_eq!(parse_rss("Pss: 300 kB"), None);
        assert_eq!(parse_rss("Rss: many kB"), None);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        assert!(resident_bytes().expect("the size of this process") > 0);
        assert!(cpu_time() > Duration::ZERO);
    }
}
