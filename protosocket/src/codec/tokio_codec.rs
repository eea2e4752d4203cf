use super::{DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer};

/// Lets a codec written for `tokio_util::codec` run on a connection.
///
/// `M` is the type of the outbound messages, because such a codec can encode several. Input that
/// arrived in the thread's shared buffer is copied into a buffer of the connection's own first,
/// and every outbound message is copied once: where that matters, implement [`Decoder`] and
/// [`Encoder`] directly.
///
/// What such a codec reserves is its own affair: `tokio_util`'s `LengthDelimitedCodec` reserves
/// the length that the peer announces, so set its `max_frame_length` to what a peer may make this
/// program allocate.
#[derive(Debug)]
pub struct TokioCodec<C, M> {
    codec: C,
    buffer: bytes::BytesMut,
    message: std::marker::PhantomData<fn(M)>,
}

impl<C, M> TokioCodec<C, M> {
    /// Adapt `codec`.
    pub fn new(codec: C) -> Self {
        Self {
            codec,
            buffer: bytes::BytesMut::new(),
            message: std::marker::PhantomData,
        }
    }

    /// The adapted codec.
    pub fn get_mut(&mut self) -> &mut C {
        &mut self.codec
    }
}

impl<C, M> Decoder for TokioCodec<C, M>
where
    C: tokio_util::codec::Decoder,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Message = C::Item;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<C::Item>, DecodeError> {
        let decoded = self.codec.decode(input.as_buffer());
        match decoded.map_err(DecodeError::other)? {
            Some(message) => Ok(Decoded::Message(message)),
            None => Ok(Decoded::Need(input.len() + 1)),
        }
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<C::Item>, DecodeError> {
        self.codec
            .decode_eof(input.as_buffer())
            .map_err(DecodeError::other)
    }
}

impl<C, M> Encoder for TokioCodec<C, M>
where
    C: tokio_util::codec::Encoder<M>,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Message = M;

    fn encode(&mut self, message: M, output: &mut SendBuffer) -> Result<(), EncodeError> {
        let result = self.codec.encode(message, &mut self.buffer);
        let bytes = self.buffer.split().freeze();
        result.map_err(EncodeError::other)?;
        output.put_bytes(bytes);
        Ok(())
    }
}
