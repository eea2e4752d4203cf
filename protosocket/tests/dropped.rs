//! F17: a connection that is dropped at any poll of an exchange leaves nothing in memory.
//!
//! A program of its own, because an allocator that counts is one for a whole program.

use bytes::Bytes;
use protosocket::ReactorStatus;
use protosocket_testkit::{
    CountingAllocator, Framed, INSTRUMENTED_SYSTEM, Opened, Resources, Setup, alone, echo, frame,
    framed,
};

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

/// What a life of a connection is made of; it is polled after each step.
type Step = fn(&mut Opened<Framed>);

/// Halves of messages, one that is longer than the shared buffer, answers that are not taken, work
/// in a queue, a flush and a shutdown that take their time: wherever memory can be held.
const EXCHANGE: [Step; 19] = [
    |_| {},
    |server| server.peer.send(&frame(b"one")[..5]),
    |server| server.peer.send(&frame(b"one")[5..]),
    |server| server.peer.open_window(50),
    |server| server.peer.send(&frame(&[7; 100_000])[..50_000]),
    |server| server.peer.send(&frame(&[7; 100_000])[50_000..]),
    |server| server.peer.open_window(10_000),
    |server| server.send(Bytes::from(vec![8; 30_000])),
    |server| server.knobs.produce([Bytes::from(vec![9; 20_000])]),
    |server| server.peer.open_window(120_000),
    |server| server.peer.open_window(20_000),
    |server| server.knobs.set_ready(false),
    |server| server.peer.send(frame(&[1; 100]).repeat(50)),
    |server| server.knobs.set_ready(true),
    |server| server.peer.open_window(usize::MAX),
    |server| server.peer.release_flush(),
    |server| server.send(Bytes::from_static(b"last")),
    |server| server.knobs.set_status(ReactorStatus::Disconnect),
    |server| server.peer.end(),
];

/// Run the exchange up to its `last` poll and let go of everything, the connection first or last.
/// Returns how many polls there were, and how it ended.
fn dropped_at(last: usize, connection_first: bool) -> (usize, &'static str) {
    let setup = Setup::bulk(4096);
    setup.peer.set_max_read(6_000);
    setup.peer.set_max_write(9_000);
    setup.peer.set_window(4);
    setup.peer.set_lingers();
    setup.peer.hold_flush();
    let mut server = setup.open(framed(), echo());
    for step in EXCHANGE {
        step(&mut server);
        while server.connection.is_woken() && !server.connection.is_ended() {
            if server.connection.polls() == last {
                return drop_all(server, connection_first);
            }
            server.connection.poll_once();
        }
    }
    drop_all(server, connection_first)
}

fn drop_all(server: Opened<Framed>, connection_first: bool) -> (usize, &'static str) {
    let polls = server.connection.polls();
    let is_ended = server.connection.is_ended();
    let Opened {
        connection,
        peer,
        knobs,
        sender,
    } = server;
    let handle = connection.handle.clone();
    let observer = connection.observer.clone();
    match connection_first {
        true => {
            drop(connection);
            drop((peer, knobs, sender));
        }
        false => {
            drop((peer, knobs, sender));
            drop(connection);
        }
    }
    assert!(handle.is_ended());
    let expected = ["dropped", "disconnect"][usize::from(is_ended)];
    assert_eq!(observer.closed(), [expected], "dropped at poll {polls}");
    assert_eq!(observer.opened(), 1, "dropped at poll {polls}");
    (polls, expected)
}

#[test]
fn f17_a_connection_that_is_dropped_at_any_poll_leaves_nothing_in_memory() {
    let name = "f17_a_connection_that_is_dropped_at_any_poll_leaves_nothing_in_memory";
    alone(name, || {
        for connection_first in [true, false] {
            let (polls, end) = dropped_at(usize::MAX, connection_first);
            assert_eq!(end, "disconnect");
            assert!(polls > 15, "{polls} polls");
            for last in 0..=polls {
                let again = || {
                    let (polled, end) = dropped_at(last, connection_first);
                    assert_eq!((polled, end == "dropped"), (last, last < polls));
                    Resources::now()
                };
                // What connections of a thread share settles first, and so does the thread that has
                // started this one. A leak goes on.
                let is_flat = || {
                    let before = again();
                    (0..5).all(|_| again() == before)
                };
                let settles = (0..10).any(|_| is_flat());
                assert!(settles, "dropped at poll {last} of {polls}: {:?}", again());
            }
        }
    });
}
