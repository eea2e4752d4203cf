use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};

use super::{LocalBytes, local_bytes::Memory as ReadMemory};

/// Payloads below this size are copied out of the receive buffer, in bytes.
///
/// Copying 4 KiB costs less than the bookkeeping of sharing it, and a program that keeps 64 bytes
/// must not keep a whole buffer alive with them.
const SHARED_PAYLOAD: usize = 4 * 1024;

/// The bytes that have arrived and that no message has claimed yet, as a [`Decoder`] sees them.
///
/// [`Decoder`]: super::Decoder
#[derive(Debug)]
pub struct Input<'a> {
    memory: Memory<'a>,
    /// Where a slice stands.
    origin: Option<Origin<'a>>,
    /// What `memory` held at first, to tell how much has been consumed.
    available: usize,
    /// How far the decoder has advanced past the end.
    overrun: usize,
    ended: bool,
}

/// The read buffer of the thread, and where in it a slice ends.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    memory: &'a Rc<ReadMemory>,
    end: u32,
}

#[derive(Debug)]
enum Memory<'a> {
    /// Borrowed bytes, as a rule the read buffer that all connections of a thread share.
    Slice(&'a [u8]),
    /// The connection's own buffer, from which payloads can be split off.
    Buffer(&'a mut BytesMut),
    /// What was a slice until the decoder asked for a buffer.
    Moved(Box<BytesMut>),
}

impl<'a> Input<'a> {
    /// An input over borrowed bytes, with nothing known about its end.
    pub fn from_slice(bytes: &'a [u8]) -> Self {
        Self {
            available: bytes.len(),
            memory: Memory::Slice(bytes),
            origin: None,
            overrun: 0,
            ended: false,
        }
    }

    /// An input over what ends at `end` in the thread's read buffer.
    #[cfg(feature = "tokio")]
    #[inline(always)]
    pub(crate) fn from_read_buffer(memory: &'a Rc<ReadMemory>, bytes: &'a [u8], end: u32) -> Self {
        Self {
            origin: Some(Origin { memory, end }),
            ..Self::from_slice(bytes)
        }
    }

    /// An input over a buffer, from which large payloads leave without a copy.
    pub fn from_buffer(buffer: &'a mut BytesMut) -> Self {
        Self {
            available: buffer.len(),
            memory: Memory::Buffer(buffer),
            origin: None,
            overrun: 0,
            ended: false,
        }
    }

    /// Mark that nothing follows these bytes.
    #[must_use]
    pub fn ended(mut self, ended: bool) -> Self {
        self.ended = ended;
        self
    }

    /// All bytes that are left.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Slice(bytes) => bytes,
            Memory::Buffer(buffer) => buffer,
            Memory::Moved(buffer) => buffer,
        }
    }

    /// How many bytes are left.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether no bytes are left.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Whether the peer has finished sending: nothing follows these bytes.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Step over `count` bytes.
    ///
    /// Stepping past the end ends the connection with [`DecodeError::Overrun`].
    ///
    /// [`DecodeError::Overrun`]: super::DecodeError::Overrun
    #[inline(always)]
    pub fn advance(&mut self, count: usize) {
        if let Memory::Slice(bytes) = &mut self.memory
            && let Some(rest) = bytes.get(count..)
        {
            *bytes = rest;
        } else {
            self.advance_by_value(count);
        }
    }

    /// Step over `count` bytes and return them as a payload of their own.
    ///
    /// Payloads of 4 KiB or more leave the connection's own buffer without a copy; smaller ones,
    /// and those that arrived in the thread's shared buffer, are copied out. Taking more than is
    /// there returns what is there and ends the connection with [`DecodeError::Overrun`].
    ///
    /// [`DecodeError::Overrun`]: super::DecodeError::Overrun
    #[inline]
    pub fn take(&mut self, count: usize) -> Bytes {
        let step = self.within(count);
        match &mut self.memory {
            Memory::Slice(bytes) => {
                let (payload, rest) = bytes.split_at(step);
                *bytes = rest;
                Bytes::copy_from_slice(payload)
            }
            Memory::Buffer(buffer) => take_from(buffer, step),
            Memory::Moved(buffer) => take_from(buffer, step),
        }
    }

    /// Step over `count` bytes and return them as a view of the buffer that they arrived in, if that
    /// is the thread's, and otherwise as [`take`](Self::take) does.
    ///
    /// Taking more than is there returns what is there and ends the connection with
    /// [`DecodeError::Overrun`].
    ///
    /// [`DecodeError::Overrun`]: super::DecodeError::Overrun
    #[inline(always)]
    pub fn share(&mut self, count: usize) -> LocalBytes {
        if let Memory::Slice(bytes) = &mut self.memory
            && let Some(Origin { memory, end }) = self.origin
            && let Some(rest) = bytes.get(count..)
        {
            let start = end - bytes.len() as u32;
            *bytes = rest;
            LocalBytes::view(memory, start, count as u32)
        } else {
            let mut input = std::mem::take(self);
            let payload = input.take(count);
            *self = input;
            payload.into()
        }
    }

    /// Step over `count` bytes and append them to `target`.
    ///
    /// Asking for more than is there copies what is there, and is reported as an overrun.
    #[inline(always)]
    pub fn copy_to(&mut self, count: usize, target: &mut Vec<u8>) {
        if let Memory::Slice(bytes) = &mut self.memory
            && let Some((copied, rest)) = bytes.split_at_checked(count)
        {
            target.extend_from_slice(copied);
            *bytes = rest;
        } else {
            let available = count.min(self.len());
            target.extend_from_slice(&self.bytes()[..available]);
            self.advance_by_value(count);
        }
    }

    /// The bytes that are left as a growable buffer, for decoders that are written against one.
    ///
    /// Bytes that arrived in the thread's shared buffer are copied into one of the connection's
    /// own first. What the caller removes from the front counts as advanced; it must not append, nor change what
    /// it leaves.
    pub fn as_buffer(&mut self) -> &mut BytesMut {
        if let Memory::Slice(bytes) = &self.memory {
            self.memory = Memory::Moved(Box::new(BytesMut::from(*bytes)));
        }
        match &mut self.memory {
            Memory::Buffer(buffer) => buffer,
            Memory::Moved(buffer) => buffer,
            Memory::Slice(_) => unreachable!("the slice has been moved above"),
        }
    }

    /// How many bytes the decoder has consumed.
    #[inline]
    pub fn consumed(&self) -> usize {
        self.available - self.len().min(self.available)
    }

    /// How many bytes the decoder has consumed beyond the end.
    #[inline]
    pub fn overrun(&self) -> usize {
        self.overrun
    }

    /// What is left, if the input is a slice still and nothing was consumed beyond its end.
    #[cfg(feature = "tokio")]
    #[inline(always)]
    pub(crate) fn plain_rest(&self) -> Option<&'a [u8]> {
        match self.memory {
            Memory::Slice(bytes) if self.overrun == 0 => Some(bytes),
            _ => None,
        }
    }

    /// The buffer that [`as_buffer`](Self::as_buffer) made, if it had to make one.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn into_moved(self) -> Option<Box<BytesMut>> {
        match self.memory {
            Memory::Moved(buffer) => Some(buffer),
            Memory::Slice(_) | Memory::Buffer(_) => None,
        }
    }

    /// As [`advance`](Self::advance) where that is not simple. An input whose address nobody else is
    /// given can be held in registers by the hot path.
    #[inline(always)]
    fn advance_by_value(&mut self, count: usize) {
        let mut input = std::mem::take(self);
        input.advance_slowly(count);
        *self = input;
    }

    #[cold]
    #[inline(never)]
    fn advance_slowly(&mut self, count: usize) {
        let step = self.within(count);
        match &mut self.memory {
            Memory::Slice(bytes) => *bytes = &bytes[step..],
            Memory::Buffer(buffer) => buffer.advance(step),
            Memory::Moved(buffer) => buffer.advance(step),
        }
    }

    fn within(&mut self, count: usize) -> usize {
        let len = self.len();
        if count > len {
            self.overrun = self.overrun.saturating_add(count - len);
            len
        } else {
            count
        }
    }
}

