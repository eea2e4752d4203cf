//! Every deadline, by name, on a clock that the test moves.

use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use protosocket::{
    Blame, Clock, CloseReason, Connection, ConnectionConfig, Deadline, Decoded, InputPolicy,
    Limits, LinesCodec, ManualClock, ReactorStatus, SendLimits, channel,
};

use protosocket_testkit::{
    Answer, ByHand, Framed, Opened, Probe, Raw, Setup, StreamEvent, always, echo, frame, framed,
    scripted_stream, silent,
};

const SECOND: Duration = Duration::from_secs(1);

fn lines(setup: Setup) -> Opened<LinesCodec> {
    setup.open(LinesCodec::new().line_feed(), echo())
}

/// No deadline at all, to be switched on one by one.
fn patient() -> Limits {
    Limits::server()
        .first_message_timeout(None)
        .message_timeout(None)
        .idle_timeout(None)
        .write_timeout(None)
        .linger_timeout(None)
}

#[track_caller]
fn ends_by<C>(server: &mut Opened<C>, deadline: Deadline)
where
    C: protosocket::Codec + 'static,
    protosocket_testkit::Inbound<C>: Clone,
{
    match server.finish().reason {
        CloseReason::Deadline(passed) => assert_eq!(passed, deadline),
        reason => panic!("it ended for another reason: {reason}"),
    }
}

#[test]
fn d13_defaults_end_every_kind_of_silence() {
    // Nothing at all.
    let mut server = lines(Setup::default());
    server.settle();
    server.connection.advance(120 * SECOND);
    ends_by(&mut server, Deadline::FirstMessage);

    // A message, then nothing.
    let mut server = lines(Setup::default());
    server.peer.send("a\n");
    server.settle();
    server.connection.advance(599 * SECOND);
    assert!(!server.connection.is_ended());
    server.connection.advance(SECOND);
    ends_by(&mut server, Deadline::Idle);

    // A peer that reads nothing.
    let mut server = lines(Setup::default());
    server.peer.set_window(0);
    server.peer.send("a\n");
    server.settle();
    server.connection.advance(30 * SECOND);
    ends_by(&mut server, Deadline::Write);
}

#[test]
fn the_first_message_has_an_absolute_deadline() {
    let mut server = lines(Setup::limits(patient().first_message_timeout(10 * SECOND)));
    for _ in 0..9 {
        server.settle();
        server.peer.send("x");
        server.connection.advance(SECOND);
    }
    assert!(!server.connection.is_ended());
    server.connection.advance(SECOND);
    ends_by(&mut server, Deadline::FirstMessage);
    // It ends in order: what there was to say was said.
    assert!(server.peer.saw(StreamEvent::Shutdown));

    let mut server = lines(Setup::limits(patient().first_message_timeout(10 * SECOND)));
    server.settle();
    server.connection.advance(9 * SECOND);
    server.peer.send("in time\n");
    server.settle();
    server.connection.advance(1_000 * SECOND);
    assert!(!server.connection.is_ended());
}

#[test]
fn a_message_that_dribbles_is_cut_at_the_absolute_deadline() {
    let mut server = lines(Setup::limits(patient().message_timeout(60 * SECOND)));
    server.peer.send("whole\n");
    server.settle();
    server.connection.advance(1_000 * SECOND);
    let begun = server.connection.clock.now();
    while !server.connection.is_ended() {
        server.peer.send("x");
        server.settle();
        server.connection.advance(9 * SECOND);
        assert!(server.connection.clock.now() - begun < 100 * SECOND);
    }
    assert!(server.connection.clock.now() - begun >= 60 * SECOND);
    ends_by(&mut server, Deadline::Message);
}

#[test]
fn a_large_message_that_arrives_at_the_minimum_rate_is_not_cut() {
    let limits = patient()
        .message_timeout(10 * SECOND)
        .min_receive_rate(1_000);
    let bytes = frame(&[1; 300_000]);
    let mut server = Setup::limits(limits.clone()).open(framed(), silent());
    for chunk in bytes.chunks(1_000) {
        server.peer.send(chunk);
        server.settle();
        server.connection.advance(SECOND);
    }
    assert_eq!(server.knobs.received(), 1);

    let mut server = Setup::limits(limits).open(framed(), silent());
    let mut seconds = 0;
    for chunk in bytes.chunks(800) {
        server.peer.send(chunk);
        server.settle();
        if server.connection.is_ended() {
            break;
        }
        server.connection.advance(SECOND);
        seconds += 1;
    }
    // 200 bytes a second too slow, with 10 seconds in hand.
    assert!((45..=55).contains(&seconds), "after {seconds} s");
    ends_by(&mut server, Deadline::Message);
}

