//! What callers and driver share.

use std::{
    collections::VecDeque,
    mem,
    pin::pin,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};

use crate::{Error, Execution, PipelineConfig, Protocol, panics::Panics};

/// All requests that are not over, and what callers and driver have to tell each other.
///
/// INVARIANT: no code of a caller runs while the lock is held: no request or reply is dropped, no
/// waker is cloned, woken or dropped. It may use this very client.
pub(crate) struct Table<P: Protocol> {
    state: Mutex<State<P>>,
    /// Requests that were taken and not sent, and places in the queue that are reserved. Beside the
    /// lock, so that the driver can count them off as they leave.
    queued: AtomicUsize,
    /// Tasks that wait for room in the queue. INVARIANT: such a task counts itself before it looks
    /// whether there is room, and whoever makes room does so before it looks whether any task waits:
    /// with sequential consistency, one of the two sees the other.
    waiting: AtomicUsize,
    /// They wait here in line, and the first of them for `room`.
    line: Semaphore,
    room: Notify,
    max_queued: usize,
    max_places: usize,
}

struct State<P: Protocol> {
    places: Vec<Place<P::Reply>>,
    /// Places that are free. The one that was used last is used first: it is in the cache.
    free: Vec<u32>,
    /// Requests that the driver has not heard of.
    submitted: VecDeque<Submission<P::Request>>,
    /// Places of requests that were given up before their end. The driver frees them.
    abandoned: Vec<u32>,
    /// The task of the driver, if it is to be woken.
    driver: Option<Waker>,
    /// No handle is left.
    is_deserted: bool,
    /// The client was closed, and how much time it has.
    closing: Option<Duration>,
    /// What requests are told that come too late.
    end: Option<Error>,
}

enum Place<Reply> {
    /// Free.
    None,
    Waiting(Option<Waker>),
    Answered(Result<Reply, Error>),
    /// Nobody waits any more. The driver does not know yet.
    Abandoned,
}

/// A request on its way to the driver.
pub(crate) struct Submission<Request> {
    pub(crate) index: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) request: Request,
}

/// What the driver brings to the place at `index`, and then whom it has to wake for it.
pub(crate) struct Arrival<Reply> {
    pub(crate) index: u32,
    pub(crate) what: What<Reply>,
}

pub(crate) enum What<Reply> {
    End(Result<Reply, Error>),
    Wake(Option<Waker>),
}

/// What the driver is told beside requests.
pub(crate) struct Errands {
    /// Others that are expected have not had their turn, and wake nobody.
    pub(crate) is_early: bool,
    /// No handle is left.
    pub(crate) is_deserted: bool,
    /// The client was closed, and how much time it has.
    pub(crate) closing: Option<Duration>,
}

impl<P: Protocol> Table<P> {
    pub(crate) fn new(config: &PipelineConfig) -> Self {
        Self {
            state: Mutex::new(State {
                places: Vec::new(),
                free: Vec::new(),
                submitted: VecDeque::new(),
                abandoned: Vec::new(),
                driver: None,
                is_deserted: false,
                closing: None,
                end: None,
            }),
            queued: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            line: Semaphore::new(1),
            room: Notify::new(),
            max_queued: config.max_queued,
            max_places: config.places(),
        }
    }

    // What callers do.

    /// Enter a request. Returns its place.
    pub(crate) fn submit(
        &self,
        request: P::Request,
        timeout: Option<Duration>,
    ) -> Result<u32, Error> {
        let mut state = self.lock();
        let index = self.take_place(&mut state, true)?;
        self.begin(state, index, request, timeout)
    }

    /// Enter a request in a place that was reserved.
    pub(crate) fn submit_reserved(
        &self,
        index: u32,
        request: P::Request,
        timeout: Option<Duration>,
    ) -> Result<u32, Error> {
        self.begin(self.lock(), index, request, timeout)
    }

