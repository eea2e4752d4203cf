use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use protosocket::{DecodeError, Decoded, Decoder, Input, Varint, codec::LengthPrefix};

use crate::{
    codec::MAX_LENGTH,
    fields::{Fields, Plain},
};

/// Messages from this size on arrive in a buffer of the connection's own, from which they and their
/// fields leave without a copy, in bytes. The fields of smaller ones are copied out.
const OWN_BUFFER: usize = 16 * 1024;

/// As many as a message of 4 MiB has at the most, which is the largest that a client of
/// protosocket-rpc 2.0.2 takes by default.
const DEFAULT_MAX_VALUES: usize = 4 * 1024 * 1024;

/// What prost finds wrong, by the words that it begins with. Behind some of them it quotes a number or
/// a text of the message.
const KINDS: [&str; 11] = [
    "buffer underflow",
    "delimited length exceeded",
    "invalid key value",
    "invalid string value",
    "invalid tag value",
    "invalid varint",
    "invalid wire type value",
    "invalid wire type",
    "length delimiter exceeds maximum usize value",
    "recursion limit reached",
    "unexpected end group tag",
];

/// Reads protobuf messages behind a varint of their length.
///
/// Fields of type [`Bytes`](bytes::Bytes) in a message of 16 KiB or more are not copied if they have
/// at least 4 KiB and an eighth of their message, so that keeping one keeps no more than eight times
/// its size alive.
///
/// # What a peer can do
///
/// | | bounded by |
/// |---|---|
/// | announce a length | nothing is reserved for it; a varint that cannot become one is refused by its tenth byte |
/// | send a large message | [`max_length`](Self::max_length), and the connection's `max_message_size` |
/// | nest messages and groups | 100 levels, a constant of `prost`; whoever enables its feature `no-recursion-limit` takes that away |
/// | send many small values | [`max_values`](Self::max_values) |
/// | send unknown fields | they are skipped and not kept |
///
/// What is refused is described by its length, the names of the wrong field and of those around it, and
/// the kind of error, in words that quote nothing of it: errors are logged.
#[derive(Debug, Clone)]
pub struct ProstDecoder<M> {
    max_length: usize,
    max_values: usize,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default> ProstDecoder<M> {
    /// Messages as large as the connection's `max_message_size` allows, with 4,194,304 values.
    pub fn new() -> Self {
        Self {
            max_length: MAX_LENGTH,
            max_values: DEFAULT_MAX_VALUES,
            message: PhantomData,
        }
    }

    /// Refuse messages above `bytes`, without the length in front of them, before a byte of them is
    /// buffered. At most 2 GiB, protobuf's own limit, which is also the default: what a connection
    /// buffers is limited by its `max_message_size`.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes.min(MAX_LENGTH);
        self
    }

    /// Refuse messages with more keys, lengths, numbers and texts than `count`, those of nested
    /// messages included: a number takes two or, packed, one, and an empty nested message two.
    ///
    /// Two bytes on the wire can become a struct of any size, and `max_length` does not bound that.
    /// With this, a message takes no more memory than about eleven times its size and, for every two
    /// values, twice the size of the largest type in a list. The default of 4,194,304 is what
    /// 4 MiB can hold, so that nothing is refused that a client of protosocket-rpc 2.0.2 takes by
    /// default.
    #[must_use]
    pub fn max_values(mut self, count: usize) -> Self {
        self.max_values = count;
        self
    }

    /// Read `bytes`, which stay where they are, into `message`.
    // Into a message that stays where it is: the tag of a result can lie in a field of the message, such
    // as a `bool`, and then moving it costs more than reading it.
    #[inline]
    fn read_borrowed(&self, message: &mut M, bytes: &[u8]) -> Result<(), DecodeError> {
        // As many bytes hold no more values than half as many again: a value takes a byte, except that
        // prost steps over nothing at the end of an unknown field that was a number, a group or empty,
        // behind two values of the field's own. So these need not be counted.
        if bytes.len() <= self.max_values / 2 {
            let refused = |error| self.refused(bytes.len(), Some(error), false);
            return message.merge(Plain(bytes)).map_err(refused);
        }
        self.read(
            message,
            Fields::borrowed(bytes, self.max_values),
            bytes.len(),
        )
    }

    /// Read the `length` bytes that `fields` hold into `message`.
    #[inline]
    fn read<B: Buf>(
        &self,
        message: &mut M,
        mut fields: Fields<B>,
        length: usize,
    ) -> Result<(), DecodeError> {
        match message.merge(&mut fields) {
            Ok(()) if !fields.is_exhausted() => Ok(()),
            result => Err(self.refused(length, result.err(), fields.is_exhausted())),
        }
    }

    #[cold]
    fn refused(
        &self,
        length: usize,
        error: Option<prost::DecodeError>,
        exhausted: bool,
    ) -> DecodeError {
        match error {
            Some(error) if !exhausted => DecodeError::malformed(format!(
                "expected a protobuf message in {length} bytes, which may nest 100 levels deep: {}",
                told(&error)
            )),
            _ => DecodeError::malformed(format!(
                "a protobuf message of {length} bytes holds more keys, lengths, numbers and texts \
                 than {}, the limit (max_values)",
                self.max_values
            )),
        }
    }
}

impl<M: Message + Default> Default for ProstDecoder<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Message + Default> Decoder for ProstDecoder<M> {
    type Message = M;

    #[inline]
    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<M>, DecodeError> {
        let Some((prefix, length)) = Varint::read(input.bytes())? else {
            return Ok(Decoded::Need(input.len() + 1));
        };
        // LIMIT: max_length.
        if length > self.max_length as u64 {
            return Err(DecodeError::TooLarge {
                size: length,
                limit: self.max_length as u64,
            });
        }
        // INVARIANT: at most 2 GiB and ten bytes, which every usize holds.
        let length = length as usize;
        let total = prefix + length;
        if input.len() < total {
            return Ok(Decoded::Need(total));
        }
        let mut message = M::default();
        if length < OWN_BUFFER {
            self.read_borrowed(&mut message, &input.bytes()[prefix..total])?;
            input.advance(total);
        } else {
            input.advance(prefix);
            let bytes = input.take(length);
            self.read(&mut message, Fields::shared(bytes, self.max_values), length)?;
        }
        Ok(Decoded::Message(message))
    }
}

/// What of an error is prost's and the message type's, and nothing of the peer's.
fn told(error: &prost::DecodeError) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("failed to decode Protobuf message: ");
    let text = text.unwrap_or_default();
    // The wrong field and those around it come first.
    let fields = text.split_inclusive(": ").take_while(|part| is_field(part));
    let (fields, wrong) = text.split_at(fields.map(str::len).sum());
    match KINDS.into_iter().find(|kind| wrong.starts_with(kind)) {
        Some(kind) => format!("{fields}{kind}"),
        None => "refused by the type".into(),
    }
}

/// Whether this is `Type.field: `.
fn is_field(part: &str) -> bool {
    let is_name = |name: &str| {
        name.chars()
            .all(|c| c.is_alphanumeric() || "_#".contains(c))
    };
    let names = part
        .strip_suffix(": ")
        .and_then(|part| part.split_once('.'));
    names.is_some_and(|(message, field)| is_name(message) && is_name(field))
}
