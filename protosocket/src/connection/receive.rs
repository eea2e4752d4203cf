use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::memory::{self, Buffer, LARGE, SCRATCH};
use crate::{DecodeError, Decoded, Decoder, Input, codec::Memory};

/// Above this size, a message is read on with while others wait, in bytes.
const HUGE: usize = 256 * 1024;

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
    /// How large the memory is in which they are, that of messages which have been taken from its
    /// front included.
    allocated: usize,
    /// How many bytes at the end of `kept` still stand before `scratch.start` as well.
    moved: usize,
    /// What the decoder said it needs, counted from the front; 0 if it has not said.
    need: usize,
    /// Bytes to be discarded before anything else is decoded.
    skip: u64,
    /// The size of the last message if it was large, in bytes, and otherwise 0: the next one is
    /// probably like it.
    last_large: usize,
    /// How much to move over next, while the length of a message is unknown.
    top_up: usize,
    /// How much to read at once into `kept`; grows while reads fill it.
    chunk: usize,
    /// The decoder has consumed a part of a message.
    inside: bool,
    /// The buffer has been made to fit what the decoder needed.
    fitted: bool,
    /// It has been moved to less memory than it needs, because it comes slowly: it gets more as it
    /// comes, and not all at once again.
    is_slow: bool,
    /// The end of the input has completed a message of no bytes.
    completed_by_end: bool,
}

/// How much one read may take, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadSizes {
    /// Never more than this.
    pub(super) limit: usize,
    /// What is left of the poll's share. The end of a large message may lie somewhat behind it.
    pub(super) share: usize,
    /// Of large messages at once, until one is larger than that.
    pub(super) chunk: usize,
}

impl ReadSizes {
    /// How much to read of large messages like the `last` one, of which the first lacks `missing`
    /// bytes and the others have not begun.
    ///
    /// A read that ends with a message leaves no beginning of another, which would have to be moved
    /// to where there is room for its rest.
    fn whole_messages(&self, missing: usize, last: usize) -> usize {
        let step = self.chunk.max(LARGE).min(self.share);
        let size = match most(step).checked_sub(missing) {
            None => missing.min(most(self.share)),
            Some(room) => match room.checked_div(last) {
                None => missing.max(step),
                Some(count) => missing + count * last,
            },
        };
        size.min(self.limit)
    }
}

/// How far a step may be exceeded to reach the end of a message.
fn most(step: usize) -> usize {
    step + step / 8
}

/// What came of decoding once.
#[derive(Debug)]
pub(super) enum Step<M> {
    /// A message, and how many bytes it was.
    Message(M, usize),
    /// More input is needed.
    Starved,
    Failed(Box<DecodeError>),
}

/// The scratch buffer, borrowed for a poll, and the part of it that is unread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    memory: Option<Rc<Memory>>,
    start: usize,
    end: usize,
}

impl Scratch {
    fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    fn window(&self) -> Window<'_> {
        let memory = self.memory.as_ref();
        let read = memory.map_or(&[][..], |memory| &memory::bytes(memory)[..self.end]);
        Window {
            memory,
            read,
            unread: &read[self.start..],
            ..Window::default()
        }
    }

    /// Leave the last `unread` bytes of what was read.
    #[inline]
    pub(super) fn leave(&mut self, unread: usize) {
        self.start = self.end - unread;
    }

    /// Read into it, over what was there.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        (self.start, self.end) = (0, 0);
        let memory = memory::writable(self.memory.get_or_insert_with(memory::take_scratch));
        let limit = limit.min(memory.len());
        let mut buffer = ReadBuf::new(&mut memory[..limit]);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        self.end = buffer.filled().len();
        Poll::Ready(Ok(self.end))
    }
}

/// What is unread in the scratch, while it is being decoded.
// A copy of it is what the cold paths are given, so that the hot one can hold it in registers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window<'a> {
    memory: Option<&'a Rc<Memory>>,
    /// All that the last read has brought.
    read: &'a [u8],
    /// The end of that.
    unread: &'a [u8],
    /// `memory`, if the next message begins with `unread` and the decoder has not asked for more than
    /// that holds.
    plain: Option<&'a Rc<Memory>>,
    /// How many bytes were unread when it was last [settled](ReceiveBuffer::settle).
    settled: usize,
}

