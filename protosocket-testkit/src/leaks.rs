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
/// let live = |resources: Resources| resources.live_bytes.expect("its allocator counts");
/// assert_eq!(live(Resources::now()) - live(before), 1000);
/// drop(kept);
/// ```
pub type CountingAllocator = StatsAlloc<System>;

pub use stats_alloc::INSTRUMENTED_SYSTEM;

/// Set in the process of its own.
const ALONE: &str = "PROTOSOCKET_TEST_ALONE";

/// How often a condition is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What this process holds at a moment, and `None` of what nobody has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Tasks of this thread's tokio runtime that are alive; not known outside of one.
    pub tasks: Option<usize>,
    /// Open file descriptors; known where the system tells, which only Linux does.
    pub descriptors: Option<usize>,
    /// Allocations that were not given back; known only with [`CountingAllocator`].
    pub live_allocations: Option<isize>,
    /// Bytes of them.
    pub live_bytes: Option<isize>,
}

impl Resources {
    /// Look.
    pub fn now() -> Self {
        let runtime = Handle::try_current().ok();
        let descriptors = descriptors();
        // No program gets this far without an allocation: one that counts has counted some.
        let memory = Some(INSTRUMENTED_SYSTEM.stats()).filter(|stats| stats.allocations > 0);
        let live = |taken: usize, given_back: usize| taken as isize - given_back as isize;
        Self {
            tasks: runtime.map(|runtime| runtime.metrics().num_alive_tasks()),
            descriptors,
            live_allocations: memory.map(|stats| live(stats.allocations, stats.deallocations)),
            live_bytes: memory.map(|stats| live(stats.bytes_allocated, stats.bytes_deallocated)),
        }
    }

    /// Look again until there is no more than this of anything, apart from `allowed`, and fail
    /// when that has not come true within `patience`.
    ///
    /// Tasks end and descriptors close some time after whoever used them was told, so looking once
    /// would see leaks where there are none.
    ///
    /// # Errors
    /// What is left over. What is not known counts as left over, unless
    /// [any amount](Allowance::ANY) of it is allowed: a check that knows nothing does not succeed.
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

/// What may be left over without being a leak, such as what a pool keeps. By default, nothing.
///
/// [`ANY`](Self::ANY) amount may be left over of what a test does not look at, or cannot: without
/// [`CountingAllocator`], that is `allocations` and `bytes`, and elsewhere than on Linux
/// `descriptors`.
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

impl Allowance {
    /// As much as there is, whether that is known or not.
    pub const ANY: usize = usize::MAX;
}

/// Something is left over, or may be.
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
        let count = |counted: Option<usize>| counted.map(|count| count as isize);
        is_allowed(count(before.tasks), count(after.tasks), allowed.tasks)
            && is_allowed(
                count(before.descriptors),
                count(after.descriptors),
                allowed.descriptors,
            )
            && is_allowed(
                before.live_allocations,
                after.live_allocations,
                allowed.allocations,
            )
            && is_allowed(before.live_bytes, after.live_bytes, allowed.bytes)
    }
}

fn is_allowed(before: Option<isize>, after: Option<isize>, allowed: usize) -> bool {
    match (before, after) {
        _ if allowed == Allowance::ANY => true,
        (Some(before), Some(after)) => after <= before.saturating_add_unsigned(allowed),
        _ => false,
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (&self.before, &self.after);
        write!(
            f,
            "left over, before and after: tasks {} and {}, file descriptors {} and {}, \
             allocations {} and {}, bytes {} and {}",
            known(before.tasks),
            known(after.tasks),
            known(before.descriptors),
            known(after.descriptors),
            known(before.live_allocations),
            known(after.live_allocations),
            known(before.live_bytes),
            known(after.live_bytes),
        )?;
        let unknown = |counted: [bool; 2]| counted != [true; 2];
        if unknown([before.tasks.is_some(), after.tasks.is_some()]) {
            f.write_str("; tasks are counted inside of a tokio runtime")?;
        }
        if unknown([before.descriptors.is_some(), after.descriptors.is_some()]) {
            f.write_str("; file descriptors are counted on Linux")?;
        }
        if unknown([before.live_bytes.is_some(), after.live_bytes.is_some()]) {
            f.write_str(
                "; allocations are counted if INSTRUMENTED_SYSTEM is the #[global_allocator]",
            )?;
        }
        Ok(())
    }
}

fn known(count: Option<impl fmt::Display>) -> String {
    count.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
}

impl std::error::Error for Leak {}

/// Open file descriptors of this process, without the one that it takes to look.
fn descriptors() -> Option<usize> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    Some(entries.count().saturating_sub(1))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing else than what each test names.
    const WHATEVER: Allowance = Allowance {
        tasks: Allowance::ANY,
        descriptors: Allowance::ANY,
        allocations: Allowance::ANY,
        bytes: Allowance::ANY,
    };

    // The allocator of this test program does not count.
    #[tokio::test(start_paused = true)]
    async fn what_nobody_counts_is_not_taken_for_nothing() {
        let before = Resources::now();
        assert_eq!((before.live_allocations, before.live_bytes), (None, None));
        assert_eq!(before.tasks, Some(0));
        let uncounted = Allowance {
            bytes: 1 << 40,
            ..WHATEVER
        };
        let leak = before.settle(uncounted, Duration::ZERO).await;
        let leak = leak.expect_err("it knows nothing").to_string();
        assert!(leak.contains("bytes unknown and unknown"), "{leak}");
        assert!(leak.contains("INSTRUMENTED_SYSTEM"), "{leak}");
        before.settle(WHATEVER, Duration::ZERO).await.unwrap();
    }

    #[test]
    fn outside_of_a_runtime_tasks_are_not_known() {
        let held = Resources::now();
        assert_eq!(held.tasks, None);
        let leak = Leak {
            before: held,
            after: held,
        };
        let no_task = Allowance {
            tasks: 7,
            ..WHATEVER
        };
        assert!(!leak.is_within(no_task));
        assert!(leak.is_within(WHATEVER));
    }
}
