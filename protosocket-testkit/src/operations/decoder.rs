//! Codecs, given arbitrary bytes in arbitrary segments.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use protosocket::{
    CloseReason, Codec, DecodeError, Decoded, Decoder, Encoder, Input, Limits, SendBuffer,
};

use super::Choices;
use crate::{INSTRUMENTED_SYSTEM, Inbound, Setup, Trace, TraceEnd, silent, trace};

/// What one call of a decoder may allocate beside a multiple of what it is shown, in bytes: the
/// text of an error, the first capacity of a buffer.
const SLACK: usize = 64 * 1024;

/// Decode what `bytes` say with codecs from `make`: how the input is cut, whether it ends, how
/// large a message may be, and then the input itself.
///
/// Expected of the decoder:
/// - It makes the same of the input however it is cut, by the rules of the contract alone
///   ([`trace`]) and on a connection.
/// - It neither stands still nor consumes what is not there.
/// - One call allocates in proportion to the bytes that it is shown, and not by a length that they
///   announce. This is seen only in a program whose allocator is the
///   [`CountingAllocator`](crate::CountingAllocator) and that does nothing beside this call.
///
/// # Panics
/// If one of these does not hold.
pub fn decoder<C>(bytes: &[u8], make: impl FnMut() -> C)
where
    C: Codec + 'static,
    Inbound<C>: Clone + Debug + PartialEq,
{
    let trace = decode_in_segments(bytes, make);
    assert!(
        !matches!(trace.end, TraceEnd::Failed("no_progress" | "overrun")),
        "the decoder is at fault: {trace:?}"
    );
}

/// As [`decoder`], for a codec that decodes what it encodes: the messages that were decoded are
/// encoded, decoded again, and must be the same then.
///
/// # Panics
/// As for [`decoder`], and if a message is another one after the round trip, or has no encoding.
pub fn codec<C, M>(bytes: &[u8], mut make: impl FnMut() -> C)
where
    C: Encoder<Message = M> + Decoder<Message = M> + 'static,
    M: Clone + Debug + PartialEq,
{
    let decoded = decode_in_segments(bytes, &mut make);
    assert!(
        !matches!(decoded.end, TraceEnd::Failed("no_progress" | "overrun")),
        "the decoder is at fault: {decoded:?}"
    );
    let mut encoder = make();
    let mut encoded = BytesMut::new();
    for message in &decoded.messages {
        let mut buffer = SendBuffer::new();
        if let Err(error) = buffer.encode(&mut encoder, message.clone()) {
            panic!("{message:?} was decoded and cannot be encoded: {error}");
        }
        encoded.extend_from_slice(&contents(&buffer));
    }
    let again = trace(&mut make(), [&encoded[..]], true, usize::MAX);
    assert_eq!(again.messages, decoded.messages, "after a round trip");
    assert_eq!(again.end, TraceEnd::Complete, "after a round trip");
}

/// Decode in every way, and compare.
pub(super) fn decode_in_segments<C>(bytes: &[u8], mut make: impl FnMut() -> C) -> Trace<Inbound<C>>
where
    C: Codec + 'static,
    Inbound<C>: Clone + Debug + PartialEq,
{
    let mut choices = Choices::new(bytes);
    let ended = !choices.flag();
    let one_by_one = choices.flag();
    let max_message_size = choices.one_of(&[32 << 20, 64, 1000, 20_000]);
    let cuts = choices.below(16);
    let sizes: Vec<usize> = (0..cuts).map(|_| 1 + choices.size()).collect();
    let input = Bytes::copy_from_slice(choices.rest());
    let segments = cut(&input, &sizes);

    let mut metered = Metered::new(make());
    let whole = trace(&mut metered, [&input[..]], ended, max_message_size);
    let pieces = segments.iter().map(|segment| &segment[..]);
    let mut metered_again = Metered::new(make());
    let in_pieces = trace(&mut metered_again, pieces, ended, max_message_size);
    let eats = metered.eats || metered_again.eats;
    assert!(
        are_alike(&in_pieces, &whole, eats),
        "in segments of {sizes:?} bytes the decoder made\n{in_pieces:?}\nof what it makes, \
         undivided,\n{whole:?}"
    );
    let connected = on_connection(&segments, ended, one_by_one, max_message_size, make());
    assert!(
        are_alike(&connected, &whole, eats),
        "on a connection, in segments of {sizes:?} bytes, the decoder made\n{connected:?}\nof \
         what it makes, undivided,\n{whole:?}"
    );
    whole
}