    fn begin(
        &self,
        mut state: MutexGuard<'_, State<P>>,
        index: u32,
        request: P::Request,
        timeout: Option<Duration>,
    ) -> Result<u32, Error> {
        // The request is dropped behind the lock.
        let refusal = state.refusal().or_else(|| {
            let execution = Execution::NeverSent;
            let is_late = timeout == Some(Duration::ZERO);
            is_late.then_some(Error::DeadlineExceeded { execution })
        });
        if let Some(error) = refusal {
            state.free.push(index);
            drop(state);
            self.dequeue(1);
            self.offer_room();
            return Err(error);
        }
        // A place that is free holds nothing to be dropped.
        mem::forget(mem::replace(
            &mut state.places[index as usize],
            Place::Waiting(None),
        ));
        state.submitted.push_back(Submission {
            index,
            timeout,
            request,
        });
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(index)
    }

    /// Wait for a place and for room in the queue, behind those that have waited for longer.
    pub(crate) async fn reserve(&self) -> Result<u32, Error> {
        let reserved = self.take_place(&mut self.lock(), true);
        if !matches!(reserved, Err(Error::QueueFull(_))) {
            return reserved;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        let _first = (self.line.acquire().await).expect("it is never closed");
        loop {
            let mut notified = pin!(self.room.notified());
            // Before it is looked, so that room that is made meanwhile is not missed.
            notified.as_mut().enable();
            let reserved = self.take_place(&mut self.lock(), false);
            if !matches!(reserved, Err(Error::QueueFull(_))) {
                return reserved;
            }
            notified.await;
        }
    }

    /// A free place, and room in the queue. For a newcomer, what nobody waits for.
    fn take_place(&self, state: &mut State<P>, is_newcomer: bool) -> Result<u32, Error> {
        if let Some(error) = state.refusal() {
            return Err(error);
        }
        let promised = match is_newcomer {
            true => self.waiting.load(Ordering::SeqCst),
            false => 0,
        };
        // LIMIT: max_queued; and places, which replies that nobody takes use up.
        let queued = self.queued.load(Ordering::SeqCst);
        if queued + promised >= self.max_queued || state.taken() + promised >= self.max_places {
            return Err(Error::QueueFull(self.max_queued));
        }
        self.queued.fetch_add(1, Ordering::SeqCst);
        Ok(state.free.pop().unwrap_or_else(|| {
            state.places.push(Place::None);
            state.places.len() as u32 - 1
        }))
    }

    /// Give back a place in which no request was entered.
    pub(crate) fn give_back(&self, index: u32) {
        self.lock().free.push(index);
        self.dequeue(1);
        self.offer_room();
    }

    /// There may be room again: tell who waits first for it, if anybody does.
    ///
    /// A task may be woken on the spot.
    #[inline]
    pub(crate) fn offer_room(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify_one();
        }
    }

