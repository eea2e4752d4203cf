//! What is on the wire, byte by byte, and back.

mod common;

use bytes::{Bytes, BytesMut};
use common::{
    messages::{Call, Codec, Note},
    sample, wire,
};
use prost::Message;
use protosocket::{Decoded, Decoder, Input};
use protosocket_prost::ProstDecoder;
use protosocket_testkit::{Torture, TraceEnd};

#[test]
fn a_message_is_the_varint_of_its_length_and_then_protobuf() {
    assert_eq!(wire(&[Call::default()]), b"\x00");
    let call = Call {
        id: 150,
        code: -1,
        body: "ab".into(),
        notes: vec![Note::default(), Note { number: 5 }],
        numbers: vec![1, 300],
        ..Call::default()
    };
    assert_eq!(
        wire(&[call.clone(), Call::default(), call]),
        [
            &b"\x14\x08\x96\x01\x10\x01\x1a\x02ab\x32\x00\x32\x02\x08\x05\x3a\x03\x01\xac\x02"[..],
            b"\x00",
            b"\x14\x08\x96\x01\x10\x01\x1a\x02ab\x32\x00\x32\x02\x08\x05\x3a\x03\x01\xac\x02",
        ]
        .concat()
    );
}

#[test]
fn from_128_bytes_on_the_length_has_two_bytes() {
    let call = Call {
        body: vec![7; 125].into(),
        ..Call::default()
    };
    assert_eq!(wire(&[call])[..5], [0x7f, 0x1a, 0x7d, 7, 7]);
    let call = Call {
        body: vec![7; 126].into(),
        ..Call::default()
    };
    assert_eq!(wire(&[call])[..5], [0x80, 0x01, 0x1a, 0x7e, 7]);
}

#[test]
fn it_is_what_prost_writes_and_reads() {
    let call = sample();
    let bytes = call.encode_length_delimited_to_vec();
    assert_eq!(wire(&[sample()]), bytes);
    assert_eq!(Call::decode_length_delimited(&bytes[..]), Ok(call));
}

#[test]
fn messages_are_the_same_however_the_network_cuts_them() {
    let large = Call {
        body: vec![1; 20_000].into(),
        vec: vec![2; 5000],
        inner: Some(Box::new(sample())),
        ..Call::default()
    };
    let calls = [sample(), Call::default(), sample(), large];
    let trace = Torture::new().run(&wire(&calls), Codec::default);
    assert_eq!(trace.messages, calls);
    assert_eq!(trace.end, TraceEnd::Complete);
}

#[test]
fn longer_than_it_needs_to_be_is_a_length_too() {
    let mut input = Input::from_slice(b"\x82\x80\x80\x80\x80\x80\x80\x80\x80\x00\x08\x07rest");
    let decoded = Codec::default().decode(&mut input);
    let expected = Call {
        id: 7,
        ..Call::default()
    };
    assert_eq!(decoded.unwrap(), Decoded::Message(expected));
    assert_eq!(input.bytes(), b"rest");
}

/// A call with these bodies, decoded from a buffer of a connection's own, and that buffer's bounds.
fn from_own_buffer(bodies: [usize; 2]) -> (Call, std::ops::Range<*const u8>) {
    let call = Call {
        body: vec![1; bodies[0]].into(),
        inner: Some(Box::new(Call {
            body: vec![2; bodies[1]].into(),
            ..Call::default()
        })),
        ..Call::default()
    };
    let mut buffer = BytesMut::from(&wire(std::slice::from_ref(&call))[..]);
    let bounds = buffer.as_ptr_range();
    let mut input = Input::from_buffer(&mut buffer);
    let decoded = Codec::default().decode(&mut input).unwrap();
    assert_eq!(decoded, Decoded::Message(call));
    assert!(input.is_empty());
    let Decoded::Message(call) = decoded else {
        unreachable!("it is one");
    };
    (call, bounds)
}

#[test]
fn large_fields_of_large_messages_are_not_copied_and_small_ones_pin_nothing() {
    let bodies = |sizes| {
        let (call, bounds) = from_own_buffer(sizes);
        let lies_inside = |bytes: &Bytes| bounds.contains(&bytes.as_ptr());
        let inner = call.inner.expect("it was sent");
        [lies_inside(&call.body), lies_inside(&inner.body)]
    };
    assert_eq!(bodies([20_000, 4096]), [true, true]);
    // Below 4 KiB, or an eighth of its message, a field is copied.
    assert_eq!(bodies([20_000, 4095]), [true, false]);
    assert_eq!(bodies([80_000, 10_000]), [true, false]);
    assert_eq!(bodies([80_000, 12_000]), [true, true]);
    // A message below 16 KiB has arrived in memory that cannot be shared, as a rule.
    assert_eq!(bodies([10_000, 4096]), [false, false]);
}

#[test]
fn a_field_of_any_size_is_itself_however_it_is_read() {
    for size in [0, 1, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257] {
        let bytes = |seed: usize| -> Bytes { (seed..seed + size).map(|at| at as u8).collect() };
        let call = Call {
            body: bytes(1),
            vec: bytes(2).into(),
            name: "n".repeat(size),
            bodies: vec![bytes(3), bytes(4), Bytes::new()],
            ..Call::default()
        };
        let wire = wire(std::slice::from_ref(&call));
        // The second counts the values, of which there are no more.
        for mut decoder in [
            ProstDecoder::<Call>::new(),
            ProstDecoder::new().max_values(13),
        ] {
            let decoded = decoder.decode(&mut Input::from_slice(&wire));
            let Ok(Decoded::Message(decoded)) = decoded else {
                panic!("with {size} bytes in a field: {decoded:?}");
            };
            assert_eq!(decoded, call);
            // A part of it outlives the rest.
            let part = decoded.bodies[1].slice(size / 2..);
            drop(decoded);
            assert_eq!(part, call.bodies[1][size / 2..]);
        }
    }
}
