use protosocket::Blame;
use protosocket_pipeline::Execution;

use crate::data::{ErrorReply, KeyError};

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key cannot be sent. Nothing was.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The server answered with an error, which says whose fault it was. The connection goes on.
    #[error(transparent)]
    Refused(#[from] ErrorReply),
    /// The answer was larger than [`Memcached::max_answer`](super::Memcached::max_answer), and has
    /// been dropped. The connection goes on.
    #[error(
        "the items have more than {limit} bytes together (max_answer): ask for fewer at once, or raise it"
    )]
    TooLarge {
        /// What it may have, in bytes.
        limit: usize,
    },
    /// There is no answer: the connection was lost, the time is over, too many calls wait.
    #[error(transparent)]
    Connection(#[from] protosocket_pipeline::Error),
}

impl Error {
    /// Whose doing it is.
    pub fn blame(&self) -> Blame {
        match self {
            // A command that a server does not know was sent by this program.
            Self::Key(_)
            | Self::TooLarge { .. }
            | Self::Refused(ErrorReply::Client(_) | ErrorReply::Unknown) => Blame::Local,
            Self::Refused(ErrorReply::Server(_)) => Blame::Peer,
            Self::Connection(error) => error.blame(),
        }
    }

    /// Whether the call may have had an effect. One that was refused had none that it was made for.
    pub fn execution(&self) -> Execution {
        match self {
            Self::Key(_) => Execution::NeverSent,
            Self::Refused(_) | Self::TooLarge { .. } => Execution::MaybeExecuted,
            Self::Connection(error) => error.execution(),
        }
    }
}
