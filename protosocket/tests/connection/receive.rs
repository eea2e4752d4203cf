//! Whatever the sizes of messages and reads: the same messages come out.

use std::io::IoSlice;

use bytes::{Bytes, BytesMut};
use protosocket::{
    Codec, DecodeError, Decoded, Decoder, Encoder, Input, LengthDelimitedCodec, Limits, LinesCodec,
    SendBuffer, TokioCodec, Varint,
};

use protosocket_testkit::{
    Inbound, Outbound, Random, Raw, Setup, for_each_seed, frame, framed, silent,
};

/// What `messages` are on the wire.
fn wire<C: Encoder>(mut codec: C, messages: impl IntoIterator<Item = C::Message>) -> Vec<u8> {
    let mut buffer = SendBuffer::new();
    for message in messages {
        buffer
            .encode(&mut codec, message)
            .expect("it can be encoded");
    }
    let mut bytes = Vec::new();
    while !buffer.is_empty() {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = buffer.io_slices(&mut slices);
        let start = bytes.len();
        for slice in &slices[..filled] {
            bytes.extend_from_slice(slice);
        }
        buffer.advance(bytes.len() - start);
    }
    bytes
}

/// Payloads of every order of size.
fn payloads(random: &mut Random, count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|_| {
            let size = random.below_one_of(&[1, 16, 300, 5_000, 20_000, 70_000, 300_000]);
            let first = random.next();
            // Text without line feeds, which is good for every codec.
            (0..size as u64)
                .map(|at| b'a' + ((first + at) % 26) as u8)
                .collect()
        })
        .collect()
}

/// Feed `bytes` in random pieces, with pauses, and expect `messages`.
fn receives<C>(random: &mut Random, codec: C, bytes: &[u8], messages: &[Inbound<C>])
where
    C: Codec + 'static,
    Inbound<C>: Clone + PartialEq,
{
    let mut server = Setup::limits(Limits::server()).open(codec, silent());
    let mut left = bytes;
    while !left.is_empty() {
        let pieces: &[usize] = match left.len() {
            ..50_000 => &[4, 1_500, 20_000],
            _ => &[1_500, 20_000, 200_000],
        };
        let piece = (1 + random.below_one_of(pieces)).min(left.len());
        server
            .peer
            .set_max_read(1 + random.below_one_of(&[piece, 100_000]));
        server.peer.send(&left[..piece]);
        left = &left[piece..];
        match random.below(8) {
            0 => server.knobs.set_ready(false),
            1 | 2 => server.knobs.set_ready(true),
            3 => continue,
            _ => {}
        }
        server.settle();
    }
    server.knobs.set_ready(true);
    server.peer.end();
    server.drop_sender();
    let end = server.finish();
    assert_eq!(end.reason.name(), "end_of_input");
    assert_eq!(end.stats.bytes_in, bytes.len() as u64);
    let received = &server.knobs.lock().received;
    assert_eq!(received.len(), messages.len());
    for (index, (received, sent)) in received.iter().zip(messages).enumerate() {
        assert!(received == sent, "message {index} is another");
    }
}

fn tokio_codec() -> TokioCodec<tokio_util::codec::LengthDelimitedCodec, Bytes> {
    TokioCodec::new(tokio_util::codec::LengthDelimitedCodec::new())
}

fn lines_codec() -> LinesCodec {
    LinesCodec::new().max_length(400_000)
}

fn texts(payloads: &[Vec<u8>]) -> Vec<String> {
    let texts = payloads.iter().cloned().map(String::from_utf8);
    texts.map(|text| text.expect("made of letters")).collect()
}

