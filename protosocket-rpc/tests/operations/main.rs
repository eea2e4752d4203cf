//! Runs of a client that are made from bytes.

#[path = "../client/common.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod common;
#[path = "../text/mod.rs"]
mod text;

mod rpc;

use std::{io, path::Path};

use protosocket_testkit::{for_each_seed, operations::replay};

#[test]
fn kept_runs() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/rpc");
    assert!(replay(&corpus, rpc::rpc)? > 0, "no run is kept");
    Ok(())
}

#[test]
fn random_runs() {
    for_each_seed(0..3000, |random| {
        let length = random.within(1..400);
        let bytes = random.bytes(length);
        rpc::rpc(&bytes);
    });
}
