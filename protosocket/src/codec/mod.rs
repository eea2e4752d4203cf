//! Bytes to messages and back: the contracts, and the codecs that everyone needs first.

mod error;
pub use error::{DecodeError, EncodeError};

mod input;
pub use input::Input;

mod send_buffer;
pub use send_buffer::SendBuffer;

mod serialize;
pub use serialize::{BufEncoder, PooledEncoder, Serialize, ToBuf};

mod length_delimited;
pub use length_delimited::{LengthDelimitedCodec, LengthPrefix, U32, Varint};

mod payload;
pub use payload::{Payload, PooledBuffer};

mod local_bytes;
pub use local_bytes::LocalBytes;
#[cfg(feature = "tokio")]
pub(crate) use local_bytes::Memory;

mod lines;
pub use lines::LinesCodec;

#[cfg(feature = "tokio")]
mod tokio_codec;
#[cfg(feature = "tokio")]
pub use tokio_codec::TokioCodec;

/// What a [`Decoder`] made of the input that it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a decoder's answer decides what happens to the input"]
pub enum Decoded<M> {
    /// One message. The decoder has advanced the input past it.
    Message(M),
    /// Nothing yet: call again when at least this many bytes stand at the front of the input, or
    /// when the input has ended.
    ///
    /// The number counts from the front of what is left, so a decoder that knows a message to be
    /// 100 bytes long and sees 40 of them says `Need(100)`. One that is looking for a delimiter
    /// says `Need(input.len() + 1)`. A number above the connection's `max_message_size` ends the
    /// connection with [`DecodeError::TooLarge`]; one that is there already ends it with
    /// [`DecodeError::NoProgress`], unless this call has advanced the input.
    Need(usize),
    /// Discard this many bytes, those that have not arrived included, and call again behind them.
    ///
    /// They are never buffered, so a message above the size limit can be passed over.
    Skip(u64),
}

/// Turns inbound bytes into messages.
///
/// A connection decodes one message, gives it to the reactor, and only then decodes the next, so
/// a reactor can change the codec between two messages.
///
/// A decoder does not read, wait or allocate by a length that the peer announced: it looks at the
/// [`Input`], takes what it understands, and says what it still needs.
pub trait Decoder {
    /// What this decoder produces.
    type Message;

    /// Decode at most one message from the front of `input`.
    ///
    /// Bytes that the decoder has advanced past are gone, whatever it answers: a decoder may eat
    /// a part of a message and keep its own state. It must not answer
    /// [`Decoded::Message`] without having advanced, nor advance further than the input reaches.
    ///
    /// # Errors
    /// The peer is to blame: the bytes break the protocol. The reactor hears of it through
    /// `on_decode_error`, may send a last message, and the connection ends.
    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Self::Message>, DecodeError>;

    /// Whether a message has begun, of which every byte that arrived has been consumed.
    ///
    /// Asked when the decoder has advanced the input since its last message and nothing is left
    /// of it: a message that has begun is subject to `message_timeout`, and holds up a drain. A
    /// decoder that steps over what is no part of a message, a keepalive or a blank line, answers
    /// for it here.
    fn is_inside(&self) -> bool {
        true
    }

    /// The input has ended, and [`decode`](Self::decode) wants more than what is left.
    ///
    /// Called until it answers `None`. A protocol in which the end of input completes a message
    /// returns that message here, once without advancing; the default refuses what is left over.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if the input ended inside a message.
    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<Self::Message>, DecodeError> {
        if input.is_empty() {
            Ok(None)
        } else {
            Err(DecodeError::Truncated { left: input.len() })
        }
    }
}

/// Turns messages into outbound bytes.
pub trait Encoder {
    /// What this encoder consumes.
    type Message;

    /// Append `message` to `output`.
    ///
    /// A message may encode to no bytes at all. Whatever a failed call has appended is taken back,
    /// so that no half message reaches the wire.
    ///
    /// # Errors
    /// The caller is to blame: this message cannot be represented.
    fn encode(
        &mut self,
        message: Self::Message,
        output: &mut SendBuffer,
    ) -> Result<(), EncodeError>;
}

/// An encoder and a decoder: what a connection speaks.
///
/// Implemented for every type that is both, and for every pair `(encoder, decoder)`.
pub trait Codec: Encoder + Decoder {}

impl<T: Encoder + Decoder> Codec for T {}

impl<E: Encoder, D: Decoder> Encoder for (E, D) {
    type Message = E::Message;

    fn encode(
        &mut self,
        message: Self::Message,
        output: &mut SendBuffer,
    ) -> Result<(), EncodeError> {
        self.0.encode(message, output)
    }
}

impl<E: Encoder, D: Decoder> Decoder for (E, D) {
    type Message = D::Message;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Self::Message>, DecodeError> {
        self.1.decode(input)
    }

    fn is_inside(&self) -> bool {
        self.1.is_inside()
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<Self::Message>, DecodeError> {
        self.1.decode_end(input)
    }
}
