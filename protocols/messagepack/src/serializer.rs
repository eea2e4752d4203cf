use std::marker::PhantomData;

use protosocket::EncodeError;

use crate::codec::{MARKER, PREFIX};

/// Writes MessagePack behind its length, straight into the send buffer.
///
/// It is an [`Encoder`](protosocket::Encoder), as every [`Serialize`](protosocket::Serialize) is.
#[derive(Debug, Clone)]
pub struct MessagePackSerializer<T> {
    max_length: u32,
    message: PhantomData<fn(T)>,
}

impl<T: serde::Serialize> MessagePackSerializer<T> {
    /// No limit but that of the frame, 4 GiB: what is sent is the sender's own choice.
    pub fn new() -> Self {
        Self {
            max_length: u32::MAX,
            message: PhantomData,
        }
    }

    /// Refuse messages above `bytes`, without the length in front of them.
    ///
    /// Give it the limit of the peer's decoder: then who sends too large a message is told so, and
    /// the connection lives.
    #[must_use]
    pub fn max_length(mut self, bytes: u32) -> Self {
        self.max_length = bytes;
        self
    }
}

impl<T: serde::Serialize> Default for MessagePackSerializer<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: serde::Serialize> protosocket::Serialize for MessagePackSerializer<T> {
    type Message = T;

    /// # Errors
    /// [`EncodeError::TooLarge`] for a message above the limit, [`EncodeError::Other`] for one that
    /// its own `Serialize` refuses. No byte of it is left behind.
    #[inline]
    fn serialize_into_buffer(
        &mut self,
        message: T,
        buffer: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = buffer.len();
        let result = self.append(&message, buffer);
        if result.is_err() {
            buffer.truncate(start);
        }
        result
    }
}

impl<T: serde::Serialize> MessagePackSerializer<T> {
    #[inline]
    fn append(&self, message: &T, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
        buffer.extend_from_slice(&[MARKER, 0, 0, 0, 0]);
        let start = buffer.len();
        rmp_serde::encode::write(buffer, message).map_err(EncodeError::other)?;
        // LIMIT: max_length.
        let size = (buffer.len() - start) as u64;
        match u32::try_from(size) {
            Ok(length) if length <= self.max_length => {
                buffer[start - PREFIX + 1..start].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            _ => Err(EncodeError::TooLarge {
                size,
                limit: u64::from(self.max_length),
            }),
        }
    }
}
