//! What comes over an established connection, however it comes.

use std::{io, task::Poll};

use protosocket::Establisher;
use protosocket_testkit::{Setup, echo, fail_each_operation, frame, framed, scripted_stream};
use protosocket_tls::Error;

use crate::{
    pair::{Pair, Side, Stream, Wire, client, poll_once, read, server, write},
    pki::Authority,
};

/// A small message, split at `at` of its record: whether what is read is the whole of it, and only
/// once all of it has come.
#[track_caller]
fn split(from: &mut Stream, to: &mut Stream, wire: &mut Wire, at: usize) -> Option<usize> {
    let before = wire.bytes().len();
    write(from, b"small");
    let length = wire.bytes().len() - before;
    wire.carry_to(before + at.min(length));
    if at < length {
        let error = read(to).expect_err("a part of a record is no data");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    }
    wire.carry();
    assert_eq!(read(to).expect("it came"), b"small");
    (at < length).then_some(length)
}

#[test]
fn established_data_does_not_depend_on_where_it_is_split_either_way() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    for connector in [connector, crate::pair::client_of_tls12(&authority, &[])] {
        let mut pair = Pair::new(&connector, &acceptor);
        // Behind the tickets of TLS 1.3, which the client reads along.
        pair.exchange();
        let mut at = 1;
        while split(&mut pair.client, &mut pair.server, &mut pair.to_server, at).is_some() {
            at += 1;
        }
        assert!(
            at > "small".len() + 5,
            "a record is longer than what it holds"
        );
        for at in 1..at {
            split(&mut pair.server, &mut pair.client, &mut pair.to_client, at);
        }
    }
}

#[test]
fn l7_a_flood_of_empty_records_of_data_ends_the_connection_in_an_error() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    let mut pair = Pair::new(&connector, &acceptor);
    pair.exchange();
    // Nothing in them is encrypted, as nobody could have done.
    pair.to_server.to.send(b"\x17\x03\x03\0\0".repeat(10_000));
    let error = read(&mut pair.server).expect_err("they are no data");
    let error = Error::of(&error).expect("it is one of TLS");
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    // And it stays ended.
    assert!(read(&mut pair.server).is_err());
}

#[test]
fn whichever_operation_fails_the_handshake_or_connection_ends_and_what_was_said_is_whole() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    let operations = fail_each_operation(io::ErrorKind::ConnectionReset, |failure| {
        let (near, near_peer) = scripted_stream();
        let (far, far_peer) = scripted_stream();
        let mut client = Side::Busy(connector.establish(near));
        let mut server = acceptor.establish(failure.wrap(far));
        let mut to_server = Wire::new(&near_peer, &far_peer);
        let mut to_client = Wire::new(&far_peer, &near_peer);
        let stream = loop {
            client.poll();
            to_server.carry();
            if let Poll::Ready(done) = poll_once(&mut server) {
                break done;
            }
            to_client.carry();
        };
        let Ok(stream) = stream else {
            assert!(failure.struck().is_some(), "{stream:?}");
            return;
        };
        to_client.carry();
        client.poll();
        let mut client = client.stream();
        let setup = Setup {
            peer: far_peer,
            ..Setup::default()
        };
        let mut server = setup.open_over(|_| stream, framed(), echo());
        let mut heard = Vec::new();
        for text in [&b"one"[..], b"two"] {
            write(&mut client, &frame(text));
            to_server.carry();
            server.settle();
            to_client.carry();
            heard.extend(read(&mut client).unwrap_or_default());
        }
        crate::pair::shutdown(&mut client);
        to_server.carry();
        server.drop_sender();
        let end = server.finish();
        let whole = [frame(b"one"), frame(b"two")].concat();
        assert!(whole.starts_with(&heard), "{heard:?}");
        if end.reason.is_graceful() {
            // Everything had been said: nobody was left to be told of the end.
            assert_eq!(heard, whole, "{:?}", failure.struck());
        } else {
            assert!(failure.struck().is_some(), "{}", end.reason);
        }
    });
    assert!(operations > 6, "{operations}");
}
