use std::{
    cell::{Cell, RefCell},
    ops::{Deref, DerefMut},
};

use bytes::Bytes;

use super::{Input, LocalBytes};

/// What a ready-made codec makes of a payload: [`Bytes`], [`PooledBuffer`] or [`LocalBytes`].
pub trait Payload: Sized + 'static {
    /// Take a payload of `length` bytes, which are there, from the front of `input`.
    fn take_from(input: &mut Input<'_>, length: usize) -> Self;

    /// Its bytes.
    fn as_slice(&self) -> &[u8];

    /// The same bytes, shared. Asked of payloads of 16 KiB or more, which are sent without a copy.
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

/// Small ones allocate nothing on a busy thread. Large ones are copied when they arrive.
impl Payload for PooledBuffer {
    #[inline(always)]
    fn take_from(input: &mut Input<'_>, length: usize) -> Self {
        let mut payload = Self::new();
        input.copy_to(length, &mut payload);
        payload
    }

    #[inline(always)]
    fn as_slice(&self) -> &[u8] {
        self
    }

    fn into_bytes(self) -> Bytes {
        self.into_vec().into()
    }
}

/// The largest capacity that returns to the pool, in bytes.
const POOLED_CAPACITY: usize = 4 * 1024;

/// How many a thread keeps: as many as messages wait between two writes. With the capacity above
/// that is 4 MiB per thread at the most.
const POOLED: usize = 1024;

/// A `Vec<u8>` that is taken from a pool of the thread's and returns to it when it is dropped.
///
/// Buffers of at most 4 KiB are pooled, 1,024 of them per thread at the most.
// The vector is boxed so that a buffer is moved as one word: three words that are stored one by
// one and loaded together at once stall the processor, which costs more than the indirection.
#[derive(Debug, PartialEq, Eq)]
pub struct PooledBuffer(Option<Memory>);

type Memory = Box<Vec<u8>>;

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

    /// The vector, for good.
    pub fn into_vec(mut self) -> Vec<u8> {
        *self.0.take().expect(HELD)
    }
}

impl Default for PooledBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Vec<u8>> for PooledBuffer {
    fn from(vec: Vec<u8>) -> Self {
        Self(Some(Box::new(vec)))
    }
}

impl Clone for PooledBuffer {
    fn clone(&self) -> Self {
        let mut clone = Self::new();
        clone.extend_from_slice(self);
        clone
    }
}

impl Deref for PooledBuffer {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        self.0.as_ref().expect(HELD)
    }
}

impl DerefMut for PooledBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        self.0.as_mut().expect(HELD)
    }
}

impl Drop for PooledBuffer {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut memory) = self.0.take()
            && memory.capacity() <= POOLED_CAPACITY
        {
            memory.clear();
            if let Ok(Some(earlier)) = LAST.try_with(|last| last.replace(Some(memory))) {
                push(earlier);
            }
        }
    }
}

#[inline(never)]
fn pop() -> Memory {
    let pooled = POOL.try_with(|pool| pool.borrow_mut().pop());
    pooled.ok().flatten().unwrap_or_default()
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
        assert!(PooledBuffer::new().capacity() <= POOLED_CAPACITY);
    }

    #[test]
    fn the_pool_is_bounded() {
        let many: Vec<PooledBuffer> = (0..2 * POOLED).map(|_| PooledBuffer::new()).collect();
        drop(many);
        assert_eq!(POOL.with_borrow(Vec::len), POOLED);
    }
}
