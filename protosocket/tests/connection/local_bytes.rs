//! Messages that are views of the read buffer.

use bytes::Bytes;
use protosocket::{LengthDelimitedCodec, LocalBytes, U32};
use protosocket_testkit::{Opened, Setup, echo, frame};

type Codec = LengthDelimitedCodec<U32, LocalBytes>;

/// A server that echoes, and keeps what it has received until it is asked to let go.
fn server() -> Opened<Codec> {
    Setup::default().open(Codec::new(), echo())
}

fn received(server: &Opened<Codec>) -> Vec<LocalBytes> {
    server.knobs.lock().received.clone()
}

fn let_go(server: &Opened<Codec>) {
    server.knobs.lock().received = Vec::new();
}

#[test]
fn messages_of_one_read_lie_in_its_buffer() {
    let mut server = server();
    let sent = [frame(&[1; 100]), frame(&[2; 50]), frame(&[3; 7])].concat();
    server.peer.send(sent.clone());
    server.settle();
    let [first, second, third] = &received(&server)[..] else {
        panic!("three messages");
    };
    assert_eq!(second.as_ptr().addr() - first.as_ptr().addr(), 104);
    assert_eq!(third.as_ptr().addr() - second.as_ptr().addr(), 54);
    assert_eq!(third[..], [3; 7]);
    assert_eq!(server.peer.written(), sent);
}

#[test]
fn what_is_kept_is_not_overwritten_by_later_reads() {
    let mut server = server();
    for byte in 0..20 {
        server.peer.send(frame(&[byte; 100]));
        server.settle();
    }
    let kept = received(&server);
    assert_eq!(kept.len(), 20);
    for (byte, message) in (0..).zip(&kept) {
        assert_eq!(message[..], [byte; 100]);
    }
    // Nor when the connection is gone, and others read.
    drop(server);
    let mut other = self::server();
    other.peer.send(frame(&[99; 100]).repeat(20));
    other.settle();
    for (byte, message) in (0..).zip(&kept) {
        assert_eq!(message[..], [byte; 100]);
    }
}

#[test]
fn a_buffer_that_nobody_holds_is_used_again() {
    let mut server = server();
    let mut address = |byte: u8| {
        server.peer.send(frame(&[byte; 100]));
        server.settle();
        let address = received(&server)[0].as_ptr().addr();
        let_go(&server);
        address
    };
    let first = address(1);
    for byte in 2..10 {
        assert_eq!(address(byte), first);
    }
}

#[test]
fn messages_come_whole_however_they_are_cut() {
    let payloads = [&[1; 30][..], &[], &[2; 3], &[3; 20_000], &[4; 9]];
    let sent = payloads.map(frame).concat();
    let cuts = (1..60).chain((60..sent.len()).step_by(997));
    for cut in cuts.chain(sent.len() - 15..sent.len()) {
        let mut server = server();
        server.peer.send(&sent[..cut]);
        server.settle();
        server.peer.send(&sent[cut..]);
        server.settle();
        let received = received(&server);
        let received: Vec<&[u8]> = received.iter().map(|message| &**message).collect();
        assert_eq!(received, payloads, "cut at {cut}");
        assert_eq!(server.peer.written(), sent, "cut at {cut}");
    }
}

#[test]
fn bytes_for_other_threads_are_a_copy_of_a_view_and_the_same_bytes_otherwise() {
    let mut server = server();
    server.peer.send(frame(&[1; 100]));
    server.settle();
    let view = received(&server).remove(0);
    let copy = view.to_bytes();
    assert_eq!(copy[..], view[..]);
    assert_ne!(copy.as_ptr(), view.as_ptr());
    let_go(&server);
    drop(view);
    server.peer.send(frame(&[2; 100]));
    server.settle();
    assert_eq!(copy[..], [1; 100]);

    let own = Bytes::from(vec![3; 50_000]);
    let local = LocalBytes::from(own.clone());
    assert_eq!(local.to_bytes().as_ptr(), own.as_ptr());
    assert_eq!(Bytes::from(local).as_ptr(), own.as_ptr());
}
