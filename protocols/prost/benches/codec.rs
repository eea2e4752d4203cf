//! What a message costs the codec, each way, beside prost alone.
//!
//! Input is shown as a connection shows it: messages below 16 KiB lie in the buffer that a thread
//! shares, larger ones in one of the connection's own.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion};
use prost::Message;
use protosocket::{Decoded, Decoder, Input, SendBuffer};
use protosocket_prost::{ProstDecoder, ProstSerializer};

/// As a call of an RPC has it.
#[derive(Clone, PartialEq, Message)]
struct Call {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    code: u32,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

/// Of a body, in bytes.
const SIZES: [usize; 4] = [8, 64, 1024, 64 * 1024];

/// From this size on, messages are read into a buffer of the connection's own, in bytes.
const OWN_BUFFER: usize = 16 * 1024;

/// Messages of each size that lie in a row: as many as a connection decodes between two writes, or
/// as fit into its send buffer.
fn in_a_row(size: usize) -> usize {
    (1024 * 1024 / size).clamp(1, 512)
}

fn call(size: usize) -> Call {
    Call {
        id: 1_000_000,
        code: 0,
        body: vec![b'x'; size].into(),
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for size in SIZES {
        group.bench_function(BenchmarkId::new("codec", size), |bencher| {
            let mut serializer = ProstSerializer::new();
            let mut output = SendBuffer::new();
            bencher.iter_custom(|count| {
                in_batches(count, in_a_row(size), |batch| {
                    let messages = vec![call(size); batch];
                    let begun = Instant::now();
                    for message in messages {
                        let encoded = output.encode(&mut serializer, message);
                        encoded.expect("the message is valid");
                    }
                    output.advance(black_box(&output).unsent_bytes());
                    begun.elapsed()
                })
            });
        });
        group.bench_function(BenchmarkId::new("prost", size), |bencher| {
            let mut output = Vec::new();
            bencher.iter_custom(|count| {
                in_batches(count, in_a_row(size), |batch| {
                    let messages = vec![call(size); batch];
                    let begun = Instant::now();
                    for message in messages {
                        let encoded = message.encode_length_delimited(&mut output);
                        encoded.expect("a vector grows");
                    }
                    black_box(&output);
                    output.clear();
                    begun.elapsed()
                })
            });
        });
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for size in SIZES {
        let wire = call(size).encode_length_delimited_to_vec();
        let row = wire.repeat(in_a_row(size));
        group.bench_function(BenchmarkId::new("codec", size), |bencher| {
            let mut decoder = ProstDecoder::new();
            bencher.iter_custom(|count| {
                in_batches(count, in_a_row(size), |batch| {
                    let row = &row[..batch * wire.len()];
                    if size < OWN_BUFFER {
                        return decode_all(&mut decoder, Input::from_slice(row));
                    }
                    let mut buffer = BytesMut::from(row);
                    decode_all(&mut decoder, Input::from_buffer(&mut buffer))
                })
            });
        });
        group.bench_function(BenchmarkId::new("prost", size), |bencher| {
            bencher.iter_custom(|count| {
                in_batches(count, in_a_row(size), |batch| {
                    let mut row = &row[..batch * wire.len()];
                    let begun = Instant::now();
                    while !row.is_empty() {
                        let message = Call::decode_length_delimited(&mut row);
                        black_box(message.expect("the message is valid"));
                    }
                    begun.elapsed()
                })
            });
        });
    }
}

fn decode_all(decoder: &mut ProstDecoder<Call>, mut input: Input<'_>) -> Duration {
    let begun = Instant::now();
    while !input.is_empty() {
        match decoder.decode(&mut input) {
            Ok(Decoded::Message(message)) => drop(black_box(message)),
            answer => unreachable!("of a valid message it made {answer:?}"),
        }
    }
    begun.elapsed()
}

/// Sum what `time` takes for `count` messages, at most `batch` of them at once.
fn in_batches(count: u64, batch: usize, mut time: impl FnMut(usize) -> Duration) -> Duration {
    let mut left = count;
    let mut total = Duration::ZERO;
    while left > 0 {
        let now = left.min(batch as u64);
        // Not above `batch`.
        total += time(now as usize);
        left -= now;
    }
    total
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    encode(&mut criterion);
    decode(&mut criterion);
    criterion.final_summary();
}
