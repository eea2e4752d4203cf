use bytes::Bytes;
use protosocket::{DecodeError, Decoded, Decoder, Input};

use crate::{
    ErrorReply, Value,
    data::{Header, header},
};

/// How deep values may lie in each other. A client of Redis meets five.
pub const MAX_DEPTH: usize = 32;

/// What a line may have that is no number, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// Room for so many items is reserved before they come.
const RESERVED: usize = 8;

/// Reads values, as a client does: RESP2 and RESP3, streamed ones included.
///
/// | what | default | why |
/// |---|---|---|
/// | [`max_length`](Self::max_length) | 512 MiB | the largest string of redis |
/// | [`max_values`](Self::max_values) | 1,048,576 | three bytes on the wire can become 40 in memory |
/// | depth | 32 | [`MAX_DEPTH`] |
/// | a simple string, an error, a big number | 64 KiB | what is longer comes as a bulk string |
///
/// Items of an aggregate leave the connection's buffer as they come; nothing is reserved for what is
/// announced. One bulk string is bounded by the connection's `max_message_size` as well, which is
/// 32 MiB by default.
#[derive(Debug, Clone)]
pub struct ValueDecoder {
    max_length: u64,
    max_values: usize,
    /// Aggregates that have begun, the outermost first.
    open: Vec<Aggregate>,
    /// Bytes and values of the message that has begun.
    length: u64,
    values: usize,
    /// How far the line at the front of the input is known to have no end.
    scanned: usize,
}

#[derive(Debug, Clone)]
struct Aggregate {
    kind: Kind,
    items: Vec<Value>,
    /// How many items are to come; `None` until a `.` says that it was all.
    left: Option<u64>,
    /// Of a streamed string, what has come.
    text: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Set,
    Push,
    Map,
    Attributes,
    /// The value that attributes belong to. The first item is a map of them.
    Attributed,
    StreamedBulk,
}

/// What stands at the front of the input.
enum Element {
    Value(Value),
    Open(Kind, Option<u64>),
    Chunk(Bytes),
    End,
    Need(usize),
}

