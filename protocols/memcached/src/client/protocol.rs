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

/// The memcached text protocol as a client speaks it.
///
/// A server is held to it: an answer that is none to the request that has waited longest, or an item
/// that was not asked for, ends the connection, because from there on no answer can be trusted to be
/// that of its request.
#[derive(Debug, Clone, Default)]
pub struct Memcached {
    decoder: ResponseDecoder,
}

impl Memcached {
    /// With the limits of `decoder`.
    pub fn new(decoder: ResponseDecoder) -> Self {
        Self { decoder }
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
                },
                Response::Value(value),
            ) if value.cas.is_some() == *with_cas => {
                // Servers answer in the order of the keys.
                match keys.any(|key| key == value.key) {
                    true => {
                        items.push(value);
                        Received::Part
                    }
                    false => Received::Unexpected(Box::new(Violation::Item)),
                }
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
            Self::Nothing => f.write_str("nothing"),
        }
    }
}
