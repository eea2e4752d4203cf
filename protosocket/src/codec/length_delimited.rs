use std::marker::PhantomData;

use bytes::Bytes;

use super::{
    DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, Payload, SendBuffer,
    send_buffer::OWN_SEGMENT,
};

/// How a length stands in front of a payload: [`U32`] or [`Varint`].
pub trait LengthPrefix: 'static {
    /// The longest prefix, in bytes.
    const MAX_SIZE: usize;
    /// The longest payload that the prefix can announce, in bytes.
    const MAX_LENGTH: u64;

    /// Read a prefix from the front of `bytes`: its own size and the length that it announces,
    /// or `None` if it is not complete.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] as soon as the bytes cannot become a prefix.
    fn read(bytes: &[u8]) -> Result<Option<(usize, u64)>, DecodeError>;

    /// Append the prefix for `length`, which is at most [`MAX_LENGTH`](Self::MAX_LENGTH).
    fn write(length: u64, output: &mut SendBuffer);
}

/// Four bytes, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum U32 {}

impl LengthPrefix for U32 {
    const MAX_SIZE: usize = 4;
    const MAX_LENGTH: u64 = u32::MAX as u64;

    #[inline]
    fn read(bytes: &[u8]) -> Result<Option<(usize, u64)>, DecodeError> {
        Ok(bytes
            .first_chunk()
            .map(|prefix| (4, u64::from(u32::from_be_bytes(*prefix)))))
    }

    #[inline]
    fn write(length: u64, output: &mut SendBuffer) {
        // Cannot truncate: the caller keeps to MAX_LENGTH.
        output.put_u32(length as u32);
    }
}

/// One to ten bytes of seven bits each, least significant first, as protobuf delimits messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Varint {}

impl LengthPrefix for Varint {
    const MAX_SIZE: usize = 10;
    const MAX_LENGTH: u64 = u64::MAX;

    #[inline]
    fn read(bytes: &[u8]) -> Result<Option<(usize, u64)>, DecodeError> {
        let mut length = 0_u64;
        for (index, &byte) in bytes.iter().take(Self::MAX_SIZE).enumerate() {
            // The tenth byte holds the one bit that is left of 64.
            if index == Self::MAX_SIZE - 1 && byte > 1 {
                return Err(DecodeError::malformed(format!(
                    "a length varint must fit in 64 bits, its tenth byte is {byte:#04x}"
                )));
            }
            length |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(Some((index + 1, length)));
            }
        }
        Ok(None)
    }

    #[inline]
    fn write(mut length: u64, output: &mut SendBuffer) {
        while length >= 0x80 {
            output.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        output.put_u8(length as u8);
    }
}

/// Payloads behind a length prefix.
///
/// `LengthDelimitedCodec::<U32>::new()` speaks four bytes big-endian, the default of
/// `tokio_util::codec::LengthDelimitedCodec`; [`Varint`] speaks protobuf's delimiter. A length above
/// the codec's limit is an error before a byte of the payload is buffered.
///
/// Messages are [`Bytes`] unless the second parameter says otherwise: with
/// [`PooledBuffer`](super::PooledBuffer), small messages allocate nothing. See [`Payload`].
#[derive(Debug, Clone)]
pub struct LengthDelimitedCodec<P = U32, T: Payload = Bytes> {
    max_length: u64,
    prefix: PhantomData<fn() -> (P, T)>,
}

impl<P: LengthPrefix, T: Payload> LengthDelimitedCodec<P, T> {
    /// No limit but the prefix's own and the connection's `max_message_size`.
    pub fn new() -> Self {
        Self {
            max_length: P::MAX_LENGTH,
            prefix: PhantomData,
        }
    }

    #[cold]
    fn too_large(&self, size: u64) -> EncodeError {
        EncodeError::TooLarge {
            size,
            limit: self.max_length,
        }
    }

    /// Refuse payloads above `max_length` bytes, both ways.
    #[must_use]
    pub fn max_length(mut self, max_length: u64) -> Self {
        self.max_length = max_length.min(P::MAX_LENGTH);
        self
    }
}

impl<P: LengthPrefix, T: Payload> Default for LengthDelimitedCodec<P, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: LengthPrefix, T: Payload> Decoder for LengthDelimitedCodec<P, T> {
    type Message = T;

