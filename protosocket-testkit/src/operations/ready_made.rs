//! The codecs that everyone needs first.

use std::{error::Error, fmt::Debug};

use bytes::{Bytes, BytesMut};
use protosocket::{
    LengthDelimitedCodec, LinesCodec, LocalBytes, Payload, PooledBuffer, TokioCodec, U32, Varint,
};
use tokio_util::codec;

use super::{Choices, codec as round_trip, decoder};
use crate::{Trace, TraceEnd, trace};

/// Arbitrary bytes for [`LengthDelimitedCodec`]: both prefixes, all payloads, with and without a
/// limit.
///
/// # Panics
/// As for [`codec`](super::codec).
pub fn length_delimited(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (kind, max_length) = (
        choices.below(6),
        choices.one_of(&[u64::MAX, 0, 100, 20_000]),
    );
    let bytes = choices.rest();
    match kind {
        0 => round_trip(bytes, || u32_prefixed::<Bytes>().max_length(max_length)),
        1 => round_trip(bytes, || {
            u32_prefixed::<PooledBuffer>().max_length(max_length)
        }),
        2 => round_trip(bytes, || varint_prefixed::<Bytes>().max_length(max_length)),
        3 => round_trip(bytes, || {
            varint_prefixed::<PooledBuffer>().max_length(max_length)
        }),
        4 => round_trip(bytes, || {
            u32_prefixed::<LocalBytes>().max_length(max_length)
        }),
        _ => round_trip(bytes, || {
            varint_prefixed::<LocalBytes>().max_length(max_length)
        }),
    }
}

fn u32_prefixed<T: Payload>() -> LengthDelimitedCodec<U32, T> {
    LengthDelimitedCodec::new()
}

fn varint_prefixed<T: Payload>() -> LengthDelimitedCodec<Varint, T> {
    LengthDelimitedCodec::new()
}

/// Arbitrary bytes for [`LinesCodec`], with both endings.
///
/// # Panics
/// As for [`codec`](super::codec).
pub fn lines(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (line_feed, max_length) = (choices.flag(), choices.one_of(&[64 << 10, 0, 3, 100]));
    round_trip(choices.rest(), || {
        let lines = LinesCodec::new().max_length(max_length);
        match line_feed {
            true => lines.line_feed(),
            false => lines,
        }
    });
}

/// Arbitrary bytes for codecs of `tokio_util` behind [`TokioCodec`], which must make of them what
/// they make on their own.
///
/// # Panics
/// As for [`decoder`].
pub fn tokio_codecs(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let kind = choices.below(2);
    let bytes = choices.rest();
    match kind {
        0 => {
            // Such a codec reserves what a peer announces, up to this.
            let mut frames = codec::LengthDelimitedCodec::builder();
            frames.max_frame_length(20_000);
            adapted::<_, Bytes>(bytes, || frames.new_codec());
        }
        _ => adapted::<_, String>(bytes, || codec::LinesCodec::new_with_max_length(1000)),
    }
}

fn adapted<C, M>(bytes: &[u8], make: impl Fn() -> C)
where
    C: codec::Decoder<Item: Clone + Debug + PartialEq> + codec::Encoder<M> + 'static,
    <C as codec::Decoder>::Error: Into<Box<dyn Error + Send + Sync>>,
    <C as codec::Encoder<M>>::Error: Into<Box<dyn Error + Send + Sync>>,
    M: 'static,
{
    let adapted = || TokioCodec::<_, M>::new(make());
    decoder(bytes, adapted);
    let adapted = trace(&mut adapted(), [bytes], true, usize::MAX);

    let mut alone = make();
    let mut buffer = BytesMut::from(bytes);
    let mut messages = Vec::new();
    let mut next = || match alone.decode(&mut buffer)? {
        None => alone.decode_eof(&mut buffer),
        message => Ok(message),
    };
    let end = loop {
        match next() {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => break TraceEnd::Complete,
            Err(_) => break TraceEnd::Failed("other"),
        }
    };
    assert_eq!(adapted, Trace { messages, end }, "alone, it is another");
}
