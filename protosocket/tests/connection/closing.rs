//! How and when a connection ends: what was accepted is sent first, and everybody is told why.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    io,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use protosocket::{
    Blame, Clock, CloseReason, DecodeError, Decoded, EncodeError, Encoder, LinesCodec,
    MessageReactor, ReactorContext, ReactorStatus, SendBuffer, SendError, SendLimits, TokioCodec,
    TrySendError, channel,
};
use tokio::sync::oneshot;

use protosocket_testkit::{
    Answer, ByHand, Framed, Opened, Raw, Setup, StreamEvent, always, echo, frame, framed, silent,
};

fn lines(setup: Setup) -> Opened<LinesCodec> {
    setup.open(LinesCodec::new().line_feed(), echo())
}

#[test]
fn d2_queued_messages_are_sent_when_the_last_sender_goes() {
    let mut client = lines(Setup::client());
    for message in ["a", "b", "c"] {
        client.send(message.into());
    }
    client.drop_sender();
    let end = client.finish();
    assert!(matches!(end.reason, CloseReason::NoSenders));
    assert_eq!(client.peer.written(), b"a\nb\nc\n");
    assert_eq!((end.stats.messages_out, end.stats.unsent), (3, 0));
}

#[test]
fn d2_a_queue_beyond_the_send_limit_is_sent_when_the_last_sender_goes() {
    let mut client = Setup {
        client: true,
        ..Setup::bulk(1024)
    }
    .open(framed(), silent());
    client.peer.set_window(10);
    let message = Bytes::from(vec![7; 1000]);
    for _ in 0..100 {
        client.send(message.clone());
    }
    client.drop_sender();
    client.settle();
    for _ in 0..200 {
        assert!(!client.connection.is_ended());
        client.peer.open_window(501);
        client.settle();
    }
    client.peer.open_window(usize::MAX);
    assert_eq!(client.finish().stats.messages_out, 100);
    assert_eq!(client.peer.written(), frame(&message).repeat(100));
}

#[test]
fn d2b_replies_to_what_came_with_the_end_of_input_are_sent() {
    let mut server = lines(Setup::default());
    server.peer.send("one\ntwo\nlast");
    server.peer.end();
    server.drop_sender();
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.peer.written(), b"one\ntwo\nlast\n");
    use StreamEvent::*;
    assert!(server.peer.log().ends_with(&[Write, Flush, Shutdown, Drop]));
    assert_eq!(server.knobs.lock().ends_of_input, 1);
}

#[test]
fn d2b_after_the_end_of_input_a_slow_reader_gets_every_reply() {
    let reply = Bytes::from(vec![1; 40_000]);
    let mut server = Setup::bulk(50_000).open(framed(), always(reply.clone()));
    server.peer.set_window(0);
    for _ in 0..20 {
        server.peer.send(frame(b"x"));
    }
    server.peer.end();
    server.drop_sender();
    server.settle();
    while server.peer.written_len() < 20 * 40_004 {
        assert!(!server.connection.is_ended());
        assert!(server.peer.is_write_blocked(), "it waits for nothing");
        server.peer.open_window(7_001);
        server.settle();
    }
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.peer.written(), frame(&reply).repeat(20));
}

#[test]
fn d2b_the_end_of_input_waits_for_what_is_in_flight() {
    let mut server = lines(Setup::default());
    server.knobs.set_in_flight(1);
    server.peer.send("request\n");
    server.peer.end();
    server.drop_sender();
    server.settle();
    assert!(!server.connection.is_ended());
    server.knobs.produce(["late".to_owned()]);
    server.settle();
    assert_eq!(server.peer.written(), b"request\nlate\n");
    assert!(!server.connection.is_ended());
    server.knobs.set_in_flight(0);
    assert_eq!(server.reason(), "end_of_input");
}

#[test]
fn d2b_the_end_of_input_waits_for_the_last_sender_and_the_producer() {
    let mut server = lines(Setup::default());
    server.knobs.set_produces(true);
    server.peer.end();
    server.settle();
    let second = server.sender().clone();
    server.drop_sender();
    server.settle();
    assert!(!server.connection.is_ended());
    assert!(second.try_send("later".into()).is_ok());
    drop(second);
    server.settle();
    assert_eq!(server.peer.written(), b"later\n");
    assert!(!server.connection.is_ended());
    server.knobs.set_produces(false);
    assert_eq!(server.reason(), "end_of_input");
}

