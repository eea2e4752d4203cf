//! Streams with headers before them, however they arrive and whoever sends them.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use protosocket::{
    Establisher, Layered, PeerAddress, SocketConnector, SocketListener, StreamWithAddress,
    Transport, memory_listener,
    proxy::{
        Addresses, Network, Proxied, ProxyAcceptor, ProxyError, ProxyHeader, ProxySender, TlvType,
    },
};
use protosocket_testkit::{ScriptedStream, StreamPeer, scripted_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::header::tcp;

const PROXY: &str = "10.0.0.7:1234";
const CLIENT: &str = "192.0.2.1:40000";
const STRANGER: &str = "203.0.113.9:1";

type Below = StreamWithAddress<ScriptedStream>;
type Reading = Pin<Box<dyn Future<Output = io::Result<Proxied<Below>>>>>;

fn trusted() -> [Network; 1] {
    ["10.0.0.0/8".parse().expect("it is a network")]
}

fn strict() -> ProxyAcceptor {
    ProxyAcceptor::strict(trusted())
}

fn optional() -> ProxyAcceptor {
    ProxyAcceptor::optional(trusted())
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("it is an address")
}

fn read(acceptor: &ProxyAcceptor, from: &str) -> (Reading, StreamPeer) {
    let (stream, peer) = scripted_stream();
    let stream = StreamWithAddress::new(stream, address(from));
    (Box::pin(acceptor.establish(stream)), peer)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What comes of a whole stream, and what can be read behind the header.
fn end(reading: &mut Reading, peer: &StreamPeer) -> io::Result<(Proxied<Below>, Vec<u8>)> {
    peer.end();
    let Poll::Ready(stream) = poll(reading) else {
        panic!("it waits for more of a stream that has ended");
    };
    let mut stream = stream?;
    let mut bytes = Vec::new();
    let Poll::Ready(read) = poll(&mut Box::pin(stream.read_to_end(&mut bytes))) else {
        panic!("the stream has ended");
    };
    read?;
    Ok((stream, bytes))
}

fn error_of(result: io::Result<(Proxied<Below>, Vec<u8>)>) -> ProxyError {
    let error = result.expect_err("it is wrong");
    let error = error.get_ref().and_then(|source| source.downcast_ref());
    Clone::clone(error.expect("it is an error of the header"))
}

fn header() -> ProxyHeader {
    ProxyHeader::proxy(tcp(CLIENT, "198.51.100.2:443"))
}

fn headers() -> [Vec<u8>; 3] {
    let long = header().with_tlv(TlvType(0xe0), vec![7; 900]);
    [header().to_v1(), header().to_v2(), long.to_v2()].map(|bytes| bytes.expect("it fits").to_vec())
}

#[test]
fn a_header_is_taken_off_however_it_is_cut_and_nothing_else_is() {
    for header in headers() {
        let bytes = [&header, &b"PROXY hello"[..]].concat();
        for acceptor in [strict(), optional()] {
            for cut in 0..=bytes.len() {
                let (mut reading, peer) = read(&acceptor, PROXY);
                peer.send(&bytes[..cut]);
                if cut >= header.len() {
                    // The header is all that it waits for.
                    let Poll::Ready(Ok(stream)) = poll(&mut reading) else {
                        panic!("the header is there");
                    };
                    assert_eq!(stream.peer_address(), PeerAddress::Ip(address(CLIENT)));
                    continue;
                }
                assert!(poll(&mut reading).is_pending(), "{cut}");
                peer.send(&bytes[cut..]);
                let (stream, rest) = end(&mut reading, &peer).expect("it is right");
                assert_eq!(rest, b"PROXY hello");
                assert_eq!(stream.peer_address(), PeerAddress::Ip(address(CLIENT)));
                assert_eq!(
                    stream.get_ref().peer_address(),
                    PeerAddress::Ip(address(PROXY))
                );
                assert!(stream.header().is_some());
            }
        }
        let (mut reading, peer) = read(&strict(), PROXY);
        peer.set_max_read(1);
        peer.send(&bytes);
        assert!(poll(&mut reading).is_ready());
        assert_eq!(
            peer.bytes_read(),
            header.len(),
            "byte by byte, no more is read"
        );
    }
}

#[test]
fn a_stream_that_ends_in_its_header_is_truncated() {
    for header in headers() {
        for cut in 0..header.len() {
            for (acceptor, certain) in [(strict(), 0), (optional(), 6)] {
                let (mut reading, peer) = read(&acceptor, PROXY);
                peer.send(&header[..cut]);
                let ended = end(&mut reading, &peer);
                let certain = if header[0] == b'P' || certain == 0 {
                    certain
                } else {
                    12
                };
                if cut >= certain {
                    assert_eq!(error_of(ended), ProxyError::Truncated(cut));
                } else {
                    // It may be anything, and is not kept from the protocol.
                    let (stream, rest) = ended.expect("there is no header");
                    assert_eq!((stream.header(), &rest[..]), (None, &header[..cut]));
                }
            }
        }
    }
}

#[test]
fn who_is_trusted_and_sends_none_is_refused_or_served_as_it_is() {
    for bytes in [
        "hello",
        "P",
        "PROXYhello",
        "\r\n\r\nhello",
        "GET / HTTP/1.1\r\n",
    ] {
        let (mut reading, peer) = read(&strict(), PROXY);
        peer.send(bytes);
        let error = error_of(end(&mut reading, &peer));
        match bytes {
            "P" => assert_eq!(error, ProxyError::Truncated(1)),
            _ => assert_eq!(error, ProxyError::Missing),
        }

        let (mut reading, peer) = read(&optional(), PROXY);
        peer.send(bytes);
        let (stream, rest) = end(&mut reading, &peer).expect("it is optional");
        assert_eq!((stream.header(), &rest[..]), (None, bytes.as_bytes()));
        assert_eq!(stream.peer_address(), PeerAddress::Ip(address(PROXY)));
    }
}

#[test]
fn a_header_that_is_begun_and_wrong_is_refused_in_each_mode() {
    for acceptor in [strict(), optional()] {
        let (mut reading, peer) = read(&acceptor, PROXY);
        peer.send("PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n");
        assert_eq!(
            error_of(end(&mut reading, &peer)),
            ProxyError::Port("destination")
        );
        let (mut reading, peer) = read(&acceptor, PROXY);
        peer.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff");
        let error = ProxyError::TooLong {
            announced: 65_551,
            limit: 4096,
        };
        assert_eq!(error_of(end(&mut reading, &peer)), error);
    }
    // As long as the program takes it to be.
    let long = header().with_tlv(TlvType(0xe0), vec![7; 65_000]);
    let (mut reading, peer) = read(&strict().max_header(ProxyHeader::LONGEST), PROXY);
    peer.send(long.to_v2().expect("it fits"));
    let (stream, _) = end(&mut reading, &peer).expect("it is right");
    assert_eq!(stream.header(), Some(&long));
}

#[test]
fn who_is_not_trusted_is_never_believed() {
    for header in headers() {
        let (mut reading, peer) = read(&strict(), STRANGER);
        peer.send(&header);
        let Poll::Ready(Err(error)) = poll(&mut reading) else {
            panic!("nothing has to be waited for");
        };
        let says = "203.0.113.9:1 is none of the proxies that are trusted, so it may not connect";
        assert_eq!(error.to_string(), says);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(peer.bytes_read(), 0);

        let (mut reading, peer) = read(&optional(), STRANGER);
        assert!(
            matches!(poll(&mut reading), Poll::Ready(Ok(_))),
            "it may wait for the server"
        );
        let (mut reading, other) = read(&optional(), STRANGER);
        other.send(&header);
        let (stream, rest) = end(&mut reading, &other).expect("it is a stream like any other");
        assert_eq!((stream.header(), rest), (None, header));
        assert_eq!(stream.peer_address(), PeerAddress::Ip(address(STRANGER)));
        drop(peer);
    }
}

#[test]
fn what_is_the_proxys_own_keeps_its_address() {
    for header in [ProxyHeader::local(), ProxyHeader::proxy(Addresses::Unknown)] {
        let (mut reading, peer) = read(&strict(), PROXY);
        peer.send(header.to_v2().expect("it fits"));
        let (stream, rest) = end(&mut reading, &peer).expect("it is right");
        assert_eq!((stream.header(), &rest[..]), (Some(&header), &b""[..]));
        assert_eq!(stream.peer_address(), PeerAddress::Ip(address(PROXY)));
    }
}

#[test]
fn a_stream_that_fails_is_an_error() {
    let (mut reading, peer) = read(&strict(), PROXY);
    peer.send("PROXY TC");
    peer.fail_read(io::ErrorKind::ConnectionReset);
    let Poll::Ready(Err(error)) = poll(&mut reading) else {
        panic!("the stream has failed");
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_header_is_written_however_little_is_taken_at_a_time() {
    for (sender, header) in [
        (ProxySender::v1(&header()), header().to_v1()),
        (ProxySender::v2(&header()), header().to_v2()),
    ] {
        let (stream, peer) = scripted_stream();
        peer.set_max_write(3);
        peer.set_window(5);
        let mut writing = sender.expect("it fits").establish(stream);
        let header = header.expect("it fits");
        while poll(&mut writing).is_pending() {
            assert!(header.starts_with(&peer.written()));
            peer.open_window(5);
        }
        assert_eq!(peer.written(), header);
    }
    let (stream, peer) = scripted_stream();
    peer.write_zero();
    let mut writing = ProxySender::v1(&header())
        .expect("it fits")
        .establish(stream);
    let Poll::Ready(Err(error)) = poll(&mut writing) else {
        panic!("nothing is taken any more");
    };
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

#[tokio::test]
async fn connector_and_listener_understand_each_other() {
    for sender in [ProxySender::v1(&header()), ProxySender::v2(&header())] {
        let (listener, connector) = memory_listener(16);
        let acceptor = ProxyAcceptor::strict([]).trust_local();
        let mut listener = Layered::new(listener, acceptor);
        assert!(listener.is_proxy(&PeerAddress::Memory));
        let connector = Layered::new(connector, sender.expect("it fits"));
        let accept = async {
            let accepted = std::future::poll_fn(|cx| listener.poll_accept(cx)).await?;
            accepted.establish.await
        };
        let (accepted, connected) = tokio::join!(accept, connector.connect());
        let mut connected = connected.expect("the listener reads");
        let mut accepted = accepted.expect("the header is right");
        assert_eq!(accepted.header(), Some(&header()));
        assert_eq!(accepted.peer_address(), PeerAddress::Ip(address(CLIENT)));
        connected.write_u8(7).await.expect("the pipe has room");
        assert_eq!(accepted.read_u8().await.expect("it was sent"), 7);
    }
}
