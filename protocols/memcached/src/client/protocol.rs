use std::fmt;

use bytes::Bytes;
use protosocket::{EncodeError, Encoder, SendBuffer};
use protosocket_pipeline::{Expect, Protocol, Received};

use crate::{
    codec::{RequestEncoder, ResponseDecoder},
    data::{ErrorReply, KeysIter, Request, Response, Store, StoreMode, Value},
};

/// Lines of statistics that are taken for one answer: memcached has some hundreds, and for
/// `stats conns` some for each connection.
const MAX_STATS: usize = 100_000;

/// The line of a retrieval, in bytes: 4,000 keys of 250. Servers of this crate take no longer one by
/// default; memcached takes any.
const MAX_RETRIEVAL: usize = 1024 * 1024;

/// The same of one that changes when items expire: memcached closes the connection behind a longer
/// one of which it has not read the end.
const MAX_TOUCHING: usize = 2048;

/// The memcached text protocol as a client speaks it.
///
/// A server is held to it: an answer that is none to the request that has waited longest, or an item
/// that was not asked for, ends the connection, because from there on no answer can be trusted to be
/// that of its request.
///
/// | what | default | beyond it |
/// |---|---|---|
/// | [`max_answer`](Self::max_answer) | 64 MiB: twice the largest item of a connection's default | the call fails, the connection goes on |
/// | the line of `get` and `gets` | 1 MiB: what this crate's server takes | the call fails before anything is sent |
/// | the line of `gat` and `gats` | 2,048 bytes: memcached may end the connection above | the same |
/// | statistics in an answer | 100,000 | the connection ends |
#[derive(Debug, Clone)]
pub struct Memcached {
    decoder: ResponseDecoder,
    max_answer: usize,
}

impl Memcached {
    /// With the limits of `decoder`.
    pub fn new(decoder: ResponseDecoder) -> Self {
        Self {
            decoder,
            max_answer: 64 * 1024 * 1024,
        }
    }

    /// Take answers of so many bytes: keys, values, and what a [`Value`] has itself, of all items
    /// together. Of a larger one nothing is kept, and [`Error::TooLarge`](super::Error::TooLarge)
    /// tells the caller, who may ask for fewer items at once.
    #[must_use]
    pub fn max_answer(mut self, bytes: usize) -> Self {
        self.max_answer = bytes;
        self
    }
}

impl Default for Memcached {
    fn default() -> Self {
        Self::new(ResponseDecoder::new())
    }
}

/// What a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The items that are there, in the order of their keys.
    Items(Vec<Value>),
    /// Names and figures.
    Stats(Vec<(Bytes, Bytes)>),
    /// One line.
    Line(Response),
    /// It was refused.
    Refused(ErrorReply),
    /// It was larger than [`Memcached::max_answer`], this many bytes, and has been dropped.
    TooLarge(usize),
    /// The request wanted none.
    Nothing,
}

/// What the answer to a request may be, and what of it has come.
#[derive(Debug)]
pub struct Expected(Awaited);

#[derive(Debug)]
enum Awaited {
    Items {
        /// The keys whose items have not come.
        keys: KeysIter,
        with_cas: bool,
        items: Vec<Value>,
        /// How much the items may still take, in bytes; `None` once it was too little.
        room: Option<usize>,
    },
    Stats(Vec<(Bytes, Bytes)>),
    /// A line that this accepts.
    Line(fn(&Response) -> bool),
}

impl Protocol for Memcached {
    type Request = Request;
    type Reply = Reply;
    type Expected = Expected;
    type Decoder = ResponseDecoder;

    fn decoder(&mut self) -> ResponseDecoder {
        self.decoder.clone()
    }

    fn encode(&mut self, request: &Request, output: &mut SendBuffer) -> Result<(), EncodeError> {
        if let Request::Retrieve(retrieve) = request {
            let limit = match retrieve.touch {
                Some(_) => MAX_TOUCHING,
                None => MAX_RETRIEVAL,
            };
            let before = output.unsent_bytes();
            RequestEncoder.encode(request.clone(), output)?;
            let length = output.unsent_bytes() - before;
            // LIMIT: MAX_RETRIEVAL, MAX_TOUCHING. What was written of it is taken back.
            return match length > limit {
                true => Err(EncodeError::invalid(format!(
                    "the line of a retrieval has {length} bytes, and servers need not take more \
                     than {limit}: ask for fewer keys at once"
                ))),
                false => Ok(()),
            };
        }
        RequestEncoder.encode(request.clone(), output)
    }

