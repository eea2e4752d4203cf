//! How a connection ended, and what it did.

use std::{error::Error, fmt, io, sync::Arc};

use crate::{DecodeError, EncodeError, escaped::Escaped};

/// Why a connection ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer finished sending, and everything that it was owed has been sent.
    #[error("the peer finished sending and was answered")]
    EndOfInput,
    /// Every [`Sender`](crate::Sender) was dropped and nothing was in flight.
    #[error("every sender was dropped and nothing was in flight")]
    NoSenders,
    /// The reactor answered `Disconnect`.
    #[error("the reactor disconnected")]
    Disconnect,
    /// The reactor took the stream over.
    #[error("the reactor took the stream over")]
    Handover,
    /// The connection was drained and finished what it had begun.
    #[error("the connection was drained")]
    Drained,
    /// The connection reached its maximum age and finished what it had begun.
    #[error("the connection reached its maximum age (max_age)")]
    Age,
    /// The inbound bytes could not be decoded.
    #[error(transparent)]
    Decode(DecodeError),
    /// The messages broke the protocol, or the protocol gave the peer up: what its machine said.
    #[error("{}", Escaped(.0))]
    Protocol(#[source] Arc<dyn Error + Send + Sync>),
    /// An accepted message could not be encoded.
    #[error(transparent)]
    Encode(EncodeError),
    /// The reactor gave up an accepted message, because the send buffer was full.
    #[error("an accepted message was refused by a full send buffer ({0} bytes unsent)")]
    SendBufferFull(usize),
    /// The reactor sent a message after it had finished its output: a bug of this program.
    #[error("a message was sent after the output had been finished")]
    OutputFinished,
    /// The stream failed.
    #[error("{operation} failed: {}", Escaped(.source))]
    Io {
        /// What was being done.
        operation: Operation,
        /// How it failed.
        source: Arc<io::Error>,
    },
    /// A deadline passed.
    #[error("{0}")]
    Deadline(Deadline),
    /// The connection was told to end at once, by a handle, or by its reactor without a reason.
    #[error("the connection was aborted")]
    Aborted,
    /// A codec or reactor panicked: a bug of this program.
    #[error("the connection's code panicked: {}", Escaped(.0))]
    Panicked(String),
    /// The connection's future was dropped before it was done.
    #[error("the connection was dropped by its owner")]
    Dropped,
}

/// Who caused a connection to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// Nobody: both sides were done.
    Nobody,
    /// The peer, or the network between.
    Peer,
    /// This program.
    Local,
}

impl CloseReason {
    /// A short, stable name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::EndOfInput => "end_of_input",
            Self::NoSenders => "no_senders",
            Self::Disconnect => "disconnect",
            Self::Handover => "handover",
            Self::Drained => "drained",
            Self::Age => "age",
            Self::Decode(_) => "decode",
            Self::Protocol(_) => "protocol",
            Self::Encode(_) => "encode",
            Self::SendBufferFull(_) => "send_buffer_full",
            Self::OutputFinished => "output_finished",
            Self::Io { .. } => "io",
            Self::Deadline(deadline) => deadline.name(),
            Self::Aborted => "aborted",
            Self::Panicked(_) => "panicked",
            Self::Dropped => "dropped",
        }
    }

    /// Who caused this end.
    pub fn blame(&self) -> Blame {
        match self {
            Self::EndOfInput
            | Self::NoSenders
            | Self::Disconnect
            | Self::Handover
            | Self::Drained
            | Self::Age => Blame::Nobody,
            Self::Decode(error) if error.is_decoder_fault() => Blame::Local,
            Self::Decode(_) | Self::Protocol(_) | Self::Io { .. } => Blame::Peer,
            Self::Deadline(Deadline::Drain) => Blame::Local,
            Self::Deadline(_) => Blame::Peer,
            Self::Encode(_)
            | Self::SendBufferFull(_)
            | Self::OutputFinished
            | Self::Aborted
            | Self::Panicked(_)
            | Self::Dropped => Blame::Local,
        }
    }

    /// Whether the connection ended in order: everything flushed, the end announced to the peer.
    pub fn is_graceful(&self) -> bool {
        self.blame() == Blame::Nobody
    }
}

/// What a connection was doing with its stream when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Reading from the peer.
    Read,
    /// Writing to the peer.
    Write,
    /// Flushing what was written.
    Flush,
    /// Announcing the end of the output.
    Shutdown,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading from the peer",
            Self::Write => "writing to the peer",
            Self::Flush => "flushing to the peer",
            Self::Shutdown => "shutting the stream down",
        })
    }
}

/// A deadline that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Deadline {
    /// The connection could not be opened in time.
    #[error("connecting took too long (connect_timeout)")]
    Connect,
    /// TLS, a proxy header or protocol detection took too long.
    #[error("the handshake took too long (handshake_timeout)")]
    Handshake,
    /// The peer did not send a first message in time.
    #[error("the peer sent no first message in time (first_message_timeout)")]
    FirstMessage,
    /// The peer began a message and did not finish it in time.
    #[error("the peer did not finish a message in time (message_timeout, min_receive_rate)")]
    Message,
    /// Nothing happened for too long.
    #[error("the connection was idle for too long (idle_timeout)")]
    Idle,
    /// The peer did not take what it was sent.
    #[error("the peer did not read what it was sent (write_timeout, min_write_progress)")]
    Write,
    /// A drain was not done in time.
    #[error("the connection was not drained in time")]
    Drain,
}

impl Deadline {
    /// A short, stable name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect => "connect_timeout",
            Self::Handshake => "handshake_timeout",
            Self::FirstMessage => "first_message_timeout",
            Self::Message => "message_timeout",
            Self::Idle => "idle_timeout",
            Self::Write => "write_timeout",
            Self::Drain => "drain_timeout",
        }
    }
}

/// What a connection did, complete when it has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Bytes read from the stream.
    pub bytes_in: u64,
    /// Bytes written to the stream.
    pub bytes_out: u64,
    /// Messages decoded and handed to the reactor.
    pub messages_in: u64,
    /// Messages written to the stream to their end.
    pub messages_out: u64,
    /// Messages that were accepted and never written to their end: those still in the channel,
    /// those encoded and unwritten, and those that could not be encoded.
    pub unsent: u64,
    /// Of these, what was written in part, one message at most. The peer may have understood as much
    /// of it as came; of the others it has seen nothing.
    pub cut: u64,
    /// Messages that were received and were still in flight in the reactor at the end.
    pub unanswered: u64,
    /// Replies that a full send buffer refused; their sender was told.
    pub refused: u64,
}