#[test]
fn each_message_has_its_own_deadline() {
    let mut server = lines(Setup::limits(patient().message_timeout(10 * SECOND)));
    for _ in 0..20 {
        server.peer.send("half");
        server.settle();
        server.connection.advance(6 * SECOND);
        server.peer.send(" whole\n");
        server.settle();
        assert!(!server.connection.is_ended());
    }
    assert_eq!(server.knobs.received(), 20);
    // Even if messages always begin in the read that ends the one before.
    server.peer.send("half");
    for _ in 0..20 {
        server.settle();
        server.connection.advance(6 * SECOND);
        server.peer.send(" whole\nhalf");
        server.settle();
        assert!(!server.connection.is_ended());
    }
}

#[test]
fn a_peer_that_reads_nothing_is_cut_by_the_write_deadline() {
    let mut server = lines(Setup::limits(patient().write_timeout(30 * SECOND)));
    server.peer.set_window(0);
    server.settle();
    server.connection.advance(100 * SECOND);
    server.send("a".into());
    server.settle();
    server.connection.advance(29 * SECOND);
    assert!(!server.connection.is_ended());
    server.connection.advance(SECOND);
    ends_by(&mut server, Deadline::Write);
    assert!(server.peer.saw(StreamEvent::Abort), "the peer sees a reset");
}

#[test]
fn a_window_of_one_byte_is_no_progress_and_a_slow_reader_is() {
    let limits = patient()
        .write_timeout(30 * SECOND)
        .min_write_progress(1_000);
    let message = Bytes::from(vec![1; 20_000]);
    let mut server = Setup::limits(limits.clone()).open(framed(), silent());
    server.peer.set_window(0);
    server.send(message.clone());
    server.settle();
    for _ in 0..29 {
        server.connection.advance(SECOND);
        server.peer.open_window(1);
        server.settle();
        assert!(!server.connection.is_ended());
    }
    server.connection.advance(SECOND);
    ends_by(&mut server, Deadline::Write);

    let mut server = Setup::limits(limits).open(framed(), silent());
    server.peer.set_window(0);
    server.send(message);
    server.settle();
    while server.peer.written_len() < 20_004 {
        assert!(!server.connection.is_ended());
        server.connection.advance(29 * SECOND);
        server.peer.open_window(1_000);
        server.settle();
    }
    server.connection.advance(100 * SECOND);
    assert!(!server.connection.is_ended(), "all is written");
}

#[test]
fn a_flush_or_shutdown_that_never_ends_is_cut_by_the_write_deadline() {
    let mut server = lines(Setup::limits(patient().write_timeout(30 * SECOND)));
    server.peer.hold_flush();
    server.peer.send("a\n");
    server.settle();
    server.connection.advance(30 * SECOND);
    ends_by(&mut server, Deadline::Write);

    let mut server = lines(Setup::limits(patient().write_timeout(30 * SECOND)));
    server.peer.hold_shutdown();
    server.knobs.set_status(ReactorStatus::Disconnect);
    server.settle();
    server.connection.advance(30 * SECOND);
    ends_by(&mut server, Deadline::Write);
}

#[test]
fn an_exhausted_control_reserve_is_under_the_write_deadline() {
    let limits = patient()
        .write_timeout(30 * SECOND)
        .send_limits(SendLimits {
            bulk_bytes: 100,
            control_bytes: 100,
            ..SendLimits::DEFAULT
        });
    let answer: Answer<Framed> = Box::new(|context, message| {
        assert!(context.send_control(message).is_ok());
        ReactorStatus::Continue
    });
    let mut server = Setup::limits(limits).open(framed(), answer);
    server.knobs.set_policy(InputPolicy::Multiplexing);
    server.peer.set_window(0);
    server.peer.send(frame(&[1; 40]).repeat(100));
    server.settle();
    server.connection.advance(30 * SECOND);
    ends_by(&mut server, Deadline::Write);
}

