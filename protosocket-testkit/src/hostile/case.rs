//! What hostile peers do, by name.

use std::fmt;

/// One kind of hostile peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Case {
    /// Connects and says nothing.
    NeverSends,
    /// Sends a request one byte at a time, and never its last byte.
    Dribble,
    /// Sends requests without end and reads no answer.
    NeverReads,
    /// As [`NeverReads`](Self::NeverReads), with the smallest receive buffer there is.
    ZeroWindow,
    /// As [`ZeroWindow`](Self::ZeroWindow), but takes a byte now and then.
    TinyWindow,
    /// Sends what is no request.
    Garbage(Garbage),
    /// Announces a message that is larger than anybody's memory, and sends little of it.
    GiantLength(Length),
    /// Resets the connection, after each byte of the conversation in turn.
    Reset,
    /// Closes its half of the connection, after each byte of the conversation in turn.
    Fin,
    /// Vanishes without a word: nothing that the server sends is heard or acknowledged.
    HalfOpen,
    /// Opens many connections and says nothing on them.
    ConnectFlood,
    /// Connects and goes, again and again.
    Churn,
    /// Sends many thousand requests in few writes.
    Pipelining,
    /// Sends the first half of a TLS handshake.
    TlsHalfHello,
    /// Sends the whole first message of a TLS handshake.
    TlsHello,
}

/// Shapes of [`Case::Garbage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Garbage {
    /// 64 KiB of random bytes.
    Random,
    /// 64 KiB of random words in lines of random length.
    Text,
    /// 64 KiB of zeros.
    Zeros,
    /// 64 KiB of 0xff.
    Ones,
    /// 64 KiB of empty lines.
    EmptyLines,
    /// 1 MiB without the end of a line.
    EndlessLine,
    /// The request itself with bytes changed, dropped and repeated, on 32 connections.
    Mutated,
}

/// Framings of [`Case::GiantLength`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Length {
    /// 4,294,967,295 in four bytes, in either byte order.
    U32,
    /// 2,147,483,647 in four bytes, the most significant first.
    I32BigEndian,
    /// 2,147,483,647 in four bytes, the least significant first.
    I32LittleEndian,
    /// 18,446,744,073,709,551,615 in eight bytes, in either byte order.
    U64,
    /// A number of seven bits per byte that is too long: ten times 0xff.
    Varint,
    /// An array of 2,147,483,647 strings as Redis writes it, the first of that length.
    Resp,
}

/// What becomes of a peer's connection when the server does as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// The server closes it at once, because the peer has.
    Prompt,
    /// Some deadline of the server closes it.
    Deadline,
    /// Some deadline of the server closes it, unless the server took what came for a request and
    /// answered.
    DeadlineOrAnswer,
    /// It is the peer that closes it, when the server has answered.
    Answer,
    /// It is the peer that closes it.
    Nothing,
}

const GARBAGE: &str = "garbage";
const GIANT_LENGTH: &str = "giant-length";

/// Every case, in the order in which they are run: the quiet ones first.
const CASES: [(Case, &str, &str); 26] = {
    use Garbage::{EmptyLines, EndlessLine, Mutated, Ones, Random, Text, Zeros};
    use Length::{I32BigEndian, I32LittleEndian, Resp, U32, U64, Varint};
    [
        (Case::NeverSends, "never-sends", "connects and says nothing"),
        (
            Case::Dribble,
            "dribble",
            "sends a request one byte at a time, and never its last byte",
        ),
        (
            Case::NeverReads,
            "never-reads",
            "sends requests without end and reads no answer",
        ),
        (
            Case::ZeroWindow,
            "zero-window",
            "the same, with the smallest receive buffer there is",
        ),
        (
            Case::TinyWindow,
            "tiny-window",
            "the same, but takes a byte of the answers now and then",
        ),
        (
            Case::Garbage(Random),
            "garbage-random",
            "64 KiB of random bytes",
        ),
        (
            Case::Garbage(Text),
            "garbage-text",
            "64 KiB of random words in lines",
        ),
        (Case::Garbage(Zeros), "garbage-zeros", "64 KiB of zeros"),
        (Case::Garbage(Ones), "garbage-ones", "64 KiB of 0xff"),
        (
            Case::Garbage(EmptyLines),
            "garbage-empty-lines",
            "64 KiB of line feeds",
        ),
        (
            Case::Garbage(EndlessLine),
            "garbage-endless-line",
            "1 MiB without the end of a line",
        ),
        (
            Case::Garbage(Mutated),
            "garbage-mutated",
            "the request with bytes changed, dropped and repeated, on 32 connections",
        ),
        (
            Case::GiantLength(U32),
            "giant-length-u32",
            "four bytes announce 4,294,967,295 bytes (either byte order)",
        ),
        (
            Case::GiantLength(I32BigEndian),
            "giant-length-i32-be",
            "four bytes announce 2,147,483,647 bytes, big endian",
        ),
        (
            Case::GiantLength(I32LittleEndian),
            "giant-length-i32-le",
            "four bytes announce 2,147,483,647 bytes, little endian",
        ),
        (
            Case::GiantLength(U64),
            "giant-length-u64",
            "eight bytes announce 2^64 - 1 bytes (either byte order)",
        ),
        (
            Case::GiantLength(Varint),
            "giant-length-varint",
            "a varint that is too long: ten times 0xff",
        ),
        (
            Case::GiantLength(Resp),
            "giant-length-resp",
            "*2147483647 and $2147483647, as Redis counts",
        ),
        (
            Case::Reset,
            "reset",
            "resets the connection after each byte of the conversation in turn",
        ),
        (
            Case::Fin,
            "fin",
            "closes its half after each byte of the conversation in turn",
        ),
        (
            Case::HalfOpen,
            "half-open",
            "vanishes without a word, inside a request and after the conversation",
        ),
        (
            Case::ConnectFlood,
            "connect-flood",
            "opens many connections and says nothing on them",
        ),
        (
            Case::Churn,
            "churn",
            "connects and goes, again and again, sometimes after the conversation",
        ),
        (
            Case::Pipelining,
            "pipelining",
            "sends many thousand requests in few writes",
        ),
        (
            Case::TlsHalfHello,
            "tls-half-hello",
            "sends half of a TLS ClientHello",
        ),
        (
            Case::TlsHello,
            "tls-hello",
            "sends a whole TLS ClientHello, also to a port that is plain",
        ),
    ]
};

