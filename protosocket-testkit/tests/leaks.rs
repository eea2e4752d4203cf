//! Leaks are found, and what is no leak is not taken for one.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use protosocket_testkit::{
    Allowance, CountingAllocator, INSTRUMENTED_SYSTEM, Resources, alone, resident_memory,
};

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

/// Short, where a leak is expected.
const A_MOMENT: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

fn in_a_runtime<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime can be built")
        .block_on(test);
}

/// What there is once the thread that has started this test has come to rest.
fn at_rest() -> Resources {
    let started = Instant::now();
    let mut before = Resources::now();
    let mut unchanged = Instant::now();
    while unchanged.elapsed() < A_MOMENT {
        assert!(started.elapsed() < PATIENCE, "somebody else takes memory");
        std::thread::yield_now();
        let now = Resources::now();
        if now != before {
            (before, unchanged) = (now, Instant::now());
        }
    }
    before
}

#[test]
fn tasks_that_stay_are_a_leak() {
    alone("tasks_that_stay_are_a_leak", || {
        in_a_runtime(async {
            let before = at_rest();
            let task = tokio::spawn(std::future::pending::<()>());
            let leak = before.settle(Allowance::default(), A_MOMENT).await;
            let leak = leak.expect_err("there is a task");
            assert_eq!((before.tasks, leak.after.tasks), (Some(0), Some(1)));
            assert!(leak.to_string().contains("tasks 0 and 1"), "{leak}");
            task.abort();
            assert!(task.await.is_err());
            let allowed = Allowance {
                allocations: 16,
                bytes: 16 * 1024,
                ..Allowance::default()
            };
            before.settle(allowed, PATIENCE).await.unwrap();
        });
    });
}

#[cfg(target_os = "linux")]
#[test]
fn files_that_stay_open_are_a_leak() {
    alone("files_that_stay_open_are_a_leak", || {
        let before = at_rest();
        let file = File::open("/dev/null").expect("it can be opened");
        let one_more = before.descriptors.map(|count| count + 1);
        assert!(one_more.is_some());
        assert_eq!(Resources::now().descriptors, one_more);
        drop(file);
        assert_eq!(Resources::now().descriptors, before.descriptors);
    });
}

#[test]
fn memory_that_stays_is_a_leak() {
    alone("memory_that_stays_is_a_leak", || {
        in_a_runtime(async {
            let before = at_rest();
            let mut kept: Vec<u8> = Vec::with_capacity(1000);
            kept.resize(5000, 1);
            let now = Resources::now();
            let more = |live: Option<isize>, count| live.expect("the allocator counts") + count;
            assert_eq!(now.live_allocations, Some(more(before.live_allocations, 1)));
            assert_eq!(now.live_bytes, Some(more(before.live_bytes, 5000)));
            let allowed = Allowance {
                allocations: 1,
                bytes: 4999,
                ..Allowance::default()
            };
            assert!(before.settle(allowed, A_MOMENT).await.is_err());
            let allowed = Allowance {
                bytes: 5000,
                ..allowed
            };
            before.settle(allowed, A_MOMENT).await.unwrap();
            drop(kept);
            let after = Resources::now();
            assert_eq!(after.live_bytes, before.live_bytes);
            assert_eq!(after.live_allocations, before.live_allocations);
        });
    });
}

#[test]
fn a_test_alone_fails_when_it_does_not_run() {
    let failed = std::panic::catch_unwind(|| alone("no_such_test", || {}));
    assert!(failed.is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn the_memory_of_a_process_is_known_and_of_none_is_not() {
    let own = resident_memory(std::process::id()).expect("it runs");
    assert!(own > 100 * 1024, "{own}");
    assert!(resident_memory(u32::MAX).is_err());
}
