//! Two ends of a simulated stream, and the link between them.

use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Instant,
};

use protosocket::{Alarm, Clock, ManualClock, PeerAddress, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pipe::{Found, Pipe, StreamConditions};
use crate::Random;

/// One end of a simulated stream, as TCP would have it: bounded, ordered, half-closable, reset by
/// an abort, by bytes that come too late, and by being closed with bytes unread.
///
/// What is lost in a reset is what is lost with sockets: everything that is under way to whoever is
/// told of it, and, as the seed has it, also what has arrived there and was not read.
pub struct SimStream {
    link: Arc<Mutex<Link>>,
    end: usize,
    peer: PeerAddress,
}

/// A test's hold on a simulated stream: it breaks it and heals it, and knows what happened to it.
/// Cheap to clone.
#[derive(Clone)]
pub struct LinkHandle {
    link: Arc<Mutex<Link>>,
}

/// One of the two ends of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The one that connected.
    Client,
    /// The one that accepted.
    Server,
}

impl Side {
    pub(super) fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    fn of(index: usize) -> Self {
        match index {
            0 => Self::Client,
            _ => Self::Server,
        }
    }
}

/// Why a simulated stream was reset, for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResetCause {
    /// The network did it, because a test told it to.
    Network,
    /// This side asked for it with [`Transport::abort`].
    Abort(Side),
    /// This side was closed with bytes unread.
    Unread(Side),
    /// Bytes arrived at this side after it was closed.
    Late(Side),
}

pub(super) struct Link {
    clock: ManualClock,
    random: Random,
    /// From the client, and from the server.
    pipes: [Pipe; 2],
    ends: [End; 2],
    stalled: bool,
    /// The network resets when so many bytes have been written by an end.
    reset_after: [Option<u64>; 2],
    reset_cause: Option<ResetCause>,
    /// Bytes that a reset took from their reader.
    lost: [usize; 2],
}

struct End {
    reading: Option<Waker>,
    writing: Option<Waker>,
    /// Wake `reading` and `writing` at what comes next.
    read_alarm: Option<Pin<Box<dyn Alarm>>>,
    write_alarm: Option<Pin<Box<dyn Alarm>>>,
    /// When a flush under way is done.
    flushed: Option<Instant>,
    /// When it shut its output down.
    finished: Option<Instant>,
    /// When a reset arrives here.
    reset: Option<Instant>,
    /// It has arrived, and took from the reader what it takes.
    is_reset: bool,
    aborting: bool,
    closed: bool,
}

impl End {
    fn new() -> Self {
        Self {
            reading: None,
            writing: None,
            read_alarm: None,
            write_alarm: None,
            flushed: None,
            finished: None,
            reset: None,
            is_reset: false,
            aborting: false,
            closed: false,
        }
    }

    /// Whether a read and a write wait.
    fn waiting(&self) -> (bool, bool) {
        (self.reading.is_some(), self.writing.is_some())
    }
}

/// Two ends, and the hold on what is between.
pub(super) fn link(
    clock: ManualClock,
    conditions: [StreamConditions; 2],
    mut random: Random,
    addresses: [PeerAddress; 2],
) -> (SimStream, SimStream, LinkHandle) {
    let pipes = conditions.map(|conditions| Pipe::new(conditions, random.fork()));
    let link = Arc::new(Mutex::new(Link {
        clock,
        random,
        pipes,
        ends: [End::new(), End::new()],
        stalled: false,
        reset_after: [None; 2],
        reset_cause: None,
        lost: [0; 2],
    }));
    let [client, server] = addresses;
    let end = |end, peer| SimStream {
        link: link.clone(),
        end,
        peer,
    };
    (end(0, server), end(1, client), LinkHandle { link })
}

/// An address that nothing is ever sent to: a label.
pub(super) fn label(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 4000))
}

