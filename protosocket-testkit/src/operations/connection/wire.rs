//! A codec that can do everything that a codec may do, and everything that it must not.

use std::{cell::Cell, rc::Rc};

use bytes::{Bytes, BytesMut};
use protosocket::{DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer};

/// The length of a header: what kind of thing follows, and a number of three bytes.
const HEADER: usize = 4;

/// What a header can announce.
pub(super) mod kind {
    /// A payload of so many bytes: asked for at once.
    pub(crate) const PLAIN: u8 = 0;
    /// So many bytes to be skipped, the header included.
    pub(crate) const SKIP: u8 = 1;
    /// So many times 16 MiB to be skipped.
    pub(crate) const SKIP_FAR: u8 = 2;
    /// A payload that is eaten as it comes.
    pub(crate) const EATEN: u8 = 3;
    /// Nothing at all.
    pub(crate) const KEEPALIVE: u8 = 4;
    /// A payload whose end the decoder claims not to know.
    pub(crate) const SEARCHED: u8 = 5;
    /// A payload that is taken out of a buffer.
    pub(crate) const BUFFERED: u8 = 6;
    /// A payload that is asked for when the header has been consumed.
    pub(crate) const BODY: u8 = 7;
    /// An error.
    pub(crate) const MALFORMED: u8 = 8;
    /// The decoder asks for what it has been given.
    pub(crate) const STUBBORN: u8 = 9;
    /// A message of nothing.
    pub(crate) const NOTHING: u8 = 10;
    /// The decoder consumes what is not there.
    pub(crate) const OVERRUN: u8 = 11;
    /// A skip of nothing.
    pub(crate) const SKIP_NOTHING: u8 = 12;
    /// The decoder asks for more than there can be.
    pub(crate) const ENDLESS: u8 = 13;
    /// So many bytes to be skipped behind the header, and then a message of one byte.
    pub(crate) const TAIL: u8 = 14;
    /// From here on, a byte is a message.
    pub(crate) const BYTE: u8 = 15;
}

/// The decoder: see [`kind`].
#[derive(Debug)]
pub(super) struct Wire {
    /// What it refuses to eat.
    max_message_size: usize,
    state: State,
    eaten: BytesMut,
    /// How many bytes it has consumed or asked to be skipped.
    progress: Rc<Cell<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Eating(usize),
    Body(usize),
    Tail,
}

impl Wire {
    pub(super) fn new(max_message_size: usize) -> Self {
        Self {
            max_message_size,
            state: State::Header,
            eaten: BytesMut::new(),
            progress: Rc::default(),
        }
    }

    /// How many bytes it has consumed or asked to be skipped, for whoever does not own it.
    pub(super) fn progress(&self) -> Rc<Cell<u64>> {
        self.progress.clone()
    }

    fn decode_one(&mut self, input: &mut Input<'_>) -> Result<Decoded<Bytes>, DecodeError> {
        match self.state {
            State::Header => self.decode_header(input),
            State::Eating(left) => Ok(self.eat(left, input)),
            State::Body(length) if input.len() < length => Ok(Decoded::Need(length)),
            State::Body(length) => {
                self.state = State::Header;
                Ok(Decoded::Message(input.take(length)))
            }
            State::Tail => {
                self.state = State::Header;
                Ok(Decoded::Message(input.take(1)))
            }
        }
    }

