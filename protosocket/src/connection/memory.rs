//! Memory that the connections of a thread share, borrowed for the length of a poll.
//!
//! An idle connection holds no buffer. A busy one borrows from here, and keeps a buffer only while
//! there is something in it.

use std::cell::RefCell;

use bytes::BytesMut;

use crate::{SendBuffer, codec::RETAINED};

/// Bytes that one read takes at most into the shared buffer. Small messages want 64 to 128 KiB.
pub(super) const SCRATCH: usize = 128 * 1024;

/// How many of each a thread keeps. One is in use at a time, unless a reactor polls another
/// connection inside its own poll.
const SPARE: usize = 2;

thread_local! {
    static MEMORY: RefCell<Memory> = const { RefCell::new(Memory::new()) };
}

struct Memory {
    scratches: Vec<Box<[u8]>>,
    #[expect(
        clippy::vec_box,
        reason = "connections hold them by a pointer that is null when idle"
    )]
    send_buffers: Vec<Box<SendBuffer>>,
    receive_buffers: Vec<BytesMut>,
}

impl Memory {
    const fn new() -> Self {
        Self {
            scratches: Vec::new(),
            send_buffers: Vec::new(),
            receive_buffers: Vec::new(),
        }
    }
}

/// Access the thread's memory; `None` while the thread is ending.
fn with<T>(f: impl FnOnce(&mut Memory) -> T) -> Option<T> {
    MEMORY.try_with(|memory| f(&mut memory.borrow_mut())).ok()
}

fn keep<T>(spares: &mut Vec<T>, spare: T) {
    if spares.len() < SPARE {
        spares.push(spare);
    }
}

pub(super) fn take_scratch() -> Box<[u8]> {
    with(|memory| memory.scratches.pop())
        .flatten()
        .unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice())
}

pub(super) fn give_scratch(scratch: Box<[u8]>) {
    with(|memory| keep(&mut memory.scratches, scratch));
}

pub(super) fn take_send_buffer() -> Box<SendBuffer> {
    with(|memory| memory.send_buffers.pop())
        .flatten()
        .unwrap_or_default()
}

pub(super) fn give_send_buffer(mut buffer: Box<SendBuffer>) {
    buffer.recycle();
    with(|memory| keep(&mut memory.send_buffers, buffer));
}

pub(super) fn take_receive_buffer() -> BytesMut {
    with(|memory| memory.receive_buffers.pop())
        .flatten()
        .unwrap_or_default()
}

pub(super) fn give_receive_buffer(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.capacity() <= RETAINED {
        with(|memory| keep(&mut memory.receive_buffers, buffer));
    }
}
