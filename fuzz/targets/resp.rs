#![no_main]
#![doc = "See `operations::resp`, beside the tests of the codec."]

#[path = "../../protocols/resp/tests/operations/resp.rs"]
mod operations;

protosocket_fuzz::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| operations::resp(bytes));
