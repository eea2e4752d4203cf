#![no_main]
#![doc = "See `protosocket-server/tests/server/sniffing.rs`, which says what must hold."]

#[path = "../../protosocket-server/tests/server/sniffing.rs"]
mod sniffing;

protosocket_fuzz::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sniffing::sniffing(bytes));
