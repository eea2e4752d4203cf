//! The multiplexer as a function of what it is told: no I/O, no task, no clock.

use std::time::{Duration, Instant};

use bytes::Bytes;
use protosocket::{Machine, Output, ReactorStatus, Rejected, Room};

use crate::{
    frames::{Frame, Frames},
    hosts::{Client, Server, Service},
    mux::{Command, Config, Event, Mux, MuxError, Role},
};
use protosocket_testkit::{
    MachineSide, Random, encoded, for_each_seed,
    simulation::{MachinePair, Side, StreamConditions},
};

fn client(now: Instant) -> MachineSide<Mux, Client> {
    let machine = Mux::new(Role::Client, Config::default());
    MachineSide::new(machine, Client::default(), Frames, now)
}

fn server(service: Service, now: Instant) -> MachineSide<Mux, Server> {
    let machine = Mux::new(Role::Server, Config::default());
    MachineSide::new(machine, Server::new(service), Frames, now)
}

fn tell<H: protosocket::Host<Mux>>(side: &mut MachineSide<Mux, H>, frame: Frame) {
    side.receive(&encoded(&mut Frames, frame));
}

fn text(stream: u32, size: usize) -> Bytes {
    (0..size)
        .map(|index| (index * 7 + stream as usize) as u8)
        .collect()
}

/// A client that has opened streams with so many bytes on each, and all the credit it wants.
fn loaded(sizes: &[(u32, usize)]) -> MachineSide<Mux, Client> {
    let mut side = client(Instant::now());
    for &(stream, size) in sizes {
        side.command(Command::Open(stream)).unwrap();
        side.command(Command::Send(stream, text(stream, size)))
            .unwrap();
        assert!(matches!(
            side.output(),
            Some(Output::Control(Frame::Open { .. }))
        ));
        let amount = u32::MAX;
        tell(&mut side, Frame::Credit { stream, amount });
    }
    side
}

fn streams_of_data(side: &mut MachineSide<Mux, Client>) -> Vec<u32> {
    let outputs = std::iter::from_fn(|| side.output());
    outputs
        .map(|output| match output {
            Output::Bulk(Frame::Data { stream, .. }) => stream,
            other => panic!("only data is queued, not {other:?}"),
        })
        .collect()
}

#[test]
fn streams_take_turns_in_the_same_order_in_every_run() {
    let run = || streams_of_data(&mut loaded(&[(1, 160), (2, 16), (5, 40)]));
    let order = run();
    assert_eq!(order[..6], [1, 2, 5, 1, 5, 1]);
    assert_eq!(order.len(), 10 + 1 + 3);
    assert_eq!(order, run());
}

#[test]
fn data_waits_for_credit_and_for_room_and_control_for_neither() {
    let mut side = client(Instant::now());
    side.command(Command::Open(1)).unwrap();
    side.command(Command::Send(1, text(1, 20))).unwrap();
    side.room = Room {
        bytes: 0,
        messages: 0,
    };
    let open = Frame::Open {
        stream: 1,
        credit: 64,
    };
    assert_eq!(side.output(), Some(Output::Control(open)));
    assert_eq!(side.output(), None);
    tell(
        &mut side,
        Frame::Credit {
            stream: 1,
            amount: 8,
        },
    );
    assert_eq!(side.output(), None);
    side.room = Room {
        bytes: 6,
        messages: 1,
    };
    let data = Frame::data(1, text(1, 6));
    assert_eq!(side.output(), Some(Output::Bulk(data)));
    let rest = text(1, 8).slice(6..);
    assert_eq!(side.output(), Some(Output::Bulk(Frame::data(1, rest))));
    assert_eq!(side.output(), None);
    side.room = Room {
        bytes: 0,
        messages: 0,
    };
    tell(&mut side, Frame::Ping);
    assert_eq!(side.output(), Some(Output::Control(Frame::Pong)));
}

#[test]
fn a_rejected_command_comes_back_and_harms_nothing() {
    let mut side = client(Instant::now());
    let command = Command::Send(3, text(3, 4));
    let rejected = side.command(command.clone()).unwrap_err();
    let reason = "the stream is not open";
    assert_eq!(rejected, Rejected { command, reason });
    side.command(Command::Open(3)).unwrap();
    assert!(side.command(Command::Open(3)).is_err());
    assert!(side.is_open());
}

#[test]
fn commands_are_not_wanted_while_too_much_is_queued() {
    let mut side = loaded(&[(1, 1023)]);
    assert!(side.machine.wants_commands(side.room));
    side.command(Command::Send(1, text(1, 1))).unwrap();
    assert!(!side.machine.wants_commands(side.room));
    side.output();
    assert!(side.machine.wants_commands(side.room));
}