#[test]
fn a_weak_sender_keeps_nothing_open() {
    let mut server = lines(Setup::default());
    let weak = server.sender().downgrade();
    server.peer.end();
    server.drop_sender();
    assert_eq!(server.reason(), "end_of_input");
    assert!(weak.upgrade().is_none());
}

#[test]
fn d2c_the_last_word_of_a_reactor_that_disconnects_is_sent() {
    let answer: Answer<LinesCodec> = Box::new(|context, message| {
        assert!(context.send(format!("bye {message}")).is_ok());
        ReactorStatus::Disconnect
    });
    let mut server = Setup::default().open(LinesCodec::new().line_feed(), answer);
    server.send("queued".into());
    server.peer.send("a\nb\nc\n");
    let end = server.finish();
    assert!(matches!(end.reason, CloseReason::Disconnect));
    // What was accepted through the channel is sent as well; what was not decoded is not.
    assert_eq!(server.peer.written(), b"bye a\nqueued\n");
    assert_eq!(end.stats.messages_in, 1);
    assert!(server.peer.saw(StreamEvent::Shutdown));
}

#[test]
fn d2c_an_error_that_cannot_be_decoded_is_answered() {
    let mut server = lines(Setup::default());
    server.knobs.lock().error_reply = Some("that is not text".into());
    server.peer.send(b"fine\n\xff\xfe\nnever\n");
    let end = server.finish();
    assert!(matches!(
        end.reason,
        CloseReason::Decode(DecodeError::Malformed(_))
    ));
    assert_eq!(end.reason.blame(), Blame::Peer);
    assert_eq!(server.peer.written(), b"fine\nthat is not text\n");
    assert_eq!(server.knobs.lock().decode_errors.len(), 1);
    assert!(server.peer.saw(StreamEvent::Shutdown));
}

#[test]
fn d2c_the_rest_that_a_reactor_must_still_say_is_sent() {
    let mut server = lines(Setup::bulk(8));
    server.knobs.lock().rest = (0..10).map(|n| format!("rest {n}")).collect();
    server.peer.set_window(3);
    server.knobs.set_status(ReactorStatus::Disconnect);
    server.settle();
    while server.peer.is_write_blocked() {
        server.peer.open_window(3);
        server.settle();
    }
    assert_eq!(server.reason(), "disconnect");
    let expected: String = (0..10).map(|n| format!("rest {n}\n")).collect();
    assert_eq!(server.peer.written(), expected.as_bytes());
}

#[test]
fn d6_a_message_of_no_bytes_does_not_end_the_connection() {
    let mut client =
        Setup::client().open((Raw, ByHand::new(|_| Ok(Decoded::<()>::Need(1)))), silent());
    for message in [&b""[..], b"a", b"", b"b", b""] {
        client.send(Bytes::from_static(message));
    }
    client.settle();
    assert!(!client.connection.is_ended());
    assert_eq!(client.peer.written(), b"ab");
    client.send(Bytes::new());
    client.settle();
    client.send(Bytes::from_static(b"c"));
    client.drop_sender();
    assert_eq!(client.finish().stats.messages_out, 7);
    assert_eq!(client.peer.written(), b"abc");
}

#[test]
fn d7_sends_after_the_end_fail_and_return_the_message() {
    let mut server = lines(Setup::default());
    server.settle();
    server.peer.fail_read(io::ErrorKind::ConnectionReset);
    assert_eq!(server.reason(), "io");
    let sender = server.sender();
    assert!(sender.is_closed());
    let refused = sender.try_send("late".into());
    assert_eq!(refused, Err(TrySendError::Closed("late".to_owned())));
    let refused = pin!(sender.send("late".into())).poll(&mut noop());
    assert!(matches!(refused, Poll::Ready(Err(closed)) if closed.0 == "late"));
}

