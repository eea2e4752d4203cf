//! What the codec allocates, and what fuzzing has kept. In a program of its own, and each test in a
//! process of its own, because the allocator counts for all threads.

mod common;

use std::{io, path::Path};

use common::{
    messages::{Call, Codec, Note},
    wire,
};
use protosocket::{Decoded, Decoder, Input, SendBuffer};
use protosocket_messagepack::{MessagePackDecoder, MessagePackSerializer};
use protosocket_testkit::{
    CountingAllocator, INSTRUMENTED_SYSTEM, alone, for_each_seed,
    operations::{codec, replay},
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

/// Bytes behind their length.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u32;
    [&[0xce][..], &length.to_be_bytes(), bytes].concat()
}

#[test]
fn encoding_into_a_buffer_that_has_grown_allocates_nothing() {
    alone(
        "encoding_into_a_buffer_that_has_grown_allocates_nothing",
        || {
            let call = common::sample();
            let mut output = SendBuffer::new();
            let mut serializer = MessagePackSerializer::new();
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
            let bytes = framed(b"\x93\xcd\x01\x2c\xc0\xcb\0\0\0\0\0\0\0\0");
            let mut decoder = MessagePackDecoder::<(u16, Option<u8>, f64)>::new();
            let counts = [(); 5].map(|()| {
                let (decoded, count, _) =
                    allocated(|| decoder.decode(&mut Input::from_slice(&bytes)));
                assert_eq!(decoded.unwrap(), Decoded::Message((300, None, 0.0)));
                count
            });
            assert!(counts.contains(&0), "{counts:?}");
        },
    );
}

#[test]
fn p1_nothing_is_allocated_by_a_length_that_is_announced() {
    alone(
        "p1_nothing_is_allocated_by_a_length_that_is_announced",
        || {
            fn announced<T: serde::de::DeserializeOwned>(bytes: &[u8]) {
                let (result, _, taken) = allocated(|| {
                    let result =
                        MessagePackDecoder::<T>::new().decode(&mut Input::from_slice(bytes));
                    result.map_err(drop)
                });
                assert!(!matches!(result, Ok(Decoded::Message(_))));
                assert!(taken < 4096, "{taken} bytes for {bytes:02x?}");
            }
            announced::<String>(b"\xce\x10\0\0\0some");
            // A text, bytes, an extension, an array and a map, of 64 KiB and of 256 MiB.
            announced::<String>(&framed(b"\xda\xff\xff\0"));
            announced::<String>(&framed(b"\xdb\x10\0\0\0\0"));
            announced::<bytes::Bytes>(&framed(b"\xc5\xff\xff\0"));
            announced::<bytes::Bytes>(&framed(b"\xc6\x10\0\0\0\0"));
            announced::<bytes::Bytes>(&framed(b"\xc9\x10\0\0\0\0"));
            announced::<Vec<u64>>(&framed(b"\xdc\xff\xff\0"));
            announced::<Vec<u64>>(&framed(b"\xdd\x10\0\0\0\0"));
            announced::<Vec<Vec<u64>>>(&framed(b"\x92\xdd\x10\0\0\0\0"));
            announced::<std::collections::HashMap<u8, u64>>(&framed(b"\xde\xff\xff\0\0"));
            announced::<std::collections::HashMap<u8, u64>>(&framed(b"\xdf\x10\0\0\0\0\0"));
        },
    );
}

#[test]
fn p3_memory_is_bounded_by_the_values() {
    alone("p3_memory_is_bounded_by_the_values", || {
        // One byte for each note of eight.
        let count: u32 = 100_000;
        let frame = framed(&[&[0xdd][..], &count.to_be_bytes(), &[0xc0; 100_000]].concat());
        let decode = |max_values| {
            let mut decoder = MessagePackDecoder::<Vec<Note>>::new().max_values(max_values);
            allocated(|| decoder.decode(&mut Input::from_slice(&frame)))
        };
        let values = count as usize + 1;
        let (decoded, _, taken) = decode(values);
        assert!(matches!(decoded, Ok(Decoded::Message(_))), "{decoded:?}");
        let most = 2 * values * size_of::<Note>();
        assert!(taken <= most, "it took {taken}, at most {most}");

        let (decoded, _, taken) = decode(values / 2);
        assert!(decoded.is_err(), "{decoded:?}");
        assert!(taken < 4096, "what is refused took {taken}");
    });
}

#[test]
fn kept_and_random_inputs_keep_every_promise() {
    alone("kept_and_random_inputs_keep_every_promise", || {
        let kept = fuzzed().expect("the kept inputs can be read");
        assert!(kept > 0, "no input is kept");
        for_each_seed(0..1000, |random| {
            let length = random.below_one_of(&[20, 100, 400]);
            codec(&random.bytes(length), Codec::default);
        });
        let whole = wire(&[common::sample(), Call::default()]);
        codec(&[&[0; 4][..], &whole].concat(), Codec::default);
    });
}

fn fuzzed() -> io::Result<usize> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/messagepack");
    replay(&corpus, |bytes| codec(bytes, Codec::default))
}
