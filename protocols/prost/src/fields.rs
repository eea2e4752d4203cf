use bytes::{Buf, Bytes};

/// Fields below this size are copied out of a message that could share them, in bytes.
///
/// Copying 4 KiB costs less than the bookkeeping of sharing it.
const SHARED_FIELD: usize = 4 * 1024;

/// A field is shared if it is at least this part of its message: what is kept of a message never
/// keeps more than eight times its size alive.
const SHARED_PART: usize = 8;

/// The bytes of a message, as prost reads its fields from them.
pub(crate) struct Fields<B> {
    bytes: B,
    /// From this size on, in bytes, a field is split off instead of copied.
    shared: usize,
    /// How many keys, lengths, numbers and texts may still be read.
    values_left: usize,
    exhausted: bool,
}

impl<'a> Fields<&'a [u8]> {
    /// Of a message in memory that cannot be shared.
    pub(crate) fn borrowed(bytes: &'a [u8], max_values: usize) -> Self {
        Self {
            bytes,
            shared: usize::MAX,
            values_left: max_values,
            exhausted: false,
        }
    }
}

impl Fields<Bytes> {
    /// Of a message from which large fields leave without a copy.
    pub(crate) fn shared(bytes: Bytes, max_values: usize) -> Self {
        Self {
            shared: SHARED_FIELD.max(bytes.len() / SHARED_PART),
            bytes,
            values_left: max_values,
            exhausted: false,
        }
    }
}

impl<B: Buf> Fields<B> {
    /// Whether there were more values than may be: then it ended early.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    #[cold]
    fn exhaust(&mut self) {
        self.exhausted = true;
        self.bytes.advance(self.bytes.remaining());
    }
}

/// Ends when it is exhausted, which can be in the middle of a varint: so nothing here panics beyond
/// the end, whatever prost has seen of it before.
impl<B: Buf> Buf for Fields<B> {
    #[inline]
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        // LIMIT: max_values. prost advances once for each key, length, number and text.
        match self.values_left.checked_sub(1) {
            Some(left) if count <= self.bytes.remaining() => {
                self.values_left = left;
                self.bytes.advance(count);
            }
            _ => self.exhaust(),
        }
    }

    #[inline]
    fn get_u8(&mut self) -> u8 {
        let byte = self.chunk().first().copied().unwrap_or_default();
        self.advance(1);
        byte
    }

    #[inline]
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        let count = count.min(self.bytes.remaining());
        if count >= self.shared {
            return self.bytes.copy_to_bytes(count);
        }
        let copy = copied(&self.bytes.chunk()[..count]);
        self.bytes.advance(count);
        copy
    }
}

/// The bytes of a message of which nothing is shared, and which cannot hold too many values.
///
/// It ends where the message does, so prost sees what remains before it asks for that, and what panics
/// here is unreachable for a peer.
pub(crate) struct Plain<'a>(pub(crate) &'a [u8]);

impl Buf for Plain<'_> {
    #[inline]
    fn remaining(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self.0
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }

    #[inline]
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        let (field, rest) = self.0.split_at(count);
        self.0 = rest;
        copied(field)
    }
}

/// A copy that takes one allocation, up to 256 bytes, however often it is cloned: what `Bytes` makes of
/// a `Vec` takes another when it is cloned first, which prost does to encode it.
#[inline]
fn copied(field: &[u8]) -> Bytes {
    match field.len() {
        0 => Bytes::new(),
        1..=16 => small::<16>(field),
        17..=32 => small::<32>(field),
        33..=64 => small::<64>(field),
        65..=128 => small::<128>(field),
        129..=256 => small::<256>(field),
        _ => Bytes::copy_from_slice(field),
    }
}

fn small<const SIZE: usize>(field: &[u8]) -> Bytes {
    let mut bytes = [0; SIZE];
    bytes[..field.len()].copy_from_slice(field);
    let length = field.len();
    Bytes::from_owner(Small { bytes, length })
}

/// A field beside the count of those that refer to it.
struct Small<const SIZE: usize> {
    bytes: [u8; SIZE],
    length: usize,
}

impl<const SIZE: usize> AsRef<[u8]> for Small<SIZE> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
