//! Messages that are an `Any`: what of them the codec answers for, and what it leaves to who unpacks.

use prost::{Message, Name};
use prost_types::{Any, Timestamp};
use protosocket::{DecodeError, Decoded, Decoder, Input, SendBuffer};
use protosocket_prost::{ProstDecoder, ProstSerializer};

fn any(type_url: impl Into<String>, value: impl Into<Vec<u8>>) -> Any {
    Any {
        type_url: type_url.into(),
        value: value.into(),
    }
}

/// What comes of these, sent and received one behind the other.
fn through_the_codec(sent: &[Any]) -> Vec<Any> {
    let mut output = SendBuffer::new();
    for any in sent {
        let encoded = output.encode(&mut ProstSerializer::new(), any.clone());
        encoded.expect("there is no limit");
    }
    let mut input = Input::from_slice(output.contiguous());
    let mut decoder = ProstDecoder::new();
    let mut received = Vec::new();
    while !input.is_empty() {
        match decoder.decode(&mut input) {
            Ok(Decoded::Message(any)) => received.push(any),
            other => panic!("after {} messages: {other:?}", received.len()),
        }
    }
    received
}

#[test]
fn p4_whatever_url_and_value_it_has_an_any_arrives_as_it_was_sent() {
    let time = Timestamp {
        seconds: 1,
        nanos: 2,
    };
    let packed = Any::from_msg(&time).expect("a vector grows");
    let valid = packed.value.clone();
    let all = [
        any("", valid.clone()),
        any("u".repeat(1024 * 1024), valid.clone()),
        any("type.example.org/unknown.Type", valid.clone()),
        any(Timestamp::full_name(), valid.clone()),
        any("//\0\r\n\u{1b}[31m", valid),
        // No message of its type, and of no type.
        any(Timestamp::type_url(), [0xff; 20]),
        any(Timestamp::type_url(), [0x08]),
        any("", []),
        packed,
    ];
    let received = through_the_codec(&all);
    assert_eq!(received, all);
    // Who unpacks is told of each; the last is whole, whatever came before it.
    let unpacked = received.iter().map(Any::to_msg::<Timestamp>);
    let unpacked: Vec<bool> = unpacked.map(|result| result.is_ok()).collect();
    assert_eq!(unpacked.iter().rposition(|is_ok| !is_ok), Some(7));
    for wrong in [0, 1, 2, 5, 6] {
        assert!(!unpacked[wrong], "the message {wrong} became a timestamp");
    }
    assert_eq!(received[8].to_msg(), Ok(time));
}

#[test]
fn p4_a_url_that_is_not_utf8_is_refused() {
    let mut decoder = ProstDecoder::<Any>::new();
    let bytes = b"\x08\x0a\x04abc\xff\x12\x00";
    let error = decoder.decode(&mut Input::from_slice(bytes));
    let error = error.expect_err("it is malformed");
    assert_eq!(error.name(), "malformed");
    let text = error.to_string();
    assert!(
        text.ends_with("Any.type_url: invalid string value"),
        "{text}"
    );
}

#[test]
fn p4_a_url_above_max_length_is_refused_before_it_has_arrived() {
    let mut decoder = ProstDecoder::<Any>::new().max_length(1024 * 1024);
    let length = any("u".repeat(1024 * 1024), []).encoded_len();
    let mut bytes = Vec::new();
    prost::encode_length_delimiter(length, &mut bytes).expect("a vector grows");
    let error = decoder.decode(&mut Input::from_slice(&bytes));
    let error = error.expect_err("it is too large");
    assert!(
        matches!(error, DecodeError::TooLarge { size, limit: 0x10_0000 } if size == length as u64),
        "{error}"
    );
}

#[test]
fn p2_an_any_in_an_any_is_no_nesting() {
    // Each is the value of the next: a thousand levels for who unpacks them all.
    let mut outer = any("", []);
    for _ in 0..1000 {
        let value = outer.encode_to_vec();
        outer = any(Any::type_url(), value);
    }
    let sent = [outer];
    assert_eq!(through_the_codec(&sent), sent);
}