impl ValueDecoder {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            max_length: 512 * 1024 * 1024,
            max_values: 1024 * 1024,
            open: Vec::new(),
            length: 0,
            values: 0,
            scanned: 0,
        }
    }

    /// Refuse values of more bytes, all that is in them included.
    #[must_use]
    pub fn max_length(mut self, bytes: u64) -> Self {
        self.max_length = bytes;
        self
    }

    /// Refuse values with more values in them, themselves included.
    #[must_use]
    pub fn max_values(mut self, count: usize) -> Self {
        self.max_values = count;
        self
    }

    /// Take the next element off the input.
    fn element(&mut self, input: &mut Input<'_>) -> Result<Element, DecodeError> {
        let bytes = input.bytes();
        let Some(&kind) = bytes.first() else {
            return Ok(Element::Need(1));
        };
        if let Some(Aggregate {
            kind: Kind::StreamedBulk,
            ..
        }) = self.open.last()
        {
            return match kind {
                b';' => self.bulk(input, |bytes| Ok(Element::Chunk(bytes))),
                _ => Err(unexpected(kind, "a chunk of a streamed string (;)")),
            };
        }
        match kind {
            b'$' if is_streamed(bytes) => self.streamed(input, Kind::StreamedBulk),
            b'$' => self.bulk(input, |bytes| Ok(Element::Value(Value::Bulk(bytes)))),
            b'!' => self.bulk(input, |bytes| {
                Ok(Element::Value(Value::Error(ErrorReply::new(bytes))))
            }),
            b'=' => self.bulk(input, verbatim),
            b':' => match header(bytes, 1) {
                Header::Number(number, end) => {
                    input.advance(end);
                    Ok(Element::Value(Value::Integer(number)))
                }
                Header::Incomplete => Ok(Element::Need(bytes.len() + 1)),
                Header::Malformed => Err(malformed("expected an integer of 64 bits behind ':'")),
            },
            b'+' => self.line(input, |line| Ok(Value::Simple(line))),
            b'-' => self.line(input, |line| Ok(Value::Error(ErrorReply::new(line)))),
            b'_' => self.line(input, |line| match line.is_empty() {
                true => Ok(Value::Null),
                false => Err(malformed("expected nothing behind '_'")),
            }),
            b'#' => self.line(input, |line| match &line[..] {
                b"t" => Ok(Value::Boolean(true)),
                b"f" => Ok(Value::Boolean(false)),
                _ => Err(malformed("expected t or f behind '#'")),
            }),
            b',' => self.line(input, double),
            b'(' => self.line(input, big_number),
            b'*' => self.aggregate(input, Kind::Array),
            b'~' => self.aggregate(input, Kind::Set),
            b'%' => self.aggregate(input, Kind::Map),
            b'|' => self.aggregate(input, Kind::Attributes),
            b'>' if self.open.is_empty() => self.aggregate(input, Kind::Push),
            b'>' => Err(malformed("a push (>) stands inside another value")),
            b'.' => match bytes.get(..3) {
                Some(b".\r\n") => {
                    input.advance(3);
                    Ok(Element::End)
                }
                Some(_) => Err(malformed("expected nothing behind '.'")),
                None => Ok(Element::Need(3)),
            },
            other => Err(unexpected(other, "the first byte of a value")),
        }
    }

    /// Take a string behind its length off the input.
    #[inline]
    fn bulk(
        &mut self,
        input: &mut Input<'_>,
        value: impl FnOnce(Bytes) -> Result<Element, DecodeError>,
    ) -> Result<Element, DecodeError> {
        let bytes = input.bytes();
        let (length, start) = match header(bytes, 1) {
            Header::Number(length, start) if length >= 0 => (length as u64, start),
            // RESP2 has no other null.
            Header::Number(-1, start) if bytes[0] == b'$' => {
                input.advance(start);
                return Ok(Element::Value(Value::Null));
            }
            Header::Incomplete => return Ok(Element::Need(bytes.len() + 1)),
            Header::Number(..) | Header::Malformed => {
                return Err(malformed("invalid length of a string"));
            }
        };
        // The last chunk of a streamed string is empty, and has nothing behind it.
        if length == 0 && bytes[0] == b';' {
            input.advance(start);
            return value(Bytes::new());
        }
        self.fit(length)?;
        // INVARIANT: what fits into max_length and was compared with it is below 2⁶³.
        let end = start + length as usize;
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => {}
            // Whoever waits for both is not asked about one of them.
            None => return Ok(Element::Need(end + 2)),
            Some(_) => {
                return Err(malformed(format!(
                    "expected the end of a line behind the {length} bytes of a string"
                )));
            }
        }
        input.advance(start);
        let payload = input.take(length as usize);
        input.advance(2);
        value(payload)
    }

    /// Take a line off the input.
    fn line(
        &mut self,
        input: &mut Input<'_>,
        value: impl FnOnce(Bytes) -> Result<Value, DecodeError>,
    ) -> Result<Element, DecodeError> {
        let bytes = input.bytes();
        let from = self.scanned.clamp(1, bytes.len());
        let end = bytes[from..].iter().position(|&byte| byte == b'\n');
        let end = end.map(|end| end + from);
        // LIMIT: MAX_LINE.
        if end.unwrap_or(bytes.len()) > MAX_LINE {
            return Err(malformed(format!(
                "a line of more than {MAX_LINE} bytes: what is longer comes as a bulk string"
            )));
        }
        let Some(end) = end else {
            self.scanned = bytes.len();
            return Ok(Element::Need(bytes.len() + 1));
        };
        self.scanned = 0;
        let Some(line) = bytes[1..end].strip_suffix(b"\r") else {
            return Err(malformed("a line ends without a carriage return"));
        };
        let length = line.len();
        if line.contains(&b'\r') {
            return Err(malformed("a carriage return inside a line"));
        }
        input.advance(1);
        let line = input.take(length);
        input.advance(2);
        value(line).map(Element::Value)
    }

    fn aggregate(&mut self, input: &mut Input<'_>, kind: Kind) -> Result<Element, DecodeError> {
        let bytes = input.bytes();
        if is_streamed(bytes) {
            return match kind {
                Kind::Attributes | Kind::Push => {
                    Err(malformed("attributes and pushes are not streamed"))
                }
                _ => self.streamed(input, kind),
            };
        }
        match header(bytes, 1) {
            Header::Number(-1, end) if kind == Kind::Array => {
                input.advance(end);
                Ok(Element::Value(Value::Null))
            }
            Header::Number(count, end) if count >= 0 => {
                let items = match kind {
                    Kind::Map | Kind::Attributes => (count as u64).saturating_mul(2),
                    _ => count as u64,
                };
                // LIMIT: max_values, of which this is one, before the first of them has come.
                if items >= (self.max_values - self.values.min(self.max_values)) as u64 {
                    return Err(self.too_many());
                }
                input.advance(end);
                Ok(Element::Open(kind, Some(items)))
            }
            Header::Incomplete => Ok(Element::Need(bytes.len() + 1)),
            Header::Number(..) | Header::Malformed => {
                Err(malformed("invalid length of an aggregate"))
            }
        }
    }

    fn streamed(&mut self, input: &mut Input<'_>, kind: Kind) -> Result<Element, DecodeError> {
        match input.bytes().get(2..4) {
            Some(b"\r\n") => {
                input.advance(4);
                Ok(Element::Open(kind, None))
            }
            Some(_) => Err(malformed("expected nothing behind '?'")),
            None => Ok(Element::Need(4)),
        }
    }

    /// Refuse so many more bytes, if they are too many.
    fn fit(&self, more: u64) -> Result<(), DecodeError> {
        let size = self.length.saturating_add(more);
        match size > self.max_length {
            true => Err(DecodeError::TooLarge {
                size,
                limit: self.max_length,
            }),
            false => Ok(()),
        }
    }

    #[cold]
    fn too_many(&self) -> DecodeError {
        malformed(format!(
            "a reply of more than {} values (max_values)",
            self.max_values
        ))
    }

    fn open(&mut self, kind: Kind, left: Option<u64>) -> Result<(), DecodeError> {
        // LIMIT: MAX_DEPTH.
        if self.open.len() >= MAX_DEPTH {
            return Err(malformed(format!(
                "values lie in each other deeper than {MAX_DEPTH} levels"
            )));
        }
        let reserved = left.unwrap_or(0).min(RESERVED as u64) as usize;
        self.open.push(Aggregate {
            kind,
            items: Vec::with_capacity(reserved),
            left,
            text: Vec::new(),
        });
        Ok(())
    }

    /// Close what is complete, and put it where it belongs. The message, if that was all.
    fn close(&mut self, value: Option<Value>) -> Result<Option<Value>, DecodeError> {
        let mut value = value;
        loop {
            if let Some(value) = value.take() {
                let Some(aggregate) = self.open.last_mut() else {
                    return Ok(Some(value));
                };
                aggregate.items.push(value);
                if let Some(left) = &mut aggregate.left {
                    *left -= 1;
                }
            }
            match self.open.pop_if(|it| it.left == Some(0)) {
                None => return Ok(None),
                Some(attributes) if attributes.kind == Kind::Attributes => {
                    self.open(Kind::Attributed, Some(1))?;
                    let items = attributes.items;
                    let map = Value::Map(pairs(items));
                    if let Some(attributed) = self.open.last_mut() {
                        attributed.items.push(map);
                    }
                    return Ok(None);
                }
                Some(complete) => value = Some(complete.into_value()),
            }
        }
    }

    /// The end of what was streamed.
    fn end(&mut self) -> Result<Option<Value>, DecodeError> {
        match self.open.last_mut() {
            Some(it) if it.left.is_none() && it.kind == Kind::Map && it.items.len() % 2 == 1 => {
                Err(malformed(
                    "a streamed map ends behind a key without its value",
                ))
            }
            Some(it) if it.left.is_none() => {
                it.left = Some(0);
                self.close(None)
            }
            _ => Err(malformed(
                "the end of a streamed value ('.'), of which there is none",
            )),
        }
    }
}