#[test]
fn idle_means_that_no_stream_is_open_and_nothing_is_left_to_say() {
    let mut side = client(Instant::now());
    assert!(side.machine.is_idle());
    side.command(Command::Open(1)).unwrap();
    assert!(!side.machine.is_idle());
    side.command(Command::Cancel(1)).unwrap();
    assert!(!side.machine.is_idle(), "the cancel has not been sent");
    side.send(usize::MAX);
    assert!(side.machine.is_idle());
}

#[test]
fn a_goodbye_refuses_what_is_new_and_finishes_what_is_old() {
    let mut side = server(Service::Echo, Instant::now());
    tell(
        &mut side,
        Frame::Open {
            stream: 1,
            credit: 64,
        },
    );
    side.with(Mux::handle_drain);
    tell(
        &mut side,
        Frame::Open {
            stream: 2,
            credit: 64,
        },
    );
    tell(&mut side, Frame::data(1, "old"));
    let outputs: Vec<_> = std::iter::from_fn(|| side.output()).collect();
    assert_eq!(
        outputs,
        [
            Output::Control(Frame::Credit {
                stream: 1,
                amount: 64
            }),
            Output::Control(Frame::Goodbye { last: 1 }),
            Output::Control(Frame::Cancel { stream: 2 }),
            Output::Bulk(Frame::data(1, "old")),
        ]
    );
    assert_eq!(side.machine.status(), ReactorStatus::Continue);
    tell(&mut side, Frame::Close { stream: 1 });
    assert!(!side.machine.is_idle());
    let last = Output::Bulk(Frame::Close { stream: 1 });
    assert_eq!(side.output(), Some(last));
    assert_eq!(side.machine.status(), ReactorStatus::Disconnect);
}

#[test]
fn a_silent_peer_is_asked_and_then_given_up() {
    let mut side = client(Instant::now());
    assert_eq!(side.machine.deadline(), None);
    side.command(Command::Open(1)).unwrap();
    side.send(usize::MAX);
    side.pass(Duration::from_secs(10));
    assert_eq!(side.output(), Some(Output::Control(Frame::Ping)));
    side.pass(Duration::from_secs(5));
    tell(&mut side, Frame::Pong);
    side.pass(Duration::from_secs(5));
    assert_eq!(side.output(), None, "it has answered");
    side.pass(Duration::from_secs(15));
    assert_eq!(side.error, Some(MuxError::Silent));
    assert_eq!(side.output(), Some(Output::Control(Frame::Ping)));
    assert_eq!(
        side.output(),
        Some(Output::Control(Frame::fault("silence")))
    );
    assert_eq!(side.output(), None);
}

#[test]
fn what_breaks_the_protocol_is_answered_with_a_last_word() {
    let open = Frame::Open {
        stream: 1,
        credit: 64,
    };
    for (frames, error) in [
        (
            vec![open.clone(), Frame::data(1, text(1, 65))],
            MuxError::Credit(1),
        ),
        (vec![Frame::data(1, "x")], MuxError::Unknown(1)),
        (vec![open.clone(), open], MuxError::Open(1)),
    ] {
        let mut side = server(Service::Echo, Instant::now());
        frames.into_iter().for_each(|frame| tell(&mut side, frame));
        assert_eq!(side.error, Some(error));
        let last = std::iter::from_fn(|| side.output()).last();
        assert_eq!(last, Some(Output::Control(Frame::fault("protocol"))));
    }
    let mut side = server(Service::Echo, Instant::now());
    side.receive(&[0xff; 9]);
    assert_eq!(side.output(), Some(Output::Control(Frame::fault("decode"))));
    assert_eq!(side.error, None, "the connection ends by the codec's error");
}

#[test]
fn frames_of_a_stream_that_was_cancelled_here_are_ignored() {
    let mut side = client(Instant::now());
    side.command(Command::Open(1)).unwrap();
    side.command(Command::Cancel(1)).unwrap();
    for late in [Frame::data(1, "late"), Frame::Close { stream: 1 }] {
        tell(&mut side, late);
    }
    assert!(side.is_open());
    assert_eq!(side.host.0.lock().events, []);
}

/// What came of an exchange, as far as the application can tell.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    received: Vec<Vec<u8>>,
    /// The order within each stream.
    ends: Vec<Vec<Event>>,
    drained: bool,
}

/// A client with four streams, the last of which it has cancelled.
fn opened(now: Instant) -> MachineSide<Mux, Client> {
    let mut near = client(now);
    for stream in 1..=4 {
        near.command(Command::Open(stream)).unwrap();
        let size = 50 * stream as usize;
        near.command(Command::Send(stream, text(stream, size)))
            .unwrap();
        near.command(match stream {
            4 => Command::Cancel(stream),
            _ => Command::Finish(stream),
        })
        .unwrap();
    }
    near
}