#[test]
fn a_drain_is_forced_at_its_deadline() {
    let drain = |server: &mut Opened<LinesCodec>, seconds: u32| {
        let deadline = server.connection.clock.now() + seconds * SECOND;
        server.connection.handle.drain(deadline);
        server.settle();
    };
    // Whatever it waits for: a request, half a message, a sender, a writer, a flush, a shutdown.
    type Wait = fn(&mut Opened<LinesCodec>);
    let waits: [Wait; 6] = [
        |server| server.knobs.set_in_flight(1),
        |server| server.peer.send("half"),
        |_| {},
        |server| {
            server.peer.set_window(0);
            server.peer.send("a\n");
        },
        |server| {
            server.peer.hold_flush();
            server.peer.send("a\n");
        },
        |server| server.peer.hold_shutdown(),
    ];
    for (index, wait) in waits.into_iter().enumerate() {
        let mut server = lines(Setup::limits(patient()));
        server.settle();
        wait(&mut server);
        // The one that does nothing keeps its sender.
        if index != 2 {
            server.drop_sender();
        }
        server.settle();
        drain(&mut server, 7);
        server.connection.advance(6 * SECOND);
        assert!(!server.connection.is_ended(), "wait {index}");
        server.connection.advance(SECOND);
        ends_by(&mut server, Deadline::Drain);
        assert!(server.peer.saw(StreamEvent::Abort), "the peer sees a reset");
    }

    // Of several deadlines the earliest counts.
    let mut server = lines(Setup::limits(patient()));
    server.knobs.set_in_flight(1);
    server.settle();
    drain(&mut server, 7);
    drain(&mut server, 100);
    drain(&mut server, 5);
    server.connection.advance(5 * SECOND);
    ends_by(&mut server, Deadline::Drain);
    assert_eq!(server.knobs.lock().drains, 1);
}

#[test]
fn lingering_ends_by_itself_and_never_outlives_a_drain() {
    let lingering = || {
        let setup = Setup::limits(patient().linger_timeout(2 * SECOND));
        setup.peer.set_lingers();
        let mut server = lines(setup);
        server.drop_sender();
        server.settle();
        server
    };
    let mut server = lingering();
    server.knobs.set_status(ReactorStatus::Disconnect);
    server.settle();
    server.connection.advance(SECOND);
    assert!(!server.connection.is_ended());
    // However much the peer goes on to say.
    server.peer.send("more\n");
    server.settle();
    server.connection.advance(SECOND);
    assert_eq!(server.reason(), "disconnect");

    let mut server = lingering();
    let deadline = server.connection.clock.now() + SECOND;
    server.connection.handle.drain(deadline);
    server.settle();
    assert!(!server.connection.is_ended());
    server.connection.advance(SECOND);
    // Everything was written, so nothing was forced and nothing is reset.
    assert_eq!(server.reason(), "drained");
    assert!(!server.peer.saw(StreamEvent::Abort));
}

#[test]
fn an_age_ends_a_connection_in_order_and_not_all_of_them_at_once() {
    let mut ages = HashSet::new();
    for _ in 0..16 {
        let limits = patient().max_age(1_000 * SECOND);
        let mut server = lines(Setup::limits(limits));
        server.drop_sender();
        server.peer.send("a\n");
        server.settle();
        server.connection.advance(999 * SECOND);
        assert!(!server.connection.is_ended());
        let mut age = 999_000;
        while !server.connection.is_ended() {
            server.connection.advance(Duration::from_millis(500));
            age += 500;
            assert!(age <= 1_100_500, "older than age and jitter");
        }
        assert_eq!(server.reason(), "age");
        assert_eq!(server.knobs.lock().drains, 1);
        ages.insert(age);
    }
    assert!(ages.len() > 4, "they end together: {ages:?}");
}

#[test]
fn an_age_finishes_what_is_in_flight_and_is_forced_after_the_drain_timeout() {
    let limits = || patient().max_age(100 * SECOND).drain_timeout(5 * SECOND);
    let aged = |limits| {
        let mut server = lines(Setup::limits(limits));
        server.drop_sender();
        server.knobs.set_in_flight(1);
        server.settle();
        server.connection.advance(110 * SECOND);
        assert!(!server.connection.is_ended());
        assert_eq!(server.knobs.lock().drains, 1);
        server
    };
    let mut server = aged(limits());
    server.knobs.set_in_flight(0);
    assert_eq!(server.reason(), "age");

    let mut server = aged(limits());
    server.connection.advance(5 * SECOND);
    ends_by(&mut server, Deadline::Drain);
}

