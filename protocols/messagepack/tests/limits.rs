//! Each limit is reached, and enforced.

mod common;

use bytes::Bytes;
use common::{
    messages::{Call, Codec, Note},
    sample, wire,
};
use protosocket::{
    DecodeError, Decoded, Decoder, EncodeError, Input, PooledEncoder, SendBuffer, Serialize,
};
use protosocket_messagepack::{MessagePackDecoder, MessagePackSerializer};

/// Bytes of which MessagePack makes `length` bytes.
fn bytes_of(length: usize) -> Bytes {
    vec![7; length - 2].into()
}

#[test]
fn a_message_above_max_length_is_not_encoded_and_leaves_no_bytes() {
    let mut serializer = MessagePackSerializer::new().max_length(200);
    let mut output = SendBuffer::new();
    output.encode(&mut serializer, bytes_of(200)).unwrap();
    let error = output.encode(&mut serializer, bytes_of(201));
    assert!(
        matches!(
            error,
            Err(EncodeError::TooLarge {
                size: 201,
                limit: 200
            })
        ),
        "{error:?}"
    );
    assert_eq!((output.unsent_bytes(), output.unsent_messages()), (205, 1));
    output.encode(&mut serializer, bytes_of(200)).unwrap();
    let (first, second) = output.contiguous().split_at(205);
    assert_eq!(first, second);
}

#[test]
fn a_serializer_takes_back_what_it_wrote_itself() {
    let mut buffer = b"earlier".to_vec();
    let mut serializer = MessagePackSerializer::new().max_length(10);
    let result = serializer.serialize_into_buffer(sample(), &mut buffer);
    assert!(matches!(
        result,
        Err(EncodeError::TooLarge { limit: 10, .. })
    ));
    assert_eq!(buffer, b"earlier");
}

#[test]
fn a_message_that_refuses_to_be_serialized_leaves_no_bytes() {
    struct Secret;
    impl serde::Serialize for Secret {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut list = serializer.serialize_seq(Some(2))?;
            serde::ser::SerializeSeq::serialize_element(&mut list, "half of it")?;
            Err(serde::ser::Error::custom("the rest is a secret"))
        }
    }
    let mut output = SendBuffer::new();
    output
        .encode(&mut MessagePackSerializer::new(), 7_u8)
        .unwrap();
    let error = output.encode(&mut MessagePackSerializer::new(), Secret);
    let error = error.expect_err("it refuses");
    assert!(
        error.to_string().contains("the rest is a secret"),
        "{error}"
    );
    assert_eq!(output.contiguous(), b"\xce\0\0\0\x01\x07");
}

#[test]
fn a_buffer_per_message_is_possible_as_well() {
    let mut output = SendBuffer::new();
    let mut encoder = PooledEncoder::new(MessagePackSerializer::new());
    output.encode(&mut encoder, sample()).unwrap();
    assert_eq!(output.contiguous()[..], wire(&[sample()]));
}

#[test]
fn a_message_above_max_length_is_refused_before_it_has_arrived() {
    let mut decoder = MessagePackDecoder::<Bytes>::new().max_length(200);
    let mut output = SendBuffer::new();
    let mut serializer = MessagePackSerializer::new();
    output.encode(&mut serializer, bytes_of(200)).unwrap();
    let decoded = decoder.decode(&mut Input::from_slice(output.contiguous()));
    assert_eq!(decoded.unwrap(), Decoded::Message(bytes_of(200)));
    let error = decoder.decode(&mut Input::from_slice(b"\xce\0\0\0\xc9"));
    let error = error.expect_err("it is too large");
    assert!(
        matches!(
            error,
            DecodeError::TooLarge {
                size: 201,
                limit: 200
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("max_length"), "{error}");
}

#[test]
fn a_message_deeper_than_max_depth_is_refused() {
    let arrays = |depth: usize| {
        let bytes = [vec![0x91; depth], vec![0xc0]].concat();
        let length = bytes.len() as u32;
        [&[0xce][..], &length.to_be_bytes(), &bytes].concat()
    };
    let decode = |levels: u16, depth: usize| {
        let mut decoder = MessagePackDecoder::<serde::de::IgnoredAny>::new().max_depth(levels);
        decoder.decode(&mut Input::from_slice(&arrays(depth)))
    };
    // What is above 500 is 500.
    for (levels, most) in [(0, 0), (1, 1), (400, 400), (500, 500), (u16::MAX, 500)] {
        assert!(decode(levels, most).is_ok(), "{levels} levels");
        let error = decode(levels, most + 1).expect_err("it is too deep");
        let says = format!("deeper than {most} levels, the limit (max_depth)");
        assert!(error.to_string().contains(&says), "{error}");
    }
}

#[test]
fn a_message_of_more_than_max_values_is_refused() {
    let call = Call {
        notes: vec![Note(None); 1000],
        ..Call::default()
    };
    // The array, its nine fields, and the notes.
    let values = 1 + 9 + 1000;
    let bytes = wire(std::slice::from_ref(&call));
    let decode = |count| {
        let mut decoder = MessagePackDecoder::<Call>::new().max_values(count);
        decoder.decode(&mut Input::from_slice(&bytes))
    };
    assert_eq!(decode(values).unwrap(), Decoded::Message(call.clone()));
    for limit in [values - 1, 10, 1, 0] {
        let error = decode(limit).expect_err("it is above the limit");
        let says = format!("more than {limit} values, the limit (max_values)");
        assert!(error.to_string().contains(&says), "{error}");
    }
}

#[test]
fn nothing_that_a_client_of_2_0_2_takes_has_too_many_values_by_default() {
    let call = Call {
        numbers: vec![1; 4 * 1024 * 1024 - 24],
        ..Call::default()
    };
    let bytes = wire(std::slice::from_ref(&call));
    assert_eq!(bytes.len(), 4 * 1024 * 1024);
    let decoded = Codec::default().decode(&mut Input::from_slice(&bytes));
    assert_eq!(decoded.unwrap(), Decoded::Message(call));
}
