//! What is on the wire, byte by byte, and back.

mod common;

use bytes::Bytes;
use common::{
    messages::{Call, Codec, Note},
    sample, wire,
};
use protosocket::{Decoded, Decoder, Input, SendBuffer};
use protosocket_messagepack::{ClientCodec, ServerCodec};
use protosocket_testkit::{Torture, TraceEnd};

#[test]
fn a_message_is_its_length_and_then_messagepack() {
    // The array of nine fields: numbers, bytes, a text, a variant, two lists, a map, and nil.
    let empty = b"\xce\0\0\0\x0f\x99\0\0\xc4\0\xa0\xa4Leaf\x90\x90\x80\xc0";
    assert_eq!(wire(&[Call::default()]), empty);

    let call = Call {
        id: 300,
        code: -1,
        body: "ab".into(),
        notes: vec![Note(None), Note(Some(5))],
        numbers: vec![1, 200],
        ..Call::default()
    };
    let bytes = b"\xce\0\0\0\x18\x99\xcd\x01\x2c\xff\xc4\x02ab\xa0\xa4Leaf\x92\xc0\x05\x92\x01\xcc\xc8\x80\xc0";
    assert_eq!(wire(&[call.clone(), call]), [&bytes[..], bytes].concat());
}

#[test]
fn the_length_has_four_bytes_big_endian() {
    let call = Call {
        body: vec![7; 70_000].into(),
        ..Call::default()
    };
    let bytes = wire(&[call]);
    let length = bytes.len() as u32 - 5;
    assert_eq!(bytes[..5], [&[0xce][..], &length.to_be_bytes()].concat());
    assert_eq!(bytes[1..3], [0, 1]);
}

#[test]
fn messages_are_the_same_however_the_network_cuts_them() {
    let large = Call {
        body: vec![1; 20_000].into(),
        numbers: vec![2; 5000],
        inner: Some(Box::new(sample())),
        ..Call::default()
    };
    let calls = [sample(), Call::default(), sample(), large];
    let trace = Torture::new().run(&wire(&calls), Codec::default);
    assert_eq!(trace.messages, calls);
    assert_eq!(trace.end, TraceEnd::Complete);
}

#[test]
fn requests_and_responses_are_types_of_their_own() {
    let mut client = ClientCodec::<(u8, String), Vec<u16>>::default();
    let mut server = ServerCodec::<(u8, String), Vec<u16>>::default();
    let mut output = SendBuffer::new();
    output.encode(&mut client, (7, "seven".into())).unwrap();
    let request = server.decode(&mut Input::from_slice(output.contiguous()));
    assert_eq!(request.unwrap(), Decoded::Message((7, "seven".into())));
    let mut output = SendBuffer::new();
    output.encode(&mut server, vec![7, 700]).unwrap();
    let response = client.decode(&mut Input::from_slice(output.contiguous()));
    assert_eq!(response.unwrap(), Decoded::Message(vec![7, 700]));
}

#[test]
fn numbers_texts_and_bytes_of_every_size_come_back() {
    for size in [0, 1, 31, 32, 255, 256, 65_535, 65_536] {
        let call = Call {
            id: u64::MAX >> (size % 64),
            code: i32::MIN >> (size % 32),
            body: Bytes::from(vec![1; size]),
            name: "x".repeat(size),
            notes: vec![Note(Some(7)); size.min(300)],
            numbers: vec![200; size],
            counts: (0..size.min(300) as u32)
                .map(|count| (count.to_string(), count))
                .collect(),
            ..Call::default()
        };
        let bytes = wire(std::slice::from_ref(&call));
        let decoded = Codec::default().decode(&mut Input::from_slice(&bytes));
        assert_eq!(decoded.unwrap(), Decoded::Message(call));
    }
}
