//! Decoders, given the same bytes in every way in which a network can cut them.

use std::fmt::Debug;

use bytes::{Buf, BytesMut};
use protosocket::{DecodeError, Decoded, Decoder, Input, Limits};

use crate::Random;

/// From this size on, two-way splits are drawn at random instead of being tried one by one, in
/// bytes: each of them decodes everything anew.
const EVERY_SPLIT: usize = 2048;

/// What a decoder made of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace<M> {
    /// The messages, in order.
    pub messages: Vec<M>,
    /// What came after the last of them.
    pub end: TraceEnd,
}

/// How decoding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceEnd {
    /// The input has ended, and the decoder was content with that.
    Complete,
    /// The decoder waits for more; the input had not ended.
    Waiting,
    /// It failed with the error of this [name](DecodeError::name).
    Failed(&'static str),
}

/// Which kind of memory a decoder is shown: both occur on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// The buffer that the connections of a thread share.
    Slice,
    /// A connection's own, from which payloads leave without a copy.
    Buffer,
}

/// Decode `segments` as a connection would: one after the other, each as soon as the decoder has
/// no use for what came before it, and then the end of the input if it `ended`.
///
/// A decoder that breaks its contract fails here with the errors with which it would end its
/// connection: a message of no bytes, a skip of nothing, asking for what it has been given,
/// consuming what is not there, and messages above `max_message_size`.
pub fn trace<'a, D: Decoder>(
    decoder: &mut D,
    segments: impl IntoIterator<Item = &'a [u8]>,
    ended: bool,
    max_message_size: usize,
) -> Trace<D::Message> {
    run(decoder, segments, ended, max_message_size, Memory::Buffer)
}

fn run<'a, D: Decoder>(
    decoder: &mut D,
    segments: impl IntoIterator<Item = &'a [u8]>,
    ended: bool,
    max_message_size: usize,
    memory: Memory,
) -> Trace<D::Message> {
    let mut input = Feed {
        unread: BytesMut::new(),
        need: 0,
        skip: 0,
        ended: false,
        limit: max_message_size,
        memory,
        completed_by_end: false,
    };
    let mut messages = Vec::new();
    for segment in segments {
        input.unread.extend_from_slice(segment);
        if let Err(error) = input.drain(decoder, &mut messages) {
            return Trace::failed(messages, &error);
        }
    }
    if !ended {
        let end = TraceEnd::Waiting;
        return Trace { messages, end };
    }
    input.ended = true;
    match input
        .drain(decoder, &mut messages)
        .and_then(|()| input.finish(decoder, &mut messages))
    {
        Ok(()) => Trace {
            messages,
            end: TraceEnd::Complete,
        },
        Err(error) => Trace::failed(messages, &error),
    }
}

impl<M> Trace<M> {
    fn failed(messages: Vec<M>, error: &DecodeError) -> Self {
        let end = TraceEnd::Failed(error.name());
        Self { messages, end }
    }
}

/// Bytes on their way into a decoder, by the rules of the contract and nothing else: what a
/// connection does faster is compared with this.
struct Feed {
    unread: BytesMut,
    need: usize,
    skip: u64,
    ended: bool,
    limit: usize,
    memory: Memory,
    completed_by_end: bool,
}

impl Feed {
    /// Decode until the decoder wants more than there is.
    fn drain<D: Decoder>(
        &mut self,
        decoder: &mut D,
        messages: &mut Vec<D::Message>,
    ) -> Result<(), DecodeError> {
        loop {
            let skipped = self.unread.len().min(usize_of(self.skip));
            self.unread.advance(skipped);
            self.skip -= skipped as u64;
            let starved = self.unread.len() < self.need && !self.ended;
            if self.unread.is_empty() || starved {
                return Ok(());
            }
            let before = self.unread.len();
            let (decoded, consumed) = self.show(|input| decoder.decode(input))?;
            match decoded {
                Decoded::Message(_) if consumed == 0 => {
                    return Err(DecodeError::NoProgress("a message of no bytes"));
                }
                Decoded::Message(_) if consumed > self.limit => {
                    return Err(self.too_large(consumed));
                }
                Decoded::Message(message) => {
                    self.need = 0;
                    messages.push(message);
                }
                Decoded::Skip(0) if consumed == 0 => {
                    return Err(DecodeError::NoProgress("a skip of no bytes"));
                }
                Decoded::Skip(count) => {
                    self.need = 0;
                    self.skip = count;
                }
                Decoded::Need(need) if need > before - consumed => {
                    if need > self.limit {
                        return Err(self.too_large(need));
                    }
                    self.need = need;
                    if self.ended {
                        return Ok(());
                    }
                }
                Decoded::Need(_) if consumed == 0 => {
                    return Err(DecodeError::NoProgress(
                        "it asked for bytes that it had been given",
                    ));
                }
                // It has advanced since it named an earlier number.
                Decoded::Need(_) => self.need = 0,
            }
        }
    }

