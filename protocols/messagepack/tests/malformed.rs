//! Bytes that are no message: each is refused with words, at once, and however it is cut.

mod common;

use bytes::Bytes;
use common::{
    messages::{Call, Codec, Tree},
    sample, wire,
};
use protosocket::{DecodeError, Decoded, Decoder, Input};
use protosocket_messagepack::MessagePackDecoder;
use protosocket_testkit::{Torture, TraceEnd, corpus::Corpus};
use serde::de::DeserializeOwned;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<Decoded<T>, DecodeError> {
    MessagePackDecoder::new().decode(&mut Input::from_slice(bytes))
}

/// What people are told of these bytes.
fn refused<T: DeserializeOwned + std::fmt::Debug>(bytes: &[u8]) -> String {
    let error = decode::<T>(bytes).expect_err("it is malformed");
    assert_eq!(error.name(), "malformed", "{error}");
    error.to_string()
}

/// Bytes behind their length.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u32;
    [&[0xce][..], &length.to_be_bytes(), bytes].concat()
}

type TextCodec = (
    protosocket_messagepack::MessagePackSerializer<String>,
    MessagePackDecoder<String>,
);

#[expect(clippy::ptr_arg, reason = "a runner gives a reference to a message")]
fn describe(text: &String) -> Bytes {
    text.clone().into()
}

#[test]
fn the_corpus_against_a_decoder() {
    let corpus = Corpus::load_all(FOLDER, &["messagepack"]).unwrap();
    let report = corpus.run_decoder(|_| TextCodec::default(), describe);
    report.expect_all();
}

#[test]
fn the_corpus_against_a_client() {
    let corpus = Corpus::load_all(FOLDER, &["messagepack"]).unwrap();
    let report = corpus.run_codec_client(|_| TextCodec::default(), describe);
    report.expect_all();
}

#[test]
fn d9_no_length_overflows() {
    let all = u32::MAX as usize;
    for (bytes, total) in [
        (&b"\xce\xff\xff\xff\xffsome"[..], all + 5),
        (b"\xce\xff\xff\xff\xfbsome", all + 1),
        (b"\xce\xff\xff\xff\xfasome", all),
    ] {
        assert_eq!(decode::<String>(bytes).unwrap(), Decoded::Need(total));
    }
    let trace = Torture::new().run(b"\xce\xff\xff\xff\xff\xa0", TextCodec::default);
    assert_eq!(trace.end, TraceEnd::Failed("too_large"));
}

/// A frame is one message, and whatever its bytes say, the next one begins behind it.
#[test]
fn d9_the_length_is_the_end_of_the_message() {
    let next = framed(b"\xa4next");
    // The value ends before its frame does: the rest would become the next message.
    let bytes = [&framed(b"\xa2ok\xce\0\0\0\x03\xa2no")[..], &next].concat();
    let text = refused::<String>(&bytes);
    assert!(text.contains("8 bytes are left over"), "{text}");
    // It needs more than its frame has, and that is there: it would eat the next message.
    let bytes = [&framed(b"\xa8eats")[..], &next].concat();
    let text = refused::<String>(&bytes);
    assert!(text.contains("they end inside it"), "{text}");
    let bytes = [&framed(b"\x92\xa1a")[..], &next].concat();
    let text = refused::<Vec<String>>(&bytes);
    assert!(text.contains("they end inside it"), "{text}");

    let mut input = Input::from_slice(&bytes);
    let mut decoder = MessagePackDecoder::<Vec<String>>::new();
    assert!(decoder.decode(&mut input).is_err());
    assert_eq!(
        input.bytes(),
        bytes,
        "a message that was refused is not eaten"
    );
}

#[test]
fn a_length_is_always_a_number_of_32_bits() {
    for byte in (0..=0xff).filter(|&byte| byte != 0xce) {
        let text = refused::<String>(&[byte]);
        let came = format!("expected 0xce in front of the length of a message, got {byte:#04x}");
        assert!(text.contains(&came), "{text}");
    }
    let decoder = MessagePackDecoder::<String>::new;
    let trace = Torture::new().not_ended().run(b"\xce\0\0\0", decoder);
    assert_eq!(trace.end, TraceEnd::Waiting);
}

#[test]
fn a_message_of_no_bytes_is_none() {
    let text = refused::<Call>(&framed(b""));
    assert!(text.contains("in 0 bytes: they end inside it"), "{text}");
}

#[test]
fn p2_nesting_is_bounded_whatever_the_type_is() {
    let arrays = |depth| [vec![0x91; depth], vec![0xc0]].concat();
    for depth in [129, 100_000] {
        let text = refused::<serde::de::IgnoredAny>(&framed(&arrays(depth)));
        assert!(text.contains("deeper than 128 levels"), "{text}");
        assert!(text.contains("max_depth"), "{text}");
    }
    assert!(decode::<serde::de::IgnoredAny>(&framed(&arrays(128))).is_ok());
    // The deserializer does not count the levels of enums.
    let nodes = |depth| {
        let mut bytes = b"\x81\xa4Node".repeat(depth);
        bytes.extend_from_slice(b"\xa4Leaf");
        framed(&bytes)
    };
    assert!(decode::<Tree>(&nodes(128)).is_ok());
    for depth in [129, 100_000] {
        let text = refused::<Tree>(&nodes(depth));
        assert!(text.contains("deeper than 128 levels"), "{text}");
    }
}