impl<'a> Window<'a> {
    /// How many bytes are unread.
    #[inline]
    fn len(&self) -> usize {
        self.unread.len()
    }

    /// What is unread, to be shown to a decoder.
    fn input(&self) -> Input<'a> {
        match self.memory {
            Some(memory) => self.input_from(memory),
            None => Input::from_slice(self.unread),
        }
    }

    #[inline(always)]
    fn input_from(&self, memory: &'a Rc<Memory>) -> Input<'a> {
        Input::from_read_buffer(memory, self.unread, self.read.len() as u32)
    }

    /// Step over `count` bytes.
    fn advance(&mut self, count: usize) {
        self.unread = &self.unread[count..];
    }

    /// Step back over `count` bytes.
    fn step_back(&mut self, count: usize) {
        let start = self.read.len() - self.unread.len();
        self.unread = &self.read[start - count..];
    }

    fn clear(&mut self) {
        self.unread = &[];
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            memory::give_scratch(memory);
        }
    }
}

/// What a decoder did with what it was shown.
struct Seen {
    shown: usize,
    consumed: usize,
    overrun: usize,
    /// The buffer that it had made of it.
    moved: Option<Box<BytesMut>>,
}

impl ReceiveBuffer {
    /// Continue with bytes that were read before.
    pub(super) fn with_unread(bytes: BytesMut) -> Self {
        Self {
            allocated: bytes.capacity(),
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

    /// How much a byte that is read next weighs.
    ///
    /// Small messages are the most work, and a poll reads the shared buffer full of them once: what it
    /// left of a second time would have to be kept, and moved. Large ones are the kernel's work, which
    /// is less the more it is given at once. And of a huge one, the part that has arrived leaves the
    /// caches while others have their turn.
    pub(super) fn weight(&self) -> usize {
        match self.is_large() {
            true if self.need.max(self.last_large) > HUGE => 1,
            true => 4,
            false => 8,
        }
    }

    /// Whether what is read next belongs to a large message, as far as one can know.
    pub(super) fn is_large(&self) -> bool {
        self.skip == 0 && (self.last_large > 0 || self.need > LARGE)
    }

    /// Whether the next message is probably a large one, of which nothing has arrived and `share`
    /// does not reach the end.
    pub(super) fn begins_beyond(&self, share: usize) -> bool {
        self.is_large() && self.kept.is_empty() && self.last_large > most(share)
    }

    /// Read once, as much as `sizes` say; 0 means that the input has ended.
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
        if self.is_large() {
            return self.poll_read_kept(stream, sizes, cx);
        }
        scratch.poll_read(stream, sizes.limit.min(sizes.share), cx)
    }

    /// Read behind what is kept, into memory that grows with what has arrived.
    fn poll_read_kept<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        sizes: ReadSizes,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let missing = match self.need.saturating_sub(self.kept.len()) {
            0 => self.last_large.max(1),
            missing => missing,
        };
        let size = sizes.whole_messages(missing, self.last_large);
        self.make_room(size, missing, sizes.chunk.max(LARGE));
        let spare = size.min(self.kept.capacity() - self.kept.len());
        debug_assert!(spare > 0, "a read into nothing would look like the end");
        let mut target = (&mut self.kept).limit(spare);
        let stream = Pin::new(stream);
        let count = ready!(tokio_util::io::poll_read_buf(stream, cx, &mut target))?;
        if count == spare {
            self.chunk = (self.chunk.max(LARGE) * 2).min(sizes.chunk);
        }
        Poll::Ready(Ok(count))
    }

