use std::{error, fmt, sync::Arc, time::Duration};

use protosocket::{Blame, CloseReason, EncodeError, ReconnectError};

/// How a request ended that was not answered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection was lost before the reply came, or the driver was dropped.
    #[error("the connection was lost ({execution}): {reason}")]
    ConnectionLost {
        /// Whether the server may have heard of the request.
        execution: Execution,
        /// Why the connection ended.
        #[source]
        reason: Arc<CloseReason>,
    },
    /// The reply did not come in time. If the request was sent, its late reply is swallowed.
    #[error("the request took longer than it may ({execution}); see request_timeout, with_timeout")]
    DeadlineExceeded {
        /// Whether the server may have heard of the request.
        execution: Execution,
    },
    /// As many requests wait for a connection, or for room on it, as may, or as many callers have
    /// not taken their replies.
    #[error("{0} requests wait to be sent, and no more may (max_queued); reserve waits for room")]
    QueueFull(usize),
    /// The server refused what is said before all requests, such as a password.
    #[error("the connection could not be prepared: {0}")]
    Preamble(#[source] Arc<dyn error::Error + Send + Sync>),
    /// No connection could be opened in as many attempts as were allowed. No request is taken any
    /// more.
    #[error("the client has given up: {0}")]
    GaveUp(#[source] Arc<ReconnectError>),
    /// The client has been closed, or was not done in time.
    #[error("the client has been closed ({execution})")]
    Closed {
        /// Whether the server may have heard of the request.
        execution: Execution,
    },
    /// The request cannot be encoded. Others go on.
    #[error("the request cannot be sent: {0}")]
    Encode(#[source] EncodeError),
}

/// Whether a request that failed may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Execution {
    /// No byte of it has left: it can be repeated.
    NeverSent,
    /// It has left, at least in part. Whether it was carried out is not known.
    MaybeExecuted,
}

impl Error {
    /// Whose doing it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::ConnectionLost { reason, .. } => match reason.blame() {
                // To close while requests are unanswered is no end in order.
                Blame::Nobody => Blame::Peer,
                blame => blame,
            },
            Self::Preamble(_) | Self::GaveUp(_) | Self::DeadlineExceeded { .. } => Blame::Peer,
            Self::QueueFull(_) | Self::Closed { .. } | Self::Encode(_) => Blame::Local,
        }
    }

    /// Whether the request may have had an effect.
    pub fn execution(&self) -> Execution {
        match self {
            Self::ConnectionLost { execution, .. }
            | Self::DeadlineExceeded { execution }
            | Self::Closed { execution } => *execution,
            Self::QueueFull(_) | Self::Preamble(_) | Self::GaveUp(_) | Self::Encode(_) => {
                Execution::NeverSent
            }
        }
    }

    /// A short, stable name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConnectionLost { .. } => "connection_lost",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::QueueFull(_) => "queue_full",
            Self::Preamble(_) => "preamble",
            Self::GaveUp(_) => "gave_up",
            Self::Closed { .. } => "closed",
            Self::Encode(_) => "encode",
        }
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverSent => "the request was never sent",
            Self::MaybeExecuted => "the request may have been carried out",
        })
    }
}

/// What breaks a protocol of replies in order, whatever it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Violation {
    #[error("the server sent a reply, and no request waits for one")]
    Unasked,
    #[error(
        "the server sent nothing for {0:?}, and a request waits for its reply (answer_timeout); \
         blocking requests want a client with a longer one, or none"
    )]
    NoAnswer(Duration),
    #[error("the server sent what no request waits for: {0}")]
    Unexpected(Box<dyn error::Error + Send + Sync>),
    #[error("the preamble failed: {0}")]
    Preamble(Arc<dyn error::Error + Send + Sync>),
}
