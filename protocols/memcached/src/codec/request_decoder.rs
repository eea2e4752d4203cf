use protosocket::{DecodeError, Decoded, Decoder, Input};

use super::{
    line::{LineSearch, SHORT, without_return},
    request_line::{self, Line, StoreLine},
};
use crate::data::{ErrorReply, Keys, Request, Store};

/// What a server hears.
///
/// A request that cannot be answered otherwise than with an error is a message as well, because the
/// connection goes on: the data block of such a request is stepped over, without being kept. Where
/// the end of a data block is unknown, decoding fails, because what comes next could be taken for
/// commands.
///
/// | limit | default | why |
/// |---|---|---|
/// | [`max_value`](Self::max_value) | 1 MiB | memcached's own limit of an item |
/// | [`max_skipped`](Self::max_skipped) | 64 MiB | larger data than that is no mistake: the connection ends |
/// | [`max_line`](Self::max_line) | 2,048 bytes | memcached's own; a key has 250 bytes |
/// | [`max_retrieval_line`](Self::max_retrieval_line) | 1 MiB | 4,000 keys of 250 bytes; they are kept once |
#[derive(Debug, Clone)]
pub struct RequestDecoder {
    max_value: u64,
    max_skipped: u64,
    max_line: usize,
    max_retrieval_line: usize,
    search: LineSearch,
    /// What to say once the data block of a refused request is over.
    refused: Option<Refused>,
}

/// A request that is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The answer.
    pub error: ErrorReply,
    /// The client wants none, and would take it for the answer to its next request.
    pub noreply: bool,
}

impl RequestDecoder {
    /// A decoder with the limits of the table above.
    pub fn new() -> Self {
        Self {
            max_value: 1024 * 1024,
            max_skipped: 64 * 1024 * 1024,
            max_line: 2048,
            max_retrieval_line: 1024 * 1024,
            search: LineSearch::default(),
            refused: None,
        }
    }

    /// Refuse values above `bytes`. The connection goes on, and its `max_message_size` must leave
    /// room for such a value and its line.
    #[must_use]
    pub fn max_value(mut self, bytes: u64) -> Self {
        self.max_value = bytes;
        self
    }

    /// End the connection instead of stepping over more than `bytes` of a value that is refused.
    #[must_use]
    pub fn max_skipped(mut self, bytes: u64) -> Self {
        self.max_skipped = bytes;
        self
    }

    /// End the connection at a command line above `bytes`, at least 512.
    #[must_use]
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes.max(SHORT);
        self
    }

    /// End the connection at the line of a retrieval above `bytes`, at least 512.
    #[must_use]
    pub fn max_retrieval_line(mut self, bytes: usize) -> Self {
        self.max_retrieval_line = bytes.max(SHORT);
        self
    }

    fn store(
        &mut self,
        input: &mut Input<'_>,
        line: StoreLine,
        line_length: usize,
    ) -> Result<Decoded<Message>, DecodeError> {
        // LIMIT: max_value.
        if line.length > self.max_value {
            let refused = Refused {
                error: ErrorReply::TOO_LARGE,
                noreply: line.noreply,
            };
            return self.skip(input, refused, line_length, line.length);
        }
        let too_large = || DecodeError::TooLarge {
            size: line.length,
            limit: self.max_value,
        };
        let length = usize::try_from(line.length).map_err(|_| too_large())?;
        let data_end = line_length.checked_add(length).ok_or_else(too_large)?;
        let end = data_end.checked_add(2).ok_or_else(too_large)?;
        if input.len() < end {
            return Ok(Decoded::Need(end));
        }
        check_end(&input.bytes()[data_end..end])?;
        self.search.found();
        input.advance(line_length);
        let value = input.take(length);
        input.advance(2);
        Ok(Decoded::Message(Ok(Request::Store(Store {
            mode: line.mode,
            key: line.key,
            flags: line.flags,
            expiration: line.expiration,
            value,
            noreply: line.noreply,
        }))))
    }

    /// Step over the data block of a request that is refused.
    fn skip(
        &mut self,
        input: &mut Input<'_>,
        refused: Refused,
        line_length: usize,
        length: u64,
    ) -> Result<Decoded<Message>, DecodeError> {
        // LIMIT: max_skipped.
        if length > self.max_skipped {
            return Err(DecodeError::TooLarge {
                size: length,
                limit: self.max_value,
            });
        }
        self.search.found();
        input.advance(line_length);
        self.refused = Some(refused);
        match length {
            0 => self.end_skipped(input),
            length => Ok(Decoded::Skip(length)),
        }
    }

    /// The end of a data block that was stepped over.
    fn end_skipped(&mut self, input: &mut Input<'_>) -> Result<Decoded<Message>, DecodeError> {
        let Some(end) = input.bytes().get(..2) else {
            return Ok(Decoded::Need(2));
        };
        check_end(end)?;
        input.advance(2);
        let refused = self.refused.take().expect("it is asked for first");
        Ok(Decoded::Message(Err(refused)))
    }
}

type Message = Result<Request, Refused>;

/// What must stand behind data.
fn check_end(end: &[u8]) -> Result<(), DecodeError> {
    if end == b"\r\n" {
        return Ok(());
    }
    Err(DecodeError::malformed(
        "bad data chunk: expected the end of a line behind as many bytes as were announced",
    ))
}

impl Default for RequestDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for RequestDecoder {
    type Message = Message;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Message>, DecodeError> {
        if self.refused.is_some() {
            return self.end_skipped(input);
        }
        let bytes = input.bytes();
        // No line begins with these.
        match bytes.first() {
            Some(0x80) => {
                return Err(DecodeError::malformed(
                    "this is memcached's text protocol, and what came looks like its binary \
                     protocol, which is not spoken here",
                ));
            }
            Some(0x16) => {
                return Err(DecodeError::malformed(
                    "this is memcached's text protocol, and what came looks like TLS",
                ));
            }
            _ => {}
        }
        let limit = || match request_line::is_retrieval(bytes) {
            true => self.max_retrieval_line,
            false => self.max_line,
        };
        let Some(end) = self.search.find(bytes, limit)? else {
            return Ok(Decoded::Need(bytes.len() + 1));
        };
        let line = without_return(&bytes[..end]);
        match request_line::parse(line)? {
            Line::Store(line) => self.store(input, line, end + 1),
            Line::Whole(request) => {
                self.search.found();
                input.advance(end + 1);
                Ok(Decoded::Message(Ok(request)))
            }
            Line::Retrieve {
                keys,
                with_cas,
                touch,
            } => {
                let length = line.len();
                self.search.found();
                let text = input.take(end + 1).slice(keys..length);
                let request = request_line::of_keys(Keys::of_line(text), with_cas, touch);
                Ok(Decoded::Message(request))
            }
            Line::Refused {
                refused,
                data: Some(length),
            } => self.skip(input, refused, end + 1, length),
            Line::Refused { refused, .. } => {
                self.search.found();
                input.advance(end + 1);
                Ok(Decoded::Message(Err(refused)))
            }
        }
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<Message>, DecodeError> {
        match input.len() {
            0 if self.refused.is_none() => Ok(None),
            left => Err(DecodeError::Truncated { left }),
        }
    }
}