    /// Make room behind what is kept for the next `size` bytes, if there is memory for them, and
    /// otherwise for as much as may be. The message that has begun lacks `missing` bytes.
    fn make_room(&mut self, size: usize, missing: usize, chunk: usize) {
        let len = self.kept.len();
        let wish = len + size;
        if self.kept.capacity() >= wish {
            return;
        }
        // Memory that is freed and taken anew for each message costs more than all else about it,
        // because the system has to map its pages again.
        if !self.is_slow
            && let Some(spare) = memory::take_receive_buffer(wish)
        {
            let old = self.move_to(spare);
            memory::give_receive_buffer(old);
            return;
        }
        if self.kept.capacity() - len >= missing.min(LARGE) {
            return;
        }
        // LIMIT: as much again as has arrived, or what the last reads have filled.
        let step = len.max(self.chunk.clamp(LARGE, chunk));
        if self.need > len.max(chunk) && missing <= step && !self.fitted {
            // The rest of the message fits: make room for exactly it, not for a doubling. Once
            // for a message: a decoder that does not know the length asks for one byte more
            // each time, and would have all of them moved for each.
            self.fitted = true;
            drop(self.move_to(Buffer::with_capacity(self.need)));
            return;
        }
        self.reserve(most(step).min(size.max(len)));
    }

    /// Make room for so many bytes more, in the memory that is there or in more.
    fn reserve(&mut self, more: usize) {
        let before = self.kept.as_ptr();
        self.kept.reserve(more);
        if self.kept.as_ptr() != before {
            // It begins at the front of its memory, and reaches to its end.
            self.allocated = self.kept.capacity();
        }
        self.allocated = self.allocated.max(self.kept.capacity());
    }

    /// Go on in other memory. Returns that of before, in which messages may be in use.
    fn move_to(&mut self, mut buffer: Buffer) -> Buffer {
        buffer.bytes.extend_from_slice(&self.kept);
        Buffer {
            bytes: std::mem::replace(&mut self.kept, buffer.bytes),
            allocated: std::mem::replace(&mut self.allocated, buffer.allocated),
        }
    }

    /// Decode one message, or say what stands in the way.
    #[inline(always)]
    pub(super) fn decode<D: Decoder>(
        &mut self,
        decoder: &mut D,
        window: &mut Window<'_>,
        ended: bool,
        limit: usize,
    ) -> Step<D::Message> {
        let shown = window.len();
        let Some(memory) = window.plain.filter(|_| shown > 0) else {
            if window.plain.is_some() && !ended {
                return Step::Starved;
            }
            let step;
            (step, *window) = self.decode_on(decoder, *window, ended, limit);
            return step;
        };
        // Most messages lie whole in the scratch, one behind the other.
        let mut input = window.input_from(memory).ended(ended);
        // The answer is taken apart here and put together again for whoever is not the hot path:
        // then it need not be in memory on its way to the reactor.
        let decoded = match decoder.decode(&mut input) {
            Ok(Decoded::Message(message)) => {
                // Of a large one a note is taken, and one of no bytes is refused.
                if let Some(rest) = input.plain_rest()
                    && let consumed = shown - rest.len()
                    && consumed.wrapping_sub(1) < limit.min(LARGE)
                {
                    window.unread = rest;
                    return Step::Message(message, consumed);
                }
                Ok(Decoded::Message(message))
            }
            Ok(Decoded::Need(need)) => Ok(Decoded::Need(need)),
            Ok(Decoded::Skip(count)) => Ok(Decoded::Skip(count)),
            Err(error) => Err(error),
        };
        let seen = Seen {
            shown,
            consumed: input.consumed(),
            overrun: input.overrun(),
            moved: input.into_moved(),
        };
        let step;
        (step, *window) = self.follow_odd(decoder, *window, seen, decoded, ended, limit);
        step
    }

