use std::{
    any::Any,
    collections::VecDeque,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_core::Stream;
use futures_util::future::Either;

use super::{RpcKind, ids::Ids, wakes::Wakes};
use crate::{Message, ProtosocketControlCode};

/// Slots that an idle connection keeps: enough for one that is called now and then.
const SPARE_SLOTS: usize = 4;

/// The rpcs of one connection.
///
/// ```text
/// start ─▶ polled at once, if it is next and there is room ─▶ ended: its slot was never taken
///            │ not next, pending, or more to come
///            ▼
///          in a slot ◀──────────┐
///            │ woken, or an item│was sent
///            ▼                  │
///          waits for its turn ──┴▶ ended, or cancelled: its slot is free
/// ```
///
/// Slots are kept for the next rpc: a busy connection allocates nothing for one. Those that it has not
/// needed for some time are given back ([`trim`](Rpcs::trim)).
///
/// What futures and streams do is foreign code. Whatever of it panics ends the rpc that it is part of.
pub(super) struct Rpcs<U, S> {
    slots: Vec<Slot<U, S>>,
    /// Slots without an rpc. The one that was used last comes first: it is in the cache.
    free: Vec<u32>,
    /// The slots of all rpcs there are.
    ids: Ids,
    /// Slots whose rpcs can go on, in that order, and those of rpcs that have ended meanwhile.
    ///
    /// LIMIT: each slot is in it once at most.
    turns: VecDeque<u32>,
    /// How many of them come before those that have been woken since.
    round: usize,
    /// How many of them come before a call beyond the limit; see [`owe_turns`](Self::owe_turns).
    owed: usize,
    /// The most that there were at a time since the last [`trim`](Self::trim).
    peak: usize,
    wakes: Arc<Wakes>,
    /// Somebody may be woken by `wakes`.
    armed: bool,
    /// Where `wakes` leaves what it has.
    woken: Vec<u32>,
    /// Panics that have been caught.
    panics: u64,
}

struct Slot<U, S> {
    id: u64,
    /// It is among the `turns`.
    has_turn: bool,
    waker: Waker,
    rpc: Pin<Box<Option<Either<U, S>>>>,
}

/// What came of an rpc when it had its turn.
#[derive(Debug)]
pub(super) enum Turn<M> {
    /// Nothing yet.
    Pending,
    /// An item of a stream that may have more.
    Item(M),
    /// The last response.
    Last(M),
    /// The end of the stream.
    Ended,
    /// A response that says what nobody knows, which is its last.
    Unknown(u8),
    /// It was not begun.
    Rejected,
    /// It has panicked.
    Panicked,
}

impl<U, S, M> Rpcs<U, S>
where
    U: Future<Output = M>,
    S: Stream<Item = M>,
    M: Message,
{
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ids: Ids::new(),
            turns: VecDeque::new(),
            round: 0,
            owed: 0,
            peak: 0,
            wakes: Arc::default(),
            armed: false,
            woken: Vec::new(),
            panics: 0,
        }
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is one with this id.
    #[inline]
    pub(super) fn contains(&self, id: u64) -> bool {
        self.ids.contains(id)
    }

    /// How many panics were caught.
    pub(super) fn panics(&self) -> u64 {
        self.panics
    }

    /// Whether there are some that wait for their turn.
    #[inline]
    pub(super) fn have_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Begin what `make` makes, under an id that no other has, and poll it at once if it `is_next`.
    #[inline]
    pub(super) fn start(
        &mut self,
        id: u64,
        is_next: bool,
        make: impl FnOnce() -> RpcKind<U, S>,
    ) -> Turn<M> {
        self.disarm();
        let index = match self.free.last() {
            Some(&index) => index,
            None => self.grow(),
        };
        let slot = &mut self.slots[index as usize];
        let mut turn = Turn::Panicked;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            match make() {
                RpcKind::Unary(future) => slot.rpc.set(Some(Either::Left(future))),
                RpcKind::Streaming(stream) => slot.rpc.set(Some(Either::Right(stream))),
                RpcKind::Cancelled => {
                    turn = Turn::Rejected;
                    return;
                }
            }
            turn = match is_next {
                true => slot.poll(),
                false => Turn::Pending,
            };
            if turn.is_last() {
                slot.rpc.set(None);
            }
        }));
        if let Err(panic) = caught {
            self.on_panic(index, &*panic);
        }
        if !turn.is_last() {
            self.keep(id, index);
            if !is_next || matches!(turn, Turn::Item(_)) {
                self.enqueue(index);
            }
        }
        turn
    }

    /// Poll the one whose turn it is, which is pending if it was cancelled meanwhile. Only while there
    /// is room for what comes of that.
    #[inline]
    pub(super) fn take_turn(&mut self) -> Option<(u64, Turn<M>)> {
        let index = self.next_turn()?;
        let slot = &mut self.slots[index as usize];
        let mut turn = Turn::Panicked;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            turn = slot.poll();
            if turn.is_last() {
                slot.rpc.set(None);
            }
        }));
        let id = slot.id;
        if let Err(panic) = caught {
            self.on_panic(index, &*panic);
        }
        match turn {
            Turn::Pending => {}
            Turn::Item(_) => self.enqueue(index),
            _ => {
                self.ids.remove(id);
                self.free.push(index);
            }
        }
        Some((id, turn))
    }

    /// Drop the rpc with this id. Whether there was one.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        self.disarm();
        let Some(index) = self.ids.remove(id) else {
            return false;
        };
        self.discard(index);
        self.free.push(index);
        true
    }

    /// Drop all, and what they have held. How many there were.
    pub(super) fn clear(&mut self) -> usize {
        self.disarm();
        let count = self.len();
        self.ids.clear();
        for index in 0..self.slots.len() {
            self.discard(index as u32);
        }
        self.turns = VecDeque::new();
        self.round = 0;
        self.owed = 0;
        self.slots = Vec::new();
        self.free = Vec::new();
        // Wakers that outlive their rpcs wake nobody.
        self.wakes = Arc::default();
        count
    }

    /// Whether there are more slots than an idle connection keeps.
    #[inline]
    pub(super) fn has_spare_slots(&self) -> bool {
        self.slots.len() > SPARE_SLOTS
    }

    /// Give back what has not been needed since the last time, unless there are rpcs.
    pub(super) fn trim(&mut self) {
        let needed = std::mem::take(&mut self.peak).max(SPARE_SLOTS);
        if !self.is_empty() || needed >= self.slots.len() {
            return;
        }
        // There are no rpcs, so nobody uses a turn that was waited for; but the next in its slot will.
        for index in std::mem::take(&mut self.turns) {
            self.slots[index as usize].has_turn = false;
        }
        self.round = 0;
        self.owed = 0;
        self.slots.truncate(needed);
        self.slots.shrink_to_fit();
        self.free = (0..needed as u32).rev().collect();
        self.ids.shrink_to(needed);
        self.woken = Vec::new();
        self.wakes.truncate(needed);
    }

    /// Take note of the rpcs that can go on, for [`owes_turns`](Self::owes_turns).
    pub(super) fn owe_turns(&mut self) {
        self.take_woken();
        self.owed = self.turns.len();
    }

    /// Whether some that could go on when note was taken have not had their turn since.
    #[inline]
    pub(super) fn owes_turns(&self) -> bool {
        self.owed > 0
    }

    /// Have the task woken when one of them can go on. Whether none can already.
    pub(super) fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        self.armed = true;
        self.wakes.arm(cx)
    }

    /// Wake the task no more: it is being polled.
    #[inline]
    pub(super) fn disarm(&mut self) {
        if self.armed {
            self.armed = false;
            self.wakes.disarm();
        }
    }

    #[inline]
    fn next_turn(&mut self) -> Option<u32> {
        if self.round == 0 {
            self.take_woken();
            self.round = self.turns.len();
        }
        let index = self.turns.pop_front()?;
        self.round -= 1;
        self.owed = self.owed.saturating_sub(1);
        self.slots[index as usize].has_turn = false;
        Some(index)
    }

    /// Put those that were woken behind those that wait already.
    #[inline]
    fn take_woken(&mut self) {
        self.wakes.take(&mut self.woken);
        if !self.woken.is_empty() {
            let mut woken = std::mem::take(&mut self.woken);
            for index in woken.drain(..) {
                self.enqueue(index);
            }
            self.woken = woken;
        }
    }

    #[inline]
    fn enqueue(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.has_turn {
            slot.has_turn = true;
            self.turns.push_back(index);
        }
    }

    /// Leave a new rpc in the free slot that it has been put into.
    fn keep(&mut self, id: u64, index: u32) {
        let taken = self.free.pop();
        debug_assert_eq!(taken, Some(index), "it was put into the first that is free");
        self.slots[index as usize].id = id;
        self.ids.insert(id, index);
        self.peak = self.peak.max(self.ids.len());
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        // Cannot truncate: the limit on rpcs is a number of 32 bits.
        let index = self.slots.len() as u32;
        self.slots.push(Slot {
            id: 0,
            has_turn: false,
            waker: self.wakes.add(index),
            rpc: Box::pin(None),
        });
        self.free.push(index);
        index
    }

    #[cold]
    fn on_panic(&mut self, index: u32, panic: &(dyn Any + Send)) {
        self.panics += 1;
        let what = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        // A peer that has found out which requests panic must not fill the log.
        match self.panics {
            1 => tracing::error!(what, "an rpc panicked: a bug of this program"),
            panics => tracing::debug!(what, panics, "an rpc panicked"),
        }
        self.discard(index);
    }

    /// Drop what is in a slot.
    fn discard(&mut self, index: u32) {
        let rpc = &mut self.slots[index as usize].rpc;
        // The slot is empty after a panic too: an assignment ends in any case.
        let caught = catch_unwind(AssertUnwindSafe(|| rpc.set(None)));
        if let Err(panic) = caught {
            self.on_panic(index, &*panic);
        }
    }
}