#[test]
fn d7_the_same_when_the_connection_is_dropped() {
    let server = lines(Setup::default());
    for message in ["a", "b"] {
        server.send(message.into());
    }
    let Opened {
        connection,
        knobs,
        sender,
        ..
    } = server;
    let observer = connection.into_observer();
    assert!(sender.is_some_and(|sender| sender.is_closed()));
    assert_eq!(observer.closed(), ["dropped"]);
    assert_eq!(observer.traffic().unsent, 2);
    assert_eq!(knobs.lock().ends.len(), 1);
}

#[test]
fn d12_every_graceful_end_shuts_the_stream_down_and_flushes_before() {
    type End = fn(&mut Opened<LinesCodec>);
    let ends: [(&str, End); 5] = [
        ("end_of_input", |server| {
            server.drop_sender();
            server.peer.end();
        }),
        ("disconnect", |server| {
            server.knobs.set_status(ReactorStatus::Disconnect);
        }),
        ("drained", |server| {
            server.drop_sender();
            let deadline = server.connection.clock.now() + Duration::from_secs(5);
            server.connection.handle.drain(deadline);
        }),
        ("decode", |server| server.peer.send(b"\xff\n")),
        ("idle_timeout", |server| {
            server.connection.clock.advance(Duration::from_secs(601));
        }),
    ];
    for (reason, end) in ends {
        let mut server = lines(Setup::default());
        server.peer.send("a\n");
        server.settle();
        server.send("b".into());
        end(&mut server);
        server.settle();
        if reason == "idle_timeout" {
            // What had been queued was sent when the alarm woke it, so it was not idle yet.
            server.connection.advance(Duration::from_secs(601));
        }
        assert_eq!(server.reason(), reason);
        assert_eq!(server.peer.written(), b"a\nb\n");
        use StreamEvent::*;
        let log = server.peer.log();
        assert!(log.ends_with(&[Flush, Shutdown, Drop]), "{reason}: {log:?}");
    }
}

#[test]
fn d12_a_shutdown_that_is_pending_is_waited_for() {
    let mut server = lines(Setup::default());
    server.peer.hold_shutdown();
    server.knobs.set_status(ReactorStatus::Disconnect);
    server.settle();
    assert!(!server.connection.is_ended());
    server.peer.release_shutdown();
    assert_eq!(server.reason(), "disconnect");
}

#[test]
fn d12_a_flush_that_is_pending_comes_before_the_shutdown() {
    let mut server = lines(Setup::default());
    server.peer.hold_flush();
    server.peer.send("a\n");
    server.peer.end();
    server.drop_sender();
    server.settle();
    assert!(!server.peer.saw(StreamEvent::Shutdown));
    server.peer.release_flush();
    assert_eq!(server.reason(), "end_of_input");
}

#[test]
fn d12_lingering_reads_on_until_the_peer_has_finished_too() {
    let setup = Setup::default();
    setup.peer.set_lingers();
    let mut server = lines(setup);
    server.knobs.set_status(ReactorStatus::Disconnect);
    server.settle();
    assert!(server.peer.saw(StreamEvent::Shutdown));
    assert!(!server.connection.is_ended());
    server.peer.send(vec![0; 1_000_000]);
    server.settle();
    assert_eq!(server.peer.bytes_read(), 1_000_000);
    assert!(!server.connection.is_ended());
    server.peer.end();
    assert_eq!(server.reason(), "disconnect");
    assert_eq!(server.knobs.received(), 0);
}

#[test]
fn d12_there_is_no_lingering_after_the_peers_own_end() {
    let setup = Setup::default();
    setup.peer.set_lingers();
    let mut server = lines(setup);
    server.drop_sender();
    server.peer.end();
    assert_eq!(server.reason(), "end_of_input");
}

