//! What simulated peers speak, and the ledger of what they have said.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, sync::OnceLock};

use bytes::Bytes;
use protosocket::{
    DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer, SendLimits,
};

/// Who sends a message: each keeps its own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Two senders of the channel.
    First,
    Second,
    /// The reactor, in the middle of a message.
    Context,
    /// The reactor, out of its own queue.
    Queue,
    /// A reply that went through the channel.
    Reply,
    /// Acknowledgements and last words.
    Control,
}

const ORIGINS: [Origin; 6] = [
    Origin::First,
    Origin::Second,
    Origin::Context,
    Origin::Queue,
    Origin::Reply,
    Origin::Control,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Note,
    Request,
    /// To the request with this origin and number.
    Response(Origin, u32),
    /// Of a note, and never of another one.
    Acknowledgement,
    /// The decoder passes over it.
    Skipped,
    /// Encodes to no bytes.
    Silent,
    /// Cannot be encoded.
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) origin: Origin,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) size: usize,
}

/// Message head: kind, origin, number, what is answered, size.
const HEAD: usize = 1 + 1 + 4 + 1 + 4 + 4;

/// LIMIT: the largest body of a test.
const MAX_SIZE: usize = 160 * 1024;

/// The body of a message: a window into bytes that are nowhere the same for long.
fn body(number: u32, size: usize) -> Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        (0..MAX_SIZE as u32 + 256)
            .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect()
    });
    let from = number as usize % 256;
    pattern.slice(from..from + size)
}

/// What one side has said to the other.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Messages that were accepted, of each origin: the next number.
    accepted: [u32; ORIGINS.len()],
    /// Messages that were given to the encoder, of each origin.
    encoded: [u32; ORIGINS.len()],
    replies: BTreeSet<u32>,
    /// What is on the wire, or was, and in which order.
    wire: Vec<Message>,
    /// How much of that the other side has received.
    received: usize,
    /// Messages that the other side's reactor was given.
    pub(crate) delivered: u64,
    /// Messages that could not be encoded.
    pub(crate) bad: u64,
    /// What must never be.
    pub(crate) violations: Vec<String>,
}

impl Ledger {
    /// The number of the next message of this origin.
    pub(crate) fn next(&self, origin: Origin) -> u32 {
        self.accepted[origin as usize]
    }

    /// The message that got this number was accepted.
    pub(crate) fn accept(&mut self, origin: Origin) {
        self.accepted[origin as usize] += 1;
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.iter().map(|count| u64::from(*count)).sum()
    }

    /// Whether everything that was accepted has been given to the encoder.
    pub(crate) fn is_encoded(&self) -> bool {
        let replies = self.replies.len() as u64;
        let encoded: u64 = self.encoded.iter().map(|count| u64::from(*count)).sum();
        encoded + replies == self.accepted()
    }

    /// Whether the other side has received everything that was ever put on the wire.
    pub(crate) fn is_whole(&self) -> bool {
        self.wire[self.received..]
            .iter()
            .all(|message| message.kind == Kind::Skipped)
    }

    /// Bytes of everything that was ever put on the wire.
    pub(crate) fn wire_bytes(&self) -> u64 {
        bytes(&self.wire)
    }

    /// Bytes of the messages up to the last one that the other side has received.
    pub(crate) fn received_bytes(&self) -> u64 {
        bytes(&self.wire[..self.received])
    }

    /// Where in all the bytes each message begins and ends, and whether it was received; but for
    /// those that are passed over.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = (u64, u64, bool)> {
        let mut end = 0;
        let bounds = self.wire.iter().enumerate().map(move |(index, message)| {
            let begin = end;
            end += (HEAD + message.size) as u64;
            (message.kind, (begin, end, index < self.received))
        });
        let whole = bounds.filter(|(kind, _)| *kind != Kind::Skipped);
        whole.map(|(_, bounds)| bounds)
    }

    pub(crate) fn accuse(&mut self, violation: impl Into<String>) {
        if self.violations.len() < 4 {
            self.violations.push(violation.into());
        }
    }

    fn encode(&mut self, message: &Message) {
        if message.origin == Origin::Reply {
            // Each of them had a sender of its own, and order is kept per sender.
            let accepted = message.number < self.accepted[Origin::Reply as usize];
            if !accepted || !self.replies.insert(message.number) {
                self.accuse(format!("{message:?} was encoded twice, or made up"));
            }
        } else {
            let next = &mut self.encoded[message.origin as usize];
            let expected = std::mem::replace(next, message.number + 1);
            if expected != message.number {
                self.accuse(format!("{message:?} was encoded instead of {expected}"));
            }
        }
        match message.kind {
            Kind::Bad => self.bad += 1,
            Kind::Silent => {}
            _ => self.wire.push(message.clone()),
        }
    }

    fn receive(&mut self, message: &Message) {
        self.delivered += 1;
        while let Some(next) = self.wire.get(self.received)
            && next.kind == Kind::Skipped
        {
            self.received += 1;
        }
        let expected = self.wire.get(self.received);
        if expected != Some(message) {
            let violation = format!("{message:?} was received instead of {expected:?}");
            self.accuse(violation);
        }
        self.received += 1;
    }
}

fn bytes(messages: &[Message]) -> u64 {
    let sizes = messages.iter().map(|message| HEAD + message.size);
    sizes.sum::<usize>() as u64
}

