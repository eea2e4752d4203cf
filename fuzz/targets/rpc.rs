#![no_main]
#![doc = "See `rpc.rs` and `server.rs` of `protosocket-rpc/tests/operations`, which say what must hold."]

#[path = "../../protosocket-rpc/tests/client/common.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod common;
#[path = "../../protosocket-rpc/tests/operations/rpc.rs"]
mod rpc;
#[path = "../../protosocket-rpc/tests/server/common.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod served;
#[path = "../../protosocket-rpc/tests/operations/server.rs"]
mod server;
#[path = "../../protosocket-rpc/tests/text/mod.rs"]
mod text;

protosocket_fuzz::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rpc::rpc(bytes);
    server::server(bytes);
});