#[test]
fn d20_every_end_has_its_reason() {
    let mut server = lines(Setup::default());
    server.settle();
    server.peer.fail_read(io::ErrorKind::ConnectionReset);
    let end = server.finish();
    assert_eq!(
        end.reason.to_string(),
        "reading from the peer failed: connection reset"
    );
    assert!(!server.peer.saw(StreamEvent::Shutdown));

    let mut server = lines(Setup::default());
    server.peer.fail_write(io::ErrorKind::BrokenPipe);
    server.peer.send("a\n");
    let end = server.finish();
    assert_eq!(
        end.reason.to_string(),
        "writing to the peer failed: broken pipe"
    );
    assert_eq!((end.stats.messages_out, end.stats.unsent), (0, 1));

    let mut server = lines(Setup::default());
    server.peer.write_zero();
    server.peer.send("a\n");
    assert_eq!(
        server.finish().reason.to_string(),
        "writing to the peer failed: write zero"
    );

    let mut server = lines(Setup::default());
    server.peer.fail_flush(io::ErrorKind::ConnectionAborted);
    server.peer.send("a\n");
    assert_eq!(
        server.finish().reason.to_string(),
        "flushing to the peer failed: connection aborted"
    );

    let mut server = lines(Setup::default());
    server.send("two\nlines".into());
    server.send("behind it".into());
    let end = server.finish();
    assert!(matches!(end.reason, CloseReason::Encode(_)));
    assert_eq!(end.reason.blame(), Blame::Local);
    assert_eq!(server.peer.written(), b"behind it\n");
    assert_eq!((end.stats.messages_out, end.stats.unsent), (1, 1));

    // The peer is gone, but only after it was told everything.
    let mut server = lines(Setup::default());
    server.peer.fail_shutdown(io::ErrorKind::NotConnected);
    server.peer.send("a\n");
    server.peer.end();
    server.drop_sender();
    assert_eq!(server.reason(), "end_of_input");
}

#[test]
fn d20_what_was_in_flight_at_the_end_is_counted() {
    let mut server = lines(Setup::default());
    server.knobs.set_in_flight(3);
    server.settle();
    server.peer.fail_read(io::ErrorKind::ConnectionReset);
    assert_eq!(server.finish().stats.unanswered, 3);
}

#[test]
fn a_client_ends_without_senders_and_a_server_does_not() {
    let mut client = lines(Setup::client());
    client.knobs.set_in_flight(1);
    client.drop_sender();
    client.settle();
    assert!(!client.connection.is_ended());
    client.knobs.set_in_flight(0);
    assert_eq!(client.reason(), "no_senders");

    let mut client = lines(Setup::client());
    client.settle();
    client.drop_sender();
    assert_eq!(client.reason(), "no_senders");

    let mut server = lines(Setup::default());
    server.drop_sender();
    server.settle();
    server.peer.send("still there?\n");
    server.settle();
    assert_eq!(server.peer.written(), b"still there?\n");
    assert!(!server.connection.is_ended());
}

#[test]
fn a_drain_finishes_what_was_begun() {
    let mut server = lines(Setup::default());
    server.knobs.lock().goodbye = Some("goodbye".into());
    server.knobs.set_in_flight(1);
    server.peer.send("whole\nhal");
    server.settle();
    let deadline = server.connection.clock.now() + Duration::from_secs(5);
    server.connection.handle.drain(deadline);
    server.settle();
    assert_eq!(server.peer.written(), b"whole\ngoodbye\n");
    server.drop_sender();
    server.knobs.set_in_flight(0);
    server.settle();
    assert!(!server.connection.is_ended(), "half a message is there");
    server.peer.send("f\n");
    assert_eq!(server.reason(), "drained");
    assert_eq!(server.peer.written(), b"whole\ngoodbye\nhalf\n");
    assert_eq!(server.knobs.lock().drains, 1);
}

#[test]
fn a_drain_takes_what_is_there_to_be_read() {
    let mut server = lines(Setup::default());
    server.settle();
    server.drop_sender();
    let deadline = server.connection.clock.now() + Duration::from_secs(5);
    server.peer.send("one\n");
    server.peer.send("two\n");
    server.connection.handle.drain(deadline);
    assert_eq!(server.reason(), "drained");
    assert_eq!(server.peer.written(), b"one\ntwo\n");
}

