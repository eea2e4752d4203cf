#![no_main]
#![doc = "See `protosocket_testkit::operations::codec`, for requests and for responses."]

use protosocket_fuzz::libfuzzer_sys::fuzz_target;

#[path = "../../protocols/memcached/tests/common/mod.rs"]
mod common;

fuzz_target!(|bytes: &[u8]| common::memcached(bytes));
