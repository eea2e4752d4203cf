use std::{convert::Infallible, fmt};

use bytes::{Bytes, BytesMut};

/// What an item is stored under: 1 to 250 bytes without blanks and control characters.
///
/// A key stands in a command line, so nothing that would end it or begin another word can be part of
/// one. Whoever takes keys from others learns that here, before anything is sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The longest key, in bytes: what memcached allows.
    pub const MAX_LENGTH: usize = 250;

    /// A key of these bytes.
    ///
    /// # Errors
    /// The caller is to blame: these bytes cannot be a key, and the error says why.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// A key that has been checked, in memory of its own: what is kept of a command line is its key.
    pub(crate) fn copied(bytes: &[u8]) -> Result<Self, KeyError> {
        check(bytes)?;
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Its bytes, which are shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Whether these bytes can be a key.
pub(crate) fn check(bytes: &[u8]) -> Result<(), KeyError> {
    if bytes.is_empty() {
        return Err(KeyError::Empty);
    }
    if bytes.len() > Key::MAX_LENGTH {
        return Err(KeyError::TooLong(bytes.len()));
    }
    match bytes.iter().position(|byte| is_forbidden(*byte)) {
        Some(at) => Err(KeyError::Forbidden {
            byte: bytes[at],
            at,
        }),
        None => Ok(()),
    }
}

fn is_forbidden(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&str> for Key {
    type Error = KeyError;

    fn try_from(text: &str) -> Result<Self, KeyError> {
        Self::copied(text.as_bytes())
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = KeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::copied(bytes)
    }
}

impl TryFrom<Bytes> for Key {
    type Error = KeyError;

    fn try_from(bytes: Bytes) -> Result<Self, KeyError> {
        Self::new(bytes)
    }
}

impl<const LENGTH: usize> TryFrom<&[u8; LENGTH]> for Key {
    type Error = KeyError;

    fn try_from(bytes: &[u8; LENGTH]) -> Result<Self, KeyError> {
        Self::copied(bytes)
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

/// Why bytes cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There are none.
    #[error("a key must have at least one byte")]
    Empty,
    /// There are too many.
    #[error("a key has at most {max} bytes, this one has {0}", max = Key::MAX_LENGTH)]
    TooLong(usize),
    /// One of them would end the key, or the line that it stands in.
    #[error("a key has no blanks and no control characters, this one has {byte:#04x} at byte {at}")]
    Forbidden {
        /// The byte.
        byte: u8,
        /// Where it stands, from 0.
        at: usize,
    },
}

impl From<Infallible> for KeyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The keys of one retrieval, as they stand in its line.
///
/// They take no more memory than the line has bytes, however many they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(Bytes);

impl Keys {
    /// These keys, in this order. None of them is asked for if there are none.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Self {
        let mut text = BytesMut::new();
        for key in keys {
            if !text.is_empty() {
                text.extend_from_slice(b" ");
            }
            text.extend_from_slice(key.as_slice());
        }
        Self(text.freeze())
    }

    /// The keys of a line, which are separated by blanks.
    pub(crate) fn of_line(text: Bytes) -> Result<Self, KeyError> {
        let mut count = 0;
        for word in words(&text) {
            check(word)?;
            count += 1;
        }
        match count {
            0 => Err(KeyError::Empty),
            // Without the blanks around them: the same keys are the same value.
            _ => Ok(Self(text.slice_ref(trimmed(&text)))),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        words(&self.0).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        words(&self.0).next().is_none()
    }

    /// As they stand in a line.
    pub(crate) fn text(&self) -> &Bytes {
        &self.0
    }
}

fn trimmed(text: &[u8]) -> &[u8] {
    let is_key = |byte: &u8| *byte != b' ';
    match (text.iter().position(is_key), text.iter().rposition(is_key)) {
        (Some(first), Some(last)) => &text[first..=last],
        _ => &[],
    }
}

/// What blanks separate.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
}

impl From<Key> for Keys {
    fn from(key: Key) -> Self {
        Self(key.0)
    }
}

impl IntoIterator for Keys {
    type Item = Key;
    type IntoIter = KeysIter;

    fn into_iter(self) -> KeysIter {
        KeysIter(self.0)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.escape_ascii())
    }
}

/// Each of some [`Keys`], in their order; they share the memory of the line.
#[derive(Debug, Clone)]
pub struct KeysIter(Bytes);

impl Iterator for KeysIter {
    type Item = Key;

    fn next(&mut self) -> Option<Key> {
        let blanks = self.0.iter().take_while(|byte| **byte == b' ').count();
        let rest = self.0.slice(blanks..);
        let length = rest.iter().position(|byte| *byte == b' ');
        let key = rest.slice(..length.unwrap_or(rest.len()));
        self.0 = rest.slice(key.len()..);
        (!key.is_empty()).then_some(Key(key))
    }
}
