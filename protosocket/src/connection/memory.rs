//! Memory that the connections of a thread share, borrowed for the length of a poll.
//!
//! An idle connection holds no buffer. A busy one borrows from here, and keeps a buffer only while
//! there is something in it.

use std::{cell::RefCell, rc::Rc};

use bytes::BytesMut;

use crate::{SendBuffer, codec::Memory as ReadMemory};

/// Bytes that one read takes at most into the shared buffer. Small messages want 64 to 128 KiB.
pub(super) const SCRATCH: usize = 128 * 1024;

/// From this size on, a message is read into a buffer of its connection's own, in bytes, so that
/// its payload can leave without a copy. Below it, the shared buffer and a copy are cheaper.
pub(super) const LARGE: usize = 16 * 1024;

/// How many of each a thread keeps. One is in use at a time, unless a reactor polls another
/// connection inside its own poll.
const SPARE: usize = 2;

/// How many buffers for large messages a thread keeps.
const RECEIVE_SPARES: usize = 4;

/// How much memory for large messages a thread keeps, in bytes: enough for one of 1 MiB that
/// arrives, one that is answered, and two whose answers are being written.
const RECEIVE_SPARE: usize = 4 * (1024 + 64) * 1024;

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
    receive_buffers: Vec<Buffer>,
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

/// Memory into which large messages are read, and from which they are split off.
#[derive(Debug)]
pub(super) struct Buffer {
    /// What is in it, and the room behind that.
    pub(super) bytes: BytesMut,
    /// How large it is as a whole, in bytes.
    pub(super) allocated: usize,
}

impl Buffer {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let bytes = BytesMut::with_capacity(capacity);
        Self {
            allocated: bytes.capacity(),
            bytes,
        }
    }
}

/// An empty spare buffer with room for `least` bytes, of which no message is in use: the smallest,
/// and of those that are equal, the warmest.
pub(super) fn take_receive_buffer(least: usize) -> Option<Buffer> {
    with(|memory| {
        let spares = &mut memory.receive_buffers;
        let mut best: Option<(usize, usize)> = None;
        for (index, spare) in spares.iter_mut().enumerate() {
            let is_better = best.is_none_or(|(_, allocated)| spare.allocated <= allocated);
            if is_better && spare.allocated >= least && spare.bytes.try_reclaim(least) {
                best = Some((index, spare.allocated));
            }
        }
        best.map(|(index, _)| spares.remove(index))
    })
    .flatten()
}

/// Messages may be in use in it still: then it is a spare one when they are not.
pub(super) fn give_receive_buffer(mut buffer: Buffer) {
    buffer.bytes.clear();
    if buffer.allocated <= LARGE || buffer.allocated > RECEIVE_SPARE {
        return;
    }
    with(|memory| {
        let spares = &mut memory.receive_buffers;
        spares.push(buffer);
        let mut held: usize = spares.iter().map(|spare| spare.allocated).sum();
        while held > RECEIVE_SPARE || spares.len() > RECEIVE_SPARES {
            held -= spares.remove(0).allocated;
        }
    });
}
