use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

use super::{EncodeError, Encoder};

/// Owned payloads of at least this size ride as their own segment of the `writev`, in bytes.
///
/// Below it, copying into contiguous memory is cheaper than another segment.
pub(super) const OWN_SEGMENT: usize = 16 * 1024;

/// Written bytes are cut off the front of the contiguous memory once there are this many, in
/// bytes, and at least as many as the unwritten ones: moving costs O(1) per byte sent.
const COMPACT: usize = 64 * 1024;

/// Contiguous memory above this capacity is given back when the buffer empties, in bytes.
#[cfg(feature = "tokio")]
const RETAINED: usize = 1024 * 1024;

/// The bytes on their way out: what encoders append to and what `writev` takes from.
///
/// Small messages coalesce in contiguous memory; payloads of 16 KiB or more that are already
/// owned ride as segments of their own. The buffer knows where each message ends, so that at
/// the end of a connection the messages that were not written can be counted.
#[derive(Debug, Default)]
pub struct SendBuffer {
    /// Everything but the segments. The first `written` bytes have left.
    contiguous: Vec<u8>,
    written: usize,
    /// Payloads between the contiguous bytes, in order.
    segments: VecDeque<Segment>,
    segment_bytes: usize,
    /// Those of them that the message being encoded has appended.
    own_segment_bytes: usize,
    /// The unwritten length of each message, from `first` on; before it they are written.
    messages: Vec<usize>,
    first: usize,
    /// A part of the message at `first` has been written.
    cut: bool,
    /// Messages written to their end since the buffer was made.
    completed: u64,
    /// Bytes that were appended beyond the bulk limit, less those that have left since.
    reserve_used: usize,
}

#[derive(Debug)]
struct Segment {
    /// The payload goes before `contiguous[at]`.
    at: usize,
    payload: Bytes,
}

