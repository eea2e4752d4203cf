//! What a stream speaks is told by its first bytes, however they arrive, and they travel on.

use std::{
    future::Future,
    io,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use protosocket::{
    Establisher, Layered, Limits, ManualClock, Refusal, SocketConnector, memory_listener,
};
use protosocket_server::{Protocol, ProtosocketServerConfig, Sniffed, Sniffer, WrongProtocol};
use protosocket_testkit::{
    ScriptedStream, StreamPeer, for_each_seed, operations::replay, scripted_stream,
};
use tokio::io::AsyncReadExt;

use crate::{
    common::{Client, Connector, Record, until},
    sniffing::sniffing,
};

const TLS: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
const HTTP1: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04";
const RESP: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const MQTT: &[u8] = b"\x10\x0c\0\x04MQTT\x05\x02\0\x3c\0\0";
const SSH: &[u8] = b"SSH-2.0-OpenSSH_9.2\r\n";
const PROXY: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";

/// One of each, and lines, which are what is left.
const STREAMS: [(Protocol, &[u8]); 13] = [
    (Protocol::Tls, TLS),
    (Protocol::Http1, HTTP1),
    (Protocol::Http2, HTTP2),
    (Protocol::Resp, RESP),
    (Protocol::Mqtt, MQTT),
    (Protocol::Ssh, SSH),
    (Protocol::Proxy, PROXY),
    (Protocol::Named("custom"), b"\x7fcustom\0 and more"),
    (LINES, b"hello\n"),
    (LINES, b"PRI * HTTP/2.0 it is not\n"),
    (LINES, b"GET key\r\n"),
    (LINES, b"P"),
    (LINES, b""),
];

const LINES: Protocol = Protocol::Named("lines");

fn everything() -> Sniffer {
    Sniffer::new(Protocol::KNOWN)
        .prefix("custom", b"\x7fcustom\0")
        .otherwise(LINES)
}

type Sniffing = std::pin::Pin<Box<dyn Future<Output = io::Result<Sniffed<ScriptedStream>>>>>;

fn sniff(sniffer: &Sniffer) -> (Sniffing, StreamPeer) {
    let (stream, peer) = scripted_stream();
    (Box::pin(sniffer.establish(stream)), peer)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What comes of a stream that has ended, and all that can be read from it.
fn end(sniffing: &mut Sniffing, peer: &StreamPeer) -> io::Result<(Protocol, Vec<u8>)> {
    peer.end();
    let Poll::Ready(sniffed) = poll(sniffing) else {
        panic!("it waits for more of a stream that has ended");
    };
    read(sniffed?)
}

fn read(mut stream: Sniffed<ScriptedStream>) -> io::Result<(Protocol, Vec<u8>)> {
    let mut bytes = Vec::new();
    let Poll::Ready(read) = poll(&mut Box::pin(stream.read_to_end(&mut bytes))) else {
        panic!("the stream has ended");
    };
    read?;
    Ok((stream.protocol(), bytes))
}

fn found(error: &io::Error) -> Option<Protocol> {
    let error = error.get_ref().expect("it has a source");
    let wrong = error.downcast_ref::<WrongProtocol>();
    wrong.expect("the protocol is wrong").found()
}

#[test]
fn a_stream_is_the_same_however_it_is_cut() {
    for (protocol, bytes) in STREAMS {
        for cut in 0..=bytes.len() {
            let (mut sniffing, peer) = sniff(&everything());
            peer.send(&bytes[..cut]);
            match poll(&mut sniffing) {
                Poll::Ready(sniffed) => {
                    peer.send(&bytes[cut..]);
                    peer.end();
                    let sniffed = read(sniffed.expect("there is a default"));
                    assert_eq!(
                        sniffed.expect("it ended in order"),
                        (protocol, bytes.to_vec())
                    );
                }
                Poll::Pending => {
                    peer.send(&bytes[cut..]);
                    let sniffed = end(&mut sniffing, &peer).expect("there is a default");
                    assert_eq!(sniffed, (protocol, bytes.to_vec()), "cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn a_stream_is_the_same_byte_by_byte_and_no_more_is_read_than_it_takes() {
    for (protocol, bytes) in STREAMS {
        let (mut sniffing, peer) = sniff(&everything());
        peer.set_max_read(1);
        peer.send(bytes);
        let sniffed = end(&mut sniffing, &peer).expect("there is a default");
        assert_eq!(sniffed, (protocol, bytes.to_vec()));
    }
    // Endless input is read up to the bound, which is far more than telling it takes.
    let (mut sniffing, peer) = sniff(&everything());
    peer.send([b'*'; 100_000]);
    assert!(poll(&mut sniffing).is_ready());
    assert_eq!(peer.bytes_read(), 64);
}

#[test]
fn without_a_default_the_stranger_is_named() {
    let sniffer = Sniffer::new([Protocol::Resp, Protocol::Tls]);
    for (protocol, bytes) in STREAMS {
        let (mut sniffing, peer) = sniff(&sniffer);
        peer.send(bytes);
        let sniffed = end(&mut sniffing, &peer);
        match (protocol, bytes) {
            (Protocol::Resp | Protocol::Tls, _) => {
                assert_eq!(sniffed.expect("it is served"), (protocol, bytes.to_vec()));
            }
            (_, b"" | b"P") => {
                let error = sniffed.expect_err("it may be anything");
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                let says = format!("the stream ended after {} bytes", bytes.len());
                assert!(error.to_string().starts_with(&says), "{error}");
            }
            (Protocol::Named(_), _) => {
                let error = sniffed.expect_err("it is not served");
                assert_eq!(found(&error), None);
                let says = "this port speaks RESP and TLS, and what came looks like none of them";
                assert_eq!(error.to_string(), says);
            }
            _ => {
                let error = sniffed.expect_err("it is not served");
                assert_eq!(found(&error), Some(protocol));
                let says =
                    format!("this port speaks RESP and TLS, and what came looks like {protocol}");
                assert_eq!(error.to_string(), says);
            }
        }
    }
}

#[test]
fn a_server_of_one_protocol_takes_what_looks_like_no_other() {
    let sniffer = Sniffer::expect(Protocol::Resp);
    for (protocol, bytes) in STREAMS {
        let (mut sniffing, peer) = sniff(&sniffer);
        peer.send(bytes);
        let sniffed = end(&mut sniffing, &peer);
        match protocol {
            Protocol::Resp | Protocol::Named(_) => {
                let sniffed = sniffed.expect("inline commands are any words");
                assert_eq!(sniffed, (Protocol::Resp, bytes.to_vec()));
            }
            _ => {
                let error = sniffed.expect_err("it is another protocol");
                let says = format!("this port speaks RESP, and what came looks like {protocol}");
                assert_eq!(error.to_string(), says);
            }
        }
    }
}

#[test]
fn of_two_prefixes_the_first_one_given_is_taken_when_both_fit() {
    let sniffer = Sniffer::new([])
        .prefix("long", b"abcdef")
        .prefix("short", b"abc");
    for (bytes, name) in [("abcdef", "long"), ("abcdeX", "short"), ("abcde", "short")] {
        let (mut sniffing, peer) = sniff(&sniffer);
        peer.send(bytes);
        let (protocol, _) = end(&mut sniffing, &peer).expect("it is one of them");
        assert_eq!(protocol, Protocol::Named(name), "{bytes}");
    }
}

#[test]
#[should_panic(expected = "may have 1 to 64")]
fn a_prefix_that_everything_has_is_refused() {
    let _ = Sniffer::new([]).prefix("nothing", b"");
}

#[test]
fn a_peer_that_waits_for_the_server_is_taken_for_the_default_after_a_while() {
    let clock = ManualClock::new();
    let sniffer = everything()
        .otherwise_after(Duration::from_secs(3))
        .clock(Arc::new(clock.clone()));
    let (mut silent, _peer) = sniff(&sniffer);
    let (mut begun, peer) = sniff(&sniffer);
    peer.send("PR");
    assert!(poll(&mut silent).is_pending() && poll(&mut begun).is_pending());
    clock.advance(Duration::from_millis(2999));
    assert!(poll(&mut silent).is_pending());
    clock.advance(Duration::from_millis(1));
    let Poll::Ready(Ok(sniffed)) = poll(&mut silent) else {
        panic!("three seconds have passed");
    };
    assert_eq!(sniffed.protocol(), LINES);
    // Who has begun is no such peer, and has as long as a handshake may take.
    clock.advance(Duration::from_secs(3600));
    assert!(poll(&mut begun).is_pending());
    peer.send("I * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(matches!(poll(&mut begun), Poll::Ready(Ok(it)) if it.protocol() == Protocol::Http2));
}

#[test]
fn what_was_said_before_a_suspended_program_goes_on_is_heard_first() {
    let clock = ManualClock::new();
    let sniffer = everything()
        .otherwise_after(Duration::from_secs(3))
        .clock(Arc::new(clock.clone()));
    let (mut sniffing, peer) = sniff(&sniffer);
    assert!(poll(&mut sniffing).is_pending());
    clock.advance(Duration::from_secs(60));
    peer.send(RESP);
    assert!(matches!(poll(&mut sniffing), Poll::Ready(Ok(it)) if it.protocol() == Protocol::Resp));
}

#[tokio::test]
async fn l6_users_of_other_protocols_are_refused_with_that_reason() {
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default().observer(record.clone());
    let (listener, connector) = memory_listener(1024);
    let listener = Layered::new(listener, Sniffer::expect(Protocol::Named("lines")));
    let server = Connector::new().serve(config, listener);
    let connect = || async { Client::new(connector.connect().await.expect("the server listens")) };
    let mut canary = connect().await;
    assert!(canary.is_served().await);
    for (refused, bytes) in [TLS, HTTP1, HTTP2, RESP, MQTT, SSH, PROXY]
        .into_iter()
        .enumerate()
    {
        let mut stranger = connect().await;
        stranger.send_raw(bytes).await;
        assert_eq!(stranger.line().await, None);
        server.has_connections(1).await;
        assert_eq!(record.refused(Refusal::Protocol), refused + 1);
        let failures = record.failures();
        let says = "memory: the handshake failed: this port speaks lines, and what came looks like";
        assert!(failures[refused].starts_with(says), "{failures:?}");
    }
    assert!(canary.is_served().await);
    assert_eq!(record.events().len(), 8, "{record:?}");
}

#[tokio::test]
async fn f4_a_peer_that_dribbles_has_no_longer_than_a_handshake_may_take() {
    let clock = ManualClock::new();
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default()
        .limits(Limits::server().handshake_timeout(Duration::from_secs(10)))
        .clock(Arc::new(clock.clone()))
        .observer(record.clone());
    let (listener, connector) = memory_listener(1024);
    let server = Connector::new().serve(config, Layered::new(listener, everything()));
    let stream = connector.connect().await.expect("the server listens");
    let mut dribbling = Client::new(stream);
    until(|| clock.next_alarm().is_some()).await;
    for byte in b"PRI * HTT" {
        dribbling.send_raw(&[*byte]).await;
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(server.handle.connections(), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(dribbling.line().await, None);
    server.has_connections(0).await;
    assert_eq!(record.refused(Refusal::Handshake), 1);
}

#[test]
fn kept_and_random_beginnings_keep_every_promise() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/sniff");
    let kept = replay(&corpus, sniffing)?;
    assert!(kept > 0, "no input is kept");
    for_each_seed(0..1000, |random| {
        let length = random.below_one_of(&[20, 100, 400]);
        sniffing(&random.bytes(length));
    });
    Ok(())
}
