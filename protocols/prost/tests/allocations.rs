//! What the codec allocates, and what fuzzing has kept. In a program of its own, and each test in a
//! process of its own, because the allocator counts for all threads.

mod common;

use std::{io, path::Path};

use bytes::Bytes;
use common::{
    messages::{Call, Codec, Note},
    wire,
};
use protosocket::{Decoded, Decoder, Input, SendBuffer};
use protosocket_prost::{ProstDecoder, ProstSerializer};
use protosocket_testkit::{
    CountingAllocator, INSTRUMENTED_SYSTEM, alone, for_each_seed,
    operations::{codec, decoder, replay},
};

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

/// Allocations, reallocations and bytes while `work` runs.
fn allocated<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = ALLOCATOR.stats();
    let result = work();
    let after = ALLOCATOR.stats() - before;
    let count = after.allocations + after.reallocations;
    (result, count, after.bytes_allocated)
}

#[test]
fn encoding_into_a_buffer_that_has_grown_allocates_nothing() {
    alone(
        "encoding_into_a_buffer_that_has_grown_allocates_nothing",
        || {
            let call = common::sample();
            let mut output = SendBuffer::new();
            let mut serializer = ProstSerializer::new();
            let mut fill = |calls: Vec<Call>| {
                for call in calls {
                    let encoded = output.encode(&mut serializer, call);
                    encoded.expect("a call can be encoded");
                }
                let unsent = output.unsent_bytes();
                output.advance(unsent);
            };
            fill(vec![call.clone(); 100]);
            // The thread that waits for the test allocates too, sometimes.
            let counts = [(); 5].map(|()| {
                let calls = vec![call.clone(); 100];
                allocated(|| fill(calls)).1
            });
            assert!(counts.contains(&0), "{counts:?}");
        },
    );
}

#[test]
fn a_message_without_texts_and_lists_is_decoded_without_an_allocation() {
    alone(
        "a_message_without_texts_and_lists_is_decoded_without_an_allocation",
        || {
            let call = Call {
                id: u64::MAX,
                code: -1,
                fixed: 7,
                ..Call::default()
            };
            let bytes = wire(&[call]);
            let mut decoder = ProstDecoder::<Call>::new();
            let counts = [(); 5].map(|()| {
                let (decoded, count, _) =
                    allocated(|| decoder.decode(&mut Input::from_slice(&bytes)));
                assert!(matches!(decoded, Ok(Decoded::Message(_))));
                count
            });
            assert!(counts.contains(&0), "{counts:?}");
        },
    );
}

#[test]
fn a_small_field_takes_one_allocation_however_often_it_is_cloned() {
    alone(
        "a_small_field_takes_one_allocation_however_often_it_is_cloned",
        || {
            for size in [0, 1, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257] {
                let call = Call {
                    body: vec![7; size].into(),
                    ..Call::default()
                };
                let bytes = wire(&[call]);
                // The second counts.
                for mut decoder in [
                    ProstDecoder::<Call>::new(),
                    ProstDecoder::new().max_values(2),
                ] {
                    let counts = [(); 5].map(|()| {
                        let (bodies, count, _) = allocated(|| {
                            let decoded = decoder.decode(&mut Input::from_slice(&bytes));
                            let Ok(Decoded::Message(call)) = decoded else {
                                panic!("of {size} bytes came {decoded:?}");
                            };
                            [call.body.clone(), call.body.clone(), call.body]
                        });
                        assert!(bodies.iter().all(|body| body.len() == size));
                        count
                    });
                    let expected = match size {
                        0 => 0,
                        1..=256 => 1,
                        _ => 2,
                    };
                    // The thread that waits for the test allocates too, sometimes.
                    let least = counts.into_iter().min();
                    assert_eq!(least, Some(expected), "of {size} bytes: {counts:?}");
                }
            }
        },
    );
}

