use std::{mem, thread, time::Duration};

use protosocket_testkit::Setup;

use crate::common::{BARE, Served, calls, limit};

#[test]
fn a_spurious_wake_polls_and_does_no_harm() {
    let mut server = Served::new();
    server.call(1, "wait");
    let waker = server.stage.lock().wakers[&1].clone();
    server.stage.take_polls();
    for _ in 0..3 {
        waker.wake_by_ref();
    }
    server.settle();
    assert_eq!(server.stage.take_polls(), [1], "three wakes are one");
    server.stage.give(1, "one");
    server.settle();
    assert_eq!(server.said(), ["1:one"]);
}

#[test]
fn a_stale_wake_meets_nobody_or_somebody_else() {
    let mut server = Served::new();
    server.call(1, "wait");
    let waker = server.stage.lock().wakers[&1].clone();
    server.stage.give(1, "one");
    server.settle();
    assert_eq!(server.said(), ["1:one"]);
    server.stage.take_polls();
    waker.wake_by_ref();
    server.settle();
    assert_eq!(server.stage.take_polls(), []);
    // Its slot is another's, who is polled in vain.
    server.call(2, "wait");
    server.stage.take_polls();
    waker.wake();
    server.settle();
    assert_eq!(
        (server.stage.take_polls(), server.said()),
        (vec![2], vec![])
    );
    server.stage.give(2, "two");
    server.settle();
    assert_eq!(server.said(), ["2:two"]);
}

#[test]
fn an_rpc_that_wakes_itself_is_polled_again_in_the_same_poll() {
    let mut server = Served::new();
    // Another has the connection woken.
    server.call(2, "wait");
    server.stage.take_polls();
    let polls = server.polls();
    server.call(1, "yield 5");
    assert_eq!(server.said(), ["1:done"]);
    assert_eq!(server.stage.take_polls(), [1; 6]);
    assert_eq!(
        server.polls(),
        polls + 1,
        "its wakes do not wake the connection"
    );
}

#[test]
fn a_wake_between_two_polls_wakes_the_connection_once() {
    let mut server = Served::new();
    server.send_at_once(calls(1..=3, "wait"));
    for id in 1..=3 {
        assert_eq!(server.is_woken(), id > 1);
        server.stage.give(id, "x");
    }
    let polls = server.polls();
    server.settle();
    assert_eq!(server.polls(), polls + 1);
    assert_eq!(server.said(), ["1:x", "2:x", "3:x"]);
}

#[test]
fn wakes_from_other_threads_are_heard() {
    const CALLS: u64 = 64;
    let mut server = Served::new();
    for _ in 0..50 {
        server.send_at_once(calls(0..CALLS, "wait"));
        let stage = server.stage.clone();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let stage = stage.clone();
                thread::spawn(move || {
                    for id in (0..CALLS).filter(|id| id % 4 == thread) {
                        stage.give(id, "x");
                    }
                })
            })
            .collect();
        let mut answers = 0;
        while answers < CALLS {
            server.settle();
            answers += server.answers().len() as u64;
            server.forget_answers();
            thread::yield_now();
        }
        for thread in threads {
            thread.join().expect("it does not panic");
        }
        assert_eq!((answers, server.in_flight()), (CALLS, 0));
    }
}

#[test]
fn a_slot_whose_turn_was_given_back_with_others_is_woken_again() {
    let mut server = Served::with(Setup::bulk(2 * BARE), limit(100));
    server.peer.set_window(0);
    // Two are answered, and eight are cancelled while they wait for room.
    server.send_at_once(calls(1..=10, "echo"));
    for id in 3..=10 {
        server.cancel(id);
    }
    // Nobody needs their slots for so long that some are given back.
    for _ in 0..2 {
        server.pass(Duration::from_secs(11));
    }
    server.peer.open_window(usize::MAX / 2);
    server.settle();
    assert_eq!(server.said(), ["1:", "2:"]);
    // All of those that are left are used.
    server.send_at_once(calls(11..=20, "wait"));
    for id in 11..=20 {
        server.stage.give(id, "x");
    }
    server.settle();
    assert_eq!(server.answers().len(), 10);
}

#[test]
fn nobody_is_woken_by_an_rpc_after_the_end() {
    let mut server = Served::new();
    server.call(1, "wait");
    let wakers = mem::take(&mut server.stage.lock().wakers);
    server.handle.abort();
    assert_eq!(server.reason(), "aborted");
    for waker in wakers.into_values() {
        waker.wake();
    }
    assert!(!server.is_woken());
}
