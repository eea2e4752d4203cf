//! Bytes that are no message: each is refused with words, at once, and however it is cut.

mod common;

use common::{
    messages::{Call, Codec},
    sample, wire,
};
use protosocket::{DecodeError, Decoded, Decoder, Input};
use protosocket_prost::ProstDecoder;
use protosocket_testkit::{Torture, TraceEnd, corpus::Corpus, for_each_seed};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

fn decode(bytes: &[u8]) -> Result<Decoded<Call>, DecodeError> {
    Codec::default().decode(&mut Input::from_slice(bytes))
}

/// Bytes behind a varint of their length.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    prost::encode_length_delimiter(bytes.len(), &mut frame).expect("a vector grows");
    frame.extend_from_slice(bytes);
    frame
}

/// What people are told of these bytes.
fn refused(bytes: &[u8]) -> String {
    let error = decode(bytes).expect_err("it is malformed");
    assert_eq!(error.name(), "malformed", "{error}");
    error.to_string()
}

fn describe(call: &Call) -> bytes::Bytes {
    call.body.clone()
}

#[test]
fn the_corpus_against_a_decoder() {
    let corpus = Corpus::load_all(FOLDER, &["prost"]).unwrap();
    let report = corpus.run_decoder(|_| Codec::default(), describe);
    report.expect_all();
}

#[test]
fn the_corpus_against_a_client() {
    let corpus = Corpus::load_all(FOLDER, &["prost"]).unwrap();
    let report = corpus.run_codec_client(|_| Codec::default(), describe);
    report.expect_all();
}

#[test]
fn d3_a_malformed_varint_is_refused_by_its_tenth_byte() {
    let ones = [0xff; 11];
    for size in 0..10 {
        let need = Decoded::Need(size + 1);
        assert_eq!(decode(&ones[..size]).unwrap(), need);
    }
    for size in [10, 11] {
        let text = refused(&ones[..size]);
        assert!(text.contains("varint"), "{text}");
    }
    let trace = Torture::new().run(&[0xff; 4096], Codec::default);
    assert_eq!(trace.end, TraceEnd::Failed("malformed"));
}

#[test]
fn d9b_no_length_overflows() {
    // 2^64 - 1, 2^63 - 1, 2^32 + 1, and 2^31, one more than protobuf takes.
    for length in [u64::MAX, i64::MAX as u64, (1 << 32) + 1, 1 << 31] {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(length, &mut bytes);
        bytes.extend_from_slice(b"some");
        let error = decode(&bytes).expect_err("it is too large");
        assert!(
            matches!(error, DecodeError::TooLarge { size, limit: 0x7fff_ffff } if size == length),
            "{error}"
        );
    }
    // The largest that is taken is not there, which is no error yet.
    let decoded = decode(b"\xff\xff\xff\xff\x07some").unwrap();
    assert_eq!(decoded, Decoded::Need(5 + 0x7fff_ffff));
}

#[test]
fn p2_nesting_is_bounded() {
    let nest = |key: u8, depth: usize| {
        let mut bytes = Vec::new();
        for _ in 0..depth {
            let mut outer = vec![key];
            outer.extend(framed(&bytes));
            bytes = outer;
        }
        framed(&bytes)
    };
    // The key of `inner`, whose type is the message's own.
    assert!(decode(&nest(0x2a, 100)).is_ok());
    for depth in [101, 1000] {
        let text = refused(&nest(0x2a, depth));
        assert!(text.contains("100 levels"), "{text}");
        assert!(text.contains("recursion limit"), "{text}");
    }
    // An unknown field is not looked into, and an unknown group is.
    assert!(decode(&nest(0x7a, 1000)).is_ok());
    let groups = |depth| [vec![0x7b; depth], vec![0x7c; depth]].concat();
    assert!(decode(&framed(&groups(100))).is_ok());
    for depth in [101, 100_000] {
        let text = refused(&framed(&groups(depth)));
        assert!(text.contains("recursion limit"), "{text}");
        let text = refused(&framed(&vec![0x7b; depth]));
        assert!(text.contains("recursion limit"), "{text}");
    }
}

#[test]
fn p5_fields_that_cannot_be_are_refused() {
    for (bytes, says) in [
        (&b"\x00\x01"[..], "tag"),              // field number 0
        (b"\x0e\x01", "wire type"),             // wire type 6
        (b"\x0f\x01", "wire type"),             // wire type 7
        (b"\x09\x01\x02", "wire type"),         // not the one of this field
        (b"\x1a\x05abc", "underflow"),          // bytes that are cut
        (b"\x1a", "varint"),                    // a length that is cut
        (b"\x08\xff", "varint"),                // a number that is cut
        (b"\x22\x02\xff\xfe", "string"),        // a text that is none
        (b"\x2a\x02\x08\xff", "varint"),        // cut in a nested message
        (b"\x2a\x02\x22\x05abcde", "exceeded"), // longer than the message around it
        (b"\x3a\x01\x80", "varint"),            // packed numbers
        (b"\x7c", "end group"),                 // a group that never began
        (b"\x7b\x08\x01", "varint"),            // one that never ends
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "varint"),
        (b"\xff\xff\xff\xff\x7f\x01", "key"), // a key of more than 32 bits
    ] {
        let text = refused(&framed(bytes));
        assert!(text.contains(says), "of {bytes:02x?}: {text}");
        assert!(text.contains(&format!("{} bytes", bytes.len())), "{text}");
    }
}

