//! What writes become on the wire.

use std::{
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::AsyncWrite;

use crate::{
    pair::{Pair, Stream, client, read, records, server},
    pki::Authority,
};

fn pair() -> Pair {
    let authority = Authority::new();
    let connector = client(&authority).build().expect("it is valid");
    let acceptor = server(&authority).build().expect("it is valid");
    Pair::new(&connector, &acceptor)
}

/// Write slices as a connection does: until all is taken, then flush.
fn write_vectored(stream: &mut Stream, slices: &[&[u8]]) -> usize {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut slices = &mut slices[..];
    let mut calls = 0;
    while !slices.is_empty() {
        let Poll::Ready(Ok(count)) = Pin::new(&mut *stream).poll_write_vectored(cx, slices) else {
            panic!("the stream takes everything");
        };
        IoSlice::advance_slices(&mut slices, count);
        calls += 1;
    }
    let flushed = Pin::new(stream).poll_flush(cx);
    assert!(matches!(flushed, Poll::Ready(Ok(()))), "{flushed:?}");
    calls
}

#[test]
fn small_slices_of_a_write_share_a_record() {
    let mut pair = pair();
    assert!(AsyncWrite::is_write_vectored(&pair.server));
    let before = pair.to_client.bytes().len();
    let slices = [&[7; 100][..]; 64];
    assert_eq!(write_vectored(&mut pair.server, &slices), 1);
    let records = records(&pair.to_client.bytes()[before..]);
    assert_eq!(records.len(), 1, "{records:?}");
    pair.to_client.carry();
    assert_eq!(read(&mut pair.client).expect("it came"), [7; 6400]);
}

#[test]
fn large_writes_are_full_records() {
    let mut pair = pair();
    let before = pair.to_client.bytes().len();
    let large = vec![1; 60_000];
    let slices = [&[2; 100][..], &large, &[3; 100], &large[..5000]];
    write_vectored(&mut pair.server, &slices);
    let records = records(&pair.to_client.bytes()[before..]);
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    assert_eq!(records.len(), total.div_ceil(16 * 1024), "{records:?}");
}
