use std::io;

use super::TlvType;
use crate::PeerAddress;

/// What is wrong with a PROXY header, or with its coming at all. The peer is to blame, unless it
/// says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The stream begins with something else.
    #[error("expected a PROXY header, but the stream begins with something else")]
    Missing,
    /// The stream ended in the header, or before it.
    #[error("expected a PROXY header, but the stream ended after {0} bytes")]
    Truncated(usize),
    /// Headers of this peer are not believed.
    #[error("{0} is none of the proxies that are trusted, so it may not connect")]
    Untrusted(PeerAddress),
    /// Version 1: the line is not at its end where the longest would be.
    #[error("the line of a PROXY header of version 1 does not end with CR LF within 107 bytes")]
    LineTooLong,
    /// Version 1: the line ends with LF alone.
    #[error("the line of a PROXY header of version 1 ends with LF instead of CR LF")]
    BareLineFeed,
    /// Version 1: the family is none of `TCP4`, `TCP6` and `UNKNOWN`.
    #[error("the family of a PROXY header of version 1 is none of TCP4, TCP6 and UNKNOWN")]
    Family,
    /// Version 1: too few or too many fields, or more than one space between them.
    #[error(
        "a PROXY header of version 1 has not exactly two addresses and two ports behind the \
         family, separated by one space each"
    )]
    Fields,
    /// Version 1: an address is not one of its family, in its canonical form.
    #[error("the {0} address of a PROXY header of version 1 is not one of its family")]
    Address(&'static str),
    /// Version 1: a port is no number from 0 to 65,535 without leading zeros.
    #[error("the {0} port of a PROXY header of version 1 is no number from 0 to 65535 as such")]
    Port(&'static str),
    /// Version 2: another version.
    #[error("the version of a binary PROXY header is {0}, and 2 is understood")]
    Version(u8),
    /// Version 2: a command that is not assigned.
    #[error("the command of a PROXY header is {0:#x}, which is neither LOCAL (0) nor PROXY (1)")]
    Command(u8),
    /// Version 2: a family or transport that is not assigned.
    #[error("family and transport of a PROXY header are {0:#04x}, which is not assigned")]
    Transport(u8),
    /// Version 2: too short for its addresses.
    #[error("a PROXY header announces {announced} bytes, and its addresses take {needed}")]
    TooShort {
        /// What it announces.
        announced: usize,
        /// What the addresses of its family take.
        needed: usize,
    },
    /// Version 2: longer than this program takes.
    #[error("a PROXY header announces {announced} bytes, and up to {limit} are taken (max_header)")]
    TooLong {
        /// How long it is, all of it.
        announced: usize,
        /// The limit.
        limit: usize,
    },
    /// Version 2: an additional value is cut off by the end of the header, or of what it is in.
    #[error("{0} of a PROXY header does not end within it")]
    TlvTruncated(TlvType),
    /// Version 2: an additional value is not as long as its kind is.
    #[error("{kind} of a PROXY header has {length} bytes, and must have {expected}")]
    TlvLength {
        /// Which.
        kind: TlvType,
        /// How long it is.
        length: usize,
        /// How long it should be.
        expected: &'static str,
    },
    /// Version 2: a type and length are cut off.
    #[error("behind the addresses of a PROXY header are {0} bytes, too few for a type and length")]
    TlvHeader(usize),
    /// Version 2: a value that must be there once is there twice.
    #[error("a PROXY header has {0} twice")]
    TlvTwice(TlvType),
    /// Version 2: the name that the client asked for is no text.
    #[error("the AUTHORITY of a PROXY header is not UTF-8")]
    Authority,
    /// Version 2: the checksum is wrong.
    #[error("the CRC32C of a PROXY header is {announced:#010x}, and of its bytes {computed:#010x}")]
    Checksum {
        /// What the header says.
        announced: u32,
        /// What it is.
        computed: u32,
    },
    /// What is to be sent does not fit into version 1: this program is to blame.
    #[error("a PROXY header of version 1 has no room for {0}")]
    NotInVersion1(&'static str),
    /// What is to be sent does not fit into any header: this program is to blame.
    #[error("a PROXY header of {0} bytes cannot be sent, for 65,551 is the most")]
    CannotSend(usize),
}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> Self {
        let kind = match error {
            ProxyError::Truncated(_) => io::ErrorKind::UnexpectedEof,
            ProxyError::Untrusted(_) => io::ErrorKind::PermissionDenied,
            ProxyError::NotInVersion1(_) | ProxyError::CannotSend(_) => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
