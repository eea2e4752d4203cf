use std::{borrow::Cow, error::Error, sync::Arc};

use crate::escaped::Escaped;

type Source = Arc<dyn Error + Send + Sync>;

/// Why inbound bytes could not be turned into a message.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The peer broke the protocol.
    #[error("the peer sent malformed input: {}", Escaped(.0))]
    Malformed(Cow<'static, str>),
    /// The peer announced or sent a message above the limit.
    #[error(
        "the peer sent a message of at least {size} bytes, the limit is {limit} \
         (max_message_size of the connection, or max_length of its codec)"
    )]
    TooLarge {
        /// The size that the message has at least, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The input ended inside a message.
    #[error("the peer's input ended inside a message, {left} bytes of it were left over")]
    Truncated {
        /// Bytes of the unfinished message.
        left: usize,
    },
    /// The decoder is at fault: it produced a message from nothing, skipped nothing, or asked for
    /// bytes that it had.
    #[error("the decoder made no progress: {0}")]
    NoProgress(&'static str),
    /// The decoder is at fault: it advanced past the end of its input.
    #[error("the decoder consumed {overrun} bytes more than the {available} that were there")]
    Overrun {
        /// How many bytes it was shown.
        available: usize,
        /// How far past them it went.
        overrun: usize,
    },
    /// An error of the codec's own.
    #[error("decoding failed: {}", Escaped(.0))]
    Other(#[source] Source),
}

impl DecodeError {
    /// The peer broke the protocol: `what` says what was expected and what came. It may quote the
    /// peer: control characters are escaped where it is shown.
    pub fn malformed(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(what.into())
    }

    /// Wrap an error of the codec's own.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(Arc::from(error.into()))
    }

    /// A short, stable name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Truncated { .. } => "truncated",
            Self::NoProgress(_) => "no_progress",
            Self::Overrun { .. } => "overrun",
            Self::Other(_) => "other",
        }
    }

    /// Whether the decoder itself is at fault, and not the peer.
    pub fn is_decoder_fault(&self) -> bool {
        matches!(self, Self::NoProgress(_) | Self::Overrun { .. })
    }
}

/// Why a message could not be turned into bytes.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The message is larger than its framing or the configured limit allows.
    #[error("a message of {size} bytes cannot be sent, the limit is {limit}")]
    TooLarge {
        /// The size of the message, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The message has no representation in this protocol.
    #[error("the message cannot be encoded: {}", Escaped(.0))]
    Invalid(Cow<'static, str>),
    /// The encoder is at fault: it removed bytes of earlier messages from the send buffer.
    #[error("the encoder removed {0} bytes of earlier messages from the send buffer")]
    Shrunk(usize),
    /// An error of the codec's own.
    #[error("encoding failed: {}", Escaped(.0))]
    Other(#[source] Source),
}

impl EncodeError {
    /// The message has no representation: `what` says why.
    pub fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(what.into())
    }

    /// Wrap an error of the codec's own.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(Arc::from(error.into()))
    }
}
