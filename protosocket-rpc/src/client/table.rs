//! The calls of one connection: what callers and the connection share.

use std::{
    collections::VecDeque,
    mem,
    pin::pin,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::Notify;

use super::{ids::Ids, panics::Panics};
use crate::{Error, Execution, Message, ProtosocketControlCode};

/// All calls that are in flight, and what callers and connection have to tell each other.
///
/// INVARIANT: no code of a caller runs while the lock is held: no message is dropped, no waker is
/// cloned, woken or dropped. It may use this very client.
pub(super) struct Table<Request, Response> {
    state: Mutex<State<Request, Response>>,
    /// Those that wait for a call to end, so that another one may begin.
    room: Notify,
    max_calls: usize,
    /// What ids of the same place differ by: the smallest power of two that tells all places apart.
    id_step: u64,
    /// How much the items of a stream may weigh that the table and its consumer hold together.
    capacity: usize,
}

struct State<Request, Response> {
    places: Vec<Place<Response>>,
    /// Places that are free. The one that was used last is used first: it is in the cache.
    free: Vec<u32>,
    /// Calls that the connection has not heard of.
    submitted: VecDeque<Submission<Request>>,
    /// Places of calls that were dropped before their end. The connection frees them.
    abandoned: Vec<u32>,
    /// How many tasks wait for a place.
    waiting: usize,
    /// Ids that callers chose themselves, and those that were given up.
    ids: Ids,
    /// A caller has chosen an id: from then on there are ids that tell nothing of their place.
    has_chosen_ids: bool,
    /// Responses for calls that are not in flight.
    unmatched: u64,
    /// The task of the connection, if it is to be woken.
    connection: Option<Waker>,
    /// The connection reads no more until items of this stream are taken.
    paused_by: Option<u32>,
    /// No handle is left that could begin a call.
    is_deserted: bool,
    /// What calls are told that come too late.
    end: Option<Error>,
}

/// Where a call stands. It is used again when the call is over.
struct Place<Response> {
    /// The id of the call, or of the last one.
    id: u64,
    /// The id of the next call that is given one.
    next_id: u64,
    call: Call<Response>,
}

enum Call<Response> {
    /// The place is free, or reserved for a call that is still to begin.
    None,
    /// The answer has not come yet.
    Unary(Option<Waker>),
    Answered(Result<Response, Error>),
    /// In memory of its own, so that all places are as small as those of unary calls.
    Streaming(Box<Streaming<Response>>),
    /// Nobody waits for it any more. The connection does not know yet.
    Abandoned,
}

struct Streaming<Response> {
    waker: Option<Waker>,
    items: VecDeque<Response>,
    /// What they weigh.
    weight: usize,
    /// What the items weigh that its consumer has fetched and not given, at most.
    fetched: usize,
    /// `Ok` if the stream is complete.
    end: Option<Result<(), Error>>,
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unary,
    Streaming,
}

/// A call that has begun, on its way to the connection.
pub(super) struct Submission<Request> {
    pub(super) index: u32,
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) timeout: Option<Duration>,
    /// Which of the calls in its place it is, for the connection.
    pub(super) ticket: u64,
    pub(super) request: Request,
}

/// What the connection brings for the call at `index`, and then whom it has to wake for it.
pub(super) struct Arrival<Response> {
    pub(super) index: u32,
    /// What an item weighs.
    pub(super) weight: u32,
    pub(super) what: What<Response>,
}

pub(super) enum What<Response> {
    /// A response, or an item.
    Response(Response),
    /// The stream is complete.
    End,
    Failure(Error),
    /// It was delivered: whoever waits for it is to be woken.
    Wake(Option<Waker>),
}

/// What the connection takes along.
pub(super) struct Errands {
    /// Others that are expected have not had their turn, and wake nobody.
    pub(super) is_early: bool,
    /// No handle is left that could begin a call.
    pub(super) is_deserted: bool,
    /// A caller has chosen an id.
    pub(super) has_chosen_ids: bool,
}

