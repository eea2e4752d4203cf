//! What fuzzing has kept, and random bytes made of what the protocol is made of. In a program of its
//! own, because the allocator counts for all threads.

mod common;

use std::path::Path;

use common::memcached;
use protosocket_testkit::{
    CountingAllocator, INSTRUMENTED_SYSTEM, alone, for_each_seed, operations::replay,
};

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

#[test]
fn whatever_was_kept_is_decoded_the_same_however_it_is_cut() {
    alone(
        "whatever_was_kept_is_decoded_the_same_however_it_is_cut",
        || {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/memcached");
            let count = replay(Path::new(folder), memcached).expect("the corpus is there");
            assert!(count > 0, "there is no corpus");
        },
    );
}

#[test]
fn random_words_are_decoded_the_same_however_they_are_cut() {
    const WORDS: [&str; 32] = [
        "get ",
        "gets ",
        "gat ",
        "set ",
        "add ",
        "cas ",
        "append ",
        "incr ",
        "touch ",
        "delete ",
        "flush_all ",
        "stats ",
        "version",
        "verbosity ",
        "quit",
        "ms ",
        "noreply",
        "\r\n",
        "\r\n",
        "\r\n",
        " ",
        "0 ",
        "1 ",
        "3 ",
        "-1 ",
        "key ",
        "a ",
        "VALUE ",
        "END\r\n",
        "STAT ",
        "SERVER_ERROR ",
        "abc\r\n",
    ];
    alone(
        "random_words_are_decoded_the_same_however_they_are_cut",
        || {
            for_each_seed(0..5000, |random| {
                // The kind, three choices, two cuts and their sizes: the words begin behind them.
                let mut bytes = random.bytes(4);
                bytes.extend([2, random.below(9) as u8, random.below(99) as u8]);
                for _ in 0..random.below(24) {
                    bytes.extend(WORDS[random.below(WORDS.len())].as_bytes());
                }
                memcached(&bytes);
            });
        },
    );
}
