//! What a command and a reply cost the codec: reading a SET, writing one, reading and writing what
//! is answered.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput};
use protosocket::{Decoded, Decoder, Input, SendBuffer};
use protosocket_resp::{Command, Protocol, Reply, RequestDecoder, ValueDecoder};

/// Of a value, in bytes.
const SIZES: [usize; 3] = [8, 64, 1024];

/// As many as a client pipelines.
const IN_A_ROW: usize = 16;

fn decode_all<D: Decoder>(decoder: &mut D, bytes: &[u8]) {
    let mut input = Input::from_slice(bytes);
    while !input.is_empty() {
        match decoder.decode(&mut input) {
            Ok(Decoded::Message(message)) => drop(black_box(message)),
            _ => unreachable!("all of it is there, and valid"),
        }
    }
}

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command");
    group.throughput(Throughput::Elements(IN_A_ROW as u64));
    for size in SIZES {
        let value = vec![b'x'; size];
        let command = || Command::new("SET").arg("key:000000000001").arg(&value);
        group.bench_function(BenchmarkId::new("write", size), |bencher| {
            let mut output = SendBuffer::new();
            bencher.iter(|| {
                for _ in 0..IN_A_ROW {
                    black_box(command()).write_to(&mut output);
                }
                output.advance(output.unsent_bytes());
            });
        });
        group.bench_function(BenchmarkId::new("read", size), |bencher| {
            let mut output = SendBuffer::new();
            (0..IN_A_ROW).for_each(|_| command().write_to(&mut output));
            let bytes = output.contiguous().clone();
            let mut decoder = RequestDecoder::new();
            bencher.iter(|| decode_all(&mut decoder, black_box(&bytes)));
        });
    }
}

fn replies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reply");
    group.throughput(Throughput::Elements(IN_A_ROW as u64));
    for size in SIZES {
        let value = vec![b'x'; size];
        group.bench_function(BenchmarkId::new("write", size), |bencher| {
            let mut output = SendBuffer::new();
            bencher.iter(|| {
                for _ in 0..IN_A_ROW {
                    Reply::new(&mut output, Protocol::Resp3).bulk(black_box(&value));
                }
                output.advance(output.unsent_bytes());
            });
        });
        group.bench_function(BenchmarkId::new("read", size), |bencher| {
            let mut output = SendBuffer::new();
            let mut reply = Reply::new(&mut output, Protocol::Resp3);
            (0..IN_A_ROW).for_each(|_| reply.bulk(&value));
            let bytes = output.contiguous().clone();
            let mut decoder = ValueDecoder::new();
            bencher.iter(|| decode_all(&mut decoder, black_box(&bytes)));
        });
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    commands(&mut criterion);
    replies(&mut criterion);
    criterion.final_summary();
}
