//! Each limit is reached, and enforced.

mod common;

use common::{
    messages::{Call, Codec, Note},
    sample, wire,
};
use protosocket::{
    DecodeError, Decoded, Decoder, EncodeError, Input, PooledEncoder, SendBuffer, Serialize,
};
use protosocket_prost::{ProstDecoder, ProstSerializer};

/// A call of which protobuf makes `length` bytes.
fn call_of(length: usize) -> Call {
    let call = Call {
        vec: vec![7; length - 3],
        ..Call::default()
    };
    // The key, and a length of two bytes.
    assert_eq!(prost::Message::encoded_len(&call), length);
    call
}

#[test]
fn a_message_above_max_length_is_not_encoded_and_leaves_no_bytes() {
    for limit in [200, 16_383] {
        let mut serializer = ProstSerializer::new().max_length(limit);
        let mut output = SendBuffer::new();
        output.encode(&mut serializer, call_of(limit)).unwrap();
        let one = output.unsent_bytes();
        let error = output.encode(&mut serializer, call_of(limit + 1));
        assert!(
            matches!(error, Err(EncodeError::TooLarge { size, limit: of })
                if size == limit as u64 + 1 && of == limit as u64),
            "{error:?}"
        );
        assert_eq!((output.unsent_bytes(), output.unsent_messages()), (one, 1));
        output.encode(&mut serializer, call_of(limit)).unwrap();
        let (first, second) = output.contiguous().split_at(one);
        assert_eq!(first, second);
    }
}

#[test]
fn a_serializer_takes_back_what_it_wrote_itself() {
    let mut buffer = b"earlier".to_vec();
    let mut serializer = ProstSerializer::new().max_length(10);
    let result = serializer.serialize_into_buffer(sample(), &mut buffer);
    assert!(matches!(
        result,
        Err(EncodeError::TooLarge { limit: 10, .. })
    ));
    assert_eq!(buffer, b"earlier");
}

#[test]
fn a_buffer_per_message_is_possible_as_well() {
    let mut output = SendBuffer::new();
    let mut encoder = PooledEncoder::new(ProstSerializer::new());
    output.encode(&mut encoder, sample()).unwrap();
    assert_eq!(output.contiguous()[..], wire(&[sample()]));
}

#[test]
fn a_message_above_max_length_is_refused_before_it_has_arrived() {
    let decoder = || {
        (
            ProstSerializer::<Call>::new(),
            ProstDecoder::new().max_length(200),
        )
    };
    let bytes = wire(&[call_of(200)]);
    let decoded = decoder().decode(&mut Input::from_slice(&bytes)).unwrap();
    assert_eq!(decoded, Decoded::Message(call_of(200)));
    let error = decoder().decode(&mut Input::from_slice(&wire(&[call_of(201)])[..2]));
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
fn limits_above_protobufs_own_are_protobufs_own() {
    let mut decoder = ProstDecoder::<Call>::new().max_length(usize::MAX);
    let error = decoder.decode(&mut Input::from_slice(b"\x80\x80\x80\x80\x08"));
    assert!(
        matches!(
            error,
            Err(DecodeError::TooLarge {
                limit: 0x7fff_ffff,
                ..
            })
        ),
        "{error:?}"
    );
}

/// What a decoder makes of this call with so many values at the most: those in the message below
/// are borrowed, those in one of 16 KiB are shared.
fn with_values(call: &Call, count: usize) -> Result<Decoded<Call>, DecodeError> {
    let mut decoder = ProstDecoder::new().max_values(count);
    decoder.decode(&mut Input::from_slice(&wire(std::slice::from_ref(call))))
}

#[test]
fn a_message_of_more_than_max_values_is_refused() {
    let notes = |count| Call {
        notes: vec![Note::default(); count],
        ..Call::default()
    };
    // A number in a field of its own, one that is packed, a text, and a nested message.
    let one_number = Call {
        id: 5,
        ..Call::default()
    };
    let packed = Call {
        numbers: vec![1 << 40; 10],
        ..Call::default()
    };
    let text = Call {
        name: "name".into(),
        ..Call::default()
    };
    for (call, values) in [
        (one_number, 2),
        (packed, 2 + 10),
        (text, 2 + 1),
        (notes(10), 2 * 10),
        (notes(10_000), 2 * 10_000),
    ] {
        let decoded = with_values(&call, values).expect("it is within the limit");
        assert_eq!(decoded, Decoded::Message(call.clone()));
        for limit in [values - 1, values / 2, 0] {
            let error = with_values(&call, limit).expect_err("it is above the limit");
            assert_eq!(error.name(), "malformed");
            let text = error.to_string();
            assert!(
                text.contains(&format!("than {limit}, the limit (max_values)")),
                "{text}"
            );
        }
    }
}

/// What may hold the most values is counted from where it may hold too many: three in two bytes.
#[test]
fn values_that_take_no_byte_count_too() {
    let parts: [(&[u8], usize); 6] = [
        (b"\x78\x00", 3),         // an unknown number
        (b"\x7a\x00", 3),         // unknown and empty
        (b"\x7b\x7c", 3),         // an unknown group
        (b"\x7b\x7b\x7c\x7c", 6), // and one in it
        (b"\x1a\x00", 2),         // bytes
        (b"\x22\x00", 2),         // a text
    ];
    for (part, values) in parts {
        for times in 1..=20 {
            let mut frame = vec![(part.len() * times) as u8];
            frame.extend(part.repeat(times));
            for limit in 0..=5 * part.len() * times / 2 {
                let mut decoder = ProstDecoder::<Call>::new().max_values(limit);
                let decoded = decoder.decode(&mut Input::from_slice(&frame));
                let is_within = values * times <= limit;
                assert_eq!(
                    decoded.is_ok(),
                    is_within,
                    "{times} times {part:02x?}, of which {limit} values may be: {decoded:?}"
                );
            }
        }
    }
}

#[test]
fn whatever_value_is_the_last_nothing_panics() {
    let mut call = sample();
    call.body = vec![7; 20_000].into();
    for call in [sample(), call] {
        let values = (0..1000).find(|&count| with_values(&call, count).is_ok());
        let values = values.expect("it has less than a thousand");
        for limit in 0..values {
            let error = with_values(&call, limit).expect_err("it is above the limit");
            assert!(error.to_string().contains("max_values"), "{error}");
        }
    }
    // A varint that is cut at the end of its message is read byte by byte.
    for limit in 0..8 {
        let mut decoder = ProstDecoder::<Call>::new().max_values(limit);
        let result = decoder.decode(&mut Input::from_slice(b"\x04\x08\xff\xff\xff"));
        assert!(
            matches!(result, Err(DecodeError::Malformed(_))),
            "{result:?}"
        );
    }
}

#[test]
fn nothing_that_a_client_of_2_0_2_takes_has_too_many_values_by_default() {
    let numbers = vec![1; 4 * 1024 * 1024 - 6];
    let call = Call {
        numbers,
        ..Call::default()
    };
    let bytes = wire(std::slice::from_ref(&call));
    assert_eq!(bytes.len(), 4 * 1024 * 1024 + 3);
    let decoded = Codec::default().decode(&mut Input::from_slice(&bytes));
    assert_eq!(decoded.unwrap(), Decoded::Message(call));
}
