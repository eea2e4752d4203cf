//! Where, when and with what the figures of a report were measured.
//!
//! Reports are shown around, so nothing here names a user, a host or a path.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What stands for a fact that could not be found out.
const UNKNOWN: &str = "unknown";

/// The memory allocator of every system, which is the default one of Rust.
const ALLOCATOR: &str = if cfg!(target_env = "gnu") {
    "system (glibc)"
} else if cfg!(target_env = "musl") {
    "system (musl)"
} else {
    "system"
};

/// Where, when and with what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Provenance {
    /// When the measurement began, in UTC: `2026-01-31T12:00:00Z`.
    pub(crate) time: String,
    /// The commit of the source, with `-dirty` behind it if a file was changed since.
    pub(crate) commit: String,
    /// What `rustc --version` says.
    pub(crate) compiler: String,
    /// The profile and its optimisation level.
    pub(crate) profile: String,
    /// The memory allocator.
    pub(crate) allocator: String,
    /// Peers and other libraries from a registry, with their versions.
    pub(crate) libraries: Vec<String>,
    /// What it ran on.
    pub(crate) machine: Machine,
}

/// What it ran on. What the system does not tell is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The model of the processor.
    pub(crate) processor: Option<String>,
    /// Processors that the run may use.
    pub(crate) processors: Option<usize>,
    /// The release of the kernel.
    pub(crate) kernel: Option<String>,
    /// All of it.
    pub(crate) memory_bytes: Option<u64>,
    /// How the frequency of the first processor is chosen.
    pub(crate) governor: Option<String>,
    /// Whether there is a hypervisor, which has other things to do as well.
    pub(crate) virtualised: bool,
    /// Of the minute before the measurement.
    pub(crate) load_average: Option<f64>,
}

impl Provenance {
    /// Of this program, here, at this moment.
    pub(crate) fn here() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            time: timestamp(now.unwrap_or_default()),
            commit: commit().unwrap_or_else(|| UNKNOWN.to_owned()),
            compiler: env!("BENCHMARKS_COMPILER").to_owned(),
            profile: env!("BENCHMARKS_PROFILE").to_owned(),
            allocator: ALLOCATOR.to_owned(),
            libraries: libraries(include_str!("../../Cargo.lock")),
            machine: Machine::here(),
        }
    }

    /// What figures depend on, by name: with another value of any of them they are others. Time and
    /// commit are not among them.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let Machine {
            processor,
            processors,
            kernel,
            memory_bytes,
            governor,
            virtualised,
            load_average: _,
        } = &self.machine;
        let unknown = || UNKNOWN.to_owned();
        let told = |fact: &Option<String>| fact.clone().unwrap_or_else(unknown);
        let processors = processors.as_ref().map(usize::to_string);
        let memory = memory_bytes.map(|bytes| {
            let gibibytes = bytes as f64 / f64::from(1 << 30);
            format!("{gibibytes:.1} GiB")
        });
        vec![
            ("processor", told(processor)),
            ("processors", told(&processors)),
            ("kernel", told(kernel)),
            ("memory", told(&memory)),
            ("frequency governor", told(governor)),
            ("virtualised", yes_or_no(*virtualised)),
            ("compiler", self.compiler.clone()),
            ("profile", self.profile.clone()),
            ("allocator", self.allocator.clone()),
            ("libraries", self.libraries.join(", ")),
        ]
    }
}

impl Machine {
    fn here() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        let line = |path| read(path).map(|text: String| text.trim().to_owned());
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        Self {
            processor: field(&cpuinfo, "model name").map(str::to_owned),
            processors: available_parallelism().ok().map(usize::from),
            kernel: line("/proc/sys/kernel/osrelease"),
            memory_bytes: read("/proc/meminfo").and_then(|meminfo| total_memory(&meminfo)),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            virtualised: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            load_average: read("/proc/loadavg").and_then(|load| last_minute(&load)),
        }
    }
}