impl Link {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Take a reset that has arrived at `end` into account.
    fn receive_reset(&mut self, end: usize) -> bool {
        if self.ends[end].is_reset {
            return true;
        }
        let now = self.now();
        match self.ends[end].reset {
            Some(at) if at <= now && !self.stalled => {}
            _ => return false,
        }
        self.ends[end].is_reset = true;
        // Some systems let a program read what had arrived, others do not.
        let and_waiting = self.random.per_mille(500);
        self.lost[end] += self.pipes[1 - end].cut(now, and_waiting);
        true
    }

    /// `end` is told of a reset at `at`, unless it is told earlier.
    fn reset(&mut self, end: usize, at: Instant, cause: ResetCause) {
        if self.ends[end].closed {
            return;
        }
        self.reset_cause.get_or_insert(cause);
        let reset = &mut self.ends[end].reset;
        *reset = Some(reset.map_or(at, |earlier| earlier.min(at)));
        self.arm(end);
    }

    /// Set the alarms of `end` for what comes next, if somebody waits for it.
    fn arm(&mut self, end: usize) {
        let reset = self.ends[end].reset.filter(|_| !self.stalled);
        let arrival = self.pipes[1 - end].next_arrival();
        let read = [reset, arrival].into_iter().flatten().min();
        let state = &mut self.ends[end];
        let write = [reset, state.flushed].into_iter().flatten().min();
        ring(&self.clock, &mut state.read_alarm, &mut state.reading, read);
        ring(
            &self.clock,
            &mut state.write_alarm,
            &mut state.writing,
            write,
        );
    }

    fn poll_read(
        &mut self,
        end: usize,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(
            buffer.remaining() > 0,
            "a read without room looks like the end"
        );
        let now = self.now();
        let is_reset = self.receive_reset(end);
        let found = self.pipes[1 - end].read(now, buffer.initialize_unfilled());
        match found {
            Found::Bytes(count) => {
                buffer.advance(count);
                wake(&mut self.ends[1 - end].writing);
                Poll::Ready(Ok(()))
            }
            // A reset behind an end that was read tells nobody anything.
            Found::End => Poll::Ready(Ok(())),
            Found::Nothing if is_reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Found::Nothing => {
                self.ends[end].reading = Some(cx.waker().clone());
                self.arm(end);
                Poll::Pending
            }
        }
    }

    fn poll_write(
        &mut self,
        end: usize,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.receive_reset(end) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.pipes[end].is_finished() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let now = self.now();
        if self.ends[end].flushed.take_if(|at| *at <= now).is_some() {
            self.pipes[end].flush(now);
        }
        let most = self.reset_after[end].map_or(u64::MAX, |at| at - self.pipes[end].written());
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let count = self.pipes[end].write(now, slices, most);
        if count > 0 && count == most {
            self.network_reset();
        }
        if count == 0 {
            self.ends[end].writing = Some(cx.waker().clone());
            self.arm(end);
            return Poll::Pending;
        }
        if self.ends[1 - end].closed {
            self.refuse_late(end);
        }
        self.arm(1 - end);
        Poll::Ready(Ok(count))
    }

    /// Bytes of `end` will arrive where nobody is.
    fn refuse_late(&mut self, end: usize) {
        let now = self.now();
        let arrives = self.pipes[end].next_arrival().unwrap_or(now).max(now);
        let back = self.pipes[1 - end].latency();
        self.reset(end, arrives + back, ResetCause::Late(Side::of(1 - end)));
        // Nobody reads them, so they must not fill the buffer for ever.
        self.pipes[end].discard();
    }

    fn poll_flush(&mut self, end: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.receive_reset(end) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let now = self.now();
        let due = match self.ends[end].flushed {
            Some(at) => at <= now,
            // Whoever holds bytes back may have to wait before it can send them.
            None => !self.pipes[end].has_unflushed() || self.random.per_mille(500),
        };
        if !due {
            let latency = self.pipes[end].latency();
            let state = &mut self.ends[end];
            state.flushed.get_or_insert(now + latency);
            state.writing = Some(cx.waker().clone());
            self.arm(end);
            return Poll::Pending;
        }
        self.ends[end].flushed = None;
        self.pipes[end].flush(now);
        self.arm(1 - end);
        Poll::Ready(Ok(()))
    }