#[test]
fn p1_nothing_is_allocated_by_a_length_that_is_announced() {
    alone(
        "p1_nothing_is_allocated_by_a_length_that_is_announced",
        || {
            let announced = |bytes: &[u8]| {
                let (result, _, bytes) = allocated(|| {
                    let result = Codec::default().decode(&mut Input::from_slice(bytes));
                    result.map_err(drop)
                });
                assert!(!matches!(result, Ok(Decoded::Message(_))));
                bytes
            };
            // A frame, then a text, bytes, packed numbers and a message in one: 256 MiB each.
            assert_eq!(announced(b"\x80\x80\x80\x80\x01some"), 0);
            for key in [0x22, 0x1a, 0x4a, 0x3a, 0x2a] {
                let frame = [6, key, 0x80, 0x80, 0x80, 0x80, 0x01];
                let bytes = announced(&frame);
                assert!(bytes < 4096, "{bytes} bytes for {frame:02x?}");
            }
        },
    );
}

#[test]
fn p3_memory_is_bounded_by_what_is_on_the_wire_and_by_the_values() {
    alone(
        "p3_memory_is_bounded_by_what_is_on_the_wire_and_by_the_values",
        || {
            // The messages of this file that take most: two bytes for each element of 4, and of
            // hundreds; one byte for each of 8; three for each text, and for a field that is copied.
            let notes = [0x32, 0x00].repeat(50_000);
            let numbers = [&[0x3a, 0xa0, 0x8d, 0x06][..], &[1; 100_000]].concat();
            let unknown = [0x7a, 0x01, 0xff].repeat(30_000);
            let bodies = [0x5a, 0x01, 0x00].repeat(33_000);
            for (bytes, element, values) in [
                (&notes, size_of::<Note>(), 100_000),
                (&numbers, size_of::<u64>(), 100_002),
                (&unknown, 0, 90_000),
                (&bodies, size_of::<Bytes>(), 66_000),
            ] {
                let mut frame = Vec::new();
                prost::encode_length_delimiter(bytes.len(), &mut frame).expect("a vector grows");
                frame.extend_from_slice(bytes);
                let decode = |max_values| {
                    let mut decoder = ProstDecoder::<Call>::new().max_values(max_values);
                    let live = ALLOCATOR.stats();
                    let decoded = decoder.decode(&mut Input::from_slice(&frame));
                    let now = ALLOCATOR.stats() - live;
                    (
                        decoded,
                        now.bytes_allocated.saturating_sub(now.bytes_deallocated),
                    )
                };
                let (decoded, kept) = decode(values);
                assert!(matches!(decoded, Ok(Decoded::Message(_))), "{decoded:?}");
                // A vector has room for up to twice its elements.
                let most = 2 * values.min(bytes.len()) * element + 4096;
                assert!(
                    kept <= most,
                    "{} bytes became {kept}, at most {most}",
                    bytes.len()
                );
                // What `max_values` promises.
                let most = 11 * bytes.len() + values * element + 4096;
                assert!(
                    kept <= most,
                    "{} became {kept}, at most {most}",
                    bytes.len()
                );
                drop(decoded);

                // With a tenth of the values it is refused, and has taken no more than a tenth.
                let (decoded, _, taken) = allocated(|| decode(values / 10).0.map_err(drop));
                assert_eq!(decoded, Err(()));
                let most = 4 * values / 10 * element + 4096;
                let copy = frame.len();
                assert!(
                    taken <= most + copy,
                    "it took {taken}, at most {most} and {copy}"
                );
            }
        },
    );
}

#[test]
fn kept_and_random_inputs_keep_every_promise() {
    alone("kept_and_random_inputs_keep_every_promise", || {
        let kept = fuzzed().expect("the kept inputs can be read");
        assert!(kept > 0, "no input is kept");
        for_each_seed(0..1000, |random| {
            let length = random.below_one_of(&[20, 100, 400]);
            both_ways(&random.bytes(length));
        });
    });
}

fn fuzzed() -> io::Result<usize> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/prost");
    replay(&corpus, both_ways)
}

/// With values that need not be counted, and with values that are.
fn both_ways(bytes: &[u8]) {
    codec(bytes, Codec::default);
    let few_values = ProstDecoder::<Call>::new().max_values(20);
    decoder(bytes, || {
        (ProstSerializer::<Call>::new(), few_values.clone())
    });
}
