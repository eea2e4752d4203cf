use std::{borrow::Cow, fmt};

use bytes::Bytes;

/// Which version of RESP a connection speaks. HELLO changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// What every connection begins with.
    #[default]
    Resp2,
    /// With maps, sets, doubles, nulls, pushes and more.
    Resp3,
}

/// What a server sends: RESP2 and RESP3 together.
///
/// Streamed values (`$?`, `*?`, `~?`, `%?`) are gathered and are like all others. Texts are bytes, for
/// nothing makes servers send UTF-8.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `_`, and RESP2's null bulk string and null array.
    Null,
    /// `+`: a word or two.
    Simple(Bytes),
    /// `-` and `!`: the server did not do it.
    Error(ErrorReply),
    /// `:`.
    Integer(i64),
    /// `$`: any bytes.
    Bulk(Bytes),
    /// `*`.
    Array(Vec<Value>),
    /// `#`.
    Boolean(bool),
    /// `,`.
    Double(f64),
    /// `(`: the digits of an integer of any size, with its sign.
    BigNumber(Bytes),
    /// `=`: a text, and in three letters what kind of text it is, such as `txt` or `mkd`.
    Verbatim([u8; 3], Bytes),
    /// `%`, in the order in which it came.
    Map(Vec<(Value, Value)>),
    /// `~`, as it came: a server may repeat members.
    Set(Vec<Value>),
    /// `>`: no answer to anything. Only at the top.
    Push(Vec<Value>),
    /// `|`: a value, and what the server says about it in addition.
    Attributed(Box<(Vec<(Value, Value)>, Value)>),
}

impl Value {
    /// The bytes of a bulk string, a simple string, a verbatim text or a big number.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self.bare() {
            Self::Bulk(bytes)
            | Self::Simple(bytes)
            | Self::Verbatim(_, bytes)
            | Self::BigNumber(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The bytes as text, if they are UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// An integer, a boolean as 0 or 1.
    pub fn as_integer(&self) -> Option<i64> {
        match self.bare() {
            Self::Integer(number) => Some(*number),
            Self::Boolean(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// The items of an array, a set or a push.
    pub fn as_items(&self) -> Option<&[Value]> {
        match self.bare() {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The value of `key` in a map, or in an array of keys and values as RESP2 has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let is_key = |it: &Value| it.as_bytes().is_some_and(|bytes| *bytes == *key.as_bytes());
        match self.bare() {
            Self::Map(entries) => {
                let entry = entries.iter().find(|(it, _)| is_key(it));
                entry.map(|(_, value)| value)
            }
            Self::Array(items) => {
                let mut pairs = items.as_chunks::<2>().0.iter();
                pairs.find(|[it, _]| is_key(it)).map(|[_, value]| value)
            }
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.bare(), Self::Null)
    }

    /// Without what was said about it in addition.
    pub fn bare(&self) -> &Value {
        match self {
            Self::Attributed(attributed) => attributed.1.bare(),
            value => value,
        }
    }
}

impl From<&'static str> for Value {
    /// A simple string.
    fn from(text: &'static str) -> Self {
        Self::Simple(Bytes::from_static(text.as_bytes()))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<Bytes> for Value {
    /// A bulk string.
    fn from(bytes: Bytes) -> Self {
        Self::Bulk(bytes)
    }
}

/// What a server says when it does not do what it was asked: `ERR unknown command`, `WRONGTYPE …`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ErrorReply(Bytes);

impl ErrorReply {
    /// The error of this line.
    pub fn new(line: impl Into<Bytes>) -> Self {
        Self(line.into())
    }

    /// What programs tell errors by: the first word, if it is in capitals, and `ERR` otherwise.
    pub fn code(&self) -> &str {
        self.split().0
    }

    /// An error of one line, in which control characters of `line` are escaped.
    pub fn escaped(line: &str) -> Self {
        Self::new(one_line(line))
    }

    /// The rest, which is for people.
    pub fn message(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.split().1)
    }

    /// The whole line, as it came.
    pub fn line(&self) -> &Bytes {
        &self.0
    }

    fn split(&self) -> (&str, &[u8]) {
        let end = self.0.iter().position(|&byte| byte == b' ');
        let (word, rest) = match end {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (&self.0[..], &[][..]),
        };
        let is_code = |word: &&str| {
            let mut bytes = word.bytes();
            !word.is_empty() && bytes.all(|it| it.is_ascii_uppercase() || it == b'_')
        };
        match std::str::from_utf8(word).ok().filter(is_code) {
            Some(code) => (code, rest),
            None => ("ERR", &self.0),
        }
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A bulk error may hold anything: where it is shown, it is one line.
        f.write_str(&one_line(&String::from_utf8_lossy(&self.0)))
    }
}

impl fmt::Debug for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorReply(\"{self}\")")
    }
}

impl std::error::Error for ErrorReply {}

/// `text` with its control characters escaped.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_by_their_first_word() {
        for (line, code, message) in [
            ("ERR unknown command", "ERR", "unknown command"),
            (
                "WRONGTYPE Operation against",
                "WRONGTYPE",
                "Operation against",
            ),
            ("NOAUTH", "NOAUTH", ""),
            ("no code at all", "ERR", "no code at all"),
            ("", "ERR", ""),
            ("Moved 1", "ERR", "Moved 1"),
        ] {
            let error = ErrorReply::new(line);
            assert_eq!((error.code(), &*error.message()), (code, message));
        }
        let nasty = ErrorReply::new(&b"ERR a\r\n\x1b[2J"[..]);
        assert_eq!(nasty.to_string(), "ERR a\\r\\n\\u{1b}[2J");
    }

    #[test]
    fn a_map_is_found_in_either_version() {
        let pairs = [("a".into(), 1.into()), ("b".into(), 2.into())];
        let flat = pairs
            .clone()
            .into_iter()
            .flat_map(|(k, v)| [k, v])
            .collect();
        for value in [Value::Map(pairs.to_vec()), Value::Array(flat)] {
            assert_eq!(value.get("b").and_then(Value::as_integer), Some(2));
            assert_eq!(value.get("c"), None);
        }
    }
}