    fn expect(&mut self, request: &Request) -> Expect<Self> {
        if request.is_noreply() {
            return Expect::Nothing(Reply::Nothing);
        }
        Expect::Reply(Expected(match request {
            Request::Retrieve(retrieve) => Awaited::Items {
                keys: retrieve.keys.clone().into_iter(),
                with_cas: retrieve.with_cas,
                items: Vec::new(),
                room: Some(self.max_answer),
            },
            Request::Stats { .. } => Awaited::Stats(Vec::new()),
            Request::Store(Store { mode, .. }) => Awaited::Line(match mode {
                StoreMode::Set => |line| *line == Response::Stored,
                StoreMode::Cas(_) => |line| {
                    use Response::{Exists, NotFound, NotStored, Stored};
                    matches!(line, Stored | Exists | NotFound | NotStored)
                },
                _ => |line| matches!(line, Response::Stored | Response::NotStored),
            }),
            Request::Delete { .. } => {
                Awaited::Line(|line| matches!(line, Response::Deleted | Response::NotFound))
            }
            Request::Arithmetic { .. } => {
                Awaited::Line(|line| matches!(line, Response::Number(_) | Response::NotFound))
            }
            Request::Touch { .. } => {
                Awaited::Line(|line| matches!(line, Response::Touched | Response::NotFound))
            }
            Request::Version => Awaited::Line(|line| matches!(line, Response::Version(_))),
            Request::FlushAll { .. } | Request::Verbosity { .. } | Request::Quit => {
                Awaited::Line(|line| *line == Response::Ok)
            }
        }))
    }

    fn receive(&mut self, expected: Option<&mut Expected>, line: Response) -> Received<Reply> {
        let Some(Expected(expected)) = expected else {
            return Received::Unexpected(Box::new(Violation::Unasked(described(&line))));
        };
        match (expected, line) {
            (_, Response::Error(error)) => Received::Reply(Reply::Refused(error)),
            (
                Awaited::Items {
                    keys,
                    with_cas,
                    items,
                    room,
                },
                Response::Value(value),
            ) if value.cas.is_some() == *with_cas => {
                // Servers answer in the order of the keys.
                match keys.any(|key| key == value.key) {
                    true => {
                        // LIMIT: max_answer. The rest of the answer is heard, and not kept.
                        let size = size_of::<Value>() + value.key.as_slice().len();
                        *room = room.and_then(|room| room.checked_sub(size + value.value.len()));
                        match room {
                            Some(_) => items.push(value),
                            None => *items = Vec::new(),
                        }
                        Received::Part
                    }
                    false => Received::Unexpected(Box::new(Violation::Item)),
                }
            }
            (Awaited::Items { room: None, .. }, Response::End) => {
                Received::Reply(Reply::TooLarge(self.max_answer))
            }
            (Awaited::Items { items, .. }, Response::End) => {
                Received::Reply(Reply::Items(std::mem::take(items)))
            }
            (Awaited::Stats(stats), Response::Stat { name, value }) => {
                // LIMIT: MAX_STATS.
                match stats.len() {
                    MAX_STATS => Received::Unexpected(Box::new(Violation::Stats)),
                    _ => {
                        stats.push((name, value));
                        Received::Part
                    }
                }
            }
            (Awaited::Stats(stats), Response::End | Response::Reset) => {
                Received::Reply(Reply::Stats(std::mem::take(stats)))
            }
            (Awaited::Line(accepts), line) if accepts(&line) => Received::Reply(Reply::Line(line)),
            (_, line) => Received::Unexpected(Box::new(Violation::Other(described(&line)))),
        }
    }
}

/// How a server broke the protocol.
#[derive(Debug, thiserror::Error)]
enum Violation {
    #[error("it sent {0}, and nothing was asked")]
    Unasked(&'static str),
    #[error("it sent an item that was not asked for, or not in the order of the keys")]
    Item,
    #[error("it sent more than {max} statistics", max = MAX_STATS)]
    Stats,
    #[error("it sent {0}, which is no answer to the request")]
    Other(&'static str),
}

/// The kind of a line: what stands in it is not for a log.
fn described(line: &Response) -> &'static str {
    match line {
        Response::Value(Value { cas: None, .. }) => "VALUE",
        Response::Value(_) => "VALUE with a cas unique",
        Response::Stat { .. } => "STAT",
        Response::End => "END",
        Response::Stored => "STORED",
        Response::NotStored => "NOT_STORED",
        Response::Exists => "EXISTS",
        Response::NotFound => "NOT_FOUND",
        Response::Deleted => "DELETED",
        Response::Touched => "TOUCHED",
        Response::Ok => "OK",
        Response::Reset => "RESET",
        Response::Number(_) => "a number",
        Response::Version(_) => "VERSION",
        Response::Error(_) => "an error",
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Items(items) => write!(f, "{} items", items.len()),
            Self::Stats(stats) => write!(f, "{} statistics", stats.len()),
            Self::Line(line) => f.write_str(described(line)),
            Self::Refused(error) => error.fmt(f),
            Self::TooLarge(limit) => write!(f, "more than {limit} bytes"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}
