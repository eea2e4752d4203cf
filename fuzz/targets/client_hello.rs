#![no_main]
#![doc = "See `any_bytes`, beside the tests of `protosocket-tls`: what is made of the beginnings of any"]
#![doc = "bytes agrees with what is made of all."]

#[path = "../../protocols/tls/tests/tls/any_bytes.rs"]
mod any_bytes;

protosocket_fuzz::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| any_bytes::check(bytes));
