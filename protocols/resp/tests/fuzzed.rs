//! What fuzzing has kept, and random inputs made of the words of the protocol. In a program of its
//! own, because the allocator counts for all threads.

#[path = "operations/resp.rs"]
mod operations;

use std::path::Path;

use protosocket_testkit::{for_each_seed, operations::replay};

#[global_allocator]
static ALLOCATOR: &protosocket_testkit::CountingAllocator =
    &protosocket_testkit::INSTRUMENTED_SYSTEM;

const WORDS: [&[u8]; 24] = [
    b"*", b"$", b"+", b"-", b":", b"%", b"~", b">", b"|", b"_", b"#t", b",1.5", b"(", b"=", b"!",
    b"?", b";", b".", b"0", b"1", b"3", b"\r\n", b"abc", b"'\"\\x4",
];

#[test]
fn kept_inputs_and_random_words_in_any_order() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/resp");
    assert!(replay(&kept, operations::resp).expect("it is there") > 0);
    for_each_seed(0..2000, |random| {
        let mut bytes = vec![random.below(3) as u8];
        for _ in 0..random.below(60) {
            bytes.extend_from_slice(WORDS[random.below(WORDS.len())]);
            if random.below(3) == 0 {
                bytes.extend_from_slice(b"\r\n");
            }
        }
        operations::resp(&bytes);
    });
}
