use protosocket_pipeline::{Error, Execution};

use crate::ErrorReply;

/// How a command ended that did not get what it asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The server said so.
    #[error("the server refused the command: {0}")]
    Refused(#[source] ErrorReply),
    /// There was no reply.
    #[error(transparent)]
    NoReply(#[from] Error),
}

impl CommandError {
    /// The code of the server's error, such as `WRONGTYPE`.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(error) => Some(error.code()),
            Self::NoReply(_) => None,
        }
    }

    /// Whether the command may have had an effect.
    pub fn execution(&self) -> Execution {
        match self {
            Self::Refused(_) => Execution::MaybeExecuted,
            Self::NoReply(error) => error.execution(),
        }
    }
}
