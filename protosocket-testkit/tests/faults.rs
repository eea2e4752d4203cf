//! Connections over streams that go wrong: what a fault does, and that nothing else comes of it.

use std::{future::poll_fn, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use protosocket::{SocketConnector, SocketListener, memory_listener};
use protosocket_testkit::{
    FaultListener, FaultStream, Faults, Framed, Opened, Random, ScriptedStream, Setup, StreamEvent,
    echo, for_each_seed, frame, framed, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Faulty = Opened<Framed, FaultStream<ScriptedStream>>;

fn echo_over(faults: Faults, seed: u64) -> Faulty {
    let setup = Setup::default();
    let clock = Arc::new(setup.clock.clone());
    let wrap = |stream| FaultStream::over(stream, faults, seed).with_clock(clock);
    let mut opened = setup.open_over(wrap, framed(), echo());
    opened.drop_sender();
    opened
}

/// Anything that a connection must be able to live with.
fn harmless(random: &mut Random) -> Faults {
    let mut faults = Faults::none();
    if random.per_mille(500) {
        faults = faults.slices(*random.one_of(&[3, 100, 5000]));
    }
    if random.per_mille(300) {
        faults = faults.latency(Duration::from_millis(random.below(200) as u64));
    }
    if random.per_mille(300) {
        faults = faults.bandwidth(random.within(10_000..1_000_000) as u64);
    }
    if random.per_mille(300) {
        faults = faults.would_block(random.below(400) as u32);
    }
    if random.per_mille(300) {
        faults = faults.interrupted(random.below(400) as u32);
    }
    if random.per_mille(300) {
        faults = faults.spurious_wakes(random.below(400) as u32);
    }
    faults
}

#[test]
fn an_exchange_is_the_same_through_all_that_is_no_end() {
    for_each_seed(0..150, |random| {
        let frames: Vec<Bytes> = (0..random.within(1..8))
            .map(|_| {
                let size = random.below_one_of(&[1, 64, 2000, 6000]);
                frame(&random.bytes(size))
            })
            .collect();
        let all = frames.concat();
        let mut opened = echo_over(harmless(random), random.next());
        for frame in &frames {
            opened.peer.send(frame);
        }
        opened.peer.end();
        opened.connection.pass(Duration::from_secs(100));
        assert_eq!(opened.reason(), "end_of_input");
        assert_eq!(opened.peer.written(), all);
    });
}

#[test]
fn latency_delays_what_the_peer_sends_and_its_end() {
    let latency = Duration::from_millis(300);
    let mut opened = echo_over(Faults::none().latency(latency), 0);
    opened.peer.send(frame(b"late"));
    opened.settle();
    opened
        .connection
        .advance(latency - Duration::from_millis(1));
    opened.peer.end();
    opened.settle();
    assert_eq!(opened.knobs.received(), 0);
    opened.connection.advance(Duration::from_millis(1));
    assert_eq!(opened.knobs.received(), 1);
    assert!(!opened.connection.is_ended());
    opened.connection.advance(latency);
    assert_eq!(opened.reason(), "end_of_input");
}

#[test]
fn bandwidth_is_kept_both_ways() {
    // 1,004 bytes each way, at 1,000 a second.
    let mut opened = echo_over(Faults::none().bandwidth(1000), 0);
    opened.peer.send(frame(&[7; 1000]));
    opened.connection.pass(Duration::from_millis(900));
    assert_eq!(opened.knobs.received(), 0);
    assert!((850..=920).contains(&opened.peer.bytes_read()));
    opened.connection.pass(Duration::from_millis(1000));
    assert!((850..=950).contains(&opened.peer.written_len()));
    opened.connection.pass(Duration::from_millis(200));
    assert_eq!(opened.peer.written_len(), 1004);
}

#[test]
fn one_byte_at_a_time_is_one_byte_at_a_time() {
    let mut opened = echo_over(Faults::none().one_byte(), 0);
    opened.peer.send(frame(b"hello"));
    opened.settle();
    assert_eq!(opened.peer.written(), frame(b"hello"));
    assert!(opened.peer.writes().iter().all(|&size| size == 1));
}

#[test]
fn a_reset_comes_at_its_byte() {
    for limit in [0, 1, 4, 8, 9] {
        let mut opened = echo_over(Faults::none().reset_after_reading(limit), 0);
        opened.peer.send(frame(b"abcde"));
        let end = opened.finish();
        assert_eq!((end.reason.name(), end.stats.bytes_in), ("io", limit));
        assert_eq!(opened.peer.bytes_read() as u64, limit);
        assert!(opened.peer.saw(StreamEvent::Abort));
    }
    for limit in [0, 1, 4, 8] {
        let mut opened = echo_over(Faults::none().reset_after_writing(limit), 0);
        opened.peer.send(frame(b"abcde"));
        let end = opened.finish();
        assert_eq!((end.reason.name(), end.stats.bytes_out), ("io", limit));
        assert_eq!(opened.peer.written_len() as u64, limit);
    }
}

#[test]
fn a_half_close_comes_at_its_byte_and_answers_still_go_out() {
    let mut opened = echo_over(Faults::none().one_byte().end_after_reading(9), 0);
    opened.peer.send(frame(b"abcde"));
    opened.peer.send(frame(b"never read"));
    assert_eq!(opened.reason(), "end_of_input");
    assert_eq!(opened.peer.written(), frame(b"abcde"));

    let mut opened = echo_over(Faults::none().end_after_reading(8), 0);
    opened.peer.send(frame(b"abcde"));
    assert_eq!(opened.reason(), "decode");
}

#[tokio::test(start_paused = true)]
async fn a_listener_puts_faults_under_what_it_accepts() {
    let (listener, connector) = memory_listener(1024);
    let mut listener = FaultListener::new(listener, Faults::none().one_byte(), 0);
    let mut near = within(connector.connect()).await.unwrap();
    let accepted = within(poll_fn(|cx| listener.poll_accept(cx)))
        .await
        .unwrap();
    let mut far = within(accepted.establish).await.unwrap();
    near.write_all(b"ab").await.unwrap();
    let mut buffer = [0; 8];
    assert_eq!(within(far.read(&mut buffer)).await.unwrap(), 1);
    let written = poll_fn(|cx| {
        let slices = [io::IoSlice::new(b""), io::IoSlice::new(b"xyz")];
        tokio::io::AsyncWrite::poll_write_vectored(Pin::new(&mut far), cx, &slices)
    });
    assert_eq!(within(written).await.unwrap(), 1);
}
