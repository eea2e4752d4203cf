use std::{
    cell::{Cell, RefCell},
    ops::Deref,
};

use bytes::Bytes;

use super::{Input, LocalBytes};

/// What a ready-made codec makes of a payload: [`Bytes`], [`PooledBuffer`] or [`LocalBytes`].
pub trait Payload: Sized + 'static {
    /// Take a payload of `length` bytes, which are there, from the front of `input`.
    fn take_from(input: &mut Input<'_>, length: usize) -> Self;

    /// Its bytes.
    fn as_slice(&self) -> &[u8];

    /// The same bytes, without a copy where that can be. Asked of payloads of 16 KiB or more, which
    /// are sent from there.
    fn into_bytes(self) -> Bytes;
}

/// Cheap to clone and slice, and large ones are neither copied when they arrive nor when they
/// leave. Small ones are an allocation each.
impl Payload for Bytes {
    #[inline]
    fn take_from(input: &mut Input<'_>, length: usize) -> Self {
        input.take(length)
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        self
    }

    fn into_bytes(self) -> Bytes {
        self
    }
}

/// Neither copied nor allocated for, but they stay on their thread.
impl Payload for LocalBytes {
    #[inline(always)]
    fn take_from(input: &mut Input<'_>, length: usize) -> Self {
        input.share(length)
    }

    #[inline(always)]
    fn as_slice(&self) -> &[u8] {
        self
    }

    fn into_bytes(self) -> Bytes {
        self.to_bytes()
    }
}

/// Small ones allocate nothing on a busy thread, and large ones are neither copied when they arrive
/// nor when they leave.
impl Payload for PooledBuffer {
    #[inline(always)]
    fn take_from(input: &mut Input<'_>, length: usize) -> Self {
        if length > POOLED_CAPACITY {
            return Self::from(input.take(length));
        }
        let mut payload = Self::new();
        input.copy_to(length, payload.as_mut_vec());
        payload
    }

    #[inline(always)]
    fn as_slice(&self) -> &[u8] {
        self
    }

    fn into_bytes(self) -> Bytes {
        self.into()
    }
}

/// The largest capacity that returns to the pool, in bytes.
const POOLED_CAPACITY: usize = 4 * 1024;

/// How many a thread keeps: as many as messages wait between two writes. With the capacity above
/// that is 4 MiB per thread at the most.
const POOLED: usize = 1024;

/// Bytes that can be sent between threads: in a buffer from a pool of the thread's, to which it
/// returns when it is dropped, or shared if they are many.
///
/// Buffers of at most 4 KiB are pooled, 1,024 of them per thread at the most. Payloads above that
/// arrive as a [`Bytes`] inside.
// What is held is boxed so that a buffer is moved as one word: several words that are stored one by
// one and loaded together at once stall the processor, which costs more than the indirection.
#[derive(Debug)]
pub struct PooledBuffer(Option<Memory>);

type Memory = Box<Held>;

#[derive(Debug)]
enum Held {
    Own(Vec<u8>),
    Shared(Bytes),
}

thread_local! {
    /// The buffer that was dropped last: whoever answers one message before the next arrives
    /// needs no other.
    static LAST: Cell<Option<Memory>> = const { Cell::new(None) };
    static POOL: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

const HELD: &str = "a buffer holds its memory until it is dropped";

impl PooledBuffer {
    /// An empty buffer.
    #[inline]
    pub fn new() -> Self {
        // A thread that is ending has no buffers any more.
        let last = LAST.try_with(Cell::take).ok().flatten();
        Self(Some(last.unwrap_or_else(pop)))
    }

    /// Append bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.as_mut_vec().extend_from_slice(bytes);
    }

    /// The bytes as a vector, to be changed; copied out first if they are shared.
    #[inline]
    pub fn as_mut_vec(&mut self) -> &mut Vec<u8> {
        let held = self.0.as_deref_mut().expect(HELD);
        if let Held::Shared(bytes) = held {
            *held = Held::Own(std::mem::take(bytes).into());
        }
        match held {
            Held::Own(vec) => vec,
            Held::Shared(_) => unreachable!("it was made a vector above"),
        }
    }

    /// The bytes as a vector, for good; copied out first if they are shared.
    pub fn into_vec(mut self) -> Vec<u8> {
        match *self.0.take().expect(HELD) {
            Held::Own(vec) => vec,
            Held::Shared(bytes) => bytes.into(),
        }
    }
}

