//! How a stream ends, on the wire and in the reason of its connection.

use std::{io, time::Duration};

use protosocket::{Clock, Limits, Transport};
use protosocket_testkit::{Framed, Opened, Setup, StreamEvent, echo, frame, framed};
use protosocket_tls::{Acceptor, Alert, Connector, Error};

use crate::{
    pair::{
        Handshake, Pair, Stream, client, client_of_tls12, read, records, server, shutdown, write,
    },
    pki::Authority,
};

/// Content types of records.
const ALERT: u8 = 21;
const DATA: u8 = 23;

fn sides() -> (Connector, Acceptor) {
    let authority = Authority::new();
    let connector = client(&authority).build().expect("it is valid");
    let acceptor = server(&authority).build().expect("it is valid");
    (connector, acceptor)
}

fn sides_of_tls12() -> (Connector, Acceptor) {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    (client_of_tls12(&authority, &[]), acceptor)
}

/// A server's connection that echoes frames, and its client, established.
struct Served {
    server: Opened<Framed, Stream>,
    client: Stream,
    to_server: crate::pair::Wire,
    to_client: crate::pair::Wire,
}

impl Served {
    fn new((connector, acceptor): (Connector, Acceptor)) -> Self {
        Self::with_limits((connector, acceptor), Limits::server())
    }

    fn with_limits((connector, acceptor): (Connector, Acceptor), limits: Limits) -> Self {
        let pair = Pair::new(&connector, &acceptor);
        let setup = Setup {
            peer: pair.to_client.from.clone(),
            ..Setup::limits(limits)
        };
        // The scripted stream of the setup is not needed: the server's own has been wrapped.
        let server = setup.open_over(|_| pair.server, framed(), echo());
        Self {
            server,
            client: pair.client,
            to_server: pair.to_server,
            to_client: pair.to_client,
        }
    }

    fn say(&mut self, payload: &[u8]) {
        write(&mut self.client, &frame(payload));
        self.to_server.carry();
        self.server.settle();
        self.to_client.carry();
    }
}

#[test]
fn l5_close_notify_is_sent_on_every_graceful_end_and_flushed_before_the_end_of_the_stream() {
    for (sides, kind) in [(sides(), DATA), (sides_of_tls12(), ALERT)] {
        let mut served = Served::new(sides);
        served.say(b"hello");
        assert_eq!(
            read(&mut served.client).expect("it is echoed"),
            frame(b"hello")
        );
        let before = served.to_client.bytes().len();
        shutdown(&mut served.client);
        served.to_server.carry();
        served.server.drop_sender();
        assert_eq!(served.server.reason(), "end_of_input");
        // An alert of two bytes: in TLS 1.3 it looks like data, and has a byte more for its type.
        let written = served.to_client.bytes();
        let records = records(&written[before..]);
        let [(found, length)] = records[..] else {
            panic!("one record: {records:?}");
        };
        assert_eq!(found, kind);
        assert!(length < 32, "it is no more than an alert: {length}");
        assert!(served.server.peer.saw(StreamEvent::Shutdown));
        assert!(!served.server.peer.saw(StreamEvent::Abort));
        // And the client reads an end, which is none without an alert.
        served.to_client.carry();
        served.to_client.to.end();
        assert_eq!(read(&mut served.client).expect("an end in order"), b"");
    }
}

#[test]
fn l5_a_drain_ends_with_close_notify_too() {
    let mut served = Served::new(sides());
    served.say(b"hello");
    served.server.drop_sender();
    let deadline = served.server.connection.clock.now() + Duration::from_secs(5);
    served.server.connection.handle.drain(deadline);
    assert_eq!(served.server.reason(), "drained");
    served.to_client.carry();
    assert_eq!(
        read(&mut served.client).expect("it is echoed"),
        frame(b"hello")
    );
    assert_eq!(read(&mut served.client).expect("an end in order"), b"");
}

