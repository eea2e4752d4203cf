//! A message that is sent over and over, and its echoes.

use std::io;
use std::sync::Arc;

use super::cycle::Cycle;
use crate::call::{self, Response};
use crate::frame;

/// Messages are prepared until a block has this many bytes, so that a write takes many of them.
const BLOCK: usize = 256 << 10;

/// Echoes up to this many bytes are compared whole, all of them.
const SMALL: usize = 1 << 10;

/// So many of the larger ones are compared whole on each connection.
const COMPARED: usize = 16;

/// The pieces of this many bytes in which the rest of them are compared: the first, the last, and
/// one that moves along with each echo. Comparing everything would make the client the slower half.
const PIECE: usize = 64;

/// A message, encoded once. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Message {
    payload: Arc<[u8]>,
    block: Arc<[u8]>,
}

impl Message {
    /// A [payload] of `length` bytes.
    pub(super) fn new(length: usize) -> Self {
        let payload: Arc<[u8]> = payload(length);
        let mut block = Vec::new();
        while block.len() < BLOCK {
            frame::encode(&payload, &mut block);
        }
        Self {
            payload,
            block: Arc::from(block),
        }
    }

    /// Bytes of the message on the wire.
    pub(super) fn length(&self) -> u64 {
        (frame::HEADER + self.payload.len()) as u64
    }

    /// A source of these messages.
    pub(super) fn cycle(&self) -> Cycle {
        Cycle::new(Arc::clone(&self.block))
    }

    /// The judge of the echoes on a connection.
    pub(super) fn echoes(&self) -> Echoes {
        Echoes {
            payload: Arc::clone(&self.payload),
            count: 0,
        }
    }
}

/// So many bytes in which a shift by a few bytes shows.
pub(super) fn payload<T: FromIterator<u8>>(length: usize) -> T {
    (1..=250).cycle().take(length).collect()
}

/// Compares echoes with their message.
#[derive(Debug)]
pub(super) struct Echoes {
    payload: Arc<[u8]>,
    count: usize,
}

impl Echoes {
    /// The judge of echoes of a [payload] of so many bytes.
    pub(super) fn of(length: usize) -> Self {
        Self {
            payload: payload(length),
            count: 0,
        }
    }

    /// # Errors
    ///
    /// `InvalidData` if it is no answer with an echo.
    #[inline]
    pub(super) fn check_answer(&mut self, answer: &Response) -> io::Result<()> {
        if answer.code != call::NORMAL {
            return Err(not_an_echo());
        }
        self.check(&answer.body)
    }

    /// # Errors
    ///
    /// `InvalidData` if it is no echo.
    #[inline]
    pub(super) fn check(&mut self, echo: &[u8]) -> io::Result<()> {
        let same = if self.payload.len() <= SMALL || self.count < COMPARED {
            *echo == *self.payload
        } else {
            echo.len() == self.payload.len() && self.has_same_pieces(echo)
        };
        self.count += 1;
        if same { Ok(()) } else { Err(not_an_echo()) }
    }

    fn has_same_pieces(&self, echo: &[u8]) -> bool {
        let last = self.payload.len() - PIECE;
        [0, self.count * PIECE % last, last]
            .into_iter()
            .all(|at| echo[at..at + PIECE] == self.payload[at..at + PIECE])
    }
}

#[cold]
pub(super) fn not_an_echo() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the server sent something else than an echo",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_echoes_are_compared_whole() {
        let message = Message::new(SMALL);
        let mut echoes = message.echoes();
        let mut echo = message.payload.to_vec();
        for at in 0..SMALL {
            echoes.check(&echo).expect("the same");
            echo[at] ^= 1;
            assert!(echoes.check(&echo).is_err(), "byte {at}");
            echo[at] ^= 1;
        }
        assert!(echoes.check(&echo[1..]).is_err());
    }

    #[test]
    fn every_piece_of_a_large_echo_is_compared_in_its_turn() {
        let length = 64 * SMALL;
        let message = Message::new(length);
        let mut echoes = message.echoes();
        let good = message.payload.to_vec();
        let broken_at = |at: usize| {
            let mut broken = good.clone();
            broken[at] ^= 1;
            broken
        };
        let middle = broken_at(length / 2);
        for _ in 0..COMPARED {
            assert!(echoes.check(&middle).is_err(), "these are compared whole");
        }
        let seen = (0..length / PIECE).any(|_| echoes.check(&middle).is_err());
        assert!(seen, "a wrong byte in the middle");
        for at in [0, PIECE - 1, length - PIECE, length - 1] {
            assert!(echoes.check(&broken_at(at)).is_err(), "byte {at}");
        }
        assert!(echoes.check(&good[..length - 1]).is_err(), "too short");
        let longer = [&good[..], &good[..1]].concat();
        assert!(echoes.check(&longer).is_err(), "too long");
        echoes.check(&good).expect("the same");
    }

    #[test]
    fn a_message_asks_for_its_echo() {
        for length in [0, 64] {
            assert!(frame::wants_reply(&Message::new(length).payload));
        }
    }
}