pub(crate) type SharedLedger = Rc<RefCell<Ledger>>;

/// Speaks messages, writes down what it encodes, and compares what it decodes.
pub(crate) struct Numbered {
    /// What this side says, and what it hears.
    pub(crate) said: SharedLedger,
    pub(crate) heard: SharedLedger,
    /// What the send buffer may hold when another message comes.
    pub(crate) limits: SendLimits,
    pub(crate) max_size: usize,
    /// Consume the head of a message before its body is there.
    pub(crate) piecewise: bool,
    pub(crate) head: Option<Head>,
    /// Panic with so many more messages decoded, or encoded.
    pub(crate) panics: Rc<RefCell<Panics>>,
}

#[derive(Debug, Default)]
pub(crate) struct Panics {
    pub(crate) in_decode: Option<u32>,
    pub(crate) in_encode: Option<u32>,
    pub(crate) in_reactor: Option<u32>,
    pub(crate) happened: bool,
}

impl Panics {
    pub(crate) fn disarm(&mut self) {
        self.in_decode = None;
        self.in_encode = None;
        self.in_reactor = None;
    }

    pub(crate) fn count_down(&mut self, which: fn(&mut Self) -> &mut Option<u32>) {
        let counter = which(self);
        match counter {
            Some(0) => {
                *counter = None;
                self.happened = true;
                // Without the hook, which would print thousands of them.
                std::panic::resume_unwind(Box::new("the seed wants a panic"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    kind: u8,
    origin: Origin,
    number: u32,
    answers: (Origin, u32),
    size: usize,
}

fn origin(code: u8) -> Result<Origin, DecodeError> {
    let origin = ORIGINS.get(usize::from(code)).copied();
    origin.ok_or_else(|| DecodeError::malformed("no such origin"))
}

impl Head {
    fn parse(bytes: &[u8; HEAD]) -> Result<Self, DecodeError> {
        let number = |at| u32::from_be_bytes(std::array::from_fn(|index| bytes[at + index]));
        Ok(Self {
            kind: bytes[0],
            origin: origin(bytes[1])?,
            number: number(2),
            answers: (origin(bytes[6])?, number(7)),
            size: number(11) as usize,
        })
    }
}

impl Decoder for Numbered {
    type Message = Message;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Message>, DecodeError> {
        let (head, behind) = match self.head {
            Some(head) => (head, 0),
            None => {
                let Some(bytes) = input.bytes().first_chunk() else {
                    return Ok(Decoded::Need(HEAD));
                };
                (Head::parse(bytes)?, HEAD)
            }
        };
        if head.kind == 3 {
            input.advance(behind);
            return Ok(Decoded::Skip(head.size as u64));
        }
        if input.len() < behind + head.size {
            if self.piecewise {
                input.advance(behind);
                self.head = Some(head);
                return Ok(Decoded::Need(head.size));
            }
            return Ok(Decoded::Need(behind + head.size));
        }
        self.head = None;
        input.advance(behind);
        let Head { number, size, .. } = head;
        let got = input.take(size);
        let (origin, request) = head.answers;
        let message = Message {
            origin: head.origin,
            number,
            kind: match head.kind {
                0 => Kind::Note,
                1 => Kind::Request,
                2 => Kind::Response(origin, request),
                4 => Kind::Acknowledgement,
                _ => return Err(DecodeError::malformed("no such kind")),
            },
            size,
        };
        if got != body(number, size) {
            let mut heard = self.heard.borrow_mut();
            heard.accuse(format!("the body of {message:?} is not what was sent"));
        }
        self.panics
            .borrow_mut()
            .count_down(|panics| &mut panics.in_decode);
        self.heard.borrow_mut().receive(&message);
        Ok(Decoded::Message(message))
    }
}

impl Encoder for Numbered {
    type Message = Message;

    fn encode(&mut self, message: Message, output: &mut SendBuffer) -> Result<(), EncodeError> {
        // One message may exceed the bulk limit, and then there is the control reserve.
        let most = self.limits.bulk_bytes + self.max_size + HEAD + self.limits.control_bytes;
        let unsent = output.unsent_bytes();
        if unsent >= most {
            let violation = format!("{unsent} bytes waited to be sent, {most} may");
            self.said.borrow_mut().accuse(violation);
        }
        self.said.borrow_mut().encode(&message);
        let Message { number, size, .. } = message;
        let (kind, answers) = match message.kind {
            Kind::Note => (0, (Origin::First, 0)),
            Kind::Request => (1, (Origin::First, 0)),
            Kind::Response(origin, number) => (2, (origin, number)),
            Kind::Skipped => (3, (Origin::First, 0)),
            Kind::Acknowledgement => (4, (Origin::First, 0)),
            Kind::Silent => return Ok(()),
            Kind::Bad => {
                output.put_slice(b"half a message");
                return Err(EncodeError::TooLarge { size: 1, limit: 0 });
            }
        };
        output.put_u8(kind);
        output.put_u8(message.origin as u8);
        output.put_u32(number);
        output.put_u8(answers.0 as u8);
        output.put_u32(answers.1);
        output.put_u32(size as u32);
        self.panics
            .borrow_mut()
            .count_down(|panics| &mut panics.in_encode);
        output.put_bytes(body(number, size));
        Ok(())
    }
}
