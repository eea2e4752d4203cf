use std::marker::PhantomData;

use prost::Message;
use protosocket::{EncodeError, Serialize};

use crate::codec::MAX_LENGTH;

/// Writes protobuf messages behind a varint of their length, straight into the send buffer.
///
/// It is an [`Encoder`](protosocket::Encoder), as every [`Serialize`] is.
#[derive(Debug, Clone)]
pub struct ProstSerializer<M> {
    max_length: usize,
    message: PhantomData<fn(M)>,
}

impl<M: Message> ProstSerializer<M> {
    /// No limit but protobuf's own of 2 GiB: what is sent is the sender's own choice.
    pub fn new() -> Self {
        Self {
            max_length: MAX_LENGTH,
            message: PhantomData,
        }
    }

    /// Refuse messages above `bytes`, without the length in front of them. At most 2 GiB.
    ///
    /// Give it the limit of the peer's decoder: then who sends too large a message is told so, and
    /// the connection lives.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes.min(MAX_LENGTH);
        self
    }
}

impl<M: Message> Default for ProstSerializer<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Message> Serialize for ProstSerializer<M> {
    type Message = M;

    /// # Errors
    /// [`EncodeError::TooLarge`] for a message above the limit, of which no byte is left behind.
    #[inline]
    fn serialize_into_buffer(
        &mut self,
        message: M,
        buffer: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = buffer.len();
        message
            .encode_length_delimited(buffer)
            .map_err(EncodeError::other)?;
        // LIMIT: max_length. What was written is longer than the message by the varint in front, so
        // only what may be too large is measured a second time.
        if buffer.len() - start > self.max_length {
            let length = message.encoded_len();
            if length > self.max_length {
                buffer.truncate(start);
                return Err(EncodeError::TooLarge {
                    size: length as u64,
                    limit: self.max_length as u64,
                });
            }
        }
        Ok(())
    }
}
