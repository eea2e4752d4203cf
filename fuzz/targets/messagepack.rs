#![no_main]
#![doc = "See `protosocket_testkit::operations::codec`, for calls with every kind of field."]

#[expect(unreachable_pub, reason = "the tests of the codec share it")]
#[path = "../../protocols/messagepack/tests/common/messages.rs"]
mod messages;

protosocket_fuzz::target!(codec, messages::Codec::default);