#[test]
fn input_that_ends_inside_a_message_leaves_earlier_requests_their_answers() {
    let mut server = Setup::default().open(framed(), echo());
    server.knobs.set_in_flight(1);
    server.peer.send(frame(b"whole"));
    server.peer.send(&frame(b"cut off")[..6]);
    server.peer.end();
    server.drop_sender();
    server.settle();
    assert!(!server.connection.is_ended());
    server.knobs.produce([Bytes::from_static(b"late")]);
    server.knobs.set_in_flight(0);
    let end = server.finish();
    assert!(matches!(
        end.reason,
        CloseReason::Decode(DecodeError::Truncated { left: 6 })
    ));
    assert_eq!(
        server.peer.written(),
        [frame(b"whole"), frame(b"late")].concat()
    );
}

#[test]
fn a_foreign_codec_whose_input_ends_early_leaves_earlier_requests_their_answers() {
    // Such a codec has an error of its own for input that ends inside a message.
    let codec = tokio_util::codec::LengthDelimitedCodec::new();
    let mut server = Setup::default().open(TokioCodec::<_, Bytes>::new(codec), silent());
    server.knobs.set_in_flight(1);
    server.peer.send(frame(b"whole"));
    server.peer.send(&frame(b"cut off")[..6]);
    server.peer.end();
    server.drop_sender();
    server.settle();
    assert!(!server.connection.is_ended());
    server.knobs.produce([Bytes::from_static(b"late")]);
    server.knobs.set_in_flight(0);
    assert!(matches!(
        server.finish().reason,
        CloseReason::Decode(DecodeError::Other(_))
    ));
    assert_eq!(server.peer.written(), frame(b"late"));
    let knobs = server.knobs.lock();
    assert_eq!((knobs.ends_of_input, knobs.decode_errors.len()), (1, 1));
}

#[test]
fn c14_a_panic_ends_only_its_connection_with_a_reason() {
    let peer_wrote = |end: &str, server: &mut Opened<LinesCodec>| {
        let reason = server.finish().reason;
        assert_eq!(
            reason.to_string(),
            format!("the connection's code panicked: in {end}")
        );
        assert_eq!(reason.blame(), Blame::Local);
        assert!(server.peer.saw(StreamEvent::Abort));
        assert!(!server.peer.saw(StreamEvent::Shutdown));
    };
    let answer: Answer<LinesCodec> = Box::new(|_, _| panic!("in reactor"));
    let mut server = Setup::default().open(LinesCodec::new(), answer);
    server.peer.send("a\n");
    server.send("queued".into());
    peer_wrote("reactor", &mut server);
    assert!(server.sender().is_closed());

    let decoder = ByHand::<Bytes>::new(|_| panic!("in {}", "decode"));
    let mut server = Setup::default().open((Raw, decoder), silent());
    server.peer.send("a");
    let end = server.finish();
    assert!(matches!(end.reason, CloseReason::Panicked(text) if text == "in decode"));

    struct Panics;
    impl protosocket::Serialize for Panics {
        type Message = ();
        fn serialize_into_buffer(
            &mut self,
            (): (),
            _: &mut Vec<u8>,
        ) -> Result<(), protosocket::EncodeError> {
            panic!("in encode")
        }
    }
    let mut server = Setup::default().open(
        (Panics, ByHand::new(|_| Ok(Decoded::<()>::Need(1)))),
        silent(),
    );
    server.send(());
    server.send(());
    let end = server.finish();
    assert!(matches!(end.reason, CloseReason::Panicked(text) if text == "in encode"));
    // The one whose encoding panicked was lost in it; the other one is counted.
    assert!(end.stats.unsent >= 1);
}

/// Drop the connection before each of its polls, and look whether it is counted once.
#[test]
fn c13_dropping_the_future_at_any_point_counts_as_dropped_once() {
    let scenario = |stop: usize| {
        let setup = Setup::bulk(64);
        setup.peer.set_max_read(3);
        setup.peer.set_lingers();
        setup.peer.set_window(0);
        setup.peer.hold_flush();
        setup.peer.hold_shutdown();
        let mut server = lines(setup);
        server.drop_sender();
        server.settle();
        let steps: [fn(&mut Opened<LinesCodec>); 8] = [
            |server| server.peer.send("first request\n"),
            |server| server.peer.send("second request\nthi"),
            |server| server.peer.open_window(5),
            |server| server.peer.open_window(usize::MAX),
            |server| server.peer.release_flush(),
            |server| server.knobs.set_status(ReactorStatus::Disconnect),
            |server| server.peer.release_shutdown(),
            |server| server.peer.end(),
        ];
        for step in steps.into_iter().take(stop) {
            step(&mut server);
            server.settle();
        }
        let ended = server.connection.is_ended();
        let Opened {
            connection, knobs, ..
        } = server;
        let observer = connection.into_observer();
        assert_eq!(observer.opened(), 1);
        assert_eq!(observer.closed().len(), 1, "stopped after {stop}");
        let ends = knobs.lock().ends.clone();
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0].0, observer.closed()[0]);
        assert_eq!(ends[0].1, observer.traffic());
        (observer.closed()[0], ended)
    };
    for stop in 0..8 {
        assert_eq!(scenario(stop), ("dropped", false), "stopped after {stop}");
    }
    assert_eq!(scenario(8), ("disconnect", true));
}