/// A message whose type quotes what it does not like, in the words of prost and in its own.
#[derive(Debug, Default, PartialEq)]
struct Picky;

impl prost::Message for Picky {
    fn encode_raw(&self, _: &mut impl bytes::BufMut) {}

    fn merge_field(
        &mut self,
        _: u32,
        wire_type: prost::encoding::WireType,
        buffer: &mut impl bytes::Buf,
        context: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        let mut text = String::new();
        prost::encoding::string::merge(wire_type, &mut text, buffer, context)?;
        Err(prost::DecodeError::new_unexpected_type_url(text, "another"))
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {}
}

#[test]
fn of_what_the_peer_sent_nothing_is_quoted() {
    let mut picky = ProstDecoder::<Picky>::new();
    let bytes = framed(b"\x0a\x10password=hunter2");
    let error = picky.decode(&mut Input::from_slice(&bytes)).unwrap_err();
    for said in [error.to_string(), format!("{error:?}")] {
        assert!(said.contains("18 bytes"), "{said}");
        assert!(said.contains("refused by the type"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    // A key that is none can be eight bytes of a text.
    let text = refused(&framed(b"\xf0\xe1\xf3\xf3\xf7\xef\x72\x64"));
    assert!(text.ends_with("invalid key value"), "{text}");
    // The field is named, for it is the type's own.
    let text = refused(&framed(b"\x2a\x04\x22\x02\xff\xfe"));
    assert!(
        text.ends_with("Call.name: Call.inner: invalid string value"),
        "{text}"
    );
}

#[test]
fn unknown_fields_are_skipped() {
    let call = sample();
    let mut bytes = prost::Message::encode_to_vec(&call);
    // Of each wire type, under the number 15.
    bytes.extend(b"\x78\x01\x79\x01\x02\x03\x04\x05\x06\x07\x08\x7a\x02ab\x7b\x08\x01\x7c\x7d\x01\x02\x03\x04");
    let decoded = decode(&framed(&bytes)).unwrap();
    assert_eq!(decoded, Decoded::Message(call));
}

/// A frame is one message, and whatever its bytes say, the next one begins behind it.
#[test]
fn what_a_message_says_inside_takes_nothing_from_the_next() {
    let next = wire(&[sample()]);
    // It announces more than its frame has, and that is there.
    let text = refused(&[&framed(b"\x1a\x05ab")[..], &next].concat());
    assert!(text.contains("underflow"), "{text}");
    let text = refused(&[&framed(b"\x08\x80")[..], b"\x01", &next].concat());
    assert!(text.contains("varint"), "{text}");
}

#[test]
fn p5_every_truncation_is_one() {
    let bytes = wire(&[sample()]);
    for at in 1..bytes.len() {
        let trace = Torture::new().run(&bytes[..at], Codec::default);
        assert_eq!(trace.messages, []);
        assert_eq!(trace.end, TraceEnd::Failed("truncated"), "at {at}");
    }
    // The same with a length that was cut with it: protobuf may end between any two fields.
    let whole = prost::Message::encode_to_vec(&sample());
    let mut refused = 0;
    for at in 0..whole.len() {
        let trace = Torture::new()
            .rounds(4)
            .run(&framed(&whole[..at]), Codec::default);
        match trace.end {
            TraceEnd::Complete => assert_ne!(trace.messages, [sample()], "at {at}"),
            TraceEnd::Failed("malformed") => refused += 1,
            end => panic!("cut at {at}, it ended with {end:?}"),
        }
    }
    assert!(refused > whole.len() / 2, "{refused} of {}", whole.len());
}

/// What is made of a message of these bytes when its values need not be counted, and when they are.
fn both_ways(bytes: &[u8]) -> [Result<Decoded<Call>, String>; 2] {
    // As few values as are not counted, and one less, which is more than there are in any message
    // but an empty one.
    let plainly = 2 * bytes.len();
    [plainly, plainly.saturating_sub(1)].map(|count| {
        let mut decoder = ProstDecoder::new().max_values(count);
        let decoded = decoder.decode(&mut Input::from_slice(&framed(bytes)));
        decoded.map_err(|error| error.to_string())
    })
}

#[test]
fn a_message_is_the_same_whether_its_values_are_counted_or_not() {
    let bytes = prost::Message::encode_to_vec(&sample());
    let same = |bytes: &[u8]| {
        let [plainly, counted] = both_ways(bytes);
        assert_eq!(plainly, counted, "of {bytes:02x?}");
        plainly.is_ok()
    };
    assert!(same(&bytes));
    let mut wrong = 0;
    for at in 0..bytes.len() {
        wrong += usize::from(!same(&bytes[..at]));
        wrong += usize::from(!same(&bytes[at..]));
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            wrong += usize::from(!same(&flipped));
            wrong += usize::from(!same(&flipped[..at + 1]));
        }
    }
    assert!(wrong > bytes.len(), "{wrong} of {} were wrong", bytes.len());
    for_each_seed(0..2000, |random| {
        let length = random.below_one_of(&[3, 12, 60]);
        same(&random.bytes(length));
    });
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
    let [complete, malformed, truncated, too_large] = ends;
    assert!(complete > 0 && malformed > 0 && truncated > 0, "{ends:?}");
    assert_eq!(
        too_large, 0,
        "one flipped bit makes no varint of four bytes"
    );
}