fn yes_or_no(fact: bool) -> String {
    if fact { "yes" } else { "no" }.to_owned()
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let kibibytes = field(meminfo, "MemTotal")?.strip_suffix(" kB")?;
    kibibytes.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

fn last_minute(load: &str) -> Option<f64> {
    load.split(' ').next()?.parse().ok()
}

/// The commit of the tree that this program was compiled from, if it is a repository and still there.
fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe"])
        // No tag takes the place of the hash. Files that git does not know change nothing.
        .args(["--always", "--abbrev=40", "--exclude=*", "--dirty"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!commit.is_empty()).then_some(commit)
}

/// The direct dependencies of this crate that come from a registry, as `name version`.
fn libraries(lock: &str) -> Vec<String> {
    let packages: Vec<&str> = lock.split("[[package]]").collect();
    let value = |package: &&str, key: &str| {
        let value = package.lines().find_map(|line| line.strip_prefix(key))?;
        Some(value.strip_prefix(" = ")?.trim_matches('"').to_owned())
    };
    let this = packages
        .iter()
        .find(|package| value(package, "name").as_deref() == Some(env!("CARGO_PKG_NAME")));
    let (_, dependencies) = this
        .and_then(|package| package.split_once("dependencies = ["))
        .unwrap_or_default();
    // A dependency is `name`, or `name version` if there are several of the name.
    let dependencies: Vec<&str> = dependencies.split('"').skip(1).step_by(2).collect();
    packages
        .iter()
        .filter(|package| value(package, "source").is_some())
        .filter_map(|package| Some((value(package, "name")?, value(package, "version")?)))
        .map(|(name, version)| (format!("{name} {version}"), name))
        .filter(|(both, name)| {
            dependencies.contains(&both.as_str()) || dependencies.contains(&name.as_str())
        })
        .map(|(both, _)| both)
        .collect()
}

/// `2026-01-31T12:00:00Z`.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day, both from 1, of a day that is counted from 1970-01-01.
fn civil(mut day: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let days = if is_leap(year) { 366 } else { 365 };
        if day < days {
            break;
        }
        day -= days;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_knows_where_it_comes_from() {
        let here = Provenance::here();
        assert!(here.compiler.starts_with("rustc 1."), "{here:?}");
        assert!(here.profile.contains("opt-level"), "{here:?}");
        assert_eq!(here.time.len(), "2026-01-31T12:00:00Z".len(), "{here:?}");
        assert!(here.machine.processors > Some(0), "{here:?}");
        assert!(here.machine.memory_bytes > Some(1 << 20), "{here:?}");
        let peer = "protosocket 2.0.2".to_owned();
        assert!(here.libraries.contains(&peer), "{here:?}");
        let ours = concat!("protosocket ", env!("CARGO_PKG_VERSION")).to_owned();
        assert!(!here.libraries.contains(&ours), "{here:?}");
    }

    #[test]
    fn the_commit_is_a_hash() {
        // A source tree without its repository has none.
        if let Some(commit) = commit() {
            let hash = commit.strip_suffix("-dirty").unwrap_or(&commit);
            assert_eq!(hash.len(), 40, "{commit}");
            assert!(hash.chars().all(|digit| digit.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn files_of_the_system_are_parsed() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Chip 7 @ 2:1 GHz\nflags\t\t: fpu hypervisor\n";
        assert_eq!(field(cpuinfo, "model name"), Some("Chip 7 @ 2:1 GHz"));
        assert_eq!(field(cpuinfo, "flags"), Some("fpu hypervisor"));
        assert_eq!(field(cpuinfo, "model"), None);
        let meminfo = "MemFree:  1 kB\nMemTotal:       16384 kB\n";
        assert_eq!(total_memory(meminfo), Some(16 << 20));
        assert_eq!(total_memory("MemTotal: much\n"), None);
        assert_eq!(last_minute("0.17 0.45 0.92 1/80 3130\n"), Some(0.17));
        assert_eq!(last_minute(""), None);
    }

    #[test]
    fn libraries_are_direct_dependencies_from_a_registry() {
        let lock = r#"
[[package]]
name = "benchmarks"
version = "9.0.0"
dependencies = [
 "twice 2.0.0",
 "own",
 "once",
]

[[package]]
name = "once"
version = "1.0.0"
source = "registry+https://example.org"
dependencies = [
 "deep",
]

[[package]]
name = "own"
version = "0.1.0"

[[package]]
name = "twice"
version = "1.0.0"
source = "registry+https://example.org"

[[package]]
name = "twice"
version = "2.0.0"
source = "registry+https://example.org"

[[package]]
name = "deep"
version = "1.0.0"
source = "registry+https://example.org"
"#;
        assert_eq!(libraries(lock), ["once 1.0.0", "twice 2.0.0"]);
        assert_eq!(libraries(""), [""; 0]);
    }

    #[test]
    fn a_timestamp_is_that_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), expected);
        }
    }
}
