use std::borrow::Cow;

use bytes::Bytes;

use super::Key;

/// What a server says: a line, or an item.
///
/// To a retrieval it says any number of [`Value`](Self::Value)s and then [`End`](Self::End), to
/// `stats` any number of [`Stat`](Self::Stat)s and then `End`, and to everything else one of the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Response {
    /// An item.
    Value(Value),
    /// A figure.
    Stat {
        /// What it counts.
        name: Bytes,
        /// How much.
        value: Bytes,
    },
    /// There are no more.
    End,
    /// The item was stored.
    Stored,
    /// It was not, because its condition did not hold.
    NotStored,
    /// It was not, because it has been changed meanwhile.
    Exists,
    /// There is no such item.
    NotFound,
    /// The item was deleted.
    Deleted,
    /// The item expires at another time.
    Touched,
    /// What was asked for is done.
    Ok,
    /// The figures begin anew.
    Reset,
    /// What an item counts.
    Number(u64),
    /// Which server it is.
    Version(Bytes),
    /// The request was refused.
    Error(ErrorReply),
}

/// An item as it is retrieved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Its key.
    pub key: Key,
    /// What whoever stored it keeps beside it.
    pub flags: u32,
    /// What was stored.
    pub value: Bytes,
    /// The number that `cas` compares, if it was asked for.
    pub cas: Option<u64>,
}

/// Why a server refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErrorReply {
    /// `ERROR`: the server knows no such command.
    #[error("the server knows no such command")]
    Unknown,
    /// `CLIENT_ERROR`: the client is to blame.
    #[error("the server refused the request, by the client's fault: {0}")]
    Client(Cow<'static, str>),
    /// `SERVER_ERROR`: the server is to blame.
    #[error("the server could not answer, by its own fault: {0}")]
    Server(Cow<'static, str>),
}

impl ErrorReply {
    /// The client is to blame: `what` says for what.
    pub fn client(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Client(what.into())
    }

    /// The server is to blame: `what` says for what.
    pub fn server(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Server(what.into())
    }

    /// What a server answers to an item above its limit.
    pub const TOO_LARGE: Self = Self::Server(Cow::Borrowed("object too large for cache"));

    /// What a server answers when counting something that is no number.
    pub const NOT_A_NUMBER: Self = Self::Client(Cow::Borrowed(
        "cannot increment or decrement non-numeric value",
    ));
}
