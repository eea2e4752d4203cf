//! What a message costs each ready-made codec, each way.
//!
//! Input is shown as a connection shows it: messages below 16 KiB lie in the buffer that a thread
//! shares, larger ones, and all that a foreign codec decodes, in one of the connection's own.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion};
use protosocket::{
    Decoded, Decoder, EncodeError, Encoder, Input, LengthDelimitedCodec, LinesCodec, PooledBuffer,
    PooledEncoder, SendBuffer, Serialize, TokioCodec, U32, Varint,
};
use tokio_util::codec::LengthDelimitedCodec as ForeignCodec;

/// Of a message, in bytes.
const SIZES: [usize; 3] = [64, 1024, 64 * 1024];

/// From this size on, messages are read into a buffer of the connection's own, in bytes.
const OWN_BUFFER: usize = 16 * 1024;

/// Messages of each size that lie in a row: as many as a connection decodes between two writes, or
/// as fit into its send buffer.
fn in_a_row(size: usize) -> usize {
    (1024 * 1024 / size).clamp(1, 512)
}

/// Writes a length and a payload, as most formats do.
#[derive(Default)]
struct Prefixed;

impl Serialize for Prefixed {
    type Message = PooledBuffer;

    fn serialize_into_buffer(
        &mut self,
        message: PooledBuffer,
        buffer: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let length = u32::try_from(message.len()).map_err(EncodeError::other)?;
        buffer.extend_from_slice(&length.to_be_bytes());
        buffer.extend_from_slice(&message);
        Ok(())
    }
}

fn bytes(size: usize) -> Bytes {
    Bytes::from(vec![b'x'; size])
}

fn pooled(size: usize) -> PooledBuffer {
    let mut buffer = PooledBuffer::new();
    buffer.as_mut_vec().resize(size, b'x');
    buffer
}

fn text(size: usize) -> String {
    "x".repeat(size)
}

/// Time the encoding of what `make` makes, in batches, without the making.
fn encode<E: Encoder>(
    criterion: &mut Criterion,
    name: &str,
    mut encoder: E,
    make: fn(usize) -> E::Message,
) {
    let mut group = criterion.benchmark_group("encode");
    for size in SIZES {
        let mut output = SendBuffer::new();
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            bencher.iter_custom(|count| {
                in_batches(count, in_a_row(size), |batch| {
                    let messages: Vec<_> = (0..batch).map(|_| make(size)).collect();
                    let begun = Instant::now();
                    for message in messages {
                        let encoded = output.encode(&mut encoder, message);
                        encoded.expect("the message is valid");
                    }
                    output.advance(black_box(&output).unsent_bytes());
                    begun.elapsed()
                })
            });
        });
    }
}

/// Time the decoding of what the codec itself has made of `make`, in batches.
fn decode<C: Encoder + Decoder>(
    criterion: &mut Criterion,
    name: &str,
    mut codec: C,
    make: fn(usize) -> <C as Encoder>::Message,
    own_buffer: usize,
) {
    let mut group = criterion.benchmark_group("decode");
    for size in SIZES {
        let wire = on_the_wire(&mut codec, || make(size));
        let row = wire.repeat(in_a_row(size));
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            bencher.iter_custom(|count| {
                in_batches(count, in_a_row(size), |batch| {
                    let row = &row[..batch * wire.len()];
                    if size < own_buffer {
                        return decode_all(&mut codec, Input::from_slice(row));
                    }
                    let mut buffer = BytesMut::from(row);
                    decode_all(&mut codec, Input::from_buffer(&mut buffer))
                })
            });
        });
    }
}

fn decode_all<D: Decoder>(decoder: &mut D, mut input: Input<'_>) -> Duration {
    let begun = Instant::now();
    while !input.is_empty() {
        match decoder.decode(&mut input) {
            Ok(Decoded::Message(message)) => drop(black_box(message)),
            Ok(Decoded::Need(size)) => unreachable!("asks for {size} bytes, all is there"),
            Ok(Decoded::Skip(size)) => unreachable!("skips {size} bytes of what it has encoded"),
            Err(error) => unreachable!("cannot read what it has encoded: {error}"),
        }
    }
    begun.elapsed()
}

/// The bytes of one message.
fn on_the_wire<E: Encoder>(encoder: &mut E, make: impl FnOnce() -> E::Message) -> Vec<u8> {
    let mut output = SendBuffer::new();
    let encoded = output.encode(encoder, make());
    encoded.expect("the message is valid");
    let mut slices = [std::io::IoSlice::new(&[]); 3];
    let filled = output.io_slices(&mut slices);
    slices[..filled]
        .iter()
        .flat_map(|slice| slice.iter().copied())
        .collect()
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
    let criterion = &mut criterion;

    type Framed<P, T> = LengthDelimitedCodec<P, T>;
    decode(
        criterion,
        "u32/bytes",
        Framed::<U32, _>::new(),
        bytes,
        OWN_BUFFER,
    );
    decode(
        criterion,
        "u32/pooled",
        Framed::<U32, _>::new(),
        pooled,
        OWN_BUFFER,
    );
    decode(
        criterion,
        "varint/bytes",
        Framed::<Varint, _>::new(),
        bytes,
        OWN_BUFFER,
    );
    decode(
        criterion,
        "varint/pooled",
        Framed::<Varint, _>::new(),
        pooled,
        OWN_BUFFER,
    );
    decode(criterion, "lines", LinesCodec::new(), text, OWN_BUFFER);
    decode(
        criterion,
        "tokio_util",
        TokioCodec::new(ForeignCodec::new()),
        bytes,
        0,
    );

    encode(criterion, "u32/bytes", Framed::<U32, _>::new(), bytes);
    encode(criterion, "u32/pooled", Framed::<U32, _>::new(), pooled);
    encode(criterion, "varint/bytes", Framed::<Varint, _>::new(), bytes);
    encode(
        criterion,
        "varint/pooled",
        Framed::<Varint, _>::new(),
        pooled,
    );
    encode(criterion, "lines", LinesCodec::new(), text);
    encode(
        criterion,
        "tokio_util",
        TokioCodec::new(ForeignCodec::new()),
        bytes,
    );
    encode(criterion, "serialize", Prefixed, pooled);
    encode(
        criterion,
        "pooled_encoder",
        PooledEncoder::new(Prefixed),
        pooled,
    );
    criterion.final_summary();
}