#[test]
fn messages_of_any_size_survive_reads_of_any_size() {
    for_each_seed(0..24, |random| {
        let payloads = payloads(random, 40);
        let messages: Vec<Bytes> = payloads.iter().cloned().map(Bytes::from).collect();

        let bytes = wire(framed(), messages.clone());
        receives(random, framed(), &bytes, &messages);

        let varint = LengthDelimitedCodec::<Varint>::new;
        let bytes = wire(varint(), messages.clone());
        receives(random, varint(), &bytes, &messages);

        let bytes = wire(tokio_codec(), messages.clone());
        let buffers: Vec<_> = payloads
            .iter()
            .map(|payload| BytesMut::from(&payload[..]))
            .collect();
        receives(random, tokio_codec(), &bytes, &buffers);

        let texts = texts(&payloads);
        let bytes = wire(lines_codec(), texts.clone());
        receives(random, lines_codec(), &bytes, &texts);
    });
}

/// Feed `bytes` cut at every two places.
fn survives_every_split<C>(codec: fn() -> C, bytes: &[u8], messages: &[Inbound<C>])
where
    C: Codec + 'static,
    Inbound<C>: Clone + PartialEq + std::fmt::Debug,
    Outbound<C>: 'static,
{
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let mut server = Setup::default().open(codec(), silent());
            for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                if !part.is_empty() {
                    server.peer.send(part);
                    server.settle();
                }
            }
            server.peer.end();
            server.drop_sender();
            assert_eq!(server.reason(), "end_of_input", "cut at {first}, {second}");
            assert_eq!(
                server.knobs.lock().received,
                messages,
                "cut at {first}, {second}"
            );
        }
    }
}

#[test]
fn small_messages_survive_every_split() {
    let payloads: Vec<Vec<u8>> = [&b""[..], b"a", b"hello", b"", b"what is sent"]
        .map(Vec::from)
        .into();
    let messages: Vec<Bytes> = payloads.iter().cloned().map(Bytes::from).collect();
    let buffers: Vec<_> = payloads
        .iter()
        .map(|payload| BytesMut::from(&payload[..]))
        .collect();
    let texts = texts(&payloads);
    let varint = LengthDelimitedCodec::<Varint>::new;
    survives_every_split(framed, &wire(framed(), messages.clone()), &messages);
    survives_every_split(varint, &wire(varint(), messages.clone()), &messages);
    survives_every_split(
        tokio_codec,
        &wire(tokio_codec(), messages.clone()),
        &buffers,
    );
    survives_every_split(lines_codec, &wire(lines_codec(), texts.clone()), &texts);
}

#[test]
fn bytes_that_were_read_before_survive_every_split() {
    let messages = [&b"one"[..], b"", b"three"];
    let bytes: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
    for cut in 0..=bytes.len() {
        let mut server = Setup {
            unread: Bytes::copy_from_slice(&bytes[..cut]),
            ..Setup::default()
        }
        .open(framed(), silent());
        server.settle();
        server.peer.send(&bytes[cut..]);
        server.peer.end();
        server.drop_sender();
        assert_eq!(server.reason(), "end_of_input");
        assert_eq!(server.knobs.lock().received, messages);
    }
}

/// Tells whether a payload lies where it was shown.
struct Placed;

impl Decoder for Placed {
    type Message = (usize, bool);

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<(usize, bool)>, DecodeError> {
        let Some(length) = input.bytes().first_chunk() else {
            return Ok(Decoded::Need(4));
        };
        let length = u32::from_be_bytes(*length) as usize;
        if input.len() < 4 + length {
            return Ok(Decoded::Need(4 + length));
        }
        input.advance(4);
        let shown = input.bytes().as_ptr();
        let payload = input.take(length);
        Ok(Decoded::Message((length, payload.as_ptr() == shown)))
    }
}

#[test]
fn large_payloads_that_span_reads_leave_without_a_copy() {
    let sizes = [
        16 * 1024,
        20_000,
        100_000,
        300_000,
        16 * 1024,
        3_000_000,
        70_000,
    ];
    for read in [1_000, 10_000, 65_536] {
        let mut server = Setup::default().open((Raw, Placed), silent());
        for size in sizes {
            // In reads of their own, so that each but the smallest spans several.
            let bytes = frame(&vec![1; size]);
            for piece in bytes.chunks(read.min(size / 2)) {
                server.peer.send(piece);
                server.settle();
            }
        }
        assert_eq!(server.knobs.lock().received, sizes.map(|size| (size, true)));
    }
}
