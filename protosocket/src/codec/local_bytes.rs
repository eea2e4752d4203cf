use std::{fmt, ops::Deref, rc::Rc};

use bytes::Bytes;

/// Bytes that stay on their thread: a small payload is a view of the buffer that it arrived in.
///
/// Nothing is copied and nothing allocated for a payload that arrived in the read buffer that the
/// connections of a thread share; counting who uses that buffer is what it costs, without an atomic
/// operation. Payloads that were read into a buffer of the connection's own are a [`Bytes`] inside: as
/// a rule those above 16 KiB, and those whose message came in several reads.
///
/// A view keeps the whole read buffer (128 KiB) from being used again, so it is for messages that
/// are answered or looked at soon. What is to stay is copied out: [`to_bytes`](Self::to_bytes).
/// Since it is not `Send`, it does not pass through a [`Sender`](crate::Sender), and a reactor that
/// keeps one across polls belongs to a runtime of one thread.
// Two words that are each moved in a register. A third one, or a part that is half a word, has it
// moved through memory, where loading at once what was stored in parts stalls the processor.
#[derive(Clone)]
pub struct LocalBytes {
    memory: Rc<Memory>,
    /// The length of the view in the upper half, its start in the lower one.
    view: u64,
}

/// What [`LocalBytes`] share.
#[derive(Debug)]
pub(crate) enum Memory {
    /// A read buffer, of which they are views.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "connections read"))]
    Read(Box<[u8]>),
    /// A payload on its own.
    Own(Bytes),
}

impl LocalBytes {
    /// No bytes.
    pub fn new() -> Self {
        Bytes::new().into()
    }

    /// A view of `length` bytes of a read buffer, which lie in it.
    #[inline(always)]
    pub(super) fn view(memory: &Rc<Memory>, start: u32, length: u32) -> Self {
        Self {
            memory: memory.clone(),
            view: u64::from(length) << 32 | u64::from(start),
        }
    }

    /// These bytes for other threads, and for as long as they are wanted: a copy, unless they have
    /// a buffer of their own.
    pub fn to_bytes(&self) -> Bytes {
        match &*self.memory {
            Memory::Read(_) => Bytes::copy_from_slice(self),
            Memory::Own(bytes) => bytes.clone(),
        }
    }
}

impl Default for LocalBytes {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for LocalBytes {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match &*self.memory {
            Memory::Read(memory) => {
                &memory[self.view as u32 as usize..][..(self.view >> 32) as usize]
            }
            Memory::Own(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for LocalBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Bytes> for LocalBytes {
    fn from(bytes: Bytes) -> Self {
        Self {
            memory: Rc::new(Memory::Own(bytes)),
            view: 0,
        }
    }
}

impl From<Vec<u8>> for LocalBytes {
    fn from(vec: Vec<u8>) -> Self {
        Bytes::from(vec).into()
    }
}

impl From<LocalBytes> for Bytes {
    fn from(bytes: LocalBytes) -> Self {
        bytes.to_bytes()
    }
}

impl PartialEq for LocalBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for LocalBytes {}

impl PartialEq<[u8]> for LocalBytes {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl fmt::Debug for LocalBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalBytes").field(&&**self).finish()
    }
}
