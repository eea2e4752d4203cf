//! The headers of proxies.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use protosocket::{
    Establisher, PeerAddress, StreamWithAddress, Transport,
    proxy::{Addresses, Network, ProxyAcceptor, ProxyHeader, TlvType, UnixAddress},
};
use tokio::io::AsyncReadExt;

use super::Choices;
use crate::scripted_stream;

/// Arbitrary bytes as headers, headers of arbitrary values, and arbitrary changes to these: what is
/// certain of a beginning is so of the whole, what is written is read, and a stream is the same
/// however it is cut.
///
/// # Panics
/// If something of that does not hold.
pub fn proxy_header(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let max_header = choices.one_of(&[ProxyHeader::LONGEST, 100, 16, 0, 4096]);
    let optional = choices.flag();
    let input = match choices.below(3) {
        0 => choices.rest().to_vec(),
        kind => {
            let header = arbitrary_header(&mut choices);
            let written = round_trip(&header, choices.flag());
            let mut input = written.to_vec();
            if kind == 2 {
                let at = choices.size() % input.len();
                input[at] = choices.byte();
            }
            input.extend_from_slice(choices.rest());
            input
        }
    };
    parsed(&input, max_header);
    streamed(&input, max_header, optional);
}

fn arbitrary_header(choices: &mut Choices<'_>) -> ProxyHeader {
    let port = |choices: &mut Choices<'_>| u16::from_be_bytes([choices.byte(), choices.byte()]);
    let mut ip4 = || {
        let ip = std::array::from_fn::<u8, 4, _>(|_| choices.byte());
        SocketAddr::from((ip, port(choices)))
    };
    let (source4, destination4) = (ip4(), ip4());
    let addresses = match choices.below(4) {
        0 => return ProxyHeader::local(),
        1 => Addresses::tcp(source4, destination4),
        2 => {
            let mut ip6 = || {
                let ip = std::array::from_fn::<u8, 16, _>(|_| choices.byte());
                SocketAddr::from((ip, port(choices)))
            };
            let (source, destination) = (ip6(), ip6());
            Addresses::tcp(source, destination)
        }
        _ => {
            let mut path = || {
                let length = choices.below(UNIX_LENGTH + 1);
                UnixAddress::new(Bytes::copy_from_slice(choices.bytes(length)))
            };
            path()
                .zip(path())
                .map(|(source, destination)| Addresses::Unix {
                    source,
                    destination,
                })
        }
    };
    let mut header = ProxyHeader::proxy(addresses.unwrap_or(Addresses::Unknown));
    if choices.flag() {
        header = header.with_checksum();
    }
    for _ in 0..choices.below(4) {
        // Those that must be something are left to the fuzzer's bytes.
        let kind = TlvType(0x40 | choices.byte());
        let length = choices.below(100);
        let value = Bytes::copy_from_slice(choices.bytes(length));
        header = header.with_tlv(kind, value);
    }
    header
}

const UNIX_LENGTH: usize = 108;

/// What is written is read, whole.
fn round_trip(header: &ProxyHeader, line: bool) -> Bytes {
    if line && let Ok(written) = header.to_v1() {
        let (read, length) = whole(&written);
        assert_eq!(length, written.len());
        if !matches!(header.addresses(), Addresses::Unix { .. }) {
            assert_eq!(&read, header);
        }
        return written;
    }
    let written = header.to_v2().expect("it is short");
    assert_eq!(whole(&written), (header.clone(), written.len()));
    written
}

fn whole(bytes: &[u8]) -> (ProxyHeader, usize) {
    let parsed = ProxyHeader::parse(bytes, ProxyHeader::LONGEST);
    let header = parsed.expect("it was written by us");
    header.expect("it is whole")
}

/// What a beginning says, more bytes do not change.
fn parsed(input: &[u8], max_header: usize) {
    let all = ProxyHeader::parse(input, max_header);
    let mut certain = false;
    for end in 0..=input.len().min(300) {
        match ProxyHeader::parse(&input[..end], max_header) {
            Ok(None) => assert!(!certain, "{end} bytes are too few, and fewer were enough"),
            decided => {
                certain = true;
                // An error that more bytes only name otherwise would be one too.
                assert_eq!(decided, all, "{end} bytes");
            }
        }
    }
    if let Ok(Some((header, length))) = all {
        assert!(length <= input.len());
        let is_short = length <= max_header.max(107);
        assert!(is_short, "{length} bytes, and {max_header} are allowed");
        let again = header.to_v2().expect("it came in a header");
        assert_eq!(whole(&again).0, header);
    }
}

type Outcome = Result<(PeerAddress, Option<ProxyHeader>, Vec<u8>), (io::ErrorKind, String)>;

/// The stream behind the header is the same at each cut.
fn streamed(input: &[u8], max_header: usize, optional: bool) {
    let of_all = read(&[input], usize::MAX, max_header, optional);
    let middle = input.len() / 2;
    for max_read in [1, 7, usize::MAX] {
        let parts = [&input[..middle], &input[middle..]];
        let of_parts = read(&parts, max_read, max_header, optional);
        assert_eq!(of_parts, of_all, "at most {max_read} bytes at a time");
    }
    if let Ok((_, None, rest)) = of_all {
        assert!(optional && rest == input, "nothing is lost or believed");
    }
}

fn read(parts: &[&[u8]], max_read: usize, max_header: usize, optional: bool) -> Outcome {
    let network: Network = "10.0.0.0/8".parse().expect("it is a network");
    let acceptor = match optional {
        true => ProxyAcceptor::optional([network]),
        false => ProxyAcceptor::strict([network]),
    };
    let (stream, peer) = scripted_stream();
    peer.set_max_read(max_read);
    let stream = StreamWithAddress::new(stream, SocketAddr::from(([10, 0, 0, 7], 1)));
    let mut reading = acceptor.max_header(max_header).establish(stream);
    let mut polled = Poll::Pending;
    for part in parts {
        peer.send(part);
        if polled.is_pending() {
            polled = poll(&mut reading);
        }
    }
    peer.end();
    let accepted = match polled {
        Poll::Ready(accepted) => accepted,
        Poll::Pending => ready(&mut reading),
    };
    let mut accepted = accepted.map_err(|error| (error.kind(), error.to_string()))?;
    let mut rest = Vec::new();
    let read = ready(&mut Box::pin(accepted.read_to_end(&mut rest)));
    read.expect("the stream ends in order");
    let header = accepted.header().cloned();
    Ok((accepted.peer_address(), header, rest))
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn ready<F: Future + Unpin>(future: &mut F) -> F::Output {
    match poll(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for more of a stream that has ended"),
    }
}
