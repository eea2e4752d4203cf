//! The inputs that fuzzing has kept, and random ones. In a program of its own and in one test,
//! because the allocator counts for all threads.

use std::{io, path::Path};

use protosocket_testkit::{
    CountingAllocator, INSTRUMENTED_SYSTEM, for_each_seed,
    operations::{
        channel, connection, contract, length_delimited, lines, machine, proxy_header, replay,
        tokio_codecs,
    },
};

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

type Operation = fn(&[u8]);

/// Random inputs of each operation.
const RANDOM: u64 = 1000;

#[test]
fn kept_and_random_inputs_keep_every_promise() -> io::Result<()> {
    let operations: [(&str, Operation); 8] = [
        ("channel", channel),
        ("connection", connection),
        ("contract", contract),
        ("length_delimited", length_delimited),
        ("lines", lines),
        ("machine", machine),
        ("proxy_header", proxy_header),
        ("tokio_codecs", tokio_codecs),
    ];
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, operation) in operations {
        let kept = replay(&corpus.join(name), operation)?;
        assert!(kept > 0, "no input of {name} is kept");
        for_each_seed(0..RANDOM, |random| {
            let length = random.below_one_of(&[20, 100, 400]);
            operation(&random.bytes(length));
        });
    }
    Ok(())
}
