//! What must hold of each beginning of a stream: for a test, and for a fuzzer.

use std::{
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll, Waker},
};

use protosocket::Establisher;
use protosocket_server::{Protocol, Sniffer};
use protosocket_testkit::{operations::Choices, scripted_stream};
use tokio::io::AsyncReadExt;

/// How much may be read to tell what a stream speaks.
const MOST_BYTES: usize = 64;

/// Arbitrary bytes to several kinds of ports: what they are taken for does not depend on how they
/// are cut, and what is taken is read from its first byte on.
pub(crate) fn sniffing(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let sniffer = match choices.below(4) {
        0 => Sniffer::new(Protocol::KNOWN).otherwise(Protocol::Named("lines")),
        1 => Sniffer::new([Protocol::Resp, Protocol::Tls]),
        2 => Sniffer::expect(Protocol::KNOWN[choices.below(Protocol::KNOWN.len())]),
        _ => Sniffer::new([Protocol::Http1])
            .prefix("long", b"PRI * HTTP/2")
            .prefix("short", b"PRI")
            .refuse([Protocol::Http2, Protocol::Ssh])
            .otherwise(Protocol::Named("lines")),
    };
    let cut = choices.size();
    let known: [&[u8]; 5] = [b"", b"PRI * HTTP/2.0", b"\x16\x03\x01", b"GET ", b"\x10"];
    let beginning = choices.one_of(&known);
    let stream = [beginning, choices.rest()].concat();
    let cut = cut.min(stream.len());

    let of_all = outcome(&sniffer, &[&stream], usize::MAX);
    let parts = [&stream[..cut], &stream[cut..]];
    assert_eq!(
        outcome(&sniffer, &parts, usize::MAX),
        of_all,
        "cut at {cut}"
    );
    assert_eq!(outcome(&sniffer, &parts, 1), of_all, "byte by byte");
    if let Ok((_, bytes)) = of_all {
        assert!(bytes == stream, "bytes were lost");
    }
}

type Outcome = Result<(Protocol, Vec<u8>), (io::ErrorKind, String)>;

fn outcome(sniffer: &Sniffer, parts: &[&[u8]], max_read: usize) -> Outcome {
    let (stream, peer) = scripted_stream();
    peer.set_max_read(max_read);
    let mut sniffing = sniffer.establish(stream);
    let mut polled = Poll::Pending;
    for part in parts {
        peer.send(part);
        if polled.is_pending() {
            polled = poll(&mut sniffing);
            assert!(peer.bytes_read() <= MOST_BYTES);
        }
    }
    peer.end();
    if polled.is_pending() {
        polled = poll(&mut sniffing);
    }
    let Poll::Ready(sniffed) = polled else {
        panic!("it waits for more of a stream that has ended");
    };
    let mut sniffed = sniffed.map_err(|error| (error.kind(), error.to_string()))?;
    let mut bytes = Vec::new();
    let Poll::Ready(read) = poll(&mut Box::pin(sniffed.read_to_end(&mut bytes))) else {
        panic!("the stream has ended");
    };
    read.expect("it ends in order");
    Ok((sniffed.protocol(), bytes))
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}
