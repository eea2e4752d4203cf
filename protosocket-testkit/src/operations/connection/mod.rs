//! A connection, and everything that can be done to it.

mod checks;
mod setup;
mod steps;
mod subject;
mod wire;

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use protosocket::{Closed, Limits, SendLimits, Sender, WeakSender};

use super::Choices;
use crate::{Driven, StreamPeer};
use subject::{Hold, Logical, Subject};

/// When a stream that would block is asked again.
const RETRY: Duration = Duration::from_millis(10);

/// Do with a connection what `bytes` say, and check after each step what must hold.
///
/// The peer sends messages, garbage, halves and the end, or fails; it reads little, nothing or all;
/// the codec skips, eats, asks, and breaks its contract; the reactor answers, produces, waits,
/// finishes, hands over and aborts; senders send, wait, are cloned and dropped; handles drain and
/// abort; time passes. The clock stands still otherwise, and the connection is polled only when it
/// was woken. Expected of it:
/// - It comes to rest after each event, in a number of polls that its work explains.
/// - What waits in it is bounded: by the send limits on the way out, by the sizes of a read and a
///   message on the way in, by its capacity in the channel.
/// - What is written is what was accepted, whole and in order; what was not written is counted.
/// - What is received is what the decoder, by its contract alone, makes of what was sent.
/// - The reactor is never called when it must not be, and told of the end once.
/// - It ends when nothing is left to do, in any case by its deadlines, for a reason that is true,
///   and with statistics that are; in order means flushed and shut down.
///
/// # Panics
/// If one of these does not hold.
pub fn connection(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let ending = choices.byte();
    let mut world = World::new(&mut choices);
    while !choices.is_empty() && !world.driven.is_ended() {
        let step = choices.byte();
        world.step(step & 0x7f, &mut choices);
        if step & 0x80 == 0 {
            world.settle();
        }
    }
    world.end(ending);
}

/// The same codec that [`connection`] gives its connections, by itself: every kind of answer that a
/// decoder can give, those that break the contract included, must come to the same however the
/// input is cut.
///
/// # Panics
/// As for [`decoder`](super::decoder).
pub fn contract(bytes: &[u8]) {
    // What it eats is bounded by itself, which is not the limit that is drawn from the bytes.
    super::decoder::decode_in_segments(bytes, || wire::Wire::new(60));
}

/// A connection and all that surrounds it.
struct World {
    driven: Driven<Subject>,
    peer: StreamPeer,
    hold: Hold,
    /// How far its decoder has come.
    progress: Rc<Cell<u64>>,
    setting: Setting,

    // What was done to it.
    /// All that the peer has to say: what was handed to the stream, and what was not yet.
    script: Vec<u8>,
    handed: usize,
    has_ended_input: bool,
    reads_slowly: bool,
    can_fail: bool,
    shutdown_fails: bool,
    transients: usize,
    has_drained: bool,
    has_aborted: bool,
    time_has_passed: bool,

    // The ways into it.
    lines: Vec<(Rc<Sender<Logical>>, usize)>,
    weak: Vec<WeakSender<Logical>>,
    sending: Vec<Sending>,

    seen: Seen,
}

/// What it was set up with.
struct Setting {
    limits: Limits,
    send: SendLimits,
    max_message_size: usize,
    receive_chunk: usize,
    capacity: usize,
    client: bool,
    ages: bool,
    /// Bytes that it was given before the first was read.
    unread: usize,
}

/// What was seen when it last came to rest.
#[derive(Default)]
struct Seen {
    polls: usize,
    work: usize,
    ahead: usize,
    was_ready: bool,
}

/// A send that waits for room.
struct Sending {
    future: Pin<Box<dyn Future<Output = Result<(), Closed<Logical>>>>>,
    note: Arc<Note>,
    line: usize,
    number: u32,
}

/// Notes that it was woken.
#[derive(Debug, Default)]
struct Note(AtomicBool);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Note {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Sending {
    fn poll(&mut self) -> Poll<Result<(), Closed<Logical>>> {
        let waker = Waker::from(self.note.clone());
        let mut cx = Context::from_waker(&waker);
        self.future.as_mut().poll(&mut cx)
    }
}