impl SendBuffer {
    /// An empty buffer, which holds no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Append bytes.
    #[inline]
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.contiguous.extend_from_slice(bytes);
    }

    /// Append one byte.
    #[inline]
    pub fn put_u8(&mut self, value: u8) {
        self.contiguous.push(value);
    }

    /// Append a 16-bit number, big-endian.
    #[inline]
    pub fn put_u16(&mut self, value: u16) {
        self.put_slice(&value.to_be_bytes());
    }

    /// Append a 32-bit number, big-endian.
    #[inline]
    pub fn put_u32(&mut self, value: u32) {
        self.put_slice(&value.to_be_bytes());
    }

    /// Append a 64-bit number, big-endian.
    #[inline]
    pub fn put_u64(&mut self, value: u64) {
        self.put_slice(&value.to_be_bytes());
    }

    /// Append a payload: from 16 KiB on without a copy.
    #[inline]
    pub fn put_bytes(&mut self, payload: Bytes) {
        if payload.len() < OWN_SEGMENT {
            self.contiguous.extend_from_slice(&payload);
        } else {
            self.segment_bytes += payload.len();
            self.own_segment_bytes += payload.len();
            self.segments.push_back(Segment {
                at: self.contiguous.len(),
                payload,
            });
        }
    }

    /// Append whatever a [`Buf`] holds: chunks of 16 KiB or more without a copy where the `Buf`
    /// can share them (`Bytes`, and chains of it).
    pub fn put(&mut self, mut buf: impl Buf) {
        while buf.has_remaining() {
            let chunk = buf.chunk();
            let len = chunk.len();
            if len < OWN_SEGMENT {
                self.contiguous.extend_from_slice(chunk);
                buf.advance(len);
            } else {
                self.put_bytes(buf.copy_to_bytes(len));
            }
        }
    }

    /// The contiguous memory itself, to append to with whatever can write into a `Vec<u8>`.
    ///
    /// What is there already belongs to earlier messages. Positions in it are stable until the
    /// encoder returns, so a length can be filled in afterwards. Removing bytes of earlier
    /// messages fails the message with [`EncodeError::Shrunk`] and ends the connection.
    #[inline]
    pub fn contiguous(&mut self) -> &mut Vec<u8> {
        &mut self.contiguous
    }

    /// Bytes that have been appended and not written.
    #[inline]
    pub fn unsent_bytes(&self) -> usize {
        self.contiguous.len() - self.written + self.segment_bytes
    }

    /// Messages that have been encoded and not been written to their end.
    #[inline]
    pub fn unsent_messages(&self) -> usize {
        self.messages.len() - self.first
    }

    /// Messages that have been written to their end since the buffer was made.
    #[inline]
    pub fn completed_messages(&self) -> u64 {
        self.completed
    }

    /// Whether a message has been written in part.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether everything has been written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.unsent_bytes() == 0
    }

    /// Encode one message: all of it is appended, or nothing.
    ///
    /// # Errors
    /// Those of the encoder, which leave no bytes behind; [`EncodeError::Shrunk`] if it removed
    /// what was not its own, after which nothing in this buffer can be trusted.
    #[inline(always)]
    pub fn encode<E: Encoder>(
        &mut self,
        encoder: &mut E,
        message: E::Message,
    ) -> Result<(), EncodeError> {
        let contiguous = self.contiguous.len();
        self.own_segment_bytes = 0;
        // The error goes through nobody else's hands: then there is none in memory when there is none.
        if let Err(error) = encoder.encode(message, self) {
            self.take_back(contiguous)?;
            return Err(error);
        }
        let Some(length) = self.contiguous.len().checked_sub(contiguous) else {
            return self.take_back(contiguous);
        };
        match length + self.own_segment_bytes {
            // A message of no bytes is on the wire as soon as it is encoded.
            0 => self.completed += 1,
            length => self.messages.push(length),
        }
        Ok(())
    }

    /// Remove what a failed message has appended.
    #[cold]
    fn take_back(&mut self, contiguous: usize) -> Result<(), EncodeError> {
        if self.contiguous.len() < contiguous {
            return Err(EncodeError::Shrunk(contiguous - self.contiguous.len()));
        }
        self.contiguous.truncate(contiguous);
        // INVARIANT: no segment is empty, so those that are too many are those of this message.
        while self.own_segment_bytes > 0
            && let Some(segment) = self.segments.pop_back()
        {
            self.segment_bytes -= segment.payload.len();
            self.own_segment_bytes -= segment.payload.len();
        }
        Ok(())
    }

    /// The unwritten bytes, if they lie in one piece.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn as_contiguous(&self) -> Option<&[u8]> {
        (self.segments.is_empty()).then(|| &self.contiguous[self.written..])
    }

    /// The number of messages completed since the last call.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn take_completed(&mut self) -> u64 {
        std::mem::take(&mut self.completed)
    }

    /// The unwritten bytes, in order, as far as `slices` reaches. Returns how many were filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut from = self.written;
        for segment in &self.segments {
            if from < segment.at {
                if filled == slices.len() {
                    return filled;
                }
                slices[filled] = IoSlice::new(&self.contiguous[from..segment.at]);
                filled += 1;
                from = segment.at;
            }
            if filled == slices.len() {
                return filled;
            }
            slices[filled] = IoSlice::new(&segment.payload);
            filled += 1;
        }
        if from < self.contiguous.len() && filled < slices.len() {
            slices[filled] = IoSlice::new(&self.contiguous[from..]);
            filled += 1;
        }
        filled
    }

    /// How much of the control reserve is used, in bytes. What leaves gives back as much of it,
    /// whatever it was: then what is unsent never exceeds the bulk limit by more than one message,
    /// the reserve, and the message that exceeds that.
    #[inline]
    pub(crate) fn reserve_used(&self) -> usize {
        self.reserve_used
    }

    /// Count what was appended beyond `unsent` bytes against the control reserve.
    pub(crate) fn use_reserve(&mut self, unsent: usize) {
        self.reserve_used += self.unsent_bytes().saturating_sub(unsent);
    }

    /// Forget the first `count` unwritten bytes: they have left.
    ///
    /// # Panics
    /// If `count` is more than [`unsent_bytes`](Self::unsent_bytes): a stream that says so has
    /// broken its contract.
    pub fn advance(&mut self, count: usize) {
        let unsent = self.unsent_bytes();
        assert!(
            count <= unsent,
            "the stream claims to have written {count} of {unsent} bytes"
        );
        if count == unsent {
            self.completed += self.unsent_messages() as u64;
            self.clear();
            return;
        }
        self.reserve_used = self.reserve_used.saturating_sub(count);
        self.complete_messages(count);
        let mut left = count;
        while left > 0 {
            let until = self
                .segments
                .front()
                .map_or(self.contiguous.len(), |segment| segment.at);
            let step = left.min(until - self.written);
            self.written += step;
            left -= step;
            if left == 0 {
                break;
            }
            let segment = self
                .segments
                .front_mut()
                .expect("what is unsent and not contiguous lies in a segment");
            let step = left.min(segment.payload.len());
            segment.payload.advance(step);
            self.segment_bytes -= step;
            left -= step;
            if segment.payload.is_empty() {
                self.segments.pop_front();
            }
        }
        if self.written >= COMPACT && self.written * 2 >= self.contiguous.len() {
            self.contiguous.drain(..self.written);
            for segment in &mut self.segments {
                segment.at -= self.written;
            }
            self.written = 0;
        }
    }

    /// Drop everything that has not been written, and the memory above what is worth keeping.
    pub(crate) fn clear(&mut self) {
        self.contiguous.clear();
        self.written = 0;
        if !self.segments.is_empty() {
            self.segments.clear();
        }
        self.segment_bytes = 0;
        self.messages.clear();
        self.first = 0;
        self.cut = false;
        self.reserve_used = 0;
    }

    /// Make the buffer of one connection fit for the next one.
    #[cfg(feature = "tokio")]
    pub(crate) fn recycle(&mut self) {
        // As a rule it has been written, and is clean already.
        if !(self.contiguous.is_empty() && self.segments.is_empty() && self.messages.is_empty()) {
            self.clear();
        }
        self.reserve_used = 0;
        self.completed = 0;
        if self.contiguous.capacity() > RETAINED {
            self.contiguous = Vec::new();
        }
        if self.messages.capacity() * size_of::<usize>() > RETAINED {
            self.messages = Vec::new();
        }
    }

    fn complete_messages(&mut self, mut written: usize) {
        while let Some(message) = self.messages.get_mut(self.first) {
            if *message > written {
                *message -= written;
                self.cut |= written > 0;
                break;
            }
            written -= *message;
            self.cut = false;
            self.first += 1;
            self.completed += 1;
        }
        if self.first * 2 >= self.messages.len() {
            self.messages.drain(..self.first);
            self.first = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends its message as given; fails, after having appended it, where it is told to.
    struct Verbatim {
        fail: bool,
    }

    impl Encoder for Verbatim {
        type Message = Vec<Bytes>;

        fn encode(
            &mut self,
            message: Self::Message,
            output: &mut SendBuffer,
        ) -> Result<(), EncodeError> {
            for part in message {
                output.put_bytes(part);
            }
            if self.fail {
                return Err(EncodeError::invalid("told to fail"));
            }
            Ok(())
        }
    }

    fn contents(buffer: &SendBuffer) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = buffer.io_slices(&mut slices);
        joined(&slices[..filled])
    }

    fn joined(slices: &[IoSlice<'_>]) -> Vec<u8> {
        slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    }

    fn part(byte: u8, len: usize) -> Bytes {
        Bytes::from(vec![byte; len])
    }

    #[test]
    fn a_failed_message_leaves_no_bytes_behind() {
        let mut buffer = SendBuffer::new();
        let message = |byte| vec![part(byte, 3), part(byte, OWN_SEGMENT), part(byte, 5)];
        buffer
            .encode(&mut Verbatim { fail: false }, message(1))
            .unwrap();
        let before = contents(&buffer);
        let failed = buffer.encode(&mut Verbatim { fail: true }, message(2));
        assert!(matches!(failed, Err(EncodeError::Invalid(_))));
        assert_eq!(contents(&buffer), before);
        assert_eq!(buffer.unsent_messages(), 1);
        buffer
            .encode(&mut Verbatim { fail: false }, message(3))
            .unwrap();
        assert_eq!(
            &contents(&buffer)[before.len()..before.len() + 4][..3],
            [3; 3]
        );
    }

    #[test]
    fn a_message_of_no_bytes_is_complete_at_once() {
        let mut buffer = SendBuffer::new();
        buffer
            .encode(&mut Verbatim { fail: false }, Vec::new())
            .unwrap();
        assert!(buffer.is_empty());
        assert_eq!(buffer.unsent_messages(), 0);
        assert_eq!(buffer.completed_messages(), 1);
    }

    #[test]
    fn removing_bytes_of_earlier_messages_is_reported() {
        struct Truncates;
        impl Encoder for Truncates {
            type Message = ();
            fn encode(&mut self, (): (), output: &mut SendBuffer) -> Result<(), EncodeError> {
                output.contiguous().clear();
                Ok(())
            }
        }
        let mut buffer = SendBuffer::new();
        buffer
            .encode(&mut Verbatim { fail: false }, vec![part(1, 7)])
            .unwrap();
        let error = buffer.encode(&mut Truncates, ());
        assert!(matches!(error, Err(EncodeError::Shrunk(7))));

        #[cfg(feature = "tokio")]
        {
            // The next connection must not pay for it.
            buffer.recycle();
            assert_eq!((buffer.unsent_messages(), buffer.unsent_bytes()), (0, 0));
        }
    }

    #[test]
    fn a_partial_write_of_any_length_resumes_exactly() {
        let parts = [
            vec![part(1, 3), part(2, OWN_SEGMENT), part(3, 1)],
            vec![part(4, OWN_SEGMENT + 1)],
            vec![part(5, 70_000)],
            vec![part(6, 100)],
        ];
        let expected: Vec<u8> = parts.iter().flatten().flat_map(|p| p.to_vec()).collect();
        for step in [1, 2, 3, 7, 4096, OWN_SEGMENT, OWN_SEGMENT + 3, 100_000] {
            let mut buffer = SendBuffer::new();
            for message in parts.clone() {
                buffer
                    .encode(&mut Verbatim { fail: false }, message)
                    .unwrap();
            }
            let mut sent = Vec::new();
            while !buffer.is_empty() {
                let mut slices = [IoSlice::new(&[]); 2];
                let filled = buffer.io_slices(&mut slices);
                let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
                let count = offered.min(step);
                let bytes = slices[..filled].iter().flat_map(|slice| slice.to_vec());
                sent.extend(bytes.take(count));
                buffer.advance(count);
                assert_eq!(
                    buffer.completed_messages() + buffer.unsent_messages() as u64,
                    4
                );
            }
            assert!(sent == expected, "steps of {step}");
            assert_eq!(buffer.completed_messages(), 4);
        }
    }

    #[test]
    fn written_bytes_are_cut_off_and_the_rest_keeps_its_order() {
        let mut expected = Vec::new();
        let mut sent = Vec::new();
        let mut buffer = SendBuffer::new();
        for round in 0..400_u32 {
            // Many small messages between few large ones, and never all of it written.
            let len = match round % 40 {
                39 => OWN_SEGMENT + round as usize,
                _ => 1_000 + round as usize,
            };
            let message = part(round as u8, len);
            expected.extend_from_slice(&message);
            buffer
                .encode(&mut Verbatim { fail: false }, vec![message])
                .unwrap();
            if buffer.unsent_bytes() > 100_000 {
                let written: Vec<u8> = contents(&buffer).into_iter().take(90_001).collect();
                buffer.advance(written.len());
                sent.extend(written);
                assert!(buffer.contiguous().len() <= 2 * (COMPACT + 100_000));
            }
        }
        sent.extend(contents(&buffer));
        assert!(sent == expected);
    }
}