    /// The input has ended: ask the decoder until it has nothing more.
    fn finish<D: Decoder>(
        &mut self,
        decoder: &mut D,
        messages: &mut Vec<D::Message>,
    ) -> Result<(), DecodeError> {
        if self.skip > 0 {
            return Err(DecodeError::Truncated { left: 0 });
        }
        while let (Some(message), consumed) = self.show(|input| decoder.decode_end(input))? {
            if consumed == 0 && std::mem::replace(&mut self.completed_by_end, true) {
                return Err(DecodeError::NoProgress(
                    "a second message of no bytes after the end of the input",
                ));
            }
            messages.push(message);
        }
        Ok(())
    }

    /// Show the decoder what there is. Returns how much it consumed as well.
    fn show<T>(
        &mut self,
        look: impl FnOnce(&mut Input<'_>) -> Result<T, DecodeError>,
    ) -> Result<(T, usize), DecodeError> {
        let available = self.unread.len();
        let (result, consumed, overrun) = match self.memory {
            Memory::Slice => {
                let mut input = Input::from_slice(&self.unread).ended(self.ended);
                let result = look(&mut input);
                let (consumed, overrun) = (input.consumed(), input.overrun());
                self.unread.advance(consumed);
                (result, consumed, overrun)
            }
            Memory::Buffer => {
                let mut input = Input::from_buffer(&mut self.unread).ended(self.ended);
                let result = look(&mut input);
                (result, input.consumed(), input.overrun())
            }
        };
        match overrun {
            0 => Ok((result?, consumed)),
            overrun => Err(DecodeError::Overrun { available, overrun }),
        }
    }

    fn too_large(&self, size: usize) -> DecodeError {
        DecodeError::TooLarge {
            size: size as u64,
            limit: self.limit as u64,
        }
    }
}

fn usize_of(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Gives a decoder the same bytes whole, byte by byte, in every two-way split, and in random
/// segments, and expects the same of it each time.
///
/// Up to 2,048 bytes every split is tried; of longer inputs, as many at random and those next to
/// the ends.
#[derive(Debug, Clone)]
pub struct Torture {
    max_message_size: usize,
    ended: bool,
    seed: u64,
    rounds: usize,
}

impl Torture {
    /// With the input ended behind the bytes, the message size of [`Limits::server`], and 64
    /// random segmentations.
    pub fn new() -> Self {
        Self {
            max_message_size: Limits::server().message_size(),
            ended: true,
            seed: 0,
            rounds: 64,
        }
    }

    /// How large a message may be, in bytes: `max_message_size` of a connection.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// The input goes on behind the bytes.
    #[must_use]
    pub fn not_ended(mut self) -> Self {
        self.ended = false;
        self
    }

    /// Draw the random segments from this seed instead of 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Try so many random segmentations.
    #[must_use]
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// Decode `bytes` in every way, each time with a decoder from `make`, and return what it was
    /// each time.
    ///
    /// # Panics
    /// If some segmentation made a difference: the message names it. Also if the decoder, shown
    /// less than everything and then the end, found other messages than before.
    #[track_caller]
    pub fn run<D>(&self, bytes: &[u8], mut make: impl FnMut() -> D) -> Trace<D::Message>
    where
        D: Decoder,
        D::Message: Debug + PartialEq,
    {
        let mut of = |segments: &[&[u8]], ended: bool, memory: Memory| {
            let segments = segments.iter().copied();
            run(&mut make(), segments, ended, self.max_message_size, memory)
        };
        let whole = of(&[bytes], self.ended, Memory::Slice);
        let mut compare = |segments: &[&[u8]], memory: Memory| {
            let cut = of(segments, self.ended, memory);
            if cut != whole {
                let sizes: Vec<usize> = segments.iter().map(|segment| segment.len()).collect();
                panic!(
                    "in segments of {sizes:?} bytes ({memory:?}, seed {}) the decoder made\n{cut:?}\n\
                     of what it makes, undivided,\n{whole:?}\nof: {bytes:02x?}",
                    self.seed
                );
            }
        };

        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        for memory in [Memory::Slice, Memory::Buffer] {
            compare(&[bytes], memory);
            compare(&single, memory);
        }
        let mut random = Random::new(self.seed);
        let mut splits: Vec<usize> = (1..bytes.len().min(EVERY_SPLIT)).collect();
        if bytes.len() > EVERY_SPLIT {
            splits.extend((0..EVERY_SPLIT).map(|_| random.below(bytes.len())));
            splits.extend(bytes.len() - 16..bytes.len());
        }
        for &at in &splits {
            let (front, rest) = bytes.split_at(at);
            let memory = *random.one_of(&[Memory::Slice, Memory::Buffer]);
            compare(&[front, rest], memory);
        }
        for _ in 0..self.rounds {
            let segments = segments(bytes, &mut random);
            let memory = *random.one_of(&[Memory::Slice, Memory::Buffer]);
            compare(&segments, memory);
        }

        // Cut off anywhere, it is the same up to there.
        for &at in &splits {
            let front = of(&[&bytes[..at]], false, Memory::Buffer);
            let count = front.messages.len();
            assert!(
                whole.messages.starts_with(&front.messages),
                "of the first {at} bytes the decoder made {front:?}, of all {whole:?}"
            );
            let ended = of(&[&bytes[..at]], true, Memory::Buffer);
            assert!(
                ended.messages.starts_with(&whole.messages[..count]),
                "of the first {at} bytes and the end the decoder made {ended:?}, of all {whole:?}"
            );
        }
        whole
    }
}

impl Default for Torture {
    fn default() -> Self {
        Self::new()
    }
}

/// Cut `bytes` at random: short segments, long ones, and mixtures.
fn segments<'a>(mut bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let longest = *random.one_of(&[2, 7, 64, 1024, 32 * 1024]);
    let mut segments = Vec::new();
    while !bytes.is_empty() {
        let size = 1 + random.below(longest.min(bytes.len()));
        let (segment, rest) = bytes.split_at(size);
        segments.push(segment);
        bytes = rest;
    }
    segments
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use protosocket::{LengthDelimitedCodec, LinesCodec, Varint};

    use super::*;
    use crate::{ByHand, framed};

    fn lines(bytes: &[u8]) -> Trace<String> {
        Torture::new().run(bytes, || LinesCodec::new().max_length(10))
    }

    #[test]
    fn ready_made_codecs_do_not_depend_on_segments() {
        let trace = lines(b"one\r\n\r\ntwo\nrest");
        assert_eq!(trace.messages, ["one", "", "two", "rest"]);
        assert_eq!(trace.end, TraceEnd::Complete);
        assert_eq!(lines(b"12345678901\n").end, TraceEnd::Failed("too_large"));
        assert_eq!(lines(b"a\n\xff\n").end, TraceEnd::Failed("malformed"));

        let trace = Torture::new().run(b"\0\0\0\x02hi\0\0\0\0\0\0\0\x09cut", framed);
        assert_eq!(trace.messages, [&b"hi"[..], b""]);
        assert_eq!(trace.end, TraceEnd::Failed("truncated"));

        let varint = || LengthDelimitedCodec::<Varint>::new();
        let trace = Torture::new().run(&[0xff; 12], varint);
        assert_eq!(trace.end, TraceEnd::Failed("malformed"));
        let trace = Torture::new().not_ended().run(b"\x02hi\x02h", varint);
        assert_eq!((trace.messages.len(), trace.end), (1, TraceEnd::Waiting));
    }

    #[test]
    fn what_is_long_is_cut_at_random() {
        let payload = vec![7; 3 * EVERY_SPLIT];
        let bytes = [&crate::frame(&payload)[..], &crate::frame(b"x")].concat();
        let trace = Torture::new().run(&bytes, framed);
        assert_eq!(trace.messages.len(), 2);
    }

    #[test]
    fn what_was_asked_for_before_an_advance_is_not_asked_for_behind_it() {
        // Steps over headers of four bytes; everything else is a message of one.
        let stepping = || {
            ByHand::new(|input| match (input.bytes()[0], input.len()) {
                (0, ..4) => Ok(Decoded::Need(4)),
                (0, _) => {
                    input.advance(4);
                    Ok(Decoded::Need(1))
                }
                _ => Ok(Decoded::Message(input.take(1))),
            })
        };
        let trace = Torture::new().not_ended().run(b"\0aaab\0aaabb", stepping);
        assert_eq!(trace.messages, [&b"b"[..], b"b", b"b"]);
    }

    #[test]
    fn a_decoder_that_depends_on_segments_is_caught() {
        // It takes for a message whatever it is shown at once.
        let greedy = || {
            ByHand::new(|input| {
                let all = input.len();
                Ok(Decoded::Message(input.take(all)))
            })
        };
        let caught = catch_unwind(|| Torture::new().run(b"ab", greedy));
        let panic = caught.unwrap_err();
        let text = panic.downcast_ref::<String>().expect("it says why");
        assert!(text.contains("segments of [1, 1] bytes"), "{text}");
    }

    #[test]
    fn a_decoder_that_breaks_its_contract_fails_as_on_a_connection() {
        type Answer = fn(&mut Input<'_>) -> Result<Decoded<u8>, DecodeError>;
        let end = |answer: Answer| {
            let mut decoder = ByHand::new(answer);
            trace(&mut decoder, [&b"abcd"[..]], true, 64).end
        };
        assert_eq!(
            end(|_| Ok(Decoded::Message(0))),
            TraceEnd::Failed("no_progress")
        );
        assert_eq!(
            end(|_| Ok(Decoded::Need(4))),
            TraceEnd::Failed("no_progress")
        );
        assert_eq!(
            end(|_| Ok(Decoded::Skip(0))),
            TraceEnd::Failed("no_progress")
        );
        assert_eq!(
            end(|_| Ok(Decoded::Need(65))),
            TraceEnd::Failed("too_large")
        );
        assert_eq!(end(|_| Ok(Decoded::Skip(5))), TraceEnd::Failed("truncated"));
        assert_eq!(end(|_| Ok(Decoded::Skip(4))), TraceEnd::Complete);
        let overrun: Answer = |input| {
            input.advance(5);
            Ok(Decoded::Message(0))
        };
        assert_eq!(end(overrun), TraceEnd::Failed("overrun"));
    }
}