impl<Request: Message, Response: Message> Table<Request, Response> {
    pub(super) fn new(max_calls: usize, capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                places: Vec::new(),
                free: Vec::new(),
                submitted: VecDeque::new(),
                abandoned: Vec::new(),
                waiting: 0,
                ids: Ids::default(),
                has_chosen_ids: false,
                unmatched: 0,
                connection: None,
                paused_by: None,
                is_deserted: false,
                end: None,
            }),
            room: Notify::new(),
            max_calls,
            id_step: max_calls.next_power_of_two() as u64,
            capacity,
        }
    }

    /// How much the items of a stream may weigh that wait.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The place in the table that `id` names, if it was not chosen by a caller.
    #[inline]
    pub(super) fn place_of(&self, id: u64) -> usize {
        (id & (self.id_step - 1)) as usize
    }

    // What callers do.

    /// Begin a call. Returns its place.
    pub(super) fn submit(
        &self,
        kind: Kind,
        request: Request,
        timeout: Option<Duration>,
    ) -> Result<u32, Error> {
        let chosen = request.message_id();
        is_request(&request)?;
        let mut state = self.lock();
        let index = self.take_place(&mut state, true)?;
        self.begin(state, index, kind, (chosen, request), timeout)
    }

    /// Begin a call in a place that was reserved.
    pub(super) fn submit_reserved(
        &self,
        index: u32,
        kind: Kind,
        request: Request,
        timeout: Option<Duration>,
    ) -> Result<u32, Error> {
        let chosen = request.message_id();
        is_request(&request).inspect_err(|_| self.give_back(index))?;
        let state = self.lock();
        self.begin(state, index, kind, (chosen, request), timeout)
    }

    fn begin(
        &self,
        mut state: MutexGuard<'_, State<Request, Response>>,
        index: u32,
        kind: Kind,
        (chosen, request): (u64, Request),
        timeout: Option<Duration>,
    ) -> Result<u32, Error> {
        let entered = match &state.end {
            Some(end) => Err(end.clone()),
            None => state.enter(index, chosen, self.id_step),
        };
        let id = match entered {
            Ok(id) => id,
            Err(error) => {
                state.release(index);
                self.unlock_with_room(state);
                return Err(error);
            }
        };
        // Whoever has no time is told so, and nothing is sent.
        let late = (timeout == Some(Duration::ZERO)).then_some(Error::DeadlineExceeded {
            execution: Execution::NeverSent,
            input_paused: false,
        });
        let is_late = late.is_some();
        let call = match (kind, late) {
            (Kind::Unary, None) => Call::Unary(None),
            (Kind::Unary, Some(late)) => Call::Answered(Err(late)),
            (Kind::Streaming, late) => Call::Streaming(Box::new(Streaming {
                waker: None,
                items: VecDeque::new(),
                weight: 0,
                fetched: 0,
                end: late.map(Err),
            })),
        };
        // Before a call has begun there is nothing in its place to be dropped.
        mem::forget(mem::replace(&mut state.places[index as usize].call, call));
        if is_late {
            drop(state);
            return Ok(index);
        }
        state.submitted.push_back(Submission {
            index,
            id,
            kind,
            timeout,
            ticket: 0,
            request,
        });
        let connection = state.connection.take();
        drop(state);
        if let Some(connection) = connection {
            connection.wake();
        }
        Ok(index)
    }

    /// Wait for a place, behind those that have waited for longer.
    pub(super) async fn reserve(&self) -> Result<u32, Error> {
        let mut notified = pin!(self.room.notified());
        // In the line before it is looked, so that a place that is freed meanwhile is not missed.
        notified.as_mut().enable();
        let _waiting = {
            let mut state = self.lock();
            let reserved = self.take_place(&mut state, true);
            if !matches!(reserved, Err(Error::TooManyCalls(_))) {
                return reserved;
            }
            state.waiting += 1;
            Waiting(self)
        };
        loop {
            notified.as_mut().await;
            notified.set(self.room.notified());
            notified.as_mut().enable();
            let reserved = self.take_place(&mut self.lock(), false);
            if !matches!(reserved, Err(Error::TooManyCalls(_))) {
                return reserved;
            }
        }
    }

    /// Give back a place in which no call has begun.
    pub(super) fn give_back(&self, index: u32) {
        let mut state = self.lock();
        state.release(index);
        self.unlock_with_room(state);
    }

    /// The answer to a unary call, after which its place is free.
    #[inline]
    pub(super) fn poll_answer(
        &self,
        index: u32,
        is_first: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response, Error>> {
        // Who asks for the first time has as a rule to wait; who was woken has not.
        let mut fresh = is_first.then(|| cx.waker().clone());
        loop {
            let mut state = self.lock();
            let call = &mut state.places[index as usize].call;
            let Call::Unary(waker) = call else {
                let call = mem::replace(call, Call::None);
                state.release(index);
                self.unlock_with_room(state);
                let Call::Answered(answer) = call else {
                    unreachable!("{UNARY}");
                };
                return Poll::Ready(answer);
            };
            if let Some(stale) = keep(waker, &mut fresh, cx) {
                drop(state);
                drop(stale);
                return Poll::Pending;
            }
            drop(state);
            fresh = Some(cx.waker().clone());
        }
    }

    /// Move items that have come into `batch`, which is empty, and of which one is given at once:
    /// no more than half of what may wait, so that others can come while they are used.
    /// `None` if the stream goes on, and its end if it is over; then its place is free.
    pub(super) fn poll_items(
        &self,
        index: u32,
        batch: &mut VecDeque<Response>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), Error>>> {
        let mut fresh = None;
        loop {
            let mut state = self.lock();
            let paused = state.paused_by == Some(index);
            let Call::Streaming(stream) = &mut state.places[index as usize].call else {
                unreachable!("{STREAMING}");
            };
            let Streaming {
                waker,
                items,
                weight,
                fetched,
                end,
            } = &mut **stream;
            *fetched = 0;
            if !items.is_empty() {
                // Each is taken for what they weigh on average.
                let each = *weight / items.len();
                match (self.capacity.div_ceil(2) / each).max(1) {
                    most if items.len() <= most => mem::swap(items, batch),
                    most => batch.extend(items.drain(..most)),
                }
                *fetched = (batch.len() - 1) * each;
                *weight = match items.is_empty() {
                    true => 0,
                    false => *weight - batch.len() * each,
                };
                let connection = match paused {
                    true => state.resume(),
                    false => None,
                };
                drop(state);
                connection.into_iter().for_each(Waker::wake);
                return Poll::Ready(None);
            }
            if let Some(end) = end.take() {
                let call = state.take(index);
                self.unlock_with_room(state);
                drop(call);
                return Poll::Ready(Some(end));
            }
            if let Some(stale) = keep(waker, &mut fresh, cx) {
                drop(state);
                drop(stale);
                return Poll::Pending;
            }
            drop(state);
            fresh = Some(cx.waker().clone());
        }
    }

    /// Nobody waits any more for the call at `index`.
    pub(super) fn abandon(&self, index: u32) {
        let mut state = self.lock();
        let is_over = match &state.places[index as usize].call {
            Call::Unary(_) => false,
            Call::Answered(_) => true,
            Call::Streaming(stream) => stream.end.is_some(),
            Call::None | Call::Abandoned => unreachable!("{HELD}"),
        };
        if is_over {
            let call = state.take(index);
            self.unlock_with_room(state);
            drop(call);
            return;
        }
        let place = &mut state.places[index as usize];
        let call = mem::replace(&mut place.call, Call::Abandoned);
        state.abandoned.push(index);
        let connection = state.connection.take();
        drop(state);
        // First of all: what is dropped is the caller's, and may panic or use this client.
        connection.into_iter().for_each(Waker::wake);
        drop(call);
    }

    /// The last handle that could begin a call is gone.
    pub(super) fn desert(&self) {
        let mut state = self.lock();
        state.is_deserted = true;
        let connection = state.connection.take();
        drop(state);
        connection.into_iter().for_each(Waker::wake);
    }

    /// Whether a call could begin, if there was a place for it.
    pub(super) fn is_alive(&self) -> bool {
        self.lock().end.is_none()
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().taken()
    }

    /// Responses for calls that were not in flight.
    pub(super) fn unmatched(&self) -> u64 {
        self.lock().unmatched
    }

    // What the connection does.

    /// Take what callers have entered, tell how many responses were `unmatched`, and register for what
    /// they will, unless some have begun calls and fewer than were `expected`.
    pub(super) fn exchange(
        &self,
        submitted: &mut VecDeque<Submission<Request>>,
        abandoned: &mut Vec<u32>,
        unmatched: u64,
        expected: usize,
        cx: &mut Context<'_>,
    ) -> Errands {
        let mut fresh = None;
        loop {
            let mut state = self.lock();
            let has_begun = 1..expected;
            let is_early = has_begun.contains(&state.submitted.len());
            let kept = match is_early {
                true => Some(state.connection.take()),
                false => keep(&mut state.connection, &mut fresh, cx),
            };
            let Some(stale) = kept else {
                drop(state);
                fresh = Some(cx.waker().clone());
                continue;
            };
            match submitted.is_empty() {
                true => mem::swap(submitted, &mut state.submitted),
                false => submitted.append(&mut state.submitted),
            }
            mem::swap(abandoned, &mut state.abandoned);
            state.unmatched = unmatched;
            let errands = Errands {
                is_early,
                is_deserted: state.is_deserted,
                has_chosen_ids: state.has_chosen_ids,
            };
            drop(state);
            drop(stale);
            return errands;
        }
    }

    /// Bring `arrivals`, and remember the ids that were `given_up`. What is left in their stead is
    /// whom to wake, or what nobody wants.
    pub(super) fn deliver(
        &self,
        arrivals: &mut [Arrival<Response>],
        given_up: &mut Vec<(u64, Kind)>,
    ) {
        let mut state = self.lock();
        for (id, kind) in given_up.drain(..) {
            state.ids.give_up(id, kind, self.max_calls);
        }
        for arrival in arrivals {
            let call = &mut state.places[arrival.index as usize].call;
            match call {
                Call::Unary(waker) => {
                    let waker = waker.take();
                    let answer = match mem::replace(&mut arrival.what, What::Wake(waker)) {
                        What::Response(response) => Ok(response),
                        What::Failure(error) => Err(error),
                        What::End | What::Wake(_) => Err(Error::NoResponse),
                    };
                    // Without its waker, there is nothing in it to be dropped.
                    mem::forget(mem::replace(call, Call::Answered(answer)));
                }
                Call::Streaming(stream) => {
                    match mem::replace(&mut arrival.what, What::Wake(stream.waker.take())) {
                        What::Response(item) => {
                            stream.items.push_back(item);
                            stream.weight += arrival.weight as usize;
                        }
                        What::Failure(error) => stream.end = Some(Err(error)),
                        What::End | What::Wake(_) => stream.end = Some(Ok(())),
                    }
                }
                Call::None | Call::Answered(_) | Call::Abandoned => {}
            }
        }
    }

    /// Free the places of calls that were abandoned, and remember the ids that were `given_up`.
    pub(super) fn release_abandoned(
        &self,
        abandoned: &mut Vec<u32>,
        given_up: &mut Vec<(u64, Kind)>,
    ) {
        let mut state = self.lock();
        for (id, kind) in given_up.drain(..) {
            state.ids.give_up(id, kind, self.max_calls);
        }
        let mut freed = 0;
        for index in abandoned.drain(..) {
            // What stands in the place of an abandoned call holds nothing of its caller's.
            drop(state.take(index));
            freed += 1;
        }
        let waiting = state.waiting;
        drop(state);
        (0..freed.min(waiting)).for_each(|_| self.room.notify_one());
    }

    /// The place of the call with an `id` that its caller chose.
    pub(super) fn find_chosen(&self, id: u64) -> Option<u32> {
        self.lock().ids.find(id)
    }

    /// A message has come for `id`, which no call has, and nothing does after it for calls that it
    /// `ends`.
    pub(super) fn hear(&self, id: u64, ends: impl Fn(Kind) -> bool) {
        self.lock().ids.hear(id, ends);
    }

    /// How much more items of the stream at `index` may weigh. If it is nothing, the connection is woken
    /// when that has changed.
    pub(super) fn poll_room(&self, index: u32, cx: &mut Context<'_>) -> Poll<usize> {
        let mut fresh = None;
        loop {
            let mut state = self.lock();
            let left = state.room(index, self.capacity);
            if left > 0 {
                return Poll::Ready(left);
            }
            if let Some(stale) = keep(&mut state.connection, &mut fresh, cx) {
                state.paused_by = Some(index);
                drop(state);
                drop(stale);
                return Poll::Pending;
            }
            drop(state);
            fresh = Some(cx.waker().clone());
        }
    }

    /// How much more items of the stream at `index` may weigh.
    pub(super) fn room(&self, index: u32) -> usize {
        self.lock().room(index, self.capacity)
    }

    /// Take no more calls: they are told `error`.
    pub(super) fn refuse(&self, error: Error) {
        self.lock().end.get_or_insert(error);
        self.room.notify_waiters();
    }

    /// The connection carries out no more calls: those that are not over are told how they ended, by
    /// what `execution` says of their places, and later ones `end`.
    pub(super) fn end(&self, end: Error, failure: impl Fn(u32) -> Error, panics: &mut Panics) {
        let mut state = self.lock();
        state.end = Some(end);
        let submitted = mem::take(&mut state.submitted);
        let connection = state.connection.take();
        let mut wakers = Vec::new();
        for index in 0..state.places.len() {
            let call = &mut state.places[index].call;
            match call {
                Call::Unary(waker) => {
                    wakers.extend(waker.take());
                    *call = Call::Answered(Err(failure(index as u32)));
                }
                Call::Streaming(stream) if stream.end.is_none() => {
                    stream.end = Some(Err(failure(index as u32)));
                    wakers.extend(stream.waker.take());
                }
                Call::Abandoned => drop(state.take(index as u32)),
                _ => {}
            }
        }
        state.abandoned.clear();
        drop(state);
        panics.contain(wakers, Waker::wake);
        panics.contain([&self.room], Notify::notify_waiters);
        panics.contain(connection, drop);
        panics.contain(submitted, drop);
    }

    /// A free place. For a newcomer, one that nobody waits for.
    fn take_place(
        &self,
        state: &mut State<Request, Response>,
        is_newcomer: bool,
    ) -> Result<u32, Error> {
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        let promised = match is_newcomer {
            true => state.waiting,
            false => 0,
        };
        // LIMIT: max_concurrent_calls.
        if state.taken() + promised >= self.max_calls {
            return Err(Error::TooManyCalls(self.max_calls));
        }
        let index = match state.free.pop() {
            Some(index) => index,
            None => {
                let index = state.places.len() as u32;
                state.places.push(Place {
                    id: 0,
                    next_id: self.id_step + u64::from(index),
                    call: Call::None,
                });
                index
            }
        };
        Ok(index)
    }

    /// Let go of the lock after a place became free.
    #[inline]
    fn unlock_with_room(&self, state: MutexGuard<'_, State<Request, Response>>) {
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.room.notify_one();
        }
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State<Request, Response>> {
        self.state
            .lock()
            .expect("no code that panics runs under it")
    }
}

