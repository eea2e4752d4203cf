use protosocket::{DecodeError, Decoded, Decoder, Input};

use super::inline;
use crate::{
    Request,
    data::{Header, header},
};

/// What a line without `*` may have, its end included, in bytes: as much as redis takes.
const MAX_INLINE: usize = 64 * 1024;

/// What a client may send before it has said who it is, where that is asked: as redis has it.
const UNAUTHENTICATED_ARGS: i64 = 10;
/// The same of one argument, in bytes.
const UNAUTHENTICATED_BULK: i64 = 16 * 1024;

/// Reads commands, as a server does: arrays of bulk strings, and lines of words (*inline* commands).
///
/// | what | default | why |
/// |---|---|---|
/// | [`max_args`](Self::max_args) | 1,048,576 | redis had it so for ten years |
/// | [`max_bulk`](Self::max_bulk) | 512 MiB | redis' `proto-max-bulk-len` |
/// | before authentication, if that is [required](Self::require_authentication) | 10 arguments, 16 KiB each | HELLO with all its options has 7 |
/// | an inline command | 64 KiB | as redis |
///
/// A command is buffered until it is whole, so all of it is bounded by the connection's
/// `max_message_size`, which is 32 MiB by default. Nothing is reserved for what is announced, and
/// each byte is looked at once, however it is cut.
///
/// What breaks the protocol is an error, after which nothing is read: no telling where the next
/// command begins. So are the words with which an HTTP request begins, because a browser can be
/// made to send those.
#[derive(Debug, Clone)]
pub struct RequestDecoder {
    max_args: i64,
    max_bulk: i64,
    requires_authentication: bool,
    is_authenticated: bool,
    /// How much of the front of the input is known: up to there it is whole bulk strings behind the
    /// header of an array, or an inline command without its end. 0 if nothing is.
    known: usize,
    /// Of an array: where its bulk strings begin, how many it has, how many of them are not known.
    start: usize,
    count: u32,
    left: u32,
}

