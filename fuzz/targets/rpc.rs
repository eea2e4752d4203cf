#![no_main]
#![doc = "See `protosocket-rpc/tests/operations/rpc.rs`, which says what must hold."]

#[path = "../../protosocket-rpc/tests/client/common.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod common;
#[path = "../../protosocket-rpc/tests/operations/rpc.rs"]
mod rpc;
#[path = "../../protosocket-rpc/tests/text/mod.rs"]
mod text;

protosocket_fuzz::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rpc::rpc(bytes));