impl<Request: Message, Response: Message> State<Request, Response> {
    fn taken(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Give the call at `index` its id: the one that its caller `chosen`, or one of the place's own.
    fn enter(&mut self, index: u32, chosen: u64, step: u64) -> Result<u64, Error> {
        if chosen != 0 {
            self.has_chosen_ids = true;
            let at = (chosen & (step - 1)) as usize;
            let is_taken = self
                .places
                .get(at)
                .is_some_and(|place| place.id == chosen && !matches!(place.call, Call::None));
            if is_taken || !self.ids.take(chosen, index) {
                return Err(Error::DuplicateId(chosen));
            }
            self.places[index as usize].id = chosen;
            return Ok(chosen);
        }
        loop {
            let place = &mut self.places[index as usize];
            let id = place.next_id;
            place.next_id += step;
            if !self.has_chosen_ids || !self.ids.contains(id) {
                place.id = id;
                return Ok(id);
            }
        }
    }

    /// Free the place at `index`. What stood there is to be dropped without the lock.
    fn take(&mut self, index: u32) -> Call<Response> {
        let call = mem::replace(&mut self.places[index as usize].call, Call::None);
        self.release(index);
        call
    }

    /// Free the place at `index`, where nothing stands.
    #[inline]
    fn release(&mut self, index: u32) {
        self.free.push(index);
        if self.has_chosen_ids {
            self.release_id(index);
        }
    }

    fn release_id(&mut self, index: u32) {
        let id = self.places[index as usize].id;
        self.ids.release(id, index);
    }

    /// Whom to wake when items of the stream were taken for which the connection waits.
    fn resume(&mut self) -> Option<Waker> {
        self.paused_by = None;
        self.connection.take()
    }

    fn room(&self, index: u32, capacity: usize) -> usize {
        match &self.places[index as usize].call {
            Call::Streaming(stream) => capacity.saturating_sub(stream.weight + stream.fetched),
            // Nobody will take them, and they are dropped as they come.
            _ => capacity,
        }
    }
}

/// Only a request begins a call: the other codes say something about one.
#[inline]
fn is_request(message: &impl Message) -> Result<(), Error> {
    match message.control_code() {
        ProtosocketControlCode::Normal => Ok(()),
        code => Err(Error::NotARequest(code)),
    }
}

/// Keep a waker for the task of `cx`: the one that is there, or else the `fresh` one. `None` if a
/// fresh one is needed; otherwise what was kept before, if anything, to be dropped without the lock.
#[inline]
fn keep(
    kept: &mut Option<Waker>,
    fresh: &mut Option<Waker>,
    cx: &Context<'_>,
) -> Option<Option<Waker>> {
    if kept.as_ref().is_some_and(|kept| kept.will_wake(cx.waker())) {
        return Some(fresh.take());
    }
    let fresh = fresh.take()?;
    Some(kept.replace(fresh))
}

/// A task in the line of those that wait for a place.
struct Waiting<'a, Request: Message, Response: Message>(&'a Table<Request, Response>);

impl<Request: Message, Response: Message> Drop for Waiting<'_, Request, Response> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

const UNARY: &str = "the completion of a unary call is given its place, and gives it back once";
const STREAMING: &str = "the completion of a stream is given its place, and gives it back once";
const HELD: &str = "a completion holds its place until it is dropped";
