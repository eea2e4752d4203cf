use std::fmt;

use bytes::Bytes;
use protosocket::SendBuffer;

use super::{Header, header, write_header};

/// From this size on, an argument that is owned is sent from where it lies, in bytes.
const OWN_SEGMENT: usize = 16 * 1024;

/// What a client asks: a name and arguments, any bytes each.
///
/// It is kept as it will be sent, in one allocation, beside which large arguments that are owned lie
/// as they are.
///
/// ```
/// use protosocket_resp::Command;
///
/// let command = Command::new("SET").arg("key").arg("value").arg("EX").number(60);
/// assert_eq!(command.name(), b"SET");
/// ```
#[derive(Clone)]
pub struct Command {
    /// The arguments that were added, the name included, each as a bulk string; without the number
    /// of them in front, and without those that are large.
    bytes: Vec<u8>,
    count: usize,
    /// Large arguments, and where in `bytes` they go.
    large: Vec<(usize, Bytes)>,
}

impl Command {
    /// A command without arguments.
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        let empty = Self {
            bytes: Vec::with_capacity(64),
            count: 0,
            large: Vec::new(),
        };
        empty.arg(name)
    }

    /// Add an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<[u8]>) -> Self {
        let argument = argument.as_ref();
        self.push_header(argument.len());
        self.bytes.extend_from_slice(argument);
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Add an argument that is owned: it is not copied if it has 16 KiB or more.
    #[must_use]
    pub fn payload(mut self, argument: Bytes) -> Self {
        if argument.len() < OWN_SEGMENT {
            return self.arg(argument);
        }
        self.push_header(argument.len());
        self.large.push((self.bytes.len(), argument));
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Add a number.
    #[must_use]
    pub fn number(self, number: i64) -> Self {
        self.arg(number.to_string())
    }

    /// Add several arguments.
    #[must_use]
    pub fn args<A: AsRef<[u8]>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// The name, as it was given.
    pub fn name(&self) -> &[u8] {
        self.bulk_at(0).unwrap_or_default()
    }

    /// What stands behind the name, as in `CLIENT SETNAME`; `None` if nothing does, or a
    /// [payload](Self::payload) that was not copied.
    pub fn first_argument(&self) -> Option<&[u8]> {
        let Header::Number(length, start) = header(&self.bytes, 1) else {
            return None;
        };
        self.bulk_at(start + length as usize + "\r\n".len())
    }

    /// The bulk string whose header begins there.
    fn bulk_at(&self, index: usize) -> Option<&[u8]> {
        match header(&self.bytes, index + 1) {
            Header::Number(length, start) if self.large.iter().all(|(at, _)| *at != start) => {
                Some(&self.bytes[start..][..length as usize])
            }
            _ => None,
        }
    }

    /// Whether the name is this, in capitals or not.
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// How many arguments it has, the name included.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Never: a command has a name.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Append it to `output`.
    pub fn write_to(&self, output: &mut SendBuffer) {
        write_header(output.contiguous(), b'*', self.count);
        let mut from = 0;
        for (at, payload) in &self.large {
            output.put_slice(&self.bytes[from..*at]);
            output.put_bytes(payload.clone());
            from = *at;
        }
        output.put_slice(&self.bytes[from..]);
    }

    fn push_header(&mut self, length: usize) {
        self.count += 1;
        write_header(&mut self.bytes, b'$', length);
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments may be secrets.
        let name = self.name().escape_ascii().to_string();
        write!(f, "Command({name} with {} arguments)", self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_and_what_is_behind_it_are_known() {
        let command = Command::new("CLIENT").arg("REPLY").arg("OFF");
        assert_eq!(command.name(), b"CLIENT");
        assert_eq!(command.first_argument(), Some(&b"REPLY"[..]));
        assert_eq!(Command::new("PING").first_argument(), None);
        assert_eq!(
            Command::new("ECHO").arg("").first_argument(),
            Some(&b""[..])
        );
        let large = Bytes::from(vec![b'x'; OWN_SEGMENT]);
        let command = Command::new("ECHO").payload(large.clone()).arg("y");
        assert_eq!(command.first_argument(), None);
        let command = Command::new("SET").arg("key").payload(large);
        assert_eq!(command.first_argument(), Some(&b"key"[..]));
    }
}
