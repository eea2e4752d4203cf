//! What is left when everything should be gone: tasks, file descriptors, memory.

use std::{
    alloc::System,
    env, fmt, fs, io,
    process::Command,
    time::{Duration, Instant},
};

use stats_alloc::StatsAlloc;
use tokio::runtime::Handle;

/// Counts what a program has allocated and not given back.
///
/// A program that wants to know makes it its allocator:
///
/// ```
/// use protosocket_testkit::{CountingAllocator, INSTRUMENTED_SYSTEM, Resources};
///
/// #[global_allocator]
/// static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;
///
/// let before = Resources::now();
/// let kept = vec![7_u8; 1000];
/// assert_eq!(Resources::now().live_bytes - before.live_bytes, 1000);
/// drop(kept);
/// ```
pub type CountingAllocator = StatsAlloc<System>;

pub use stats_alloc::INSTRUMENTED_SYSTEM;

/// Set in the process of its own.
const ALONE: &str = "PROTOSOCKET_TEST_ALONE";

/// How often a condition is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What this process holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Tasks of this thread's tokio runtime that are alive; 0 outside of one.
    pub tasks: usize,
    /// Open file descriptors; 0 where the system does not tell (only Linux does).
    pub descriptors: usize,
    /// Allocations that were not given back; 0 without [`CountingAllocator`].
    pub live_allocations: isize,
    /// Bytes of them.
    pub live_bytes: isize,
}

impl Resources {
    /// Look.
    pub fn now() -> Self {
        let tasks = Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        let memory = INSTRUMENTED_SYSTEM.stats();
        let allocations = memory.allocations as isize - memory.deallocations as isize;
        let bytes = memory.bytes_allocated as isize - memory.bytes_deallocated as isize;
        Self {
            tasks,
            descriptors: descriptors(),
            live_allocations: allocations,
            live_bytes: bytes,
        }
    }

    /// Look again until there is no more than this of anything, apart from `allowed`, and fail
    /// when that has not come true within `patience`.
    ///
    /// Tasks end and descriptors close some time after whoever used them was told, so looking once
    /// would see leaks where there are none.
    ///
    /// # Errors
    /// What is left over.
    pub async fn settle(&self, allowed: Allowance, patience: Duration) -> Result<(), Leak> {
        let until = Instant::now() + patience;
        loop {
            let leak = Leak {
                before: *self,
                after: Self::now(),
            };
            if leak.is_within(allowed) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(leak);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// What may be left over without being a leak, such as what a pool keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Tasks.
    pub tasks: usize,
    /// File descriptors.
    pub descriptors: usize,
    /// Allocations.
    pub allocations: usize,
    /// Bytes in allocations.
    pub bytes: usize,
}

/// Something is left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leak {
    /// What there was.
    pub before: Resources,
    /// What there is.
    pub after: Resources,
}

impl Leak {
    fn is_within(&self, allowed: Allowance) -> bool {
        let (before, after) = (&self.before, &self.after);
        after.tasks <= before.tasks + allowed.tasks
            && after.descriptors <= before.descriptors + allowed.descriptors
            && after.live_allocations <= before.live_allocations + allowed.allocations as isize
            && after.live_bytes <= before.live_bytes + allowed.bytes as isize
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (&self.before, &self.after);
        write!(
            f,
            "left over, before and after: tasks {} and {}, file descriptors {} and {}, \
             allocations {} and {}, bytes {} and {}",
            before.tasks,
            after.tasks,
            before.descriptors,
            after.descriptors,
            before.live_allocations,
            after.live_allocations,
            before.live_bytes,
            after.live_bytes,
        )
    }
}

impl std::error::Error for Leak {}

/// Open file descriptors of this process, without the one that it takes to look.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

/// What the process `pid` holds of physical memory, in bytes.
///
/// # Errors
/// There is no such process, or the system does not tell: only Linux does.
pub fn resident_memory(pid: u32) -> io::Result<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kibibytes
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| io::Error::other(format!("process {pid} has no memory of its own")))
}

/// Run `test`, which is called `name` in its test program, in a process where nothing else opens
/// files or takes memory.
///
/// # Panics
/// If it fails there, or does not run.
#[track_caller]
pub fn alone(name: &str, test: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return test();
    }
    let output = Command::new(env::current_exe().expect("a test knows its program"))
        .args(["--exact", name, "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .expect("a program can be run twice");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