#[test]
fn what_is_alive_can_be_looked_at() {
    let mut server = lines(Setup::limits(protosocket::Limits::server().send_limits(
        SendLimits {
            bulk_messages: 1,
            ..SendLimits::DEFAULT
        },
    )));
    server.peer.set_window(0);
    for message in ["a", "b", "c"] {
        server.send(message.into());
    }
    server.settle();
    let stats = server.connection.connection().stats();
    assert_eq!((stats.messages_out, stats.unsent), (0, 3));
    let debug = format!("{:?}", server.connection.connection());
    assert!(debug.contains("phase: Open"), "{debug}");
}

#[test]
fn an_abort_says_nothing_more() {
    let answer: Answer<LinesCodec> = Box::new(|context, message| {
        assert!(context.send(message).is_ok());
        ReactorStatus::Abort
    });
    let mut server = Setup::default().open(LinesCodec::new(), answer);
    server.peer.fail_write(io::ErrorKind::BrokenPipe);
    server.peer.send("a\n");
    let end = server.finish();
    assert!(
        matches!(end.reason, CloseReason::Aborted),
        "{:?}",
        end.reason
    );
    assert_eq!(end.stats.unsent, 1);
    assert_eq!(server.peer.log(), [StreamEvent::Abort, StreamEvent::Drop]);
}

#[test]
fn an_abort_says_what_failed() {
    let answer: Answer<LinesCodec> = Box::new(|context, message| {
        assert!(context.send(message).is_ok());
        let _ = context.fail_protocol(Arc::new(io::Error::other("the sky is falling")));
        ReactorStatus::Abort
    });
    let mut server = Setup::default().open(LinesCodec::new(), answer);
    server.peer.send("a\n");
    let end = server.finish();
    assert_eq!(end.reason.name(), "protocol");
    assert_eq!(end.reason.to_string(), "the sky is falling");
    assert_eq!(end.stats.unsent, 1);
    assert_eq!(server.peer.log(), [StreamEvent::Abort, StreamEvent::Drop]);
}

#[test]
fn d6_a_message_of_no_bytes_is_counted_although_the_connection_is_aborted_at_once() {
    let decode = |input: &mut protosocket::Input<'_>| Ok(Decoded::Message(input.take(1)));
    let answer: Answer<(Raw, ByHand<Bytes>)> = Box::new(|context, _| {
        assert!(context.send(Bytes::new()).is_ok());
        ReactorStatus::Abort
    });
    let mut server = Setup::default().open((Raw, ByHand::new(decode)), answer);
    server.peer.send("a");
    let end = server.finish();
    assert_eq!((end.stats.messages_out, end.stats.unsent), (1, 0));
}

#[test]
fn what_a_finished_output_has_left_in_the_channel_does_not_keep_a_client() {
    let mut client = Setup::client().open(framed(), silent());
    client.knobs.set_wants_outbound(false);
    client.send(Bytes::from_static(b"never taken"));
    client.knobs.set_status(ReactorStatus::Finish);
    client.settle();
    assert!(client.peer.saw(StreamEvent::Shutdown));
    client.drop_sender();
    let end = client.finish();
    assert!(matches!(end.reason, CloseReason::NoSenders), "{end:?}");
    assert_eq!(end.stats.unsent, 1);
}

