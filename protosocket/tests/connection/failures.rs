//! Every operation of an exchange fails once.

use std::{io, time::Duration};

use bytes::Bytes;
use protosocket::ReactorStatus;
use protosocket_testkit::{
    Answer, FailingStream, Failure, Framed, Opened, ScriptedStream, Setup, StreamEvent,
    StreamOperation, echo, fail_each_operation, frame, framed,
};

/// Longer than an operation is put off that has failed for a moment.
const MOMENT: Duration = Duration::from_millis(100);

/// What the server of [`exchange`] sends, all in all: an answer to each request, what came through
/// the channel, and a last word.
fn everything() -> Vec<u8> {
    let answers = [&b"one"[..], &[7; 20_000], b"three"].map(frame).concat();
    [&answers[..], &frame(b"pushed"), &frame(b"bye")].concat()
}

/// Requests of several sizes, a message through the channel, a peer that reads haltingly, its end,
/// a last word and a linger: an end in order, if nothing fails.
fn exchange(failure: &Failure) -> Opened<Framed, FailingStream<ScriptedStream>> {
    let mut server = Setup::default().open_over(|s| failure.wrap(s), framed(), echo());
    let peer = server.peer.clone();
    peer.set_lingers();
    peer.set_max_read(6_000);
    peer.set_max_write(9_000);
    peer.set_window(4);
    server
        .knobs
        .lock()
        .rest
        .push_back(Bytes::from_static(b"bye"));
    peer.send(frame(b"one"));
    server.connection.pass(MOMENT);
    peer.send(frame(&[7; 20_000]));
    server.connection.pass(MOMENT);
    peer.open_window(10_000);
    server.connection.pass(MOMENT);
    peer.send(frame(b"three"));
    server.connection.pass(MOMENT);
    peer.open_window(50_000);
    server.connection.pass(MOMENT);
    // The connection may be gone by then.
    let _ = server.sender().try_send(Bytes::from_static(b"pushed"));
    server.connection.pass(MOMENT);
    server.drop_sender();
    peer.end();
    server.connection.pass(Duration::from_secs(5));
    server
}

#[test]
fn whatever_fails_for_good_ends_the_connection_with_its_reason_and_everything_counted() {
    for kind in [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::TimedOut,
        io::ErrorKind::Other,
    ] {
        let mut struck = Vec::new();
        let operations = fail_each_operation(kind, |failure| {
            let mut server = exchange(failure);
            let end = server.finish();
            let written = server.peer.written();
            assert!(everything().starts_with(&written));
            let Some(operation) = failure.struck() else {
                assert_eq!(end.reason.name(), "end_of_input");
                assert!(written == everything());
                return;
            };
            struck.push(operation);
            assert_eq!(end.stats.bytes_out, written.len() as u64);
            if end.reason.is_graceful() {
                // The peer had been sent everything; it is gone, and there is nobody left to tell.
                assert!(written == everything());
                assert_eq!(operation, StreamOperation::Shutdown);
            } else {
                assert_eq!(end.reason.name(), "io");
                let text = end.reason.to_string();
                let word = match operation {
                    StreamOperation::Read => "reading",
                    StreamOperation::Write => "writing",
                    StreamOperation::Flush => "flushing",
                    StreamOperation::Shutdown => unreachable!("everything had been sent"),
                };
                assert!(text.contains(word), "{operation:?}: {text}");
            }
            // What was accepted has been written to its end, or is counted.
            let accepted = server.knobs.received() as u64;
            let sent = end.stats.messages_out;
            assert!(sent + end.stats.unsent >= accepted, "{end:?}");
            assert!(sent + end.stats.unsent <= accepted + 2, "{end:?}");
        });
        assert!(operations > 15, "{operations}");
        for operation in [
            StreamOperation::Read,
            StreamOperation::Write,
            StreamOperation::Flush,
            StreamOperation::Shutdown,
        ] {
            assert!(struck.contains(&operation), "{operation:?} never failed");
        }
    }
}

#[test]
fn what_fails_for_a_moment_changes_nothing() {
    for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted] {
        fail_each_operation(kind, |failure| {
            let mut server = exchange(failure);
            assert_eq!(server.reason(), "end_of_input");
            assert!(server.peer.saw(StreamEvent::Shutdown));
            assert!(server.peer.written() == everything());
        });
    }
}

#[test]
fn an_output_that_cannot_be_finished_is_an_end_with_that_reason() {
    let finish: Answer<Framed> = Box::new(|_, _| ReactorStatus::Finish);
    let mut server = Setup::default().open(framed(), finish);
    server.peer.fail_shutdown(io::ErrorKind::BrokenPipe);
    server.peer.send(frame(b"that is all"));
    let text = server.finish().reason.to_string();
    assert!(text.contains("shutting the stream down"), "{text}");
}
