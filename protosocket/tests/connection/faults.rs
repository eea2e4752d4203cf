//! Streams that say what they should not, reactors of every kind, and reasons.

use std::{io, marker::PhantomPinned, time::Duration};

use bytes::Bytes;
use protosocket::{
    Clock, LinesCodec, MessageReactor, ReactorContext, ReactorStatus, SendError, channel,
};

use protosocket_testkit::{Framed, Opened, Setup, StreamEvent, echo, frame, framed};

/// When a stream that would block is asked again.
const RETRY: Duration = Duration::from_millis(10);

fn lines() -> Opened<LinesCodec> {
    Setup::default().open(LinesCodec::new().line_feed(), echo())
}

#[test]
fn d23_a_read_that_would_block_is_tried_again_by_a_timer() {
    let mut server = lines();
    server.peer.fail_read(io::ErrorKind::WouldBlock);
    server.settle();
    let polls = server.connection.polls();
    assert!(polls < 5, "it spins");
    server.peer.send("a\n");
    // The stream kept no waker, so this did not wake anybody.
    assert!(!server.connection.is_woken());
    server.connection.advance(RETRY);
    assert_eq!(server.peer.written(), b"a\n");
    assert!(server.connection.polls() < polls + 3);
}

#[test]
fn d23_a_write_that_would_block_is_tried_again_by_a_timer() {
    let mut server = lines();
    for _ in 0..6 {
        server.peer.fail_write(io::ErrorKind::WouldBlock);
    }
    server.peer.send("a\n");
    server.settle();
    assert_eq!(server.peer.written_len(), 0);
    for _ in 0..6 {
        server.connection.advance(RETRY);
    }
    assert!(server.connection.polls() <= 8, "it spins");
    assert_eq!(server.peer.written(), b"a\n");
}

#[test]
fn d23_a_flush_and_a_shutdown_that_would_block_are_tried_again_by_a_timer() {
    for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted] {
        let mut server = lines();
        server.peer.fail_flush(kind);
        server.peer.fail_shutdown(kind);
        server.peer.send("a\n");
        server.peer.end();
        server.drop_sender();
        for _ in 0..3 {
            server.settle();
            server.connection.advance(RETRY);
        }
        assert_eq!(server.reason(), "end_of_input");
        assert!(server.peer.saw(StreamEvent::Shutdown));
    }
}

#[test]
fn d23_a_stream_that_always_would_block_is_not_spun_on() {
    let mut server = lines();
    for _ in 0..2_000 {
        server.peer.fail_read(io::ErrorKind::WouldBlock);
    }
    server.settle();
    for _ in 0..100 {
        server.connection.advance(RETRY);
    }
    assert!(
        server.connection.polls() <= 202,
        "{}",
        server.connection.polls()
    );
}

#[test]
fn an_interrupted_call_is_made_again() {
    let mut server = lines();
    server.peer.fail_read(io::ErrorKind::Interrupted);
    server.peer.fail_write(io::ErrorKind::Interrupted);
    server.peer.send("a\n");
    server.settle();
    assert_eq!(server.peer.written(), b"a\n");
    assert_eq!(server.connection.polls(), 1);
}

#[test]
fn c10_calls_that_are_always_interrupted_are_bounded() {
    let mut server = lines();
    for _ in 0..100 {
        server.peer.fail_read(io::ErrorKind::Interrupted);
    }
    server.peer.send("a\n");
    server.connection.poll_once();
    assert!(server.connection.is_woken(), "it goes on in the next poll");
    server.settle();
    assert_eq!(server.peer.written(), b"a\n");
    assert!(server.connection.polls() >= 4);
}

#[test]
fn a_reset_while_replies_wait_counts_them() {
    let mut server = lines();
    server.peer.set_window(3);
    server.peer.send("one\ntwo\n");
    server.settle();
    server.peer.fail_read(io::ErrorKind::ConnectionReset);
    let end = server.finish();
    assert_eq!(end.reason.name(), "io");
    assert_eq!((end.stats.messages_in, end.stats.unsent), (2, 2));
    assert_eq!((end.stats.bytes_out, end.stats.messages_out), (3, 0));
}

#[test]
fn a_peer_that_resets_while_the_last_reply_is_written_is_noticed() {
    let mut server = lines();
    server.peer.set_window(0);
    server.peer.send("a\n");
    server.settle();
    server.knobs.set_status(ReactorStatus::Disconnect);
    server.settle();
    server.peer.fail_read(io::ErrorKind::ConnectionReset);
    server.settle();
    assert!(!server.connection.is_ended(), "writing will tell");
    server.peer.fail_write(io::ErrorKind::BrokenPipe);
    server.peer.open_window(1);
    let end = server.finish();
    assert_eq!(end.reason.name(), "io");
    assert_eq!(end.stats.unsent, 1);
}

/// A reactor that must not be moved once it is pinned, and does not need to be pinned here.
struct Rooted {
    received: usize,
    _pin: PhantomPinned,
}

impl MessageReactor for Rooted {
    type Codec = Framed;
    type Inbound = Bytes;
    type Outbound = Bytes;
    type LogicalOutbound = Bytes;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Framed>,
        message: Bytes,
    ) -> ReactorStatus {
        self.received += 1;
        match &message[..] {
            b"over" => ReactorStatus::Handover,
            _ => context.reply(message),
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Framed>,
        message: Bytes,
    ) -> Result<(), SendError<Bytes>> {
        context.send(message)
    }
}

#[test]
fn d24_a_reactor_that_is_not_unpin_is_never_pinned() {
    fn unpin<T: Unpin>(_: &T) {}
    let (_sender, receiver) = channel(1);
    let reactor = Rooted {
        received: 0,
        _pin: PhantomPinned,
    };
    let mut server = Setup::default().drive(framed(), reactor, receiver);
    // The connection may be moved between polls, because every method of the reactor takes
    // `&mut self`: none hands out a `Pin` that a move would break.
    unpin(server.connection());
    server.peer.send(frame(b"a"));
    server.settle();
    let mut moved = Box::new(server);
    moved.peer.send(frame(b"b"));
    moved.settle();
    moved.peer.send(frame(b"over"));
    let end = moved.finish();
    let reactor = end.handover.expect("it was handed over").reactor;
    assert_eq!(reactor.received, 3);
    assert_eq!(moved.peer.written(), [frame(b"a"), frame(b"b")].concat());
}

#[test]
fn a_reactor_is_told_of_its_deadline_once_it_has_come() {
    let mut server = lines();
    let at = server.connection.clock.now() + Duration::from_secs(3);
    server.knobs.set_deadline(Some(at));
    server.settle();
    server.connection.advance(Duration::from_millis(2_999));
    assert_eq!(server.knobs.lock().deadlines, 0);
    server.connection.advance(Duration::from_millis(1));
    assert_eq!(server.knobs.lock().deadlines, 1);
}

#[test]
fn d20_a_connection_that_was_ending_for_a_fault_keeps_that_reason() {
    let mut server = Setup::default().open(LinesCodec::new(), echo());
    server.peer.set_window(0);
    server.peer.send(b"a\n\xff\n");
    server.settle();
    server.peer.fail_write(io::ErrorKind::ConnectionReset);
    server.peer.open_window(1);
    assert_eq!(server.reason(), "decode");
}