impl Case {
    /// Every case, in the order in which the program runs them.
    pub fn all() -> impl Iterator<Item = Self> {
        CASES.iter().map(|(case, ..)| *case)
    }

    /// The case of this name, or the cases of this group: `garbage`, `giant-length`. Empty if there
    /// is none.
    pub fn select(name: &str) -> Vec<Self> {
        Self::all()
            .filter(|case| case.name() == name || case.group() == Some(name))
            .collect()
    }

    /// The name that is used on the command line and in reports.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// What several cases have in common, if this is one of them.
    pub fn group(self) -> Option<&'static str> {
        match self {
            Self::Garbage(_) => Some(GARBAGE),
            Self::GiantLength(_) => Some(GIANT_LENGTH),
            _ => None,
        }
    }

    /// What the peer does, in a line.
    pub fn summary(self) -> &'static str {
        self.entry().2
    }

    /// Whether the case is nothing without a request of the server's protocol.
    pub fn needs_request(self) -> bool {
        matches!(
            self,
            Self::NeverReads
                | Self::ZeroWindow
                | Self::TinyWindow
                | Self::Pipelining
                | Self::Garbage(Garbage::Mutated)
        )
    }

    pub(super) fn expected(self) -> Expected {
        match self {
            Self::NeverSends
            | Self::Dribble
            | Self::NeverReads
            | Self::ZeroWindow
            | Self::TinyWindow
            | Self::HalfOpen
            | Self::ConnectFlood
            | Self::TlsHalfHello => Expected::Deadline,
            Self::Garbage(_) | Self::GiantLength(_) | Self::TlsHello => Expected::DeadlineOrAnswer,
            Self::Fin => Expected::Prompt,
            Self::Pipelining => Expected::Answer,
            Self::Reset | Self::Churn => Expected::Nothing,
        }
    }

    fn entry(self) -> &'static (Self, &'static str, &'static str) {
        CASES
            .iter()
            .find(|(case, ..)| *case == self)
            .expect("the table has every case, which a test checks")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_groups_select() {
        for case in Case::all() {
            assert_eq!(Case::select(case.name()), [case]);
        }
        assert_eq!(Case::select("garbage").len(), 7);
        assert_eq!(Case::select("giant-length").len(), 6);
        assert_eq!(Case::select("Garbage"), []);
        let names: BTreeSet<_> = Case::all().map(Case::name).collect();
        assert_eq!(names.len(), CASES.len(), "no name twice");
    }

    #[test]
    fn the_table_has_every_case() {
        // Without a wildcard, so that a case that is added must be added here.
        let listed = |case| match case {
            Case::NeverSends
            | Case::Dribble
            | Case::NeverReads
            | Case::ZeroWindow
            | Case::TinyWindow
            | Case::Reset
            | Case::Fin
            | Case::HalfOpen
            | Case::ConnectFlood
            | Case::Churn
            | Case::Pipelining
            | Case::TlsHalfHello
            | Case::TlsHello => 1,
            Case::Garbage(shape) => match shape {
                Garbage::Random
                | Garbage::Text
                | Garbage::Zeros
                | Garbage::Ones
                | Garbage::EmptyLines
                | Garbage::EndlessLine
                | Garbage::Mutated => 1,
            },
            Case::GiantLength(framing) => match framing {
                Length::U32
                | Length::I32BigEndian
                | Length::I32LittleEndian
                | Length::U64
                | Length::Varint
                | Length::Resp => 1,
            },
        };
        let cases: usize = Case::all().map(listed).sum();
        assert_eq!(cases, 13 + 7 + 6);
    }
}
