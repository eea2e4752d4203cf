use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::memory::{self, SCRATCH};
use crate::{DecodeError, Decoded, Decoder, Input};

/// From this size on, a message is read into a buffer of its connection's own, in bytes, so that
/// its payload can leave without a copy. Below it, the shared buffer and a copy are cheaper.
const LARGE: usize = 16 * 1024;

/// The first step over the end of a message whose length is not known, in bytes; doubled while
/// that is not enough.
const TOP_UP: usize = 256;

/// Bytes on their way in: what was read and not decoded.
///
/// While messages are small, they are decoded from the scratch buffer that all connections of a
/// thread share, and only an unfinished message is kept, in `kept`. When it is completed by the
/// next read, just as many bytes as it needs are moved behind it.
#[derive(Debug, Default)]
pub(super) struct ReceiveBuffer {
    /// Bytes of earlier reads, then those moved over from the scratch.
    kept: BytesMut,
    /// How many bytes at the end of `kept` still stand before `scratch.start` as well.
    moved: usize,
    /// What the decoder said it needs, counted from the front; 0 if it has not said.
    need: usize,
    /// Bytes to be discarded before anything else is decoded.
    skip: u64,
    /// The last message was large, so the next one probably is.
    large: bool,
    /// How much to move over next, while the length of a message is unknown.
    top_up: usize,
    /// How much to read at once into `kept`; grows while reads fill it.
    chunk: usize,
    /// The decoder has consumed a part of a message.
    inside: bool,
    /// The buffer has been made to fit what the decoder needed.
    fitted: bool,
    /// The end of the input has completed a message of no bytes.
    completed_by_end: bool,
}

/// How much one read may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadSizes {
    /// In all, in bytes.
    pub(super) limit: usize,
    /// Into the buffer of a connection of large messages, in bytes, until one is larger than that.
    pub(super) chunk: usize,
}

/// What came of decoding once.
#[derive(Debug)]
pub(super) enum Step<M> {
    Message(M),
    /// More input is needed.
    Starved,
    Failed(Box<DecodeError>),
}

/// The scratch buffer, borrowed for a poll, and the part of it that is unread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    memory: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Scratch {
    #[inline]
    fn unread(&self) -> &[u8] {
        match &self.memory {
            Some(memory) => &memory[self.start..self.end],
            None => &[],
        }
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn memory(&mut self) -> &mut [u8] {
        self.memory.get_or_insert_with(memory::take_scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            memory::give_scratch(memory);
        }
    }
}

impl ReceiveBuffer {
    /// Continue with bytes that were read before.
    pub(super) fn with_unread(bytes: BytesMut) -> Self {
        Self {
            kept: bytes,
            ..Self::default()
        }
    }

    /// Bytes that were read and not decoded.
    pub(super) fn len(&self, scratch: &Scratch) -> usize {
        // Bytes that stand in both places count once: those before `scratch.start` are not unread.
        self.kept.len() + scratch.len()
    }

    /// Whether a message has begun and is not complete.
    pub(super) fn has_partial(&self, scratch: &Scratch, decoder: &impl Decoder) -> bool {
        self.skip > 0 || self.len(scratch) > 0 || (self.inside && decoder.is_inside())
    }

