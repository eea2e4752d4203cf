use crate::common::{Served, Text, calls};

/// Two calls that run beside what panics, and are answered afterwards.
fn with_others(act: impl FnOnce(&mut Served)) -> (Served, Vec<String>) {
    let mut server = Served::new();
    server.send_at_once(calls([100, 101], "wait"));
    act(&mut server);
    server.stage.give(101, "fine");
    server.stage.give(100, "fine");
    server.settle();
    let mut said = server.said();
    let others = said.split_off(said.len() - 2);
    assert_eq!(others, ["101:fine", "100:fine"]);
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
    (server, said)
}

#[test]
fn d16_a_panic_in_new_rpc_ends_that_call() {
    let (server, said) = with_others(|server| server.call(1, "panic-new now"));
    assert_eq!(said, ["1:cancelled"]);
    assert_eq!(server.stats().failed, 1);
}

#[test]
fn d16_a_panic_in_the_first_poll_ends_that_call() {
    let (server, said) = with_others(|server| server.call(1, "panic-poll now"));
    assert_eq!(said, ["1:cancelled"]);
    assert_eq!(server.stage.dropped(), [1, 101, 100]);
    assert_eq!(server.stats().failed, 1);
}

#[test]
fn d16_a_panic_in_a_later_poll_ends_that_call() {
    let (server, said) = with_others(|server| {
        server.call(1, "panic-poll later");
        server.stage.give(1, "go");
        server.settle();
        // Its slot and its id are free.
        server.call(1, "echo again");
    });
    assert_eq!(said, ["1:cancelled", "1:again"]);
    assert_eq!(server.stats().failed, 1);
}

#[test]
fn d16_a_panic_of_a_stream_ends_that_stream() {
    let (server, said) = with_others(|server| server.call(1, "panic-stream"));
    assert_eq!(said, ["1:one", "1:cancelled"]);
    assert_eq!(server.stage.dropped(), [1, 101, 100]);
}

#[test]
fn d16_a_panic_in_the_drop_of_an_answered_call_keeps_its_answer() {
    let (server, said) = with_others(|server| {
        server.call(1, "panic-drop ready");
        server.call(2, "panic-drop");
        server.stage.give(2, "later");
        server.settle();
    });
    assert_eq!(said, ["1:said", "2:later"]);
    assert_eq!(server.stats().finished, 4);
}

#[test]
fn d16_a_panic_in_the_drop_of_a_cancelled_call_is_nobody_elses() {
    let (server, said) = with_others(|server| {
        server.call(1, "panic-drop");
        server.cancel(1);
        server.call(1, "panic-drop");
        server.call(1, "echo crossed");
        server.call(1, "echo fine");
    });
    assert_eq!(said, ["1:cancelled", "1:fine"]);
    let stats = server.stats();
    assert_eq!((stats.cancelled, stats.collided), (1, 1));
}

#[test]
fn d16_a_panic_in_the_drops_at_the_end_leaves_none_behind() {
    let mut server = Served::new();
    server.send_at_once(
        calls(1..=3, "panic-drop")
            .into_iter()
            .chain([Text::new(4, 0, "wait")]),
    );
    let stage = server.stage.clone();
    // As a runtime does that shuts down.
    let observer = server.connection.into_observer();
    assert_eq!(stage.dropped(), [1, 2, 3, 4]);
    assert_eq!(observer.closed(), ["dropped"]);
    let (reason, stats) = stage.lock().ended.expect("the service was told");
    assert_eq!((reason, stats.abandoned), ("dropped", 4));
}

#[test]
fn d16_every_request_may_panic() {
    let (server, said) =
        with_others(|server| server.send_at_once(calls(1001..=1600, "panic-poll now")));
    let expected: Vec<_> = (1001..=1600).map(|id| format!("{id}:cancelled")).collect();
    assert_eq!(said, expected);
    assert_eq!(server.stats().failed, 600);
}
