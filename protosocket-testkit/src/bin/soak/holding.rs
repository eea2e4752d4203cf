//! What a process holds, and whether it has given it back.

use std::io;

use protosocket_testkit::Resources;

use crate::machine;
use crate::verdict::{KEPT_BY_THREADS, Verdict};

/// What a process holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holding {
    /// Bytes in memory.
    pub(crate) resident: u64,
    /// Bytes that were allocated and not freed.
    pub(crate) live_bytes: u64,
    /// Allocations that were not freed.
    pub(crate) live_allocations: u64,
    pub(crate) descriptors: u64,
    pub(crate) tasks: u64,
}

/// Allocations that may be left over, whatever the load was. Vectors and tables of the runtime
/// and of the servers that were empty before have become allocations, and so have the buffers
/// that threads keep for the connections to come. A leak is one for each of thousands of
/// connections or messages.
pub(crate) const SPARE_ALLOCATIONS: u64 = 64;

/// Bytes that may be left over: what threads keep for the connections to come, which they may not
/// have had before.
pub(crate) const SPARE_BYTES: u64 = KEPT_BY_THREADS;

impl Holding {
    /// What this process holds; asked in its runtime.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let resources = Resources::now();
        Ok(Self {
            resident: machine::resident_bytes(std::process::id())?,
            live_bytes: counted(resources.live_bytes),
            live_allocations: counted(resources.live_allocations),
            descriptors: resources
                .descriptors
                .ok_or_else(|| io::Error::other("this system does not count open descriptors"))?
                as u64,
            tasks: resources.tasks.expect("it is asked in a runtime") as u64,
        })
    }

    /// Whether this is no more than the baseline, but for what may be left over.
    pub(crate) fn is_back_at(&self, baseline: &Self) -> bool {
        self.live_bytes <= baseline.live_bytes + SPARE_BYTES
            && self.live_allocations <= baseline.live_allocations + SPARE_ALLOCATIONS
            && self.descriptors <= baseline.descriptors
            && self.tasks <= baseline.tasks
    }

    /// Judges what `who` holds after a load by what it held before.
    pub(crate) fn judge(&self, who: &str, baseline: &Self, verdict: &mut Verdict) {
        verdict.at_most(
            format!("descriptors of the {who} afterwards"),
            baseline.descriptors,
            self.descriptors,
        );
        verdict.at_most(
            format!("tasks of the {who} afterwards"),
            baseline.tasks,
            self.tasks,
        );
        verdict.at_most(
            format!("live allocations of the {who} afterwards"),
            baseline.live_allocations + SPARE_ALLOCATIONS,
            self.live_allocations,
        );
        verdict.bytes_at_most(
            format!("live bytes of the {who} afterwards"),
            baseline.live_bytes + SPARE_BYTES,
            self.live_bytes,
        );
    }
}

/// What the allocator has counted.
pub(crate) fn counted(live: Option<isize>) -> u64 {
    live.expect("the allocator of this program counts").max(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASELINE: Holding = Holding {
        resident: 1 << 20,
        live_bytes: 1 << 19,
        live_allocations: 100,
        descriptors: 10,
        tasks: 3,
    };

    #[test]
    fn each_thing_that_is_kept_is_judged() {
        let judged = |holding: Holding| {
            let mut verdict = Verdict::new("case", 1);
            holding.judge("server", &BASELINE, &mut verdict);
            assert_eq!(verdict.held(), holding.is_back_at(&BASELINE));
            verdict.held()
        };
        assert!(judged(BASELINE));
        assert!(judged(Holding {
            live_bytes: BASELINE.live_bytes + SPARE_BYTES,
            live_allocations: BASELINE.live_allocations + SPARE_ALLOCATIONS,
            descriptors: 9,
            tasks: 2,
            ..BASELINE
        }));
        for leak in [
            Holding {
                descriptors: 11,
                ..BASELINE
            },
            Holding {
                tasks: 4,
                ..BASELINE
            },
            Holding {
                live_allocations: 165,
                ..BASELINE
            },
            Holding {
                live_bytes: BASELINE.live_bytes + SPARE_BYTES + 1,
                ..BASELINE
            },
        ] {
            assert!(!judged(leak), "{leak:?}");
        }
    }
}