    fn shut_down(&mut self, end: usize) -> io::Result<()> {
        if self.receive_reset(end) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let now = self.now();
        self.pipes[end].finish(now);
        self.ends[end].finished.get_or_insert(now);
        self.arm(1 - end);
        Ok(())
    }

    fn close(&mut self, end: usize) {
        let (now, other) = (self.now(), 1 - end);
        let was_reset = self.receive_reset(end);
        let unread = self.pipes[other].waiting(now) > 0;
        let state = &mut self.ends[end];
        state.closed = true;
        let dropped = (state.reading.take(), state.writing.take());
        let aborting = state.aborting;
        drop(dropped);
        if self.ends[other].closed || was_reset {
            return;
        }
        let latency = self.pipes[end].latency();
        if aborting {
            self.reset(other, now + latency, ResetCause::Abort(Side::of(end)));
        } else if unread {
            self.reset(other, now + latency, ResetCause::Unread(Side::of(end)));
        } else {
            // What was written and not flushed is gone with whoever held it back.
            self.lost[other] += self.pipes[end].forget_unflushed();
            self.pipes[end].finish(now);
            if self.pipes[other].under_way() > 0 {
                self.refuse_late(other);
            }
        }
        self.pipes[other].discard();
        wake(&mut self.ends[other].writing);
        self.arm(other);
    }

    fn network_reset(&mut self) {
        let now = self.now();
        for end in [0, 1] {
            let at = match self.random.per_mille(500) {
                true => now,
                false => now + self.pipes[1 - end].latency(),
            };
            self.reset(end, at, ResetCause::Network);
        }
    }

    pub(super) fn stall(&mut self, from: Option<Side>) {
        let now = self.now();
        for (end, pipe) in self.pipes.iter_mut().enumerate() {
            if from.is_none_or(|side| side.index() == end) {
                pipe.stall(now);
            }
        }
        self.stalled |= from.is_none();
    }

    pub(super) fn heal(&mut self) {
        let now = self.now();
        let was_stalled = std::mem::take(&mut self.stalled);
        for end in [0, 1] {
            self.pipes[end].heal(now);
            let latency = self.pipes[1 - end].latency();
            if let Some(at) = &mut self.ends[end].reset
                && was_stalled
            {
                *at = (*at).max(now + latency);
            }
        }
        self.arm(0);
        self.arm(1);
    }
}