#[test]
fn p5_values_that_cannot_be_are_refused() {
    for (bytes, says) in [
        (&b"\xc1"[..], "0xc1 begins no value"),
        (b"\x91\xc1", "0xc1 begins no value"),
        (b"\xa5abc", "they end inside it"),
        (b"\xd9", "they end inside it"),
        (
            b"\xdd\xff\xff\xff\xff\xc0",
            "announces 4294967295 values, and 1 bytes are left",
        ),
        (
            b"\xdf\xff\xff\xff\xff\xc0",
            "announces 8589934590 values, and 1 bytes are left",
        ),
        (b"\xa2\xff\xfe", "not UTF-8"),
        (b"\x07", "invalid type"),
        (b"\xc0", "invalid type"),
    ] {
        let text = refused::<String>(&framed(bytes));
        assert!(text.contains(says), "of {bytes:02x?}: {text}");
        assert!(
            text.contains(&format!("in {} bytes", bytes.len())),
            "{text}"
        );
    }
    // A struct with a field too few, and one too many.
    let text = refused::<(u8, u8)>(&framed(b"\x91\x01"));
    assert!(
        text.contains("(u8, u8)") && text.contains("length"),
        "{text}"
    );
    let text = refused::<(u8, u8)>(&framed(b"\x93\x01\x02\x03"));
    assert!(text.contains("length"), "{text}");
}

/// A type that quotes what it does not like, as `serde` lets it.
#[derive(Debug, PartialEq)]
struct Even(u64);

impl<'de> serde::Deserialize<'de> for Even {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Err(serde::de::Error::custom(format!("unknown {text}")))
    }
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    number: u8,
}

#[test]
fn of_what_the_peer_sent_nothing_is_quoted() {
    const SECRET: &str = "password=hunter2";
    let text = [&[0xa0 | SECRET.len() as u8], SECRET.as_bytes()].concat();
    let one = |key: &[u8], value: &[u8]| framed(&[&[0x81], key, value].concat());
    let number = b"\xcd\xfe\xdc";
    for (said, kind) in [
        (refused::<Tree>(&framed(&text)), "unknown variant"),
        (refused::<Tree>(&one(&text, b"\xc0")), "unknown variant"),
        (refused::<Named>(&one(&text, b"\x01")), "unknown field"),
        (refused::<Named>(&framed(b"\x80")), "missing field"),
        (
            refused::<Named>(&framed(b"\x82\xa6number\x01\xa6number\x02")),
            "duplicate field",
        ),
        (refused::<String>(&framed(number)), "invalid type"),
        (refused::<u8>(&framed(&text)), "a value of another type"),
        (refused::<char>(&framed(&text)), "invalid value"),
        (refused::<u8>(&framed(number)), "invalid value"),
        (refused::<(u8, u8)>(&framed(b"\x91\x2a")), "invalid length"),
        (
            refused::<(u8, u8)>(&framed(b"\x93\x2a\x2a\x2a")),
            "an array, map or extension of another length",
        ),
        (refused::<bool>(&framed(b"\x2a")), "invalid type"),
        (
            refused::<String>(&framed(b"\xa3hi\xff")),
            "a text that is not UTF-8",
        ),
        (refused::<Even>(&framed(&text)), "refused by the type"),
    ] {
        assert!(said.ends_with(kind), "{said}");
        for quoted in ["hunter2", "pass", "hi", "65244", "fedc", "Str(", "42", "ff"] {
            assert!(!said.contains(quoted), "{quoted} is quoted: {said}");
        }
    }
    // Neither is it in what the error shows to programs.
    let error = decode::<Tree>(&framed(&text)).unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    let said = refused::<u8>(&framed(&text));
    assert!(said.contains("expected u8 in 17 bytes"), "{said}");
}

#[test]
fn p5_every_truncation_is_one() {
    let bytes = wire(&[sample()]);
    for at in 1..bytes.len() {
        let trace = Torture::new().run(&bytes[..at], Codec::default);
        assert_eq!(trace.messages, []);
        assert_eq!(trace.end, TraceEnd::Failed("truncated"), "at {at}");
    }
    // The same with a length that was cut with it.
    let whole = &bytes[5..];
    for at in 0..whole.len() {
        let trace = Torture::new()
            .rounds(4)
            .run(&framed(&whole[..at]), Codec::default);
        assert_eq!(trace.end, TraceEnd::Failed("malformed"), "at {at}");
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_a_message_and_never_the_decoders_fault() {
    let bytes = wire(&[sample(), Call::default()]);
    let mut ends = [0; 4];
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let trace = Torture::new().rounds(4).run(&flipped, Codec::default);
        let end = match trace.end {
            TraceEnd::Complete => 0,
            TraceEnd::Failed("malformed") => 1,
            TraceEnd::Failed("truncated") => 2,
            TraceEnd::Failed("too_large") => 3,
            end => panic!("with bit {bit} flipped it ended with {end:?}"),
        };
        ends[end] += 1;
    }
    assert!(ends.iter().all(|&count| count > 0), "{ends:?}");
}
