//! What client and server say to each other: frames of four bytes of length and a payload, whose
//! first eight bytes are an operation and a number. An echo of a canary is one of them.

use bytes::{BufMut, Bytes, BytesMut};
use protosocket::PooledBuffer;

/// The bytes of operation, number and argument, which begin the payload of a request.
pub(crate) const HEAD: usize = 12;

/// The longest payload, in bytes: a message may be large, and memory is judged.
pub(crate) const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// What a request asks for. Every answer begins with the number of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The same payload.
    Echo,
    /// An answer after `argument` milliseconds, from the reactor.
    Later,
    /// An answer after `argument` milliseconds, from a task and through the channel.
    ByTask,
    /// No answer: it stays in flight.
    Never,
    /// A panic of the reactor.
    Panic,
    /// An abort of the connection.
    Abort,
    /// An answer, and then the end of the connection.
    Goodbye,
    /// An answer of `argument` bytes.
    Large,
}

impl Operation {
    const ALL: [Self; 8] = [
        Self::Echo,
        Self::Later,
        Self::ByTask,
        Self::Never,
        Self::Panic,
        Self::Abort,
        Self::Goodbye,
        Self::Large,
    ];

    fn code(self) -> u8 {
        self as u8
    }

    fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }
}

/// A request, without its padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) number: u64,
    pub(crate) argument: u32,
}

impl Request {
    /// An echo of this number.
    pub(crate) fn echo(number: u64) -> Self {
        Self::new(Operation::Echo, number, 0)
    }

    pub(crate) fn new(operation: Operation, number: u64, argument: u32) -> Self {
        Self {
            operation,
            number,
            argument,
        }
    }

    /// The frame of this request, with a payload of `size` bytes or as few as it takes.
    pub(crate) fn frame(&self, size: usize) -> Bytes {
        let size = size.max(HEAD);
        let mut frame = BytesMut::with_capacity(4 + size);
        frame.put_u32(u32::try_from(size).expect("a payload below MAX_PAYLOAD"));
        frame.put_u64(u64::from(self.operation.code()) << 56 | self.number);
        frame.put_u32(self.argument);
        frame.put_bytes(0, size - HEAD);
        frame.freeze()
    }

    /// What a payload asks for. One of an unknown operation, or too short for one, is echoed.
    pub(crate) fn of_payload(payload: &[u8]) -> Self {
        let Some(head) = payload.first_chunk::<HEAD>() else {
            return Self::echo(0);
        };
        let number = u64::from_be_bytes(*head.first_chunk().expect("eight of twelve bytes"));
        let argument = u32::from_be_bytes(*head.last_chunk().expect("four of twelve bytes"));
        let code = (number >> 56) as u8;
        Self {
            operation: Operation::of_code(code).unwrap_or(Operation::Echo),
            number: number & (u64::MAX >> 8),
            argument,
        }
    }
}

/// The payload of an answer to request `number`, of `size` bytes or as few as it takes.
pub(crate) fn answer(number: u64, size: usize) -> PooledBuffer {
    let number = number.to_be_bytes();
    let mut payload = PooledBuffer::new();
    payload.extend_from_slice(&number);
    payload.as_mut_vec().resize(size.max(number.len()), 0);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        for operation in Operation::ALL {
            let request = Request::new(operation, 0x12_3456, 789);
            let frame = request.frame(100);
            assert_eq!(frame.len(), 104);
            assert_eq!(Request::of_payload(&frame[4..]), request);
        }
        assert_eq!(Request::echo(1).frame(0).len(), 4 + HEAD);
    }

    #[test]
    fn what_is_no_request_is_echoed() {
        for payload in [&b""[..], b"short", &[0xff; 64]] {
            assert_eq!(Request::of_payload(payload).operation, Operation::Echo);
        }
    }
}