impl<U, S, M> Slot<U, S>
where
    U: Future<Output = M>,
    S: Stream<Item = M>,
    M: Message,
{
    #[inline(always)]
    fn poll(&mut self) -> Turn<M> {
        let mut cx = Context::from_waker(&self.waker);
        match self.rpc.as_mut().as_pin_mut().map(Either::as_pin_mut) {
            None => Turn::Pending,
            Some(Either::Left(future)) => match future.poll(&mut cx) {
                Poll::Ready(response) => match response.control_code() {
                    ProtosocketControlCode::Unknown(code) => Turn::Unknown(code),
                    _ => Turn::Last(response),
                },
                Poll::Pending => Turn::Pending,
            },
            Some(Either::Right(stream)) => match stream.poll_next(&mut cx) {
                Poll::Ready(Some(item)) => match item.control_code() {
                    ProtosocketControlCode::Normal => Turn::Item(item),
                    ProtosocketControlCode::Unknown(code) => Turn::Unknown(code),
                    _ => Turn::Last(item),
                },
                Poll::Ready(None) => Turn::Ended,
                Poll::Pending => Turn::Pending,
            },
        }
    }
}

impl<M> Turn<M> {
    /// Whether the rpc is over.
    #[inline]
    fn is_last(&self) -> bool {
        !matches!(self, Self::Pending | Self::Item(_))
    }
}
