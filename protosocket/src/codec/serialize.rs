use bytes::{Buf, Bytes};

use super::{EncodeError, Encoder, SendBuffer};

/// An encoder for messages that know how to write themselves into a `Vec<u8>`.
///
/// Every `Serialize` is an [`Encoder`], which appends straight to the connection's contiguous
/// send memory: no buffer per message, no copy. `buffer` may therefore hold earlier messages;
/// write behind them and count positions from its length. A serializer that needs an empty buffer
/// is wrapped in a [`PooledEncoder`].
pub trait Serialize {
    /// What this serializer consumes.
    type Message;

    /// Append `message` to `buffer`.
    ///
    /// # Errors
    /// As for [`Encoder::encode`].
    fn serialize_into_buffer(
        &mut self,
        message: Self::Message,
        buffer: &mut Vec<u8>,
    ) -> Result<(), EncodeError>;
}

impl<T: Serialize> Encoder for T {
    type Message = T::Message;

    #[inline]
    fn encode(
        &mut self,
        message: Self::Message,
        output: &mut SendBuffer,
    ) -> Result<(), EncodeError> {
        self.serialize_into_buffer(message, output.contiguous())
    }
}

/// Gives each message of a [`Serialize`] an empty buffer, which is reused.
///
/// Messages are copied from that buffer into the send memory; those above `max_retained` bytes take
/// their buffer along, and if they have 16 KiB or more they are sent from it without a copy. What
/// is retained between messages is one buffer of at most `max_retained` bytes.
#[derive(Debug, Clone)]
pub struct PooledEncoder<S> {
    serializer: S,
    buffer: Vec<u8>,
    max_retained: usize,
}

impl<S: Serialize> PooledEncoder<S> {
    /// Retain at most 64 KiB: more than most messages need, little enough for every connection.
    pub fn new(serializer: S) -> Self {
        Self::with_max_retained(64 * 1024, serializer)
    }

    /// Retain at most `max_retained` bytes between two messages.
    pub fn with_max_retained(max_retained: usize, serializer: S) -> Self {
        Self {
            serializer,
            buffer: Vec::new(),
            max_retained,
        }
    }

    /// The memory that is retained, in bytes.
    pub fn retained(&self) -> usize {
        self.buffer.capacity()
    }
}

impl<S: Serialize + Default> Default for PooledEncoder<S> {
    fn default() -> Self {
        Self::new(S::default())
    }
}

impl<S: Serialize> Encoder for PooledEncoder<S> {
    type Message = S::Message;

    fn encode(
        &mut self,
        message: Self::Message,
        output: &mut SendBuffer,
    ) -> Result<(), EncodeError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.serializer.serialize_into_buffer(message, &mut buffer);
        if result.is_ok() {
            if buffer.len() > self.max_retained {
                output.put_bytes(Bytes::from(buffer));
                return Ok(());
            }
            output.put_slice(&buffer);
        }
        buffer.clear();
        if buffer.capacity() <= self.max_retained {
            self.buffer = buffer;
        }
        result
    }
}

/// An encoder whose messages become a [`Buf`] of their own, such as a header chained to a payload.
///
/// Wrap it in [`BufEncoder`] to use it on a connection.
pub trait ToBuf {
    /// What this encoder consumes.
    type Message;
    /// What it makes of it.
    type Serialized: Buf;

    /// Turn `message` into bytes.
    ///
    /// # Errors
    /// As for [`Encoder::encode`].
    fn to_buf(&mut self, message: Self::Message) -> Result<Self::Serialized, EncodeError>;
}

/// Adapts a [`ToBuf`]: chunks of 16 KiB or more that can be shared (`Bytes`) are sent without a
/// copy, the others coalesce.
#[derive(Debug, Clone, Default)]
pub struct BufEncoder<E>(pub E);

impl<E: ToBuf> Encoder for BufEncoder<E> {
    type Message = E::Message;

    fn encode(
        &mut self,
        message: Self::Message,
        output: &mut SendBuffer,
    ) -> Result<(), EncodeError> {
        output.put(self.0.to_buf(message)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Text;

    impl Serialize for Text {
        type Message = String;

        fn serialize_into_buffer(
            &mut self,
            message: String,
            buffer: &mut Vec<u8>,
        ) -> Result<(), EncodeError> {
            buffer.extend_from_slice(message.as_bytes());
            if message.contains('!') {
                return Err(EncodeError::invalid("no shouting"));
            }
            Ok(())
        }
    }

    #[test]
    fn d21_pooled_encoder_retains_a_bounded_buffer() {
        let mut encoder = PooledEncoder::with_max_retained(1024, Text);
        let mut output = SendBuffer::new();
        output.encode(&mut encoder, "a".repeat(1000)).unwrap();
        let retained = encoder.retained();
        assert!((1000..=1024).contains(&retained), "retains {retained}");
        for size in [2_000, 100_000, 3_000_000] {
            output.encode(&mut encoder, "a".repeat(size)).unwrap();
            assert!(encoder.retained() <= 1024);
        }
        assert_eq!(output.unsent_bytes(), 1000 + 2_000 + 100_000 + 3_000_000);
        // The large ones have taken their buffers along.
        assert_eq!(output.contiguous().len(), 1000 + 2_000);
    }

    #[test]
    fn pooled_encoder_hands_out_an_empty_buffer_after_a_failure() {
        let mut encoder = PooledEncoder::new(Text);
        let mut output = SendBuffer::new();
        assert!(output.encode(&mut encoder, "no!".into()).is_err());
        output.encode(&mut encoder, "yes".into()).unwrap();
        assert_eq!(output.contiguous(), b"yes");
    }

    #[test]
    fn a_buf_of_several_chunks_is_sent_whole() {
        struct Chained;
        impl ToBuf for Chained {
            type Message = Bytes;
            type Serialized = bytes::buf::Chain<Bytes, Bytes>;
            fn to_buf(&mut self, message: Bytes) -> Result<Self::Serialized, EncodeError> {
                Ok(Bytes::from_static(b"head").chain(message))
            }
        }
        let payload = Bytes::from(vec![7; 20_000]);
        let mut output = SendBuffer::new();
        output
            .encode(&mut BufEncoder(Chained), payload.clone())
            .unwrap();
        let mut slices = [std::io::IoSlice::new(&[]); 4];
        assert_eq!(output.io_slices(&mut slices), 2);
        assert_eq!(&*slices[0], b"head");
        assert_eq!(slices[1].as_ptr(), payload.as_ptr());
    }
}
