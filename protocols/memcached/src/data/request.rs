use bytes::Bytes;

use super::{Expiration, Key, Keys};

/// What a client asks for.
///
/// `noreply` is there wherever the protocol has it: the server says nothing then, whatever comes of
/// the request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// `get`, `gets`, `gat` and `gats`: items, as far as they are there.
    Retrieve(Retrieve),
    /// `set`, `add`, `replace`, `append`, `prepend` and `cas`: an item.
    Store(Store),
    /// `delete`: remove an item.
    Delete {
        /// Which one.
        key: Key,
        /// Say nothing.
        noreply: bool,
    },
    /// `incr` and `decr`: count an item that is a decimal number.
    Arithmetic {
        /// Which one.
        key: Key,
        /// Up or down.
        operation: Arithmetic,
        /// By how much.
        delta: u64,
        /// Say nothing.
        noreply: bool,
    },
    /// `touch`: change when an item expires.
    Touch {
        /// Which one.
        key: Key,
        /// To when.
        expiration: Expiration,
        /// Say nothing.
        noreply: bool,
    },
    /// `flush_all`: all items that are there expire.
    FlushAll {
        /// When; `None` is at once.
        when: Option<Expiration>,
        /// Say nothing.
        noreply: bool,
    },
    /// `version`: which server it is.
    Version,
    /// `verbosity`: how much the server logs.
    Verbosity {
        /// How much; what that means is the server's business.
        level: u32,
        /// Say nothing.
        noreply: bool,
    },
    /// `stats`: what the server counts.
    Stats {
        /// Of what, as the words behind `stats`; `None` is the general ones.
        group: Option<Bytes>,
    },
    /// `quit`: the server closes.
    Quit,
}

impl Request {
    /// Whether the server is to say nothing to it.
    pub fn is_noreply(&self) -> bool {
        match self {
            Self::Store(Store { noreply, .. })
            | Self::Delete { noreply, .. }
            | Self::Arithmetic { noreply, .. }
            | Self::Touch { noreply, .. }
            | Self::FlushAll { noreply, .. }
            | Self::Verbosity { noreply, .. } => *noreply,
            Self::Quit => true,
            Self::Retrieve(_) | Self::Version | Self::Stats { .. } => false,
        }
    }
}

/// Items that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrieve {
    /// Which ones.
    pub keys: Keys,
    /// With the numbers that `cas` compares.
    pub with_cas: bool,
    /// When those that are there expire from now on.
    pub touch: Option<Expiration>,
}

/// An item that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// On which condition, and how.
    pub mode: StoreMode,
    /// Under which key.
    pub key: Key,
    /// What the client keeps beside it; nothing to the server.
    pub flags: u32,
    /// Until when.
    pub expiration: Expiration,
    /// What is stored.
    pub value: Bytes,
    /// Say nothing.
    pub noreply: bool,
}

/// On which condition an item is stored, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreMode {
    /// In any case.
    Set,
    /// If there is none under this key.
    Add,
    /// If there is one.
    Replace,
    /// Behind the value that is there, whose flags and expiration stay.
    Append,
    /// In front of it.
    Prepend,
    /// If it is unchanged since it was retrieved with this number.
    Cas(u64),
}

impl StoreMode {
    pub(crate) fn verb(self) -> &'static [u8] {
        match self {
            Self::Set => b"set",
            Self::Add => b"add",
            Self::Replace => b"replace",
            Self::Append => b"append",
            Self::Prepend => b"prepend",
            Self::Cas(_) => b"cas",
        }
    }
}

/// Up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Beyond the largest number of 64 bits, counting goes on from 0.
    Increment,
    /// Below 0 there is nothing.
    Decrement,
}