/// Whether it is the same, as far as it must be. A message that is too large may be wrong in other
/// ways too, which are seen first when all of it is there. A decoder that `eats` messages in parts
/// is stopped by their size when too much of one is there at once, so it gets further in pieces.
fn are_alike<M: PartialEq>(one: &Trace<M>, other: &Trace<M>, eats: bool) -> bool {
    let stops_early = |one: &Trace<M>, other: &Trace<M>| {
        one.end == TraceEnd::Failed("too_large")
            && match eats {
                true => other.messages.starts_with(&one.messages),
                false => other.messages == one.messages && matches!(other.end, TraceEnd::Failed(_)),
            }
    };
    one == other || stops_early(one, other) || stops_early(other, one)
}

/// The bytes in segments of these sizes, in turn.
fn cut(bytes: &Bytes, sizes: &[usize]) -> Vec<Bytes> {
    let mut rest = bytes.clone();
    let mut segments = Vec::new();
    for &size in sizes.iter().cycle() {
        if rest.len() <= size {
            break;
        }
        segments.push(rest.split_to(size));
    }
    segments.push(rest);
    segments
}

/// What a connection makes of the same bytes.
fn on_connection<C>(
    segments: &[Bytes],
    ended: bool,
    one_by_one: bool,
    max_message_size: usize,
    codec: C,
) -> Trace<Inbound<C>>
where
    C: Codec + 'static,
    Inbound<C>: Clone,
{
    let setup = Setup::limits(Limits::server().max_message_size(max_message_size));
    let mut opened = setup.open(codec, silent());
    opened.drop_sender();
    for segment in segments {
        opened.peer.send(segment);
        if one_by_one {
            opened.settle();
        }
    }
    if ended {
        opened.peer.end();
    }
    opened.settle();
    let end = match opened.connection.is_ended() {
        false => TraceEnd::Waiting,
        true => match opened.finish().reason {
            CloseReason::EndOfInput => TraceEnd::Complete,
            CloseReason::Decode(error) => TraceEnd::Failed(error.name()),
            reason => panic!("it ended otherwise: {reason}"),
        },
    };
    let messages = std::mem::take(&mut opened.knobs.lock().received);
    Trace { messages, end }
}

/// Everything that a buffer holds.
fn contents(buffer: &SendBuffer) -> Vec<u8> {
    let mut slices = [std::io::IoSlice::new(&[]); 64];
    let filled = buffer.io_slices(&mut slices);
    let bytes = slices[..filled].iter().flat_map(|slice| slice.iter());
    let bytes: Vec<u8> = bytes.copied().collect();
    assert_eq!(bytes.len(), buffer.unsent_bytes(), "of one message");
    bytes
}

/// Looks at what each call of a decoder allocates and consumes.
struct Metered<D> {
    decoder: D,
    /// It has consumed something without making a message of it.
    eats: bool,
}

impl<D> Metered<D> {
    fn new(decoder: D) -> Self {
        let eats = false;
        Self { decoder, eats }
    }

    fn measure<T>(
        &mut self,
        input: &mut Input<'_>,
        call: impl FnOnce(&mut D, &mut Input<'_>) -> T,
    ) -> T {
        let shown = input.len();
        let before = INSTRUMENTED_SYSTEM.stats().bytes_allocated;
        let result = call(&mut self.decoder, input);
        let allocated = INSTRUMENTED_SYSTEM.stats().bytes_allocated - before;
        assert!(
            allocated <= 4 * shown + SLACK,
            "the decoder was shown {shown} bytes and allocated {allocated}"
        );
        result
    }
}

impl<D: Decoder> Decoder for Metered<D> {
    type Message = D::Message;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<D::Message>, DecodeError> {
        let before = input.consumed();
        let decoded = self.measure(input, D::decode);
        let made = matches!(decoded, Ok(Decoded::Message(_)));
        self.eats |= !made && input.consumed() > before;
        decoded
    }

    fn is_inside(&self) -> bool {
        self.decoder.is_inside()
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<D::Message>, DecodeError> {
        self.measure(input, D::decode_end)
    }
}
