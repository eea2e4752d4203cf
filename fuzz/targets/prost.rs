#![no_main]
#![doc = "See `protosocket_testkit::operations::codec`, for calls with every kind of field. They are"]
#![doc = "decoded by both ways of the decoder: it counts the values of messages that may have too many."]

use protosocket_fuzz::{
    libfuzzer_sys::fuzz_target,
    operations::{codec, decoder},
};
use protosocket_prost::{ProstDecoder, ProstSerializer};

#[expect(unreachable_pub, reason = "the tests of the codec share it")]
#[path = "../../protocols/prost/tests/common/messages.rs"]
mod messages;

fuzz_target!(|bytes: &[u8]| {
    codec(bytes, messages::Codec::default);
    let few_values = ProstDecoder::<messages::Call>::new().max_values(20);
    decoder(bytes, || {
        (ProstSerializer::<messages::Call>::new(), few_values.clone())
    });
});
