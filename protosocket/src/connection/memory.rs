//! Memory that the connections of a thread share, borrowed for the length of a poll.
//!
//! An idle connection holds no buffer. A busy one borrows from here, and keeps a buffer only while
//! there is something in it.

use std::{cell::RefCell, rc::Rc};

use bytes::BytesMut;

use crate::{
    SendBuffer,
    codec::{Memory as ReadMemory, RETAINED},
};

/// Bytes that one read takes at most into the shared buffer. Small messages want 64 to 128 KiB.
pub(super) const SCRATCH: usize = 128 * 1024;

/// How many of each a thread keeps. One is in use at a time, unless a reactor polls another
/// connection inside its own poll.
const SPARE: usize = 2;

thread_local! {
    static MEMORY: RefCell<Memory> = const { RefCell::new(Memory::new()) };
}

struct Memory {
    scratches: Vec<Rc<ReadMemory>>,
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

/// A scratch that nobody else holds.
pub(super) fn take_scratch() -> Rc<ReadMemory> {
    with(|memory| {
        let scratches = &mut memory.scratches;
        let free = scratches.iter_mut().position(is_free);
        free.map(|index| scratches.swap_remove(index))
    })
    .flatten()
    .unwrap_or_else(|| Rc::new(ReadMemory::Read(vec![0; SCRATCH].into())))
}

/// Messages may hold on to it still: it is used again when they have let go.
pub(super) fn give_scratch(mut scratch: Rc<ReadMemory>) {
    with(|memory| {
        let scratches = &mut memory.scratches;
        if is_free(&mut scratch) {
            scratches.truncate(SPARE - 1);
        }
        keep(scratches, scratch);
    });
}

fn is_free(scratch: &mut Rc<ReadMemory>) -> bool {
    Rc::get_mut(scratch).is_some()
}

/// The bytes to read into: those of another scratch than before if messages hold on to that.
pub(super) fn writable(scratch: &mut Rc<ReadMemory>) -> &mut [u8] {
    if !is_free(scratch) {
        give_scratch(std::mem::replace(scratch, take_scratch()));
    }
    match Rc::get_mut(scratch) {
        Some(ReadMemory::Read(memory)) => memory,
        _ => unreachable!("a scratch that was taken is a read buffer, and belongs to nobody else"),
    }
}

pub(super) fn bytes(scratch: &ReadMemory) -> &[u8] {
    match scratch {
        ReadMemory::Read(memory) => memory,
        ReadMemory::Own(bytes) => bytes,
    }
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