    /// Read once, at most `limit` bytes; 0 means that the input has ended.
    ///
    /// The scratch must have been decoded or kept before.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        scratch: &mut Scratch,
        sizes: ReadSizes,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert_eq!(scratch.len(), 0, "unread bytes would be lost");
        self.moved = 0;
        if self.skip == 0 && (self.large || self.need > LARGE) {
            return self.poll_read_kept(stream, sizes, cx);
        }
        let memory = scratch.memory();
        let limit = sizes.limit.min(memory.len());
        let mut buffer = ReadBuf::new(&mut memory[..limit]);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        (scratch.start, scratch.end) = (0, count);
        Poll::Ready(Ok(count))
    }

    /// Read behind what is kept, into memory that grows with what has arrived.
    fn poll_read_kept<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        sizes: ReadSizes,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let ReadSizes { limit, chunk } = sizes;
        if self.kept.capacity() == 0 {
            self.kept = memory::take_receive_buffer();
        }
        let len = self.kept.len();
        let missing = match self.need.saturating_sub(len) {
            0 => LARGE,
            missing => missing,
        };
        if self.kept.capacity() - len < missing.min(LARGE) {
            // LIMIT: as much again as has arrived, or what the last reads have filled.
            let step = len.max(self.chunk.clamp(LARGE, chunk.max(LARGE)));
            if self.need > len.max(chunk) && missing <= step && !self.fitted {
                // The rest of the message fits: make room for exactly it, not for a doubling. Once
                // for a message: a decoder that does not know the length asks for one byte more
                // each time, and would have all of them moved for each.
                self.fitted = true;
                let mut exact = BytesMut::with_capacity(self.need);
                exact.extend_from_slice(&self.kept);
                self.kept = exact;
            } else {
                self.kept.reserve(step.min(chunk.max(LARGE).max(len)));
            }
        }
        let spare = limit.min(self.kept.capacity() - len);
        debug_assert!(spare > 0, "a read into nothing would look like the end");
        let mut target = (&mut self.kept).limit(spare);
        let stream = Pin::new(stream);
        let count = ready!(tokio_util::io::poll_read_buf(stream, cx, &mut target))?;
        if count == spare {
            self.chunk = (self.chunk.max(LARGE) * 2).min(chunk);
        }
        Poll::Ready(Ok(count))
    }

    /// Decode one message, or say what stands in the way.
    #[inline(always)]
    pub(super) fn decode<D: Decoder>(
        &mut self,
        decoder: &mut D,
        scratch: &mut Scratch,
        ended: bool,
        limit: usize,
    ) -> Step<D::Message> {
        // Most messages lie whole in the scratch, one behind the other.
        let unread = scratch.unread();
        let shown = unread.len();
        let result = if shown > 0 && shown >= self.need && self.kept.is_empty() && self.skip == 0 {
            let mut input = Input::from_slice(unread).ended(ended);
            let result = decoder.decode(&mut input);
            let rest = input.plain_rest();
            if let Ok(Decoded::Message(_)) = &result
                && let Some(rest) = rest
                && rest < shown
                && shown - rest <= limit
            {
                scratch.start += shown - rest;
                self.on_message(shown - rest);
                match result {
                    Ok(Decoded::Message(message)) => return Step::Message(message),
                    _ => unreachable!("it was looked at above"),
                }
            }
            let (consumed, overrun) = (input.consumed(), input.overrun());
            let moved = input.into_moved();
            self.after_scratch(scratch, consumed, moved);
            check_overrun(shown, overrun)
                .and(result)
                .and_then(|decoded| self.follow(decoded, consumed, shown, scratch, ended, limit))
        } else {
            Ok(None)
        };
        match result {
            Ok(Some(step)) => step,
            Ok(None) => self.decode_on(decoder, scratch, ended, limit),
            Err(error) => Step::Failed(Box::new(error)),
        }
    }

    /// Decode where the simple case does not hold: across reads, behind skips, at the end.
    #[inline(never)]
    fn decode_on<D: Decoder>(
        &mut self,
        decoder: &mut D,
        scratch: &mut Scratch,
        ended: bool,
        limit: usize,
    ) -> Step<D::Message> {
        loop {
            if !self.discard(scratch) {
                return Step::Starved;
            }
            let available = self.len(scratch);
            if available < self.need && !ended {
                self.keep(scratch);
                return Step::Starved;
            }
            if available == 0 {
                return Step::Starved;
            }
            if !self.kept.is_empty() && self.kept.len() < self.need {
                // The decoder has said how much it needs, so less is not worth showing to it.
                self.move_over(scratch, self.need - self.kept.len());
            }
            let followed = self
                .show(scratch, ended, |input| decoder.decode(input))
                .and_then(|(result, consumed, shown)| {
                    self.follow(result?, consumed, shown, scratch, ended, limit)
                });
            match followed {
                Ok(Some(step)) => return step,
                Ok(None) => {}
                Err(error) => return Step::Failed(Box::new(error)),
            }
        }
    }

    /// Do what the decoder's answer asks for: `None` if it is to be called again, and otherwise
    /// what [`decode`](Self::decode) returns.
    fn follow<M>(
        &mut self,
        decoded: Decoded<M>,
        consumed: usize,
        shown: usize,
        scratch: &mut Scratch,
        ended: bool,
        limit: usize,
    ) -> Result<Option<Step<M>>, DecodeError> {
        self.inside |= consumed > 0;
        match decoded {
            Decoded::Message(_) if consumed == 0 => {
                Err(DecodeError::NoProgress("a message of no bytes"))
            }
            Decoded::Message(_) if consumed > limit => Err(too_large(consumed, limit)),
            Decoded::Message(message) => {
                self.on_message(consumed);
                Ok(Some(Step::Message(message)))
            }
            Decoded::Skip(0) if consumed == 0 => Err(DecodeError::NoProgress("a skip of no bytes")),
            Decoded::Skip(count) => {
                self.skip = count;
                self.need = 0;
                Ok(None)
            }
            Decoded::Need(need) => {
                let shown = shown - consumed;
                if need <= shown && consumed == 0 {
                    return Err(DecodeError::NoProgress(
                        "it asked for bytes that it had been given",
                    ));
                }
                if need <= shown {
                    return Ok(None);
                }
                if need > limit {
                    return Err(too_large(need, limit));
                }
                self.need = need;
                let all_shown = self.kept.is_empty() || scratch.len() == 0;
                if all_shown || (self.len(scratch) < need && !ended) {
                    self.keep(scratch);
                    return Ok(Some(Step::Starved));
                }
                self.move_over(scratch, need - shown);
                Ok(None)
            }
        }
    }

    #[inline]
    fn on_message(&mut self, consumed: usize) {
        self.need = 0;
        self.inside = false;
        self.large = consumed > LARGE;
    }

    /// The input has ended and nothing more can be decoded: what does the decoder make of that?
    pub(super) fn decode_end<D: Decoder>(
        &mut self,
        decoder: &mut D,
        scratch: &mut Scratch,
    ) -> Step<D::Message> {
        self.keep(scratch);
        let result = match self.skip {
            0 => self
                .show(scratch, true, |input| decoder.decode_end(input))
                .and_then(|(result, consumed, _)| self.follow_end(result?, consumed)),
            _ => Err(DecodeError::Truncated { left: 0 }),
        };
        match result {
            Ok(Some(message)) => Step::Message(message),
            Ok(None) => Step::Starved,
            Err(error) => Step::Failed(Box::new(error)),
        }
    }

    /// The end itself may complete one message without a byte of its own.
    fn follow_end<M>(
        &mut self,
        message: Option<M>,
        consumed: usize,
    ) -> Result<Option<M>, DecodeError> {
        if message.is_some() && consumed == 0 {
            if self.completed_by_end {
                return Err(DecodeError::NoProgress(
                    "a second message of no bytes after the end of the input",
                ));
            }
            self.completed_by_end = true;
        }
        Ok(message)
    }

    /// Everything that was read and not decoded.
    pub(super) fn into_unread(mut self, scratch: &mut Scratch) -> BytesMut {
        self.keep(scratch);
        self.kept
    }

    /// Put what is unread where it outlives the poll, and give back memory that is not needed;
    /// `read` bytes came in this poll.
    pub(super) fn rest(&mut self, scratch: &mut Scratch, read: usize) {
        self.keep(scratch);
        let (len, capacity) = (self.kept.len(), self.kept.capacity());
        if len == 0 && capacity > 0 {
            memory::give_receive_buffer(std::mem::take(&mut self.kept));
        } else if capacity > LARGE.max(4 * len) && read < capacity / 8 {
            // The beginning of a message must not hold the buffer of an earlier one. Where more
            // is arriving, the buffer will be filled and is worth its memory.
            let kept = BytesMut::from(&self.kept[..]);
            memory::give_receive_buffer(std::mem::replace(&mut self.kept, kept));
        }
    }

    /// Discard what is to be skipped. Whether that is done.
    fn discard(&mut self, scratch: &mut Scratch) -> bool {
        if self.skip > 0 {
            let kept = self.kept.len().min(clamp(self.skip));
            self.kept.advance(kept);
            self.moved = self.moved.min(self.kept.len());
            self.skip -= kept as u64;
            let read = scratch.len().min(clamp(self.skip));
            scratch.start += read;
            self.skip -= read as u64;
            // What was skipped was a message, as a rule. A decoder that skips a part of one
            // consumes some more of it.
            self.inside = self.skip > 0;
        }
        self.skip == 0
    }

    /// Show the decoder the front of what has arrived: what is kept, or else the scratch.
    /// Returns its answer, how much it consumed, and how much it was shown.
    fn show<T>(
        &mut self,
        scratch: &mut Scratch,
        ended: bool,
        decode: impl FnOnce(&mut Input<'_>) -> T,
    ) -> Result<(T, usize, usize), DecodeError> {
        let from_scratch = self.kept.is_empty();
        let mut input = if from_scratch {
            Input::from_slice(scratch.unread())
        } else {
            Input::from_buffer(&mut self.kept)
        };
        // Bytes behind those that are shown may still be in the scratch.
        let last = from_scratch || scratch.end == scratch.start;
        input = input.ended(ended && last);
        let shown = input.len();
        let result = decode(&mut input);
        let consumed = input.consumed();
        let overrun = input.overrun();
        if from_scratch {
            let moved = input.into_moved();
            self.after_scratch(scratch, consumed, moved);
        } else if self.kept.len() <= self.moved {
            // What is left of `kept` stands in the scratch as well: go on there, where no
            // message has to be moved.
            scratch.start -= self.kept.len();
            self.kept.clear();
            self.moved = 0;
        }
        check_overrun(shown, overrun)?;
        if consumed > 0 {
            self.need = 0;
            self.top_up = 0;
            self.fitted = false;
        }
        Ok((result, consumed, shown))
    }

    /// The decoder was shown the scratch: step over what it consumed, or go on in the buffer that
    /// it had made of it.
    fn after_scratch(
        &mut self,
        scratch: &mut Scratch,
        consumed: usize,
        moved: Option<Box<BytesMut>>,
    ) {
        match moved {
            Some(buffer) => {
                self.kept = *buffer;
                scratch.clear();
                self.moved = 0;
            }
            None => scratch.start += consumed,
        }
        if consumed > 0 {
            self.need = 0;
        }
    }

    /// Move bytes from the scratch behind what is kept: as many as are missing, or somewhat more.
    fn move_over(&mut self, scratch: &mut Scratch, missing: usize) {
        self.top_up = (self.top_up * 2).clamp(TOP_UP, SCRATCH);
        let count = missing.max(self.top_up).min(scratch.len());
        let unread = scratch.unread();
        self.kept.extend_from_slice(&unread[..count]);
        scratch.start += count;
        self.moved += count;
    }

    /// Keep all that is unread.
    pub(super) fn keep(&mut self, scratch: &mut Scratch) {
        if scratch.len() > 0 {
            if self.kept.capacity() == 0 && scratch.len() > LARGE {
                self.kept = memory::take_receive_buffer();
            }
            self.kept.extend_from_slice(scratch.unread());
        }
        scratch.clear();
        self.moved = 0;
    }
}

#[cold]
fn too_large(size: usize, limit: usize) -> DecodeError {
    DecodeError::TooLarge {
        size: size as u64,
        limit: limit as u64,
    }
}

fn check_overrun(available: usize, overrun: usize) -> Result<(), DecodeError> {
    match overrun {
        0 => Ok(()),
        overrun => Err(DecodeError::Overrun { available, overrun }),
    }
}

fn clamp(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

const _: () = assert!(SCRATCH >= LARGE);
