use bytes::Bytes;
use protosocket::SendBuffer;

use crate::{
    Protocol, Value,
    data::{write_header, write_integer},
};

/// Writes the reply to a command straight into the send buffer.
///
/// A command has one reply: one call of these, or a header ([`array`](Self::array),
/// [`map`](Self::map) …) and then a call for each of its parts. What RESP2 has no word for is said in
/// its words, as redis does: a map as an array of keys and values, null as a null string, a double
/// as a string.
#[derive(Debug)]
pub struct Reply<'a> {
    output: &'a mut SendBuffer,
    protocol: Protocol,
}

impl<'a> Reply<'a> {
    /// A reply that is appended to `output`.
    pub fn new(output: &'a mut SendBuffer, protocol: Protocol) -> Self {
        Self { output, protocol }
    }

    /// What the connection speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// `OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.output.put_slice(b"+OK\r\n");
    }

    /// A simple string, in which control characters become blanks: it is one line.
    pub fn simple(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'+', text.as_ref());
    }

    /// An error: a code such as `ERR` or `WRONGTYPE`, a blank, and what people are told. Control
    /// characters become blanks.
    pub fn error(&mut self, line: impl AsRef<[u8]>) {
        self.line(b'-', line.as_ref());
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, number: i64) {
        write_integer(self.output.contiguous(), b':', number);
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        let output = self.output.contiguous();
        write_header(output, b'$', bytes.len());
        output.extend_from_slice(bytes);
        output.extend_from_slice(b"\r\n");
    }

    /// A bulk string that is owned: it is not copied if it has 16 KiB or more.
    #[inline]
    pub fn payload(&mut self, bytes: Bytes) {
        self.header(b'$', bytes.len());
        self.output.put_bytes(bytes);
        self.output.put_slice(b"\r\n");
    }

    /// Nothing.
    #[inline]
    pub fn null(&mut self) {
        self.output.put_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Nothing, where an array was asked for: RESP2 tells the two apart.
    pub fn null_array(&mut self) {
        self.output.put_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Yes or no; 1 or 0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        match self.protocol {
            Protocol::Resp2 => self.integer(i64::from(value)),
            Protocol::Resp3 => self.output.put_slice(match value {
                true => b"#t\r\n",
                false => b"#f\r\n",
            }),
        }
    }

    /// A number with a fraction; a bulk string in RESP2.
    pub fn double(&mut self, number: f64) {
        let text = match number {
            _ if number.is_nan() => "nan".to_owned(),
            _ if number == f64::INFINITY => "inf".to_owned(),
            _ if number == f64::NEG_INFINITY => "-inf".to_owned(),
            // The shortest text that is read as this number again.
            _ if number == 0.0 || (1e-5..1e17).contains(&number.abs()) => number.to_string(),
            _ => format!("{number:e}"),
        };
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line(b',', text.as_bytes()),
        }
    }

    /// An integer of any size, by its digits; a bulk string in RESP2.
    pub fn big_number(&mut self, digits: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits),
            Protocol::Resp3 => self.line(b'(', digits),
        }
    }

    /// A text, and which kind of text it is, such as `txt` or `mkd`; a bulk string in RESP2.
    pub fn verbatim(&mut self, kind: [u8; 3], text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.header(b'=', text.len() + 4);
                self.output.put_slice(&kind);
                self.output.put_slice(b":");
                self.output.put_slice(text);
                self.output.put_slice(b"\r\n");
            }
        }
    }

    /// The header of an array: so many values follow.
    #[inline]
    pub fn array(&mut self, count: usize) {
        self.header(b'*', count);
    }

    /// The header of a map: as many keys follow, each with its value behind it.
    pub fn map(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', count * 2),
            Protocol::Resp3 => self.header(b'%', count),
        }
    }

    /// The header of a set: so many values follow.
    pub fn set(&mut self, count: usize) {
        self.header(self.either(b'*', b'~'), count);
    }

    /// The header of a push, which answers nothing: so many values follow. An array in RESP2.
    pub fn push(&mut self, count: usize) {
        self.header(self.either(b'*', b'>'), count);
    }

    /// A whole value.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.null(),
            Value::Simple(text) => self.simple(text),
            Value::Error(error) if error.line().iter().any(u8::is_ascii_control) => {
                match self.protocol {
                    Protocol::Resp2 => self.error(error.line()),
                    Protocol::Resp3 => {
                        self.header(b'!', error.line().len());
                        self.output.put_slice(error.line());
                        self.output.put_slice(b"\r\n");
                    }
                }
            }
            Value::Error(error) => self.error(error.line()),
            Value::Integer(number) => self.integer(*number),
            Value::Bulk(bytes) => self.payload(bytes.clone()),
            Value::Boolean(value) => self.boolean(*value),
            Value::Double(number) => self.double(*number),
            Value::BigNumber(digits) => self.big_number(digits),
            Value::Verbatim(kind, text) => self.verbatim(*kind, text),
            Value::Array(items) => {
                self.array(items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Set(items) => {
                self.set(items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Push(items) => {
                self.push(items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Map(entries) => {
                self.map(entries.len());
                self.entries(entries);
            }
            Value::Attributed(attributed) => {
                let (attributes, value) = &**attributed;
                if self.protocol == Protocol::Resp3 {
                    self.header(b'|', attributes.len());
                    self.entries(attributes);
                }
                self.value(value);
            }
        }
    }

    fn entries(&mut self, entries: &[(Value, Value)]) {
        for (key, value) in entries {
            self.value(key);
            self.value(value);
        }
    }

    fn either(&self, resp2: u8, resp3: u8) -> u8 {
        match self.protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        }
    }

    #[inline]
    fn header(&mut self, prefix: u8, number: usize) {
        write_header(self.output.contiguous(), prefix, number);
    }

    /// One line, whatever is in `text`.
    fn line(&mut self, prefix: u8, text: &[u8]) {
        let output = self.output.contiguous();
        output.push(prefix);
        let start = output.len();
        output.extend_from_slice(text);
        for byte in &mut output[start..] {
            if byte.is_ascii_control() {
                *byte = b' ';
            }
        }
        output.extend_from_slice(b"\r\n");
    }
}