    #[inline(always)]
    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<T>, DecodeError> {
        let Some((prefix, length)) = P::read(input.bytes())? else {
            return Ok(Decoded::Need(input.len() + 1));
        };
        let too_large = || DecodeError::TooLarge {
            size: length,
            limit: self.max_length,
        };
        if length > self.max_length {
            return Err(too_large());
        }
        let length = usize::try_from(length).map_err(|_| too_large())?;
        let total = prefix.checked_add(length).ok_or_else(too_large)?;
        if input.len() < total {
            return Ok(Decoded::Need(total));
        }
        input.advance(prefix);
        Ok(Decoded::Message(T::take_from(input, length)))
    }
}

impl<P: LengthPrefix, T: Payload> Encoder for LengthDelimitedCodec<P, T> {
    type Message = T;

    #[inline(always)]
    fn encode(&mut self, message: T, output: &mut SendBuffer) -> Result<(), EncodeError> {
        let payload = message.as_slice();
        let size = payload.len() as u64;
        if size > self.max_length {
            return Err(self.too_large(size));
        }
        P::write(size, output);
        if payload.len() < OWN_SEGMENT {
            output.put_slice(payload);
        } else {
            output.put_bytes(message.into_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<P: LengthPrefix>(message: &'static [u8]) -> Vec<u8> {
        let mut output = SendBuffer::new();
        output
            .encode(
                &mut LengthDelimitedCodec::<P>::new(),
                Bytes::from_static(message),
            )
            .unwrap();
        output.contiguous().clone()
    }

    #[test]
    fn u32_is_big_endian_and_varint_is_protobufs() {
        assert_eq!(encoded::<U32>(b"abc"), b"\0\0\0\x03abc");
        assert_eq!(encoded::<Varint>(b"abc"), b"\x03abc");
        assert_eq!(encoded::<Varint>(&[7; 300])[..2], [0xac, 0x02]);
    }

    #[test]
    fn d3_a_malformed_varint_fails_at_once() {
        let mut codec = LengthDelimitedCodec::<Varint>::new();
        let bytes = [0xff; 32];
        for size in 0..10 {
            let mut input = Input::from_slice(&bytes[..size]);
            let decoded = codec.decode(&mut input).unwrap();
            assert_eq!(decoded, Decoded::Need(size + 1));
        }
        let error = codec.decode(&mut Input::from_slice(&bytes[..10]));
        assert!(matches!(error, Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn d9_a_length_near_the_integer_limit_is_refused_without_overflow() {
        let mut codec = LengthDelimitedCodec::<Varint>::new();
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let error = codec.decode(&mut Input::from_slice(&max));
        assert!(matches!(
            error,
            Err(DecodeError::TooLarge { size: u64::MAX, .. })
        ));

        let mut codec = LengthDelimitedCodec::<U32>::new();
        let decoded = codec.decode(&mut Input::from_slice(&[0xff; 4])).unwrap();
        assert_eq!(decoded, Decoded::Need(4 + u32::MAX as usize));
    }

    #[test]
    fn lengths_at_and_above_the_limit() {
        let mut codec = LengthDelimitedCodec::<U32>::new().max_length(3);
        let decoded = codec.decode(&mut Input::from_slice(b"\0\0\0\x03abc"));
        assert_eq!(
            decoded.unwrap(),
            Decoded::Message(Bytes::from_static(b"abc"))
        );
        let error = codec.decode(&mut Input::from_slice(b"\0\0\0\x04"));
        assert!(matches!(
            error,
            Err(DecodeError::TooLarge { size: 4, limit: 3 })
        ));
        let error = codec.encode(Bytes::from_static(b"abcd"), &mut SendBuffer::new());
        assert!(matches!(
            error,
            Err(EncodeError::TooLarge { size: 4, limit: 3 })
        ));
    }

    #[test]
    fn an_empty_payload_is_a_message() {
        let mut codec = LengthDelimitedCodec::<U32>::new();
        let mut input = Input::from_slice(b"\0\0\0\0");
        assert_eq!(
            codec.decode(&mut input).unwrap(),
            Decoded::Message(Bytes::new())
        );
        assert_eq!(input.consumed(), 4);
    }

    #[test]
    fn input_that_ends_inside_a_message_is_truncated() {
        let mut codec = LengthDelimitedCodec::<U32>::new();
        let error = codec.decode_end(&mut Input::from_slice(b"\0\0\0\x03ab"));
        assert!(matches!(error, Err(DecodeError::Truncated { left: 6 })));
    }
}
