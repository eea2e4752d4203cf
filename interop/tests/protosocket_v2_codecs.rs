//! What the codecs of protosocket-prost and protosocket-messagepack 2.0.2 write and read is, byte
//! for byte, what ours do.

use std::fmt::Debug;

use bytes::{Buf, Bytes};
use interop::{Call, Operation, ours, protosocket_v2};
use protosocket::{Decoded, Input, SendBuffer};

/// With every size of length, number and body at which a byte more is needed.
fn calls() -> Vec<Call> {
    let mut calls = vec![
        Call::default(),
        <Call as protosocket_rpc::Message>::cancelled(7),
        <Call as protosocket_rpc::Message>::ended(u64::MAX),
    ];
    for number in [
        0,
        1,
        127,
        128,
        255,
        256,
        65_535,
        65_536,
        u64::from(u32::MAX),
        u64::MAX,
    ] {
        calls.push(Call {
            id: number,
            ..Call::request(Operation::Later, number, "number")
        });
    }
    let sizes = [
        1, 31, 32, 100, 127, 128, 255, 256, 16_383, 16_384, 65_535, 65_536, 3_000_000,
    ];
    for size in sizes {
        let body = Bytes::from(vec![size as u8; size]);
        calls.push(Call::request(Operation::Reject, size as u64, body));
    }
    calls
}

fn compare<F, O>()
where
    F: protosocket_v2::Codec,
    O: ours::Codec,
{
    let (mut foreign, mut ours) = (F::default(), O::default());
    let (mut by_foreign, mut by_ours) = (Vec::new(), Vec::new());
    for call in calls() {
        let mut written = protosocket_v2_encode(&mut foreign, call.clone());
        let mut output = SendBuffer::new();
        output.encode(&mut ours, call.clone()).unwrap();
        let bytes = output.contiguous();
        assert!(written == *bytes, "of {call:?} they make other bytes");

        let decoded = ours.decode(&mut Input::from_slice(&written)).unwrap();
        assert!(
            decoded == Decoded::Message(call.clone()),
            "ours reads {decoded:?}"
        );
        by_foreign.append(&mut written);
        by_ours.extend_from_slice(bytes);
    }
    // One behind the other.
    let mut input = Input::from_slice(&by_foreign);
    let mut rest = Bytes::from(by_ours);
    for call in calls() {
        let decoded = ours.decode(&mut input).unwrap();
        assert!(
            decoded == Decoded::Message(call.clone()),
            "ours reads {decoded:?}"
        );
        let (consumed, message) = read(foreign.decode(rest.clone()));
        assert!(message == call, "theirs reads {message:?}");
        rest.advance(consumed);
    }
    assert!(input.is_empty() && rest.is_empty());
}

fn protosocket_v2_encode(codec: &mut impl protosocket_v2::Codec, call: Call) -> Vec<u8> {
    let mut encoded = codec.encode(call);
    let mut bytes = vec![0; encoded.remaining()];
    encoded.copy_to_slice(&mut bytes);
    bytes
}

fn read<T, E: Debug>(decoded: Result<T, E>) -> T {
    decoded.expect("it is complete")
}

#[test]
fn prost_is_the_same() {
    compare::<protosocket_v2::Prost, ours::Prost>();
}

#[test]
fn messagepack_is_the_same() {
    compare::<protosocket_v2::MessagePack, ours::MessagePack>();
}