/// No bytes.
impl Default for Input<'_> {
    fn default() -> Self {
        Self::from_slice(&[])
    }
}

fn take_from(buffer: &mut BytesMut, count: usize) -> Bytes {
    if count >= SHARED_PAYLOAD {
        buffer.split_to(count).freeze()
    } else {
        let payload = Bytes::copy_from_slice(&buffer[..count]);
        buffer.advance(count);
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_payloads_leave_a_buffer_without_a_copy_and_small_ones_with_one() {
        let mut buffer = BytesMut::zeroed(SHARED_PAYLOAD * 2);
        let start = buffer.as_ptr();
        let mut input = Input::from_buffer(&mut buffer);
        let large = input.take(SHARED_PAYLOAD);
        let small = input.take(SHARED_PAYLOAD - 1);
        assert_eq!(large.as_ptr(), start);
        assert_ne!(small.as_ptr(), start.wrapping_add(SHARED_PAYLOAD));
        assert_eq!(input.consumed(), SHARED_PAYLOAD * 2 - 1);
        assert_eq!(input.overrun(), 0);
    }

    #[test]
    fn stepping_past_the_end_is_recorded_and_never_panics() {
        let mut input = Input::from_slice(b"abc");
        input.advance(2);
        assert_eq!(input.take(5), Bytes::from_static(b"c"));
        input.advance(usize::MAX);
        assert!(input.is_empty());
        assert_eq!(input.consumed(), 3);
        assert_eq!(input.overrun(), usize::MAX);
    }

    #[test]
    fn a_slice_becomes_a_buffer_on_demand() {
        let mut input = Input::from_slice(b"abc");
        let _ = input.as_buffer().split_to(1);
        assert_eq!(input.bytes(), b"bc");
        assert_eq!(input.consumed(), 1);
    }
}