#[test]
fn deadlines_on_the_input_stand_still_while_we_have_paused() {
    let limits = patient()
        .first_message_timeout(10 * SECOND)
        .message_timeout(10 * SECOND);
    let mut server = Setup::limits(limits).open(framed(), silent());
    let bytes = frame(&[1; 100]);
    server.peer.send(&bytes[..50]);
    server.settle();
    server.connection.advance(6 * SECOND);
    server.knobs.set_ready(false);
    server.connection.poll_once();
    server.connection.advance(1_000 * SECOND);
    server.connection.poll_once();
    assert!(!server.connection.is_ended());
    server.knobs.set_ready(true);
    server.settle();
    // Four of the ten seconds are left.
    server.connection.advance(3 * SECOND);
    assert!(!server.connection.is_ended());
    server.connection.advance(SECOND);
    let end = server.finish();
    assert!(matches!(
        end.reason,
        CloseReason::Deadline(Deadline::FirstMessage | Deadline::Message)
    ));
    assert_eq!(end.reason.blame(), Blame::Peer);
}

#[test]
fn answering_peers_that_flood_each_other_end_by_the_write_deadline() {
    // Each waits for the other to read: neither can, and both know what to do.
    let limits = patient()
        .write_timeout(30 * SECOND)
        .send_limits(SendLimits {
            bulk_bytes: 10_000,
            ..SendLimits::DEFAULT
        });
    // More comes back than was sent, until nothing between them has room for it.
    let answer = || -> Answer<Framed> {
        Box::new(|context, message| context.reply(vec![1; (message.len() * 2).min(40_000)].into()))
    };
    let mut ends: Vec<_> = (0..2)
        .map(|_| Setup::limits(limits.clone()).open(framed(), answer()))
        .collect();
    for end in &ends {
        end.peer.set_window(40_000);
        for _ in 0..20 {
            end.send(Bytes::from_static(&[1; 1_000]));
        }
    }
    // Carry what each writes to the other, through a pipe of 40,000 bytes.
    let mut carried = [0, 0];
    let mut quiet = 0;
    while quiet < 2 {
        quiet += 1;
        for from in 0..2 {
            ends[from].settle();
            let written = ends[from].peer.written();
            if written.len() > carried[from] {
                ends[1 - from].peer.send(&written[carried[from]..]);
                carried[from] = written.len();
                quiet = 0;
            }
        }
        for to in 0..2 {
            ends[to].settle();
            let freed = ends[to].peer.bytes_read() + 40_000;
            let granted = ends[1 - to].peer.granted();
            if freed > granted {
                ends[1 - to].peer.open_window(freed - granted);
                quiet = 0;
            }
        }
    }
    for end in &mut ends {
        assert!(!end.connection.is_ended());
        end.connection.advance(30 * SECOND);
        ends_by(end, Deadline::Write);
    }
}

#[test]
fn idle_means_that_nothing_is_begun_queued_or_in_flight() {
    let idle = || lines(Setup::limits(patient().idle_timeout(10 * SECOND)));

    let mut server = idle();
    server.knobs.set_in_flight(1);
    server.settle();
    server.connection.advance(1_000 * SECOND);
    assert!(!server.connection.is_ended(), "a request is in flight");
    server.knobs.set_in_flight(0);
    server.settle();
    server.connection.advance(9 * SECOND);
    assert!(!server.connection.is_ended());
    server.connection.advance(SECOND);
    ends_by(&mut server, Deadline::Idle);

    let mut server = idle();
    server.peer.send("half");
    server.settle();
    server.connection.advance(1_000 * SECOND);
    assert!(!server.connection.is_ended(), "a message has begun");

    let mut server = idle();
    server.knobs.set_wants_outbound(false);
    server.send("queued".into());
    server.settle();
    server.connection.advance(1_000 * SECOND);
    assert!(!server.connection.is_ended(), "a message is queued");

    let mut server = idle();
    server.peer.set_window(0);
    server.send("unsent".into());
    server.settle();
    server.connection.advance(1_000 * SECOND);
    assert!(!server.connection.is_ended(), "a message is unsent");

    // Messages either way are activity.
    let mut server = idle();
    for _ in 0..20 {
        server.settle();
        server.connection.advance(6 * SECOND);
        server.send("a".into());
        server.settle();
        server.connection.advance(6 * SECOND);
        server.peer.send("b\n");
    }
    server.settle();
    assert!(!server.connection.is_ended());
}

