//! What we ask of the operating system about processes: memory and descriptors.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Bytes of a process that are in memory.
pub(crate) fn resident_bytes(process: u32) -> io::Result<u64> {
    // `VmRSS` in `status` lags behind by pages that are counted per processor; this does not.
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    kibibytes(&rollup, "Rss:").ok_or_else(|| io::Error::other("no `Rss` in smaps_rollup"))
}

/// Forget the largest resident size so far.
pub(crate) fn forget_peak(process: u32) -> io::Result<()> {
    fs::write(format!("/proc/{process}/clear_refs"), "5")
}

/// The largest resident size since it was forgotten, in bytes.
pub(crate) fn peak_bytes(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    kibibytes(&status, "VmHWM:").ok_or_else(|| io::Error::other("no `VmHWM` in status"))
}

/// Descriptors that another process has open. One that has used up all of its own could not look
/// itself.
pub(crate) fn open_descriptors(process: u32) -> io::Result<u64> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64)
}

/// Lets this process open as many descriptors as the system grants it, and tells how many.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Lets this process open `descriptors` and no more, although it may raise that again.
pub(crate) fn lower_descriptor_limit(descriptors: u64) -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(descriptors);
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// An error that says what this system lacks.
pub(crate) fn lack(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// Whether an error is about what this system, or this process, has too little of: nothing that a
/// server is to blame for.
pub(crate) fn is_lack(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    let code = error.raw_os_error();
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse
    ) || code.is_some_and(|code| exhausted.contains(&code))
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        let rollup = "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:     2316 kB\nPss:  300 kB\n";
        assert_eq!(kibibytes(rollup, "Rss:"), Some(2316 << 10));
        assert_eq!(kibibytes("Pss: 300 kB", "Rss:"), None);
        assert_eq!(kibibytes("Rss: many kB", "Rss:"), None);
    }

    #[test]
    fn only_what_this_system_lacks_is_its_fault() {
        assert!(is_lack(&lack("of something".into())));
        assert!(is_lack(&io::Error::from_raw_os_error(
            Errno::MFILE.raw_os_error()
        )));
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::TimedOut,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::Other,
        ] {
            assert!(!is_lack(&kind.into()), "{kind}");
        }
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = std::process::id();
        assert!(open_descriptors(process).expect("our own descriptors") > 0);
        assert!(resident_bytes(process).expect("our own size") > 0);
        forget_peak(process).expect("our own peak");
        assert!(peak_bytes(process).expect("our own peak") > 0);
    }
}