    fn decode_header(&mut self, input: &mut Input<'_>) -> Result<Decoded<Bytes>, DecodeError> {
        let kind = input.bytes()[0];
        if kind >= kind::BYTE {
            return Ok(Decoded::Message(input.take(1)));
        }
        let Some(&[_, high, middle, low]) = input.bytes().first_chunk::<HEADER>() else {
            return Ok(Decoded::Need(HEADER));
        };
        let number = u32::from_be_bytes([0, high, middle, low]) as usize;
        let whole = HEADER + number;
        let missing = input.len() < whole;
        Ok(match kind {
            kind::PLAIN if missing => Decoded::Need(whole),
            kind::SEARCHED if missing => Decoded::Need(input.len() + 1),
            kind::BUFFERED if missing => Decoded::Need(whole),
            kind::BUFFERED => {
                let mut message = input.as_buffer().split_to(whole);
                Decoded::Message(message.split_off(HEADER).freeze())
            }
            kind::PLAIN | kind::SEARCHED => {
                input.advance(HEADER);
                Decoded::Message(input.take(number))
            }
            kind::EATEN if whole > self.max_message_size => {
                return Err(DecodeError::TooLarge {
                    size: whole as u64,
                    limit: self.max_message_size as u64,
                });
            }
            kind::EATEN => {
                input.advance(HEADER);
                self.eat(number, input)
            }
            kind::BODY if number == 0 => {
                input.advance(HEADER);
                Decoded::Message(Bytes::new())
            }
            kind::BODY => {
                input.advance(HEADER);
                self.state = State::Body(number);
                Decoded::Need(number)
            }
            kind::SKIP => Decoded::Skip(whole as u64),
            kind::SKIP_FAR => Decoded::Skip((whole as u64) << 24),
            kind::KEEPALIVE => {
                input.advance(HEADER);
                Decoded::Need(1)
            }
            kind::STUBBORN => Decoded::Need(input.len()),
            kind::NOTHING => Decoded::Message(Bytes::new()),
            kind::OVERRUN => {
                input.advance(input.len() + 1 + number);
                Decoded::Message(Bytes::new())
            }
            kind::SKIP_NOTHING => Decoded::Skip(0),
            kind::ENDLESS => Decoded::Need(usize::MAX),
            kind::TAIL => {
                input.advance(HEADER);
                self.state = State::Tail;
                Decoded::Skip(number as u64)
            }
            kind::MALFORMED.. => return Err(DecodeError::malformed("a header that says so")),
        })
    }

    fn eat(&mut self, left: usize, input: &mut Input<'_>) -> Decoded<Bytes> {
        let count = left.min(input.len());
        self.eaten.extend_from_slice(&input.bytes()[..count]);
        input.advance(count);
        if count < left {
            self.state = State::Eating(left - count);
            return Decoded::Need(1);
        }
        self.state = State::Header;
        Decoded::Message(self.eaten.split().freeze())
    }
}

impl Decoder for Wire {
    type Message = Bytes;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Bytes>, DecodeError> {
        let before = input.consumed();
        let decoded = self.decode_one(input);
        let mut progress = (input.consumed() - before) as u64;
        if let Ok(Decoded::Skip(count)) = decoded {
            progress = progress.saturating_add(count);
        }
        self.progress
            .set(self.progress.get().saturating_add(progress));
        decoded
    }

    fn is_inside(&self) -> bool {
        self.state != State::Header
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<Bytes>, DecodeError> {
        match input.is_empty() && self.state == State::Header {
            true => Ok(None),
            false => Err(DecodeError::Truncated { left: input.len() }),
        }
    }
}

/// A message on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// Tells it from all others.
    pub(super) number: u32,
    pub(super) shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A payload of so many bytes, behind a header.
    Payload(usize),
    /// No bytes.
    Empty,
    /// It fails, after so many bytes have been put into the buffer.
    Unencodable(usize),
}

impl Outgoing {
    /// What it is on the wire, if it can be encoded: its number, its length and its payload.
    pub(super) fn append_to(self, wire: &mut Vec<u8>) {
        if let Shape::Payload(size) = self.shape {
            wire.extend_from_slice(&self.number.to_be_bytes());
            wire.extend_from_slice(&(size as u32).to_be_bytes());
            wire.extend_from_slice(&pattern(self.number, size));
        }
    }

    /// How many bytes it has on the wire.
    pub(super) fn size(self) -> usize {
        match self.shape {
            Shape::Payload(size) => 8 + size,
            Shape::Empty | Shape::Unencodable(_) => 0,
        }
    }
}

/// So many bytes, no two stretches of which are the same nearby, from a start that is chosen.
pub(super) fn pattern(start: u32, size: usize) -> Vec<u8> {
    let block: [u8; 251] = std::array::from_fn(|at| (start as usize + at) as u8);
    let mut bytes = block.repeat(size.div_ceil(block.len()));
    bytes.truncate(size);
    bytes
}

impl Encoder for Wire {
    type Message = Outgoing;

    fn encode(&mut self, message: Outgoing, output: &mut SendBuffer) -> Result<(), EncodeError> {
        match message.shape {
            Shape::Empty => {}
            Shape::Payload(size) => {
                output.put_u32(message.number);
                output.put_u32(size as u32);
                output.put_bytes(pattern(message.number, size).into());
            }
            Shape::Unencodable(size) => {
                output.put_u32(message.number);
                output.put_bytes(pattern(message.number, size).into());
                return Err(EncodeError::invalid("a message that says so"));
            }
        }
        Ok(())
    }
}
