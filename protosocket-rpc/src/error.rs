use std::{fmt, sync::Arc};

use protosocket::{Blame, CloseReason, EncodeError};

use crate::ProtosocketControlCode;

/// How a call ended that did not end as it should.
///
/// None of these is ever the end of a stream that is complete: that is `None`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server cancelled the call, or refused to begin it: it says both with the same message.
    #[error("the server cancelled or refused the call")]
    CancelledRemotely,
    /// The call was not over in time. If the request had been sent, the server has been told that
    /// nobody waits any more.
    ///
    /// This program is to blame if it had not come to send the request, or had ceased to read.
    #[error(
        "the call took longer than it may ({execution}{}); \
         see call_timeout, stream_timeout and with_timeout",
        if *.input_paused { UNREAD } else { "" }
    )]
    DeadlineExceeded {
        /// Whether the server may have heard of the call.
        execution: Execution,
        /// A stream of this connection whose items nobody took had paused its input when the time
        /// was over: the response may have been there, and not been read.
        input_paused: bool,
    },
    /// The connection ended before the call did, or before it began.
    #[error("the connection was lost ({execution}): {reason}")]
    ConnectionLost {
        /// Whether the server may have heard of the call.
        execution: Execution,
        /// Why the connection ended.
        #[source]
        reason: Arc<CloseReason>,
    },
    /// The connection is to end once the calls in flight have; it takes no more of them.
    #[error("the connection is being drained and takes no more calls")]
    Draining,
    /// As many calls are in flight as may be, or others wait for their end.
    #[error(
        "{0} calls are in flight or waited for, and no more may be (max_concurrent_calls); \
         reserve() waits for one to end"
    )]
    TooManyCalls(usize),
    /// The caller chose an id that is in flight, or was given up, so that a late response to it may
    /// still come: until the last one has, or until 1,024 calls more were given up, or
    /// `max_concurrent_calls` if that is above.
    #[error(
        "the id {0} belongs to a call in flight, or to one that was given up and may be answered"
    )]
    DuplicateId(u64),
    /// The request's control code is not [`Normal`](ProtosocketControlCode::Normal).
    #[error(
        "a request has the control code 0 (Normal), not {code}: dropping a completion cancels its call",
        code = .0.as_u8()
    )]
    NotARequest(ProtosocketControlCode),
    /// The request cannot be encoded. Other calls go on.
    #[error("the request cannot be sent: {0}")]
    Encode(#[source] EncodeError),
    /// The stream's items were not taken as fast as they came.
    #[error(
        "as many items of the stream as may wait to be taken, {max_items} (max_buffered_items) or \
         {max_bytes} bytes (max_buffered_bytes), have waited for longer than slow_consumer_grace"
    )]
    SlowConsumer {
        /// The limit on their number.
        max_items: usize,
        /// The limit on their size, in bytes.
        max_bytes: usize,
    },
    /// The server ended a call without a response that was to have one: it takes it for a stream.
    #[error("the server ended the call without a response: to it, this is a stream")]
    NoResponse,
    /// The server said something about the call that this version does not know. The call has been
    /// cancelled.
    #[error("the server sent the unknown control code {0}; known are 0, 1 and 2")]
    UnknownControlCode(u8),
}

/// What an error says in addition if the response may not have been read.
const UNREAD: &str =
    "; this connection reads nothing until the items of one of its streams are taken";

/// Whether a call that failed may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Execution {
    /// No byte of the request has left: the call can be repeated elsewhere.
    NeverSent,
    /// The request has left, at least in part. Whether it was carried out is not known.
    MaybeExecuted,
}

impl Error {
    /// Whose doing it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::DeadlineExceeded {
                execution: Execution::MaybeExecuted,
                input_paused: false,
            }
            | Self::CancelledRemotely
            | Self::NoResponse
            | Self::UnknownControlCode(_) => Blame::Peer,
            Self::ConnectionLost { reason, .. } => reason.blame(),
            Self::DeadlineExceeded { .. }
            | Self::Draining
            | Self::TooManyCalls(_)
            | Self::DuplicateId(_)
            | Self::NotARequest(_)
            | Self::Encode(_)
            | Self::SlowConsumer { .. } => Blame::Local,
        }
    }

    /// Whether the call may have had an effect.
    pub fn execution(&self) -> Execution {
        match self {
            Self::DeadlineExceeded { execution, .. } | Self::ConnectionLost { execution, .. } => {
                *execution
            }
            Self::Draining
            | Self::TooManyCalls(_)
            | Self::DuplicateId(_)
            | Self::NotARequest(_)
            | Self::Encode(_) => Execution::NeverSent,
            Self::CancelledRemotely
            | Self::SlowConsumer { .. }
            | Self::NoResponse
            | Self::UnknownControlCode(_) => Execution::MaybeExecuted,
        }
    }

    /// A short, stable name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CancelledRemotely => "cancelled_remotely",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::ConnectionLost { .. } => "connection_lost",
            Self::Draining => "draining",
            Self::TooManyCalls(_) => "too_many_calls",
            Self::DuplicateId(_) => "duplicate_id",
            Self::NotARequest(_) => "not_a_request",
            Self::Encode(_) => "encode",
            Self::SlowConsumer { .. } => "slow_consumer",
            Self::NoResponse => "no_response",
            Self::UnknownControlCode(_) => "unknown_control_code",
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