#[test]
fn a_drain_ends_on_a_stream_that_would_block() {
    let mut server = lines(Setup::default());
    server.drop_sender();
    server.settle();
    let deadline = server.connection.clock.now() + Duration::from_secs(5);
    server.peer.fail_read(io::ErrorKind::WouldBlock);
    server.connection.handle.drain(deadline);
    assert_eq!(server.reason(), "drained");
}

#[test]
fn c14_a_reactor_that_panics_again_when_it_is_asked_harms_nobody() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static ENDS: AtomicUsize = AtomicUsize::new(0);
    struct Broken;
    impl protosocket::MessageReactor for Broken {
        type Codec = Framed;
        type Inbound = Bytes;
        type Outbound = Bytes;
        type LogicalOutbound = Bytes;
        fn on_inbound_message(
            &mut self,
            _: &mut protosocket::ReactorContext<'_, Framed>,
            _: Bytes,
        ) -> ReactorStatus {
            panic!("in reactor")
        }
        fn on_outbound_message(
            &mut self,
            context: &mut protosocket::ReactorContext<'_, Framed>,
            message: Bytes,
        ) -> Result<(), protosocket::SendError<Bytes>> {
            context.send(message)
        }
        fn in_flight(&self) -> usize {
            // As with a mutex that the first panic has poisoned.
            panic!("in in_flight")
        }
        fn on_end(&mut self, _: &CloseReason, _: &protosocket::ConnectionStats) {
            ENDS.fetch_add(1, Ordering::SeqCst);
            panic!("in on_end")
        }
    }
    let (_sender, receiver) = protosocket::channel(1);
    let mut server = Setup::default().drive(framed(), Broken, receiver);
    server.peer.send(frame(b"a"));
    assert_eq!(server.reason(), "panicked");
    assert_eq!(ENDS.load(Ordering::SeqCst), 1);
}

#[test]
fn the_last_sender_is_noticed_while_no_message_is_wanted() {
    let mut client = lines(Setup::client());
    client.knobs.set_wants_outbound(false);
    client.settle();
    client.drop_sender();
    assert_eq!(client.reason(), "no_senders");
}

#[test]
fn d7_queued_messages_are_dropped_at_once_so_that_their_requests_resolve() {
    type Request = (Bytes, Arc<oneshot::Sender<()>>);
    struct Encodes;
    impl protosocket::Encoder for Encodes {
        type Message = Request;
        fn encode(
            &mut self,
            message: Request,
            output: &mut protosocket::SendBuffer,
        ) -> Result<(), protosocket::EncodeError> {
            output.put_bytes(message.0);
            Ok(())
        }
    }
    let mut client = Setup {
        capacity: 4,
        client: true,
        ..Setup::bulk(10)
    }
    .open(
        (Encodes, ByHand::new(|_| Ok(Decoded::<()>::Need(1)))),
        silent(),
    );
    client.peer.set_window(0);
    let mut answers = Vec::new();
    let mut request = || {
        let (sender, receiver) = oneshot::channel();
        answers.push(receiver);
        (Bytes::from_static(&[0; 100]), Arc::new(sender))
    };
    client.send(request());
    client.settle();
    for _ in 0..4 {
        client.send(request());
    }
    // One more waits for room in the channel.
    let sender = client.sender().clone();
    let mut waiting = Box::pin(sender.send(request()));
    assert!(waiting.as_mut().poll(&mut noop()).is_pending());

    client.connection.handle.abort();
    let end = client.finish();
    assert!(matches!(end.reason, CloseReason::Aborted));
    assert_eq!((end.stats.messages_out, end.stats.unsent), (0, 5));
    assert!(matches!(
        waiting.as_mut().poll(&mut noop()),
        Poll::Ready(Err(_))
    ));
    drop(waiting);
    for mut answer in answers {
        assert_eq!(
            answer.try_recv(),
            Err(oneshot::error::TryRecvError::Closed),
            "a request hangs"
        );
    }
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Keeps what comes through the channel, and produces it when it is asked to.
struct Queues(Rc<RefCell<VecDeque<Bytes>>>);

impl MessageReactor for Queues {
    type Codec = (Raw, ByHand<Bytes>);
    type Inbound = Bytes;
    type Outbound = Bytes;
    type LogicalOutbound = Bytes;

    fn on_inbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, Self::Codec>,
        _message: Bytes,
    ) -> ReactorStatus {
        ReactorStatus::Continue
    }

    fn on_outbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, Self::Codec>,
        message: Bytes,
    ) -> Result<(), SendError<Bytes>> {
        self.0.borrow_mut().push_back(message);
        Ok(())
    }

    fn poll_outbound_many(
        &mut self,
        _cx: &mut Context<'_>,
        context: &mut ReactorContext<'_, Self::Codec>,
    ) -> Poll<Option<()>> {
        match self.0.borrow_mut().pop_front() {
            Some(message) => {
                context.send(message).expect("there is room");
                Poll::Ready(Some(()))
            }
            None => Poll::Ready(None),
        }
    }
}