#[test]
fn what_the_decoder_passes_over_keeps_a_connection_from_being_idle_however_it_is_cut() {
    let limits = || patient().idle_timeout(10 * SECOND);
    for cut in [4, 2] {
        let decoder = ByHand::<Bytes>::new(|input| match input.len() {
            0 => Ok(Decoded::Need(1)),
            _ => Ok(Decoded::Skip(4)),
        });
        let mut server = Setup::limits(limits()).open((Raw, decoder), silent());
        server.settle();
        server.connection.advance(6 * SECOND);
        for piece in [0; 4].chunks(cut) {
            server.peer.send(piece);
            server.settle();
        }
        server.connection.advance(9 * SECOND);
        assert!(!server.connection.is_ended(), "in pieces of {cut} bytes");
        server.connection.advance(SECOND);
        ends_by(&mut server, Deadline::Idle);
    }
}

#[test]
fn input_that_ended_inside_a_message_does_not_keep_a_connection_from_being_idle() {
    let limits = patient().idle_timeout(10 * SECOND);
    let mut server = Setup::limits(limits).open(framed(), silent());
    server.peer.send([0, 0]);
    server.peer.end();
    // A sender that is kept could still send something.
    server.settle();
    server.connection.advance(9 * SECOND);
    assert!(!server.connection.is_ended());
    server.connection.advance(SECOND);
    ends_by(&mut server, Deadline::Idle);
}

#[test]
fn what_a_finished_output_has_left_in_the_channel_does_not_keep_a_connection_from_being_idle() {
    let limits = patient().idle_timeout(10 * SECOND);
    let mut server = Setup::limits(limits).open(framed(), silent());
    server.knobs.set_wants_outbound(false);
    server.send(Bytes::from_static(b"never taken"));
    server.knobs.set_status(ReactorStatus::Finish);
    server.settle();
    assert!(server.peer.saw(StreamEvent::Shutdown));
    server.connection.advance(10 * SECOND);
    ends_by(&mut server, Deadline::Idle);
}

#[test]
fn a_clock_that_jumps_does_not_close_a_connection_whose_input_waits() {
    let jump = 600 * SECOND;
    let limits = Limits::server()
        .first_message_timeout(10 * SECOND)
        .message_timeout(10 * SECOND)
        .idle_timeout(10 * SECOND)
        .write_timeout(10 * SECOND);

    // The first message.
    let mut server = lines(Setup::limits(limits.clone()));
    server.settle();
    server.connection.clock.advance(jump);
    server.peer.send("a\n");
    server.settle();
    assert_eq!(server.peer.written(), b"a\n");
    assert!(!server.connection.is_ended());

    // An idle connection.
    server.connection.clock.advance(jump);
    server.peer.send("b\n");
    server.settle();
    assert!(!server.connection.is_ended());

    // The rest of a message, small and large.
    server.peer.send("half");
    server.settle();
    server.connection.clock.advance(jump);
    server.peer.send(" whole\n");
    server.settle();
    assert!(!server.connection.is_ended());
    let mut server = Setup::limits(limits.clone()).open(framed(), always(Bytes::new()));
    let bytes = frame(&vec![1; 3_000_000]);
    server.peer.send(frame(b"first"));
    server.peer.send(&bytes[..100]);
    server.settle();
    server.connection.clock.advance(jump);
    server.peer.send(&bytes[100..]);
    server.settle();
    assert!(!server.connection.is_ended());
    assert_eq!(server.knobs.received(), 2);

    // A peer that has read meanwhile.
    let mut server = lines(Setup::limits(limits));
    server.peer.set_window(0);
    server.peer.send("a\n");
    server.settle();
    server.peer.open_window(usize::MAX);
    server.connection.clock.advance(jump);
    server.settle();
    assert!(!server.connection.is_ended());
}

#[test]
fn a_pause_that_ends_in_the_same_poll_stops_no_deadline() {
    let limits = patient()
        .message_timeout(10 * SECOND)
        .send_limits(SendLimits {
            bulk_bytes: 10,
            ..SendLimits::DEFAULT
        });
    let mut server = lines(Setup::limits(limits));
    server.peer.set_window(0);
    server.peer.send("a line that fills it\nanother\nhalf");
    server.settle();
    assert_eq!(server.knobs.received(), 1, "the send buffer is full");
    server.peer.open_window(usize::MAX);
    server.connection.poll_once();
    assert_eq!(server.knobs.received(), 2);
    assert!(!server.connection.is_woken(), "it sleeps after this poll");
    server.connection.advance(10 * SECOND);
    ends_by(&mut server, Deadline::Message);
}

