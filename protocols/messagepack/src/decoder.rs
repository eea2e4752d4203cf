use std::marker::PhantomData;

use protosocket::{DecodeError, Decoded, Decoder, Input};
use rmp_serde::decode::Error;
use serde::de::DeserializeOwned;

use crate::{
    codec::{MARKER, PREFIX},
    shape::{self, Bounds},
};

/// As deep as `serde_json` nests by default: more than messages do, and little enough for the stack
/// of a thread.
const DEFAULT_MAX_DEPTH: u16 = 128;

/// A type whose levels take 4 KiB of the stack each, as they do without optimisation, fits into the
/// 2 MiB of a thread.
const HIGHEST_MAX_DEPTH: u16 = 500;

/// As many as a message of 4 MiB has at the most, which is the largest that a client of
/// protosocket-rpc 2.0.2 takes by default.
const DEFAULT_MAX_VALUES: usize = 4 * 1024 * 1024;

/// What `serde` finds wrong, by the words that it begins with. Behind them it quotes the message.
const KINDS: [&str; 7] = [
    "invalid type",
    "invalid value",
    "invalid length",
    "unknown variant",
    "unknown field",
    "missing field",
    "duplicate field",
];

/// Reads MessagePack behind its length.
///
/// The length is the end of the message, whatever is inside: a value that ends before it, or needs
/// more, is an error, and takes nothing from the next message.
///
/// # What a peer can do
///
/// | | bounded by |
/// |---|---|
/// | announce a length, of a message, text, array or map | nothing is reserved for what has not arrived |
/// | send a large message | [`max_length`](Self::max_length), and the connection's `max_message_size` |
/// | nest arrays and maps | [`max_depth`](Self::max_depth) |
/// | send many small values | [`max_values`](Self::max_values) |
///
/// What is refused is described by its type, its length and the kind of error, in words that quote
/// nothing of it: errors are logged.
///
/// A type that contains itself without an array, map or enum between, such as
/// `struct Nested(Option<Box<Nested>>)`, has no depth in MessagePack and can not be protected: its
/// values other than nil nest for ever.
#[derive(Debug, Clone)]
pub struct MessagePackDecoder<T> {
    max_length: u32,
    bounds: Bounds,
    message: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> MessagePackDecoder<T> {
    /// Messages as large as the connection's `max_message_size` allows, with 4,194,304 values, 128
    /// levels deep.
    pub fn new() -> Self {
        Self {
            max_length: u32::MAX,
            bounds: Bounds {
                depth: DEFAULT_MAX_DEPTH,
                values: DEFAULT_MAX_VALUES,
            },
            message: PhantomData,
        }
    }

    /// Refuse messages above `bytes`, without the length in front of them, before a byte of them is
    /// buffered. 4 GiB by default, as much as the frame can announce: what a connection buffers is
    /// limited by its `max_message_size`.
    #[must_use]
    pub fn max_length(mut self, bytes: u32) -> Self {
        self.max_length = bytes;
        self
    }

    /// Refuse messages in which arrays and maps nest deeper than `levels`: 128 by default, 500 at
    /// the most, because each level is one of the stack's too. Structs are arrays, and enums with
    /// fields maps.
    #[must_use]
    pub fn max_depth(mut self, levels: u16) -> Self {
        self.bounds.depth = levels.min(HIGHEST_MAX_DEPTH);
        self
    }

    /// Refuse messages with more values than `count`: each number, text, array and map is one, those
    /// inside of others included.
    ///
    /// One byte on the wire can become a struct of any size, and `max_length` does not bound that.
    /// With this, a message takes no more memory than its size and, for every value, twice the size
    /// of the largest type in a list. The default of 4,194,304 is what 4 MiB can hold, so that nothing
    /// is refused that a client of protosocket-rpc 2.0.2 takes by default.
    #[must_use]
    pub fn max_values(mut self, count: usize) -> Self {
        self.bounds.values = count;
        self
    }

    /// The message in these bytes.
    #[inline]
    fn read(&self, bytes: &[u8]) -> Result<T, DecodeError> {
        shape::check(bytes, self.bounds).map_err(|what| {
            let length = bytes.len();
            DecodeError::malformed(format!(
                "expected one MessagePack value in {length} bytes: {what}"
            ))
        })?;
        rmp_serde::from_slice(bytes).map_err(|error| {
            let (name, length) = (std::any::type_name::<T>(), bytes.len());
            let kind = kind(&error);
            DecodeError::malformed(format!("expected {name} in {length} bytes: {kind}"))
        })
    }
}

impl<T: DeserializeOwned> Default for MessagePackDecoder<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: DeserializeOwned> Decoder for MessagePackDecoder<T> {
    type Message = T;

    #[inline]
    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<T>, DecodeError> {
        let bytes = input.bytes();
        if let Some(&byte) = bytes.first()
            && byte != MARKER
        {
            return Err(DecodeError::malformed(format!(
                "expected {MARKER:#04x} in front of the length of a message, got {byte:#04x}"
            )));
        }
        let Some(&[_, a, b, c, d]) = bytes.first_chunk::<PREFIX>() else {
            return Ok(Decoded::Need(PREFIX));
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let too_large = || DecodeError::TooLarge {
            size: u64::from(length),
            limit: u64::from(self.max_length),
        };
        // LIMIT: max_length, and what a machine of 32 bits can address.
        if length > self.max_length {
            return Err(too_large());
        }
        let total = u64::from(length) + PREFIX as u64;
        let total = usize::try_from(total).map_err(|_| too_large())?;
        let Some(bytes) = bytes.get(PREFIX..total) else {
            return Ok(Decoded::Need(total));
        };
        let message = self.read(bytes)?;
        input.advance(total);
        Ok(Decoded::Message(message))
    }
}

/// What is wrong, in words of which none is the peer's: those of `serde` quote a variant, a key, a
/// number or a text, which may be a password.
#[cold]
fn kind(error: &Error) -> &'static str {
    match error {
        Error::InvalidMarkerRead(_) | Error::InvalidDataRead(_) => "it ends too soon",
        Error::TypeMismatch(_) => "a value of another type",
        Error::OutOfRange => "a number out of range",
        Error::LengthMismatch(_) => "an array, map or extension of another length",
        Error::Utf8Error(_) => "a text that is not UTF-8",
        Error::DepthLimitExceeded => "arrays and maps nest too deep",
        Error::Syntax(text) | Error::Uncategorized(text) => {
            let known = KINDS.into_iter().find(|kind| text.starts_with(kind));
            known.unwrap_or("refused by the type")
        }
    }
}
