use std::borrow::Cow;

use bytes::Bytes;
use protosocket::{DecodeError, Decoded, Decoder, Input};

use super::line::{LineSearch, SHORT, number, without_blank, without_control, without_return};
use crate::data::{ErrorReply, Key, Response, Value, words};

/// What a client hears.
///
/// How large a value may be is the connection's `max_message_size`, 32 MiB by default: a server may
/// have been given a higher limit than its own 1 MiB. Memory grows with what has arrived. Lines have
/// 2,048 bytes at the most, see [`max_line`](Self::max_line).
#[derive(Debug, Clone)]
pub struct ResponseDecoder {
    max_line: usize,
    search: LineSearch,
}

impl ResponseDecoder {
    /// A decoder of lines of at most 2,048 bytes: a key has 250, and an error of a server fits.
    pub fn new() -> Self {
        Self {
            max_line: 2048,
            search: LineSearch::default(),
        }
    }

    /// Refuse lines above `bytes`, at least 512.
    #[must_use]
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes.max(SHORT);
        self
    }

    /// An item, once it is there.
    fn value(
        &mut self,
        input: &mut Input<'_>,
        line_length: usize,
        item: Item,
    ) -> Result<Decoded<Response>, DecodeError> {
        let too_large = || DecodeError::TooLarge {
            size: item.length,
            limit: usize::MAX as u64,
        };
        let length = usize::try_from(item.length).map_err(|_| too_large())?;
        let data_end = line_length.checked_add(length).ok_or_else(too_large)?;
        let end = data_end.checked_add(2).ok_or_else(too_large)?;
        if input.len() < end {
            return Ok(Decoded::Need(end));
        }
        if input.bytes()[data_end..end] != *b"\r\n" {
            return Err(DecodeError::malformed(
                "expected the end of a line behind as many bytes of an item as were announced",
            ));
        }
        self.search.found();
        input.advance(line_length);
        let value = input.take(length);
        input.advance(2);
        Ok(Decoded::Message(Response::Value(Value {
            key: item.key,
            flags: item.flags,
            value,
            cas: item.cas,
        })))
    }
}

impl Default for ResponseDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for ResponseDecoder {
    type Message = Response;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Response>, DecodeError> {
        let bytes = input.bytes();
        let Some(end) = self.search.find(bytes, || self.max_line)? else {
            return Ok(Decoded::Need(bytes.len() + 1));
        };
        let line = without_return(&bytes[..end]);
        if let Some(item) = line.strip_prefix(b"VALUE ") {
            let item = Item::parse(item)?;
            return self.value(input, end + 1, item);
        }
        let response = parse(line)?;
        self.search.found();
        input.advance(end + 1);
        Ok(Decoded::Message(response))
    }
}

/// The line in front of an item.
struct Item {
    key: Key,
    flags: u32,
    length: u64,
    cas: Option<u64>,
}

impl Item {
    fn parse(line: &[u8]) -> Result<Self, DecodeError> {
        let mut words = words(line);
        let mut next = || words.next();
        let key = next().and_then(|key| Key::copied(key).ok());
        let flags = next()
            .and_then(number)
            .and_then(|flags| flags.try_into().ok());
        let length = next().and_then(number);
        let cas = next().map(number);
        match (key, flags, length, cas, next()) {
            (Some(key), Some(flags), Some(length), None | Some(Some(_)), None) => Ok(Self {
                key,
                flags,
                length,
                cas: cas.flatten(),
            }),
            _ => Err(malformed(
                "VALUE <key> <flags> <bytes> [<cas unique>]",
                line,
            )),
        }
    }
}

/// A line that is all of a response.
fn parse(line: &[u8]) -> Result<Response, DecodeError> {
    let (word, rest) = match line.iter().position(|byte| *byte == b' ') {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &[][..]),
    };
    let response = match word {
        b"STAT" => {
            let mut parts = rest.splitn(2, |byte| *byte == b' ');
            Response::Stat {
                name: copied_name(parts.next()),
                value: copied(parts.next()),
            }
        }
        b"VERSION" => Response::Version(copied(Some(rest))),
        b"CLIENT_ERROR" => Response::Error(ErrorReply::Client(text(rest))),
        b"SERVER_ERROR" => Response::Error(ErrorReply::Server(text(rest))),
        // With words behind it in some servers.
        b"ERROR" => Response::Error(ErrorReply::Unknown),
        // An item that has shrunk in decr has blanks behind its number.
        digits if rest.iter().all(|byte| *byte == b' ') => match (number(digits), digits) {
            (Some(number), _) => Response::Number(number),
            (None, b"END") => Response::End,
            (None, b"STORED") => Response::Stored,
            (None, b"NOT_STORED") => Response::NotStored,
            (None, b"EXISTS") => Response::Exists,
            (None, b"NOT_FOUND") => Response::NotFound,
            (None, b"DELETED") => Response::Deleted,
            (None, b"TOUCHED") => Response::Touched,
            (None, b"OK") => Response::Ok,
            (None, b"RESET") => Response::Reset,
            _ => return Err(malformed("a response of memcached", line)),
        },
        _ => return Err(malformed("a response of memcached", line)),
    };
    Ok(response)
}

/// What a server says goes into errors and logs of this program: one line of words each.
fn copied(bytes: Option<&[u8]>) -> Bytes {
    let bytes = bytes.unwrap_or_default();
    bytes.iter().copied().map(without_control).collect()
}

fn copied_name(bytes: Option<&[u8]>) -> Bytes {
    let bytes = bytes.unwrap_or_default();
    bytes.iter().copied().map(without_blank).collect()
}

fn text(bytes: &[u8]) -> Cow<'static, str> {
    String::from_utf8_lossy(&copied(Some(bytes)))
        .into_owned()
        .into()
}

/// What was expected, and how long what came was: it may be data, which is not for a log.
fn malformed(expected: &str, line: &[u8]) -> DecodeError {
    DecodeError::malformed(format!(
        "expected {expected}, got a line of {} bytes",
        line.len()
    ))
}