#[test]
fn what_follows_a_peer_that_has_read_everything_has_its_own_time() {
    let mut server = Setup::default().open(framed(), echo());
    server.peer.set_window(0);
    server.peer.hold_shutdown();
    server.peer.send(frame(b"hello"));
    server.settle();
    server.connection.advance(Duration::from_secs(29));
    server.knobs.set_status(ReactorStatus::Disconnect);
    server.peer.open_window(1_000);
    server.settle();
    // The stream has until 30 s from here to shut down, not from when the peer began to read.
    server.connection.advance(Duration::from_secs(2));
    assert!(!server.connection.is_ended());
    server.peer.release_shutdown();
    assert_eq!(server.reason(), "disconnect");
}

/// The runtime may not have heard yet of what came while the program was stopped: it learns of so
/// many sockets at a time, and its timers fire in between.
#[test]
fn f24_a_deadline_that_comes_late_is_preceded_by_looks_for_input() {
    let limits = Limits::server()
        .first_message_timeout(10 * SECOND)
        .message_timeout(10 * SECOND)
        .idle_timeout(10 * SECOND)
        .write_timeout(10 * SECOND);
    for said in ["", "a\n", "half"] {
        let mut server = lines(Setup::limits(limits.clone()));
        server.peer.send(said);
        server.settle();
        server.connection.clock.advance(600 * SECOND);
        for _ in 0..16 {
            server.connection.poll_once();
            assert!(!server.connection.is_ended());
            assert!(server.connection.is_woken(), "it looks again");
        }
        server.peer.send("late\n");
        server.settle();
        assert!(!server.connection.is_ended(), "{said:?}");
        assert!(server.peer.written().ends_with(b"late\n"));
        // Nothing came: the deadline is acted on, once and soon.
        server.connection.clock.advance(600 * SECOND);
        let before = server.connection.polls();
        ends_by(&mut server, Deadline::Idle);
        assert!(server.connection.polls() - before < 30);
    }
}

#[test]
fn f24_a_write_deadline_that_comes_late_is_preceded_by_looks_for_room() {
    let limits = Limits::server().write_timeout(10 * SECOND);
    let mut server = lines(Setup::limits(limits));
    server.peer.set_window(0);
    server.peer.send("a\n");
    server.settle();
    server.connection.clock.advance(600 * SECOND);
    server.connection.poll_once();
    server.peer.open_window(usize::MAX);
    server.settle();
    assert_eq!(server.peer.written(), b"a\n");
    assert!(!server.connection.is_ended());
}

#[test]
fn the_alarm_wakes_whoever_polled_last() {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let clock = ManualClock::new();
    let (stream, _peer) = scripted_stream();
    let (probe, _knobs) = Probe::new(echo());
    let (_sender, receiver) = channel(4);
    let limits = patient().idle_timeout(10 * SECOND);
    let config = ConnectionConfig::server(limits)
        .expect("one deadline is valid")
        .with_clock(Arc::new(clock.clone()));
    let mut connection = Connection::over(stream, LinesCodec::new(), probe, receiver, &config);
    let mut poll = |task: &Arc<Woken>| {
        let waker = Waker::from(task.clone());
        pin!(&mut connection).poll(&mut Context::from_waker(&waker))
    };
    let [first, second] = [(); 2].map(|()| Arc::new(Woken(AtomicBool::new(false))));
    for task in [&first, &first, &second] {
        assert!(poll(task).is_pending());
    }
    clock.advance(10 * SECOND);
    assert!(second.0.load(Ordering::Relaxed), "it was polled last");
    let Poll::Ready(end) = poll(&second) else {
        panic!("the deadline has passed");
    };
    assert_eq!(end.reason.name(), "idle_timeout");
}

/// A task that has used up what tokio lets it do in one turn still learns of its deadline.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_by_a_task_whose_budget_is_used_up() {
    let (stream, _peer) = scripted_stream();
    let (probe, _knobs) = Probe::new(echo());
    let (_sender, receiver) = channel(4);
    let limits = patient().idle_timeout(10 * SECOND);
    let config = ConnectionConfig::server(limits).expect("one deadline is valid");
    let mut connection = Connection::over(stream, LinesCodec::new(), probe, receiver, &config);
    let mut polled = false;
    let end = poll_fn(|cx| {
        if !polled {
            polled = true;
            while pin!(tokio::task::consume_budget()).poll(cx).is_ready() {}
        }
        pin!(&mut connection).poll(cx)
    });
    let end = tokio::time::timeout(60 * SECOND, end).await;
    assert_eq!(end.expect("it ends in time").reason.name(), "idle_timeout");
}