impl Default for PooledBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Vec<u8>> for PooledBuffer {
    fn from(vec: Vec<u8>) -> Self {
        Self(Some(Box::new(Held::Own(vec))))
    }
}

impl From<Bytes> for PooledBuffer {
    fn from(bytes: Bytes) -> Self {
        Self(Some(Box::new(Held::Shared(bytes))))
    }
}

impl From<PooledBuffer> for Bytes {
    fn from(mut buffer: PooledBuffer) -> Self {
        match *buffer.0.take().expect(HELD) {
            Held::Own(vec) => vec.into(),
            Held::Shared(bytes) => bytes,
        }
    }
}

impl Clone for PooledBuffer {
    fn clone(&self) -> Self {
        if let Some(Held::Shared(bytes)) = self.0.as_deref() {
            return Self::from(bytes.clone());
        }
        let mut clone = Self::new();
        clone.extend_from_slice(self);
        clone
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match self.0.as_deref().expect(HELD) {
            Held::Own(vec) => vec,
            Held::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for PooledBuffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PooledBuffer {}

impl Drop for PooledBuffer {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut memory) = self.0.take()
            && let Held::Own(vec) = &mut *memory
            && vec.capacity() <= POOLED_CAPACITY
        {
            vec.clear();
            if let Ok(Some(earlier)) = LAST.try_with(|last| last.replace(Some(memory))) {
                push(earlier);
            }
        }
    }
}

#[inline(never)]
fn pop() -> Memory {
    let pooled = POOL.try_with(|pool| pool.borrow_mut().pop());
    let pooled = pooled.ok().flatten();
    pooled.unwrap_or_else(|| Box::new(Held::Own(Vec::new())))
}

#[inline(never)]
fn push(memory: Memory) {
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < POOLED {
            pool.push(memory);
        }
    });
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again_unless_it_is_large() {
        let mut small = PooledBuffer::new();
        small.extend_from_slice(&[7; 100]);
        let memory = small.as_ptr();
        drop(small);
        let again = PooledBuffer::new();
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), memory);
        drop(again);

        let large = PooledBuffer::from(vec![7; POOLED_CAPACITY + 1]);
        drop(large);
        assert!(PooledBuffer::new().as_mut_vec().capacity() <= POOLED_CAPACITY);
    }

    #[test]
    fn what_is_shared_is_copied_only_to_be_changed() {
        let bytes = Bytes::from(vec![7; 10_000]);
        let shared = PooledBuffer::from(bytes.clone());
        assert_eq!(shared.as_ptr(), bytes.as_ptr());
        assert_eq!(shared.clone().as_ptr(), bytes.as_ptr());
        assert_eq!(Bytes::from(shared.clone()).as_ptr(), bytes.as_ptr());

        let mut changed = shared.clone();
        changed.extend_from_slice(&[8]);
        assert_eq!(changed.len(), 10_001);
        assert_eq!(shared[..], bytes[..]);
        assert_eq!(shared.into_vec(), vec![7; 10_000]);

        let mut buffer = BytesMut::zeroed(10_000);
        let start = buffer.as_ptr();
        let arrived = PooledBuffer::take_from(&mut Input::from_buffer(&mut buffer), 10_000);
        assert_eq!(arrived.as_ptr(), start);
        assert_eq!(arrived.into_bytes().as_ptr(), start);
    }

    #[test]
    fn the_pool_is_bounded() {
        let many: Vec<PooledBuffer> = (0..2 * POOLED).map(|_| PooledBuffer::new()).collect();
        drop(many);
        assert_eq!(POOL.with_borrow(Vec::len), POOLED);
    }
}