#[test]
fn d2_what_the_last_message_made_the_reactor_produce_is_sent() {
    for polls_before in 0..3 {
        let (sender, receiver) = channel(8);
        let queue = Rc::new(RefCell::new(VecDeque::new()));
        let codec = (Raw, ByHand::new(|input| Ok(Decoded::Need(input.len() + 1))));
        let mut client = Setup::client().drive(codec, Queues(queue.clone()), receiver);
        for _ in 0..polls_before {
            client.poll_once();
        }
        sender
            .try_send(Bytes::from_static(b"last"))
            .expect("there is room");
        drop(sender);
        let end = client.finish();
        assert_eq!(end.stats.messages_out, 1, "after {polls_before} polls");
        assert!(queue.borrow().is_empty());
    }
}

#[test]
fn d20_a_message_whose_encoder_panics_is_counted() {
    struct Panics;

    impl Encoder for Panics {
        type Message = Bytes;

        fn encode(&mut self, _: Bytes, _: &mut SendBuffer) -> Result<(), EncodeError> {
            panic!("as it was told");
        }
    }

    let decoder = ByHand::<Bytes>::new(|input| Ok(Decoded::Need(input.len() + 1)));
    let mut server = Setup::default().open((Panics, decoder), silent());
    server.settle();
    for _ in 0..3 {
        server.send(Bytes::from_static(b"x"));
    }
    assert_eq!(server.finish().stats.unsent, 3);
}

/// Says in its last words why the connection ends.
struct Explains(bool);

impl MessageReactor for Explains {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> ReactorStatus {
        match message.as_str() {
            "finish" => ReactorStatus::Finish,
            _ => context.reply(message),
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> Result<(), SendError<String>> {
        context.send(message)
    }

    fn send_rest(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        reason: &CloseReason,
    ) -> bool {
        if !std::mem::replace(&mut self.0, true) {
            assert!(context.send(reason.name().to_owned()).is_ok());
        }
        false
    }
}

#[test]
fn d2c_the_last_words_know_the_reason() {
    let (_sender, receiver) = channel(1);
    let codec = LinesCodec::new().line_feed();
    let mut server = Setup::default().drive(codec, Explains(false), receiver);
    server.peer.send(b"half a li");
    server.settle();
    server.advance(Duration::from_secs(121));
    let end = server.finish();
    assert_eq!(end.reason.name(), "first_message_timeout");
    assert_eq!(server.peer.written(), b"first_message_timeout\n");
}

#[test]
fn d20_a_message_after_the_end_of_the_output_has_a_reason_of_its_own() {
    let (_sender, receiver) = channel(1);
    let codec = LinesCodec::new().line_feed();
    let mut server = Setup::default().drive(codec, Explains(true), receiver);
    server.peer.send(b"finish\n");
    server.settle();
    server.peer.send(b"more\n");
    let end = server.finish();
    assert!(matches!(end.reason, CloseReason::OutputFinished));
    assert_eq!(end.reason.blame(), Blame::Local);
}

#[test]
fn a_connection_that_is_dropped_resets_if_it_owes_something() {
    for owes in [false, true] {
        let mut server = lines(Setup::default());
        let peer = server.peer.clone();
        server.peer.send(b"hello\n");
        if owes {
            server.peer.set_window(3);
        }
        server.settle();
        drop(server);
        assert_eq!(peer.saw(StreamEvent::Abort), owes);
    }
}
