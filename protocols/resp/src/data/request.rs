use std::fmt;

use bytes::Bytes;
use protosocket::LocalBytes;

use super::{Header, header};

/// Commands from this size on arrive in a buffer of the connection's own, of which arguments can be
/// kept without a copy, in bytes.
const OWN_BUFFER: usize = 16 * 1024;

/// A command as it came to a server: a name and arguments, any bytes each.
///
/// It is a view of the bytes in which it arrived: nothing is copied or allocated for it, however many
/// arguments it has. What is to be kept of it is taken out with [`take`](Self::take).
#[derive(Clone)]
pub struct Request {
    /// Bulk strings, one behind the other, from `start` on. INVARIANT: they are well-formed.
    bytes: LocalBytes,
    start: u32,
    count: u32,
}

impl Request {
    /// A command of `count` bulk strings that begin at `start` of `bytes`.
    #[inline(always)]
    pub(crate) fn new(bytes: LocalBytes, start: usize, count: u32) -> Self {
        // A header of an array is far below 32 bits.
        let start = start as u32;
        Self {
            bytes,
            start,
            count,
        }
    }

    /// The name, as it was sent.
    #[inline]
    pub fn name(&self) -> &[u8] {
        self.args().next().unwrap_or_default()
    }

    /// The name and the arguments, in order.
    #[inline(always)]
    pub fn args(&self) -> Args<'_> {
        Args {
            bytes: &self.bytes[self.start as usize..],
            left: self.count,
        }
    }

    /// How many there are, the name included: at least one.
    #[inline]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Never: a command has a name.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// `argument`, which is one of this command's, to be kept.
    ///
    /// It is copied, unless the command has 16 KiB or more, and this argument at least an eighth of
    /// them: keeping it keeps no more than eight times its size.
    pub fn take(&self, argument: &[u8]) -> Bytes {
        if self.bytes.len() >= OWN_BUFFER && argument.len() >= self.bytes.len() / 8 {
            let bytes = self.bytes.to_bytes();
            let offset = (argument.as_ptr() as usize).wrapping_sub(self.bytes.as_ptr() as usize);
            if let Some(end) = offset.checked_add(argument.len())
                && end <= bytes.len()
            {
                return bytes.slice(offset..end);
            }
        }
        Bytes::copy_from_slice(argument)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments may be secrets.
        let name = self.name().escape_ascii().to_string();
        write!(f, "Request({name} with {} arguments)", self.count - 1)
    }
}

impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        self.args().eq(other.args())
    }
}

/// The name and the arguments of a [`Request`], in order.
#[derive(Clone)]
pub struct Args<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    #[inline(always)]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let Header::Number(length, start) = header(self.bytes, 1) else {
            unreachable!("the decoder has looked at it");
        };
        let end = start + length as usize;
        let argument = &self.bytes[start..end];
        self.bytes = &self.bytes[end + 2..];
        Some(argument)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Args<'_> {}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Args({} left)", self.left)
    }
}
