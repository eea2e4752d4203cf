//! Codecs for tests: any closure as a decoder, bytes as they are as an encoder, answers.

use bytes::Bytes;
use protosocket::{
    Codec, DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, LengthDelimitedCodec,
    ReactorStatus, SendBuffer, U32,
};

use super::probe::{Answer, Inbound, Outbound};

/// Four bytes of length, then the payload.
pub type Framed = LengthDelimitedCodec<U32>;

/// The codec of [`Framed`].
pub fn framed() -> Framed {
    Framed::new()
}

/// The bytes of one message of [`Framed`].
pub fn frame(payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).expect("a test's payload is short");
    [&length.to_be_bytes(), payload].concat().into()
}

/// Answer each message with itself.
pub fn echo<C, M>() -> Answer<C>
where
    C: Encoder<Message = M> + Decoder<Message = M>,
{
    Box::new(|context, message| context.reply(message))
}

/// Answer nothing.
pub fn silent<C: Codec>() -> Answer<C> {
    Box::new(|_, _| ReactorStatus::Continue)
}

/// Answer each message with the same one.
pub fn always<C: Codec>(reply: Outbound<C>) -> Answer<C>
where
    Outbound<C>: Clone + 'static,
{
    Box::new(move |context, _: Inbound<C>| context.reply(reply.clone()))
}

/// Writes bytes as they are.
#[derive(Debug, Clone, Copy)]
pub struct Raw;

impl Encoder for Raw {
    type Message = Bytes;

    fn encode(&mut self, message: Bytes, output: &mut SendBuffer) -> Result<(), EncodeError> {
        output.put_bytes(message);
        Ok(())
    }
}

type Decode<M> = Box<dyn FnMut(&mut Input<'_>) -> Result<Decoded<M>, DecodeError>>;
type DecodeEnd<M> = Box<dyn FnMut(&mut Input<'_>) -> Result<Option<M>, DecodeError>>;

/// A decoder made of closures.
pub struct ByHand<M> {
    decode: Decode<M>,
    decode_end: Option<DecodeEnd<M>>,
}

impl<M> ByHand<M> {
    /// A decoder that calls `decode` for every step. At the end of input it refuses what is left.
    pub fn new(
        decode: impl FnMut(&mut Input<'_>) -> Result<Decoded<M>, DecodeError> + 'static,
    ) -> Self {
        Self {
            decode: Box::new(decode),
            decode_end: None,
        }
    }

    /// Call `decode_end` when the input has ended.
    pub fn at_end(
        mut self,
        decode_end: impl FnMut(&mut Input<'_>) -> Result<Option<M>, DecodeError> + 'static,
    ) -> Self {
        self.decode_end = Some(Box::new(decode_end));
        self
    }
}

impl<M> Decoder for ByHand<M> {
    type Message = M;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<M>, DecodeError> {
        (self.decode)(input)
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<M>, DecodeError> {
        match &mut self.decode_end {
            Some(decode_end) => decode_end(input),
            None if input.is_empty() => Ok(None),
            None => Err(DecodeError::Truncated { left: input.len() }),
        }
    }
}
