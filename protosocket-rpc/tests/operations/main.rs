//! Runs of a client and of a server that are made from bytes.

#[path = "../client/common.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod common;
#[path = "../server/common.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod served;
#[path = "../text/mod.rs"]
mod text;

mod rpc;
mod server;

use std::{io, path::Path};

use protosocket_testkit::{for_each_seed, operations::replay};

#[test]
fn kept_runs() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/rpc");
    assert!(replay(&corpus, both)? > 0, "no run is kept");
    Ok(())
}

#[test]
fn random_runs() {
    for_each_seed(0..3000, |random| {
        let length = random.within(1..400);
        let bytes = random.bytes(length);
        both(&bytes);
    });
}

/// As the fuzz target does it.
fn both(bytes: &[u8]) {
    rpc::rpc(bytes);
    server::server(bytes);
}