    /// The reply, after which the place is free.
    #[inline]
    pub(crate) fn poll_reply(
        &self,
        index: u32,
        is_first: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<P::Reply, Error>> {
        // Who asks for the first time has as a rule to wait; who was woken has not.
        let mut fresh = is_first.then(|| cx.waker().clone());
        loop {
            let mut state = self.lock();
            let place = &mut state.places[index as usize];
            let Place::Waiting(waker) = place else {
                let place = mem::replace(place, Place::None);
                state.free.push(index);
                drop(state);
                self.offer_room();
                let Place::Answered(reply) = place else {
                    unreachable!("{HELD}");
                };
                return Poll::Ready(reply);
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

    /// Nobody waits any more for the reply at `index`.
    pub(crate) fn abandon(&self, index: u32) {
        let mut state = self.lock();
        let place = mem::replace(&mut state.places[index as usize], Place::Abandoned);
        let driver = match &place {
            Place::Waiting(_) => {
                state.abandoned.push(index);
                state.driver.take()
            }
            Place::Answered(_) => {
                state.places[index as usize] = Place::None;
                state.free.push(index);
                None
            }
            Place::None | Place::Abandoned => unreachable!("{HELD}"),
        };
        drop(state);
        // First of all: what is dropped is the caller's, and may panic or use this client.
        driver.into_iter().for_each(Waker::wake);
        self.offer_room();
        drop(place);
    }

    /// The last handle is gone.
    pub(crate) fn desert(&self) {
        self.tell(|state| state.is_deserted = true);
    }

    /// Take no more requests.
    pub(crate) fn close(&self, within: Duration) {
        self.tell(|state| _ = state.closing.get_or_insert(within));
        self.offer_room();
    }

    /// Whether requests are taken.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().refusal().is_none()
    }

    /// How many places are taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().taken()
    }

    /// How many requests were taken and not sent, and how many places in the queue are reserved.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    fn tell(&self, change: impl FnOnce(&mut State<P>)) {
        let mut state = self.lock();
        change(&mut state);
        let driver = state.driver.take();
        drop(state);
        driver.into_iter().for_each(Waker::wake);
    }

    // What the driver does.

    /// Take what callers have entered, and register for what they will, unless some have entered
    /// requests and fewer than were `expected`.
    pub(crate) fn exchange(
        &self,
        submitted: &mut VecDeque<Submission<P::Request>>,
        abandoned: &mut Vec<u32>,
        expected: usize,
        cx: &mut Context<'_>,
    ) -> Errands {
        let mut fresh = None;
        loop {
            let mut state = self.lock();
            let has_begun = 1..expected;
            let is_early = has_begun.contains(&state.submitted.len());
            let kept = match is_early {
                true => Some(state.driver.take()),
                false => keep(&mut state.driver, &mut fresh, cx),
            };
            let Some(stale) = kept else {
                drop(state);
                fresh = Some(cx.waker().clone());
                continue;
            };
            mem::swap(submitted, &mut state.submitted);
            mem::swap(abandoned, &mut state.abandoned);
            let errands = Errands {
                is_early,
                is_deserted: state.is_deserted,
                closing: state.closing,
            };
            drop(state);
            drop(stale);
            return errands;
        }
    }

    /// So many requests wait no more: they were sent, or are over. The room is still to be
    /// [offered](Self::offer_room).
    #[inline]
    pub(crate) fn dequeue(&self, count: usize) {
        self.queued.fetch_sub(count, Ordering::SeqCst);
    }

    /// So many wait again.
    pub(crate) fn enqueue(&self, count: usize) {
        self.queued.fetch_add(count, Ordering::SeqCst);
    }

    /// Bring `arrivals`. What is left in their stead is whom to wake, or what nobody wants.
    pub(crate) fn deliver(&self, arrivals: &mut [Arrival<P::Reply>]) {
        let mut state = self.lock();
        for arrival in arrivals {
            let place = &mut state.places[arrival.index as usize];
            if let Place::Waiting(waker) = place {
                let waker = waker.take();
                if let What::End(end) = mem::replace(&mut arrival.what, What::Wake(waker)) {
                    // Without its waker, there is nothing in it to be dropped.
                    mem::forget(mem::replace(place, Place::Answered(end)));
                }
            }
        }
    }

    /// Free the places of requests that were given up.
    pub(crate) fn release(&self, abandoned: &mut Vec<u32>) {
        let mut state = self.lock();
        for index in abandoned.drain(..) {
            state.places[index as usize] = Place::None;
            state.free.push(index);
        }
    }

    /// The driver carries out no more requests: those that are not over are told `end`, and later
    /// ones, too.
    pub(crate) fn end(&self, end: Error, panics: &mut Panics) {
        let mut state = self.lock();
        let submitted = mem::take(&mut state.submitted);
        let driver = state.driver.take();
        let mut wakers = Vec::new();
        for index in 0..state.places.len() {
            match &mut state.places[index] {
                Place::Waiting(waker) => {
                    wakers.extend(waker.take());
                    state.places[index] = Place::Answered(Err(end.clone()));
                }
                Place::Abandoned => {
                    state.places[index] = Place::None;
                    state.free.push(index as u32);
                }
                Place::None | Place::Answered(_) => {}
            }
        }
        state.abandoned.clear();
        state.end = Some(end);
        self.dequeue(submitted.len());
        drop(state);
        panics.contain(wakers, Waker::wake);
        panics.contain([self], Self::offer_room);
        panics.contain(driver, drop);
        panics.contain(submitted, drop);
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state
            .lock()
            .expect("no code that panics runs under it")
    }
}

impl<P: Protocol> State<P> {
    /// What requests are told that come too late.
    fn refusal(&self) -> Option<Error> {
        match self.closing {
            Some(_) => Some(Error::Closed {
                execution: Execution::NeverSent,
            }),
            None => self.end.clone(),
        }
    }

    fn taken(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

/// A task that waits for room in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
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

const HELD: &str = "a response holds its place until it is done or dropped, and gives it back once";