impl RequestDecoder {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            max_args: 1024 * 1024,
            max_bulk: 512 * 1024 * 1024,
            requires_authentication: false,
            is_authenticated: true,
            known: 0,
            start: 0,
            count: 0,
            left: 0,
        }
    }

    /// Refuse commands of more arguments, their name included. At most 2³¹ - 1.
    #[must_use]
    pub fn max_args(mut self, count: usize) -> Self {
        self.max_args = count.min(i32::MAX as usize) as i64;
        self
    }

    /// Refuse arguments of more bytes. At most 2³¹ - 1.
    #[must_use]
    pub fn max_bulk(mut self, bytes: usize) -> Self {
        self.max_bulk = bytes.min(i32::MAX as usize) as i64;
        self
    }

    /// Have clients say who they are before they are served, and give them less room until then.
    #[must_use]
    pub fn require_authentication(mut self) -> Self {
        self.requires_authentication = true;
        self.is_authenticated = false;
        self
    }

    /// Whether clients have to say who they are.
    #[inline]
    pub fn requires_authentication(&self) -> bool {
        self.requires_authentication
    }

    /// Whether the client has said who it is, if it has to.
    #[inline]
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// The client has said who it is: it has all the room from the next command on.
    pub fn set_authenticated(&mut self) {
        self.is_authenticated = true;
    }

    /// The bulk strings of an array, from where they are known on.
    #[inline(always)]
    fn array(&mut self, input: &mut Input<'_>) -> Result<Decoded<Request>, DecodeError> {
        let bytes = input.bytes();
        let max_bulk = match self.is_authenticated {
            true => self.max_bulk,
            false => self.max_bulk.min(UNAUTHENTICATED_BULK),
        };
        let (mut known, mut left) = (self.known, self.left);
        while left > 0 {
            let need = match bytes.get(known) {
                Some(b'$') => match header(bytes, known + 1) {
                    Header::Number(length, start) if (0..=max_bulk).contains(&length) => {
                        let end = start + length as usize;
                        match bytes.get(end..end + 2) {
                            Some(b"\r\n") => {
                                known = end + 2;
                                left -= 1;
                                continue;
                            }
                            Some(_) => return Err(not_ended(length)),
                            None => end + 2,
                        }
                    }
                    Header::Number(length, _) => return Err(self.wrong_bulk(length)),
                    Header::Malformed => return Err(malformed("invalid bulk length")),
                    Header::Incomplete => bytes.len() + 1,
                },
                Some(byte) => {
                    let byte = byte.escape_ascii();
                    return Err(malformed(format!("expected '$', got '{byte}'")));
                }
                None => bytes.len() + 1,
            };
            (self.known, self.left) = (known, left);
            return Ok(Decoded::Need(need));
        }
        self.known = 0;
        let (start, count) = (self.start, self.count);
        Ok(Decoded::Message(Request::new(
            input.share(known),
            start,
            count,
        )))
    }

    #[cold]
    fn wrong_bulk(&self, length: i64) -> DecodeError {
        if !self.is_authenticated && (0..=self.max_bulk).contains(&length) {
            return malformed(format!(
                "unauthenticated bulk length: {length} bytes, before AUTH it may be \
                 {UNAUTHENTICATED_BULK}"
            ));
        }
        malformed(format!(
            "invalid bulk length: {length}, the limit is {} (max_bulk)",
            self.max_bulk
        ))
    }

    #[cold]
    fn wrong_count(&self, count: i64) -> DecodeError {
        if !self.is_authenticated && (0..=self.max_args).contains(&count) {
            return malformed(format!(
                "unauthenticated multibulk length: {count} arguments, before AUTH it may be \
                 {UNAUTHENTICATED_ARGS}"
            ));
        }
        malformed(format!(
            "invalid multibulk length: {count}, the limit is {} (max_args)",
            self.max_args
        ))
    }

    /// What does not begin with `*`: words, up to the end of the line. `None` if there are none.
    #[cold]
    fn inline(&mut self, input: &mut Input<'_>) -> Result<Option<Decoded<Request>>, DecodeError> {
        let bytes = input.bytes();
        // RFC 8446 §5.1: a handshake record, which has no end of a line to be waited for.
        if bytes.starts_with(b"\x16\x03") {
            return Err(malformed(
                "this looks like TLS, and the port speaks plain RESP",
            ));
        }
        let unseen = &bytes[self.known.min(bytes.len())..];
        let end = unseen.iter().position(|&byte| byte == b'\n');
        let end = end.map(|end| end + self.known);
        // LIMIT: MAX_INLINE.
        if end.unwrap_or(bytes.len()) >= MAX_INLINE {
            return Err(malformed(format!(
                "too big inline request: the limit is {MAX_INLINE} bytes"
            )));
        }
        let Some(end) = end else {
            self.known = bytes.len();
            return Ok(Some(Decoded::Need(bytes.len() + 1)));
        };
        self.known = 0;
        let line = &bytes[..end];
        let words = inline::words(line.strip_suffix(b"\r").unwrap_or(line))?;
        input.advance(end + 1);
        Ok(words.map(Decoded::Message))
    }
}

impl Default for RequestDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for RequestDecoder {
    type Message = Request;

    #[inline]
    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Request>, DecodeError> {
        loop {
            let bytes = input.bytes();
            match bytes.first() {
                None => return Ok(Decoded::Need(1)),
                Some(b'*') if self.known > 0 => return self.array(input),
                Some(b'*') => {}
                Some(_) => match self.inline(input)? {
                    Some(decoded) => return Ok(decoded),
                    None => continue,
                },
            }
            let max_args = match self.is_authenticated {
                true => self.max_args,
                false => self.max_args.min(UNAUTHENTICATED_ARGS),
            };
            match header(bytes, 1) {
                Header::Number(count, start) if count > 0 && count <= max_args => {
                    // INVARIANT: at most 2³¹ - 1.
                    self.count = count as u32;
                    self.left = count as u32;
                    self.start = start;
                    self.known = start;
                    return self.array(input);
                }
                // No command, as redis has it.
                Header::Number(0 | -1, start) => input.advance(start),
                Header::Number(count, _) => return Err(self.wrong_count(count)),
                Header::Malformed => return Err(malformed("invalid multibulk length")),
                Header::Incomplete => return Ok(Decoded::Need(bytes.len() + 1)),
            }
        }
    }

    /// What was stepped over was no command.
    fn is_inside(&self) -> bool {
        false
    }
}

#[cold]
fn malformed(what: impl Into<std::borrow::Cow<'static, str>>) -> DecodeError {
    DecodeError::malformed(what)
}

#[cold]
fn not_ended(length: i64) -> DecodeError {
    malformed(format!(
        "expected the end of a line behind the {length} bytes of a bulk string"
    ))
}