#[test]
fn a_peer_that_never_answers_close_notify_is_waited_for_until_the_linger_ends() {
    let authority = Authority::new();
    let connector = client(&authority).build().expect("it is valid");
    let acceptor = server(&authority).build().expect("it is valid");
    let handshake = Handshake::new(&connector, &acceptor);
    handshake.to_client.from.set_lingers();
    let pair = handshake.run().pair();
    assert!(pair.server.lingers());
    let linger = Duration::from_secs(3);
    let setup = Setup {
        peer: pair.to_client.from.clone(),
        ..Setup::limits(Limits::server().linger_timeout(linger))
    };
    let mut server = setup.open_over(|_| pair.server, framed(), echo());
    server.drop_sender();
    let deadline = server.connection.clock.now() + Duration::from_secs(60);
    server.connection.handle.drain(deadline);
    server.settle();
    assert!(server.peer.saw(StreamEvent::Shutdown));
    assert!(!server.connection.is_ended(), "it lingers");
    server.connection.advance(linger);
    assert_eq!(server.reason(), "drained");
}

#[test]
fn l4_an_end_without_close_notify_is_an_error_and_not_an_end() {
    for sides in [sides(), sides_of_tls12()] {
        let mut served = Served::new(sides);
        served.say(b"hello");
        served.to_server.to.end();
        let end = served.server.finish();
        assert_eq!(end.reason.name(), "io");
        let text = end.reason.to_string();
        assert!(text.contains("without close_notify"), "{text}");
        assert_eq!(end.stats.messages_in, 1);
    }
}

#[test]
fn l4_a_message_that_is_cut_off_is_never_delivered_wherever_that_happens() {
    let request = frame(b"a message in one record");
    let sides = sides();
    let whole = {
        let mut served = Served::new(sides.clone());
        let before = served.to_server.bytes().len();
        served.say(b"a message in one record");
        served.to_server.bytes().len() - before
    };
    assert!(whole > request.len());
    for cut in 0..whole {
        let mut served = Served::new(sides.clone());
        let before = served.to_server.bytes().len();
        write(&mut served.client, &request);
        served.to_server.carry_to(before + cut);
        served.to_server.to.end();
        let end = served.server.finish();
        assert_eq!(
            (end.reason.name(), end.stats.messages_in),
            ("io", 0),
            "{cut}"
        );
        let text = end.reason.to_string();
        assert!(text.contains("without close_notify"), "{cut}: {text}");
    }
}

#[test]
fn l4_half_a_message_behind_close_notify_is_a_truncated_message() {
    let mut served = Served::new(sides());
    write(&mut served.client, &frame(b"hello")[..6]);
    shutdown(&mut served.client);
    served.to_server.carry();
    served.server.drop_sender();
    let end = served.server.finish();
    assert_eq!((end.reason.name(), end.stats.messages_in), ("decode", 0));
}

#[test]
fn l4_a_stream_that_is_cut_off_reads_unexpected_eof_and_goes_on_to() {
    let (connector, acceptor) = sides();
    let mut pair = Pair::new(&connector, &acceptor);
    write(&mut pair.server, b"the last words");
    pair.to_client.carry();
    pair.to_client.to.end();
    assert_eq!(read(&mut pair.client).expect("it came"), b"the last words");
    for _ in 0..2 {
        let error = read(&mut pair.client).expect_err("it is no end in order");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(
            matches!(Error::of(&error), Some(Error::Truncated)),
            "{error}"
        );
    }
}

#[test]
fn l3_close_notify_behind_the_client_hello_ends_the_handshake() {
    let (connector, acceptor) = sides();
    let handshake = Handshake::new(&connector, &acceptor);
    let mut handshake = handshake.begin();
    handshake.to_server.carry();
    handshake.to_server.to.send([ALERT, 3, 3, 0, 2, 1, 0]);
    handshake.settle_server();
    let error = handshake.server.error();
    let error = Error::of(&error).expect("it is one of TLS");
    assert_eq!(error.alert_received(), Some(Alert::CLOSE_NOTIFY), "{error}");
}

#[test]
fn the_output_may_end_before_the_input() {
    let (connector, acceptor) = sides();
    let mut pair = Pair::new(&connector, &acceptor);
    shutdown(&mut pair.client);
    pair.to_server.carry();
    assert_eq!(read(&mut pair.server).expect("an end in order"), b"");
    write(&mut pair.server, b"an answer all the same");
    pair.to_client.carry();
    let answer = read(&mut pair.client).expect("it came");
    assert_eq!(answer, b"an answer all the same");
}

#[test]
fn an_abort_reaches_the_stream_below() {
    let served = Served::new(sides());
    let mut server = served.server;
    server.connection.handle.abort();
    assert_eq!(server.reason(), "aborted");
    assert!(server.peer.saw(StreamEvent::Abort));
    assert!(!server.peer.saw(StreamEvent::Shutdown));
}