    /// Do what the decoder's answer to the whole window asks for, if that is no plain message.
    #[inline(never)]
    fn follow_odd<'a, D: Decoder>(
        &mut self,
        decoder: &mut D,
        mut window: Window<'a>,
        seen: Seen,
        decoded: Result<Decoded<D::Message>, DecodeError>,
        ended: bool,
        limit: usize,
    ) -> (Step<D::Message>, Window<'a>) {
        let Seen {
            shown, consumed, ..
        } = seen;
        self.settle(&mut window);
        self.after_scratch(&mut window, consumed, seen.moved);
        let followed = check_overrun(shown, seen.overrun)
            .and(decoded)
            .and_then(|decoded| self.follow(decoded, consumed, shown, &mut window, ended, limit));
        let step = match followed {
            Ok(Some(step)) => step,
            Ok(None) => return self.decode_on(decoder, window, ended, limit),
            Err(error) => Step::Failed(Box::new(error)),
        };
        (step, self.look(window))
    }

    /// Decode where the simple case does not hold: across reads, behind skips, at the end.
    #[inline(never)]
    fn decode_on<'a, D: Decoder>(
        &mut self,
        decoder: &mut D,
        mut window: Window<'a>,
        ended: bool,
        limit: usize,
    ) -> (Step<D::Message>, Window<'a>) {
        self.settle(&mut window);
        let step = loop {
            if !self.discard(&mut window) {
                break Step::Starved;
            }
            let available = self.kept.len() + window.len();
            if available < self.need && !ended {
                self.keep_window(&mut window);
                break Step::Starved;
            }
            if available == 0 {
                break Step::Starved;
            }
            if !self.kept.is_empty() && self.kept.len() < self.need {
                // The decoder has said how much it needs, so less is not worth showing to it.
                self.move_over(&mut window, self.need - self.kept.len());
            }
            let followed = self
                .show(&mut window, ended, |input| decoder.decode(input))
                .and_then(|(result, consumed, shown)| {
                    self.follow(result?, consumed, shown, &mut window, ended, limit)
                });
            match followed {
                Ok(Some(step)) => break step,
                Ok(None) => {}
                Err(error) => break Step::Failed(Box::new(error)),
            }
        };
        (step, self.look(window))
    }

    /// Begin to decode what is unread in the scratch.
    #[inline]
    pub(super) fn open<'a>(&self, scratch: &'a Scratch) -> Window<'a> {
        self.look(scratch.window())
    }

    /// What was not decoded of `scratch` is the rest of `window`.
    #[inline]
    pub(super) fn close(&mut self, mut window: Window<'_>) -> usize {
        self.settle(&mut window);
        window.len()
    }

    /// Whether the decoder can be shown the window as it is.
    fn look<'a>(&self, mut window: Window<'a>) -> Window<'a> {
        let is_plain = self.kept.is_empty() && self.skip == 0 && self.need <= window.len();
        window.plain = window.memory.filter(|_| is_plain);
        window.settled = window.len();
        window
    }

    /// Take note of the messages that were plainly decoded. None of them was large.
    fn settle(&mut self, window: &mut Window<'_>) {
        if window.len() < window.settled {
            self.on_message(1);
        }
        window.settled = window.len();
    }

    /// Do what the decoder's answer asks for: `None` if it is to be called again, and otherwise
    /// what [`decode`](Self::decode) returns.
    fn follow<M>(
        &mut self,
        decoded: Decoded<M>,
        consumed: usize,
        shown: usize,
        window: &mut Window<'_>,
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
                Ok(Some(Step::Message(message, consumed)))
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
                let all_shown = self.kept.is_empty() || window.len() == 0;
                if all_shown || (self.kept.len() + window.len() < need && !ended) {
                    self.keep_window(window);
                    return Ok(Some(Step::Starved));
                }
                self.move_over(window, need - shown);
                Ok(None)
            }
        }
    }

    #[inline]
    fn on_message(&mut self, consumed: usize) {
        self.need = 0;
        self.inside = false;
        self.is_slow = false;
        self.last_large = if consumed > LARGE { consumed } else { 0 };
    }

    /// The input has ended and nothing more can be decoded: what does the decoder make of that?
    pub(super) fn decode_end<D: Decoder>(
        &mut self,
        decoder: &mut D,
        mut window: Window<'_>,
    ) -> Step<D::Message> {
        let window = &mut window;
        self.settle(window);
        self.keep_window(window);
        let result = match self.skip {
            0 => self
                .show(window, true, |input| decoder.decode_end(input))
                .and_then(|(result, consumed, _)| self.follow_end(result?, consumed)),
            _ => Err(DecodeError::Truncated { left: 0 }),
        };
        match result {
            Ok(Some((message, consumed))) => Step::Message(message, consumed),
            Ok(None) => Step::Starved,
            Err(error) => Step::Failed(Box::new(error)),
        }
    }

    /// The end itself may complete one message without a byte of its own.
    fn follow_end<M>(
        &mut self,
        message: Option<M>,
        consumed: usize,
    ) -> Result<Option<(M, usize)>, DecodeError> {
        if message.is_some() && consumed == 0 {
            if self.completed_by_end {
                return Err(DecodeError::NoProgress(
                    "a second message of no bytes after the end of the input",
                ));
            }
            self.completed_by_end = true;
        }
        Ok(message.map(|message| (message, consumed)))
    }

    /// Everything that was read and not decoded, between two polls.
    pub(super) fn into_unread(self) -> BytesMut {
        self.kept
    }

    /// Put what is unread where it outlives the poll, and give back memory that is not needed;
    /// `read` bytes came in this poll.
    pub(super) fn rest(&mut self, scratch: &mut Scratch, read: usize) {
        self.keep(scratch);
        let (len, allocated) = (self.kept.len(), self.allocated);
        // The beginning of a message must not hold the buffer of an earlier one. Where more is
        // arriving, the buffer will be filled and is worth its memory.
        let is_too_large = allocated > LARGE.max(4 * len) && read < allocated / 8;
        if allocated > 0 && (len == 0 || is_too_large) {
            self.is_slow = len > 0;
            let old = self.move_to(Buffer::with_capacity(len));
            memory::give_receive_buffer(old);
        }
    }

    /// Discard what is to be skipped. Whether that is done.
    fn discard(&mut self, window: &mut Window<'_>) -> bool {
        if self.skip > 0 {
            let kept = self.kept.len().min(clamp(self.skip));
            self.kept.advance(kept);
            self.moved = self.moved.min(self.kept.len());
            self.skip -= kept as u64;
            let read = window.len().min(clamp(self.skip));
            window.advance(read);
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
        window: &mut Window<'_>,
        ended: bool,
        decode: impl FnOnce(&mut Input<'_>) -> T,
    ) -> Result<(T, usize, usize), DecodeError> {
        let from_scratch = self.kept.is_empty();
        let mut input = if from_scratch {
            window.input()
        } else {
            Input::from_buffer(&mut self.kept)
        };
        // Bytes behind those that are shown may still be in the scratch.
        let last = from_scratch || window.len() == 0;
        input = input.ended(ended && last);
        let shown = input.len();
        let result = decode(&mut input);
        let consumed = input.consumed();
        let overrun = input.overrun();
        if from_scratch {
            let moved = input.into_moved();
            self.after_scratch(window, consumed, moved);
        } else if self.kept.len() <= self.moved {
            // What is left of `kept` stands in the scratch as well: go on there, where no
            // message has to be moved.
            window.step_back(self.kept.len());
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
        window: &mut Window<'_>,
        consumed: usize,
        moved: Option<Box<BytesMut>>,
    ) {
        match moved {
            Some(buffer) => {
                self.allocated = buffer.capacity();
                self.kept = *buffer;
                window.clear();
                self.moved = 0;
            }
            None => window.advance(consumed),
        }
        if consumed > 0 {
            self.need = 0;
        }
    }

    /// Move bytes from the scratch behind what is kept: as many as are missing, or somewhat more.
    fn move_over(&mut self, window: &mut Window<'_>, missing: usize) {
        self.top_up = (self.top_up * 2).clamp(TOP_UP, SCRATCH);
        let count = missing.max(self.top_up).min(window.len());
        self.reserve(count);
        self.kept.extend_from_slice(&window.unread[..count]);
        window.advance(count);
        self.moved += count;
    }

    /// Keep all that is unread.
    pub(super) fn keep(&mut self, scratch: &mut Scratch) {
        self.keep_window(&mut scratch.window());
        scratch.leave(0);
    }

    fn keep_window(&mut self, window: &mut Window<'_>) {
        if window.len() > 0 {
            if self.allocated == 0
                && window.len() > LARGE
                && let Some(spare) = memory::take_receive_buffer(window.len())
            {
                self.move_to(spare);
            }
            self.reserve(window.len());
            self.kept.extend_from_slice(window.unread);
        }
        window.clear();
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