impl Default for ValueDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for ValueDecoder {
    type Message = Value;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Value>, DecodeError> {
        loop {
            let before = input.len();
            let element = self.element(input)?;
            self.length += (before - input.len()) as u64;
            self.fit(0)?;
            let message = match element {
                Element::Need(need) => return Ok(Decoded::Need(need)),
                Element::End => self.end()?,
                Element::Chunk(chunk) => match self.open.last_mut() {
                    Some(stream) if !chunk.is_empty() => {
                        stream.text.extend_from_slice(&chunk);
                        None
                    }
                    _ => self.end()?,
                },
                Element::Open(..) | Element::Value(_) if self.values >= self.max_values => {
                    return Err(self.too_many());
                }
                Element::Open(kind, left) => {
                    self.values += 1;
                    self.open(kind, left)?;
                    self.close(None)?
                }
                Element::Value(value) => {
                    self.values += 1;
                    self.close(Some(value))?
                }
            };
            if let Some(message) = message {
                (self.length, self.values) = (0, 0);
                return Ok(Decoded::Message(message));
            }
        }
    }

    fn is_inside(&self) -> bool {
        !self.open.is_empty()
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<Value>, DecodeError> {
        match input.is_empty() && self.open.is_empty() {
            true => Ok(None),
            false => Err(DecodeError::Truncated { left: input.len() }),
        }
    }
}

impl Aggregate {
    fn into_value(self) -> Value {
        let mut items = self.items;
        match self.kind {
            Kind::Array => Value::Array(items),
            Kind::Set => Value::Set(items),
            Kind::Push => Value::Push(items),
            Kind::Map | Kind::Attributes => Value::Map(pairs(items)),
            Kind::StreamedBulk => Value::Bulk(self.text.into()),
            Kind::Attributed => {
                let value = items.pop().unwrap_or(Value::Null);
                match items.pop() {
                    Some(Value::Map(attributes)) => {
                        Value::Attributed(Box::new((attributes, value)))
                    }
                    _ => value,
                }
            }
        }
    }
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

fn is_streamed(bytes: &[u8]) -> bool {
    bytes.get(1) == Some(&b'?')
}

fn verbatim(bytes: Bytes) -> Result<Element, DecodeError> {
    match bytes.first_chunk::<4>() {
        Some(&[a, b, c, b':']) => {
            let text = bytes.slice(4..);
            Ok(Element::Value(Value::Verbatim([a, b, c], text)))
        }
        _ => Err(malformed(
            "a verbatim string begins with three letters and ':'",
        )),
    }
}

fn double(line: Bytes) -> Result<Value, DecodeError> {
    let is_number = line
        .iter()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte));
    let number = match &line[..] {
        b"inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        b"nan" | b"-nan" => Some(f64::NAN),
        text if is_number => std::str::from_utf8(text)
            .ok()
            .and_then(|it| it.parse().ok()),
        _ => None,
    };
    number
        .map(Value::Double)
        .ok_or_else(|| malformed("expected a number behind ','"))
}

fn big_number(line: Bytes) -> Result<Value, DecodeError> {
    let digits = match &line[..] {
        [b'-' | b'+', digits @ ..] => digits,
        digits => digits,
    };
    match !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) {
        true => Ok(Value::BigNumber(line)),
        false => Err(malformed("expected digits behind '('")),
    }
}

#[cold]
fn unexpected(byte: u8, expected: &str) -> DecodeError {
    let byte = byte.escape_ascii();
    malformed(format!("expected {expected}, got '{byte}'"))
}

#[cold]
fn malformed(what: impl Into<std::borrow::Cow<'static, str>>) -> DecodeError {
    DecodeError::malformed(what)
}