/// Three streams are echoed, a fourth is cancelled, and the server says goodbye when it has seen
/// the last one begin. `choose` says for each step who is to move, and how many bytes.
fn exchange(mut choose: impl FnMut(usize) -> (bool, usize)) -> Outcome {
    let now = Instant::now();
    let (mut near, mut far) = (opened(now), server(Service::Echo, now));
    let mut said_goodbye = false;
    let mut quiet = 0;
    for step in 0.. {
        assert!(step < 100_000, "the exchange does not end");
        let (near_moves, most) = choose(step);
        let moved = match near_moves {
            true => {
                let bytes = near.send(most);
                far.receive(&bytes);
                bytes.len()
            }
            false => {
                let bytes = far.send(most);
                near.receive(&bytes);
                bytes.len()
            }
        };
        if !said_goodbye && far.host.log.lock().events.contains(&Event::Opened(3)) {
            said_goodbye = true;
            far.with(Mux::handle_drain);
        }
        quiet = if moved == 0 { quiet + 1 } else { 0 };
        if quiet > 64 {
            break;
        }
    }
    outcome(&near, &far)
}

fn outcome(near: &MachineSide<Mux, Client>, far: &MachineSide<Mux, Server>) -> Outcome {
    assert_eq!((near.error, far.error), (None, None));
    let notes = near.host.0.lock();
    let ends = |stream: u32| {
        let of_stream = |event: &&Event| matches!(event, Event::Finished(id) | Event::Cancelled(id) if *id == stream);
        notes.events.iter().filter(of_stream).cloned().collect()
    };
    Outcome {
        received: (1..=4).map(|stream| notes.received(stream)).collect(),
        ends: (1..=4).map(ends).collect(),
        drained: near.machine.status() == ReactorStatus::Disconnect
            && far.machine.status() == ReactorStatus::Disconnect,
    }
}

fn expected() -> Outcome {
    Outcome {
        received: (1..=4)
            .map(|stream| match stream {
                4 => Vec::new(),
                _ => text(stream, 50 * stream as usize).to_vec(),
            })
            .collect(),
        ends: (1..=4)
            .map(|stream| match stream {
                4 => Vec::new(),
                _ => vec![Event::Finished(stream)],
            })
            .collect(),
        drained: true,
    }
}

/// Every order in which the two sides can make the first twelve moves, at several move sizes.
#[test]
fn every_interleaving_of_small_moves_has_the_same_outcome() {
    for most in [1, 9, 64] {
        for order in 0_u32..1 << 12 {
            let outcome = exchange(|step| match step {
                0..12 => (order >> step & 1 == 0, most),
                _ => (step % 2 == 0, 4096),
            });
            assert_eq!(outcome, expected(), "order {order:#b} of {most} bytes");
        }
    }
}

/// As [`exchange`], through a stream that delays, slices and holds back as the seed has it.
fn simulated_exchange(random: &mut Random) -> Outcome {
    let now = Instant::now();
    let conditions = StreamConditions::random(random);
    let mut pair =
        MachinePair::over_stream(opened(now), server(Service::Echo, now), conditions, random);
    let third = |pair: &Pair| {
        let notes = pair.server.host.log.lock();
        notes.events.contains(&Event::Opened(3))
    };
    pair.run_until(third).unwrap();
    pair.server.with(Mux::handle_drain);
    // Less than the silence after which the peer is asked.
    let side = *random.one_of(&[Side::Client, Side::Server]);
    pair.stall_from(side);
    pair.run_for(Duration::from_millis(random.below(4_000) as u64))
        .unwrap();
    pair.stall_from(side.other());
    let heard = |pair: &Pair| {
        let notes = pair.client.host.0.lock();
        (1..=4)
            .map(|stream| notes.received(stream).len())
            .sum::<usize>()
    };
    pair.run_for(Duration::ZERO).unwrap();
    let before = heard(&pair);
    pair.run_for(Duration::from_millis(500)).unwrap();
    assert_eq!(heard(&pair), before, "it was stalled");
    pair.heal();
    let over = |pair: &Pair| !pair.client.is_open() && !pair.server.is_open();
    pair.run_until(over).unwrap();
    outcome(&pair.client, &pair.server)
}

type Pair = MachinePair<Mux, Client, Mux, Server>;

#[test]
fn simulated_exchanges_have_the_same_outcome() {
    for_each_seed(0..300, |random| {
        assert_eq!(simulated_exchange(random), expected());
    });
}