/// Wake whoever waits at `at`, or when that changes.
fn ring(
    clock: &ManualClock,
    alarm: &mut Option<Pin<Box<dyn Alarm>>>,
    waiting: &mut Option<Waker>,
    at: Option<Instant>,
) {
    let Some(waker) = waiting else {
        *alarm = None;
        return;
    };
    let Some(at) = at else {
        *alarm = None;
        return;
    };
    let alarm = alarm.get_or_insert_with(|| clock.alarm(at));
    alarm.as_mut().reset(at);
    let due = alarm.as_mut().poll_due(&mut Context::from_waker(waker));
    if due.is_ready() {
        wake(waiting);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl SimStream {
    /// The test's hold on this stream.
    pub fn link(&self) -> LinkHandle {
        LinkHandle {
            link: self.link.clone(),
        }
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        Side::of(self.end)
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        lock(&self.link)
    }
}

fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().expect("no code that panics runs under it")
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.lock().poll_read(self.end, cx, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let slices = [IoSlice::new(bytes)];
        self.lock().poll_write(self.end, cx, &slices)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_write(self.end, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_flush(self.end, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.lock().shut_down(self.end))
    }
}

impl Transport for SimStream {
    fn peer_address(&self) -> PeerAddress {
        self.peer.clone()
    }

    fn lingers(&self) -> bool {
        true
    }

    fn abort(&mut self) {
        self.lock().ends[self.end].aborting = true;
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.lock().close(self.end);
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStream")
            .field("side", &self.side())
            .field("peer", &self.peer)
            .finish()
    }
}

impl LinkHandle {
    /// Reset the stream. Both ends are told, at once or after the latency, as the seed has it.
    pub fn reset(&self) {
        self.lock().network_reset();
    }

    /// Reset the stream when `side` has written this many bytes in all; at once if it has.
    pub fn reset_after(&self, side: Side, bytes: u64) {
        let mut link = self.lock();
        if link.pipes[side.index()].written() >= bytes {
            link.network_reset();
        } else {
            link.reset_after[side.index()] = Some(bytes);
        }
    }

    /// Deliver nothing, either way, until [`heal`](Self::heal). Nobody is told.
    pub fn stall(&self) {
        self.lock().stall(None);
    }

    /// Deliver nothing that `side` writes until [`heal`](Self::heal).
    pub fn stall_from(&self, side: Side) {
        self.lock().stall(Some(side));
    }

    /// Deliver again, what was held back first, and reset at no byte any more.
    pub fn heal(&self) {
        let mut link = self.lock();
        link.reset_after = [None; 2];
        link.heal();
    }

    /// Change how what `side` writes is treated from here on.
    pub fn set_conditions(&self, side: Side, conditions: StreamConditions) {
        self.lock().pipes[side.index()].set_conditions(conditions);
    }

    /// Whether both ends are open and no reset is under way.
    pub fn is_open(&self) -> bool {
        let link = self.lock();
        link.ends
            .iter()
            .all(|end| !end.closed && end.reset.is_none())
    }

    /// Why the stream was reset, if it was.
    pub fn reset_cause(&self) -> Option<ResetCause> {
        self.lock().reset_cause
    }

    /// When `side` shut its output down, if it did before it was closed.
    pub fn finished_at(&self, side: Side) -> Option<Instant> {
        self.lock().ends[side.index()].finished
    }

    /// Bytes that a reset took from `side`, which would have read them.
    pub fn lost(&self, side: Side) -> usize {
        self.lock().lost[side.index()]
    }

    /// Bytes that `side` has written.
    pub fn written(&self, side: Side) -> u64 {
        self.lock().pipes[side.index()].written()
    }

    /// Bytes that `side` has read.
    pub fn read(&self, side: Side) -> u64 {
        self.lock().pipes[side.other().index()].bytes_read()
    }

    /// Bytes that `side` had written by `at`, those of that instant included.
    pub fn written_by(&self, side: Side, at: Instant) -> u64 {
        let last = self.lock().pipes[side.index()].written_by(at);
        last.map_or(0, |(_, bytes)| bytes)
    }

    /// Bytes that `side` had read by `at`, those of that instant included.
    pub fn read_by(&self, side: Side, at: Instant) -> u64 {
        let last = self.lock().pipes[side.other().index()].read_by(at);
        last.map_or(0, |(_, bytes)| bytes)
    }

    /// When `side` wrote something last, not after `at`; `None` if it had not yet.
    pub fn last_write(&self, side: Side, at: Instant) -> Option<Instant> {
        let last = self.lock().pipes[side.index()].written_by(at);
        last.map(|(when, _)| when)
    }

    /// When `side` read something last, not after `at`; `None` if it had not yet.
    pub fn last_read(&self, side: Side, at: Instant) -> Option<Instant> {
        let last = self.lock().pipes[side.other().index()].read_by(at);
        last.map(|(when, _)| when)
    }

    /// When `side` had read so many bytes in all; `None` if it has not.
    pub fn read_at(&self, side: Side, bytes: u64) -> Option<Instant> {
        self.lock().pipes[side.other().index()].read_reached(bytes)
    }

    /// Whether the end of what `side` writes has been read by the other, or could be.
    pub fn is_over(&self, side: Side) -> bool {
        let mut link = self.lock();
        let now = link.now();
        link.pipes[side.index()].is_over(now)
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        lock(&self.link)
    }
}

impl fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = self.lock();
        f.debug_struct("LinkHandle")
            .field("closed", &link.ends.each_ref().map(|end| end.closed))
            .field("reset", &link.reset_cause)
            .field("stalled", &link.stalled)
            .field("unread", &link.pipes.each_ref().map(Pipe::unread))
            .field("waiting", &link.ends.each_ref().map(End::waiting))
            .finish_non_exhaustive()
    }
}
