//! What callers and driver share.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    Error, Execution, PipelineConfig, Protocol, panics::for_each_despite_panics as for_each,
};

/// All requests that are not over, and what callers and driver have to tell each other.
///
/// INVARIANT: no code of a caller runs while the lock is held: no request or reply is dropped, no
/// waker is cloned, woken or dropped. It may use this very client.
pub(crate) struct Table<P: Protocol> {
    state: Mutex<State<P>>,
    /// Requests that were taken and not sent. Beside the lock, so that the driver can count them off
    /// as they leave.
    queued: AtomicUsize,
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
        if timeout == Some(Duration::ZERO) {
            let execution = Execution::NeverSent;
            return Err(Error::DeadlineExceeded { execution });
        }
        let mut state = self.lock();
        // The request is dropped behind the lock.
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        if state.closing.is_some() {
            let execution = Execution::NeverSent;
            return Err(Error::Closed { execution });
        }
        // LIMIT: max_queued; and places, which replies that nobody takes use up.
        let taken = state.places.len() - state.free.len();
        if self.queued() >= self.max_queued || taken >= self.max_places {
            return Err(Error::QueueFull(self.max_queued));
        }
        self.queued.fetch_add(1, Ordering::Relaxed);
        let index = match state.free.pop() {
            Some(index) => {
                // A place that is free holds nothing to be dropped.
                mem::forget(mem::replace(
                    &mut state.places[index as usize],
                    Place::Waiting(None),
                ));
                index
            }
            None => {
                state.places.push(Place::Waiting(None));
                state.places.len() as u32 - 1
            }
        };
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
        drop(place);
    }

    /// The last handle is gone.
    pub(crate) fn desert(&self) {
        self.tell(|state| state.is_deserted = true);
    }

    /// Take no more requests.
    pub(crate) fn close(&self, within: Duration) {
        self.tell(|state| _ = state.closing.get_or_insert(within));
    }

    /// Whether requests are taken.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.lock();
        state.end.is_none() && state.closing.is_none()
    }

    /// How many places are taken.
    pub(crate) fn taken(&self) -> usize {
        let state = self.lock();
        state.places.len() - state.free.len()
    }

    /// How many requests were taken and not sent.
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

    /// Take what callers have entered, and register for what they will.
    pub(crate) fn exchange(
        &self,
        submitted: &mut VecDeque<Submission<P::Request>>,
        abandoned: &mut Vec<u32>,
        cx: &mut Context<'_>,
    ) -> Errands {
        let mut fresh = None;
        loop {
            let mut state = self.lock();
            let Some(stale) = keep(&mut state.driver, &mut fresh, cx) else {
                drop(state);
                fresh = Some(cx.waker().clone());
                continue;
            };
            mem::swap(submitted, &mut state.submitted);
            mem::swap(abandoned, &mut state.abandoned);
            let errands = Errands {
                is_deserted: state.is_deserted,
                closing: state.closing,
            };
            drop(state);
            drop(stale);
            return errands;
        }
    }

    /// So many requests wait no more: they were sent, or are over.
    #[inline]
    pub(crate) fn dequeue(&self, count: usize) {
        self.queued.fetch_sub(count, Ordering::Relaxed);
    }

    /// So many wait again.
    pub(crate) fn enqueue(&self, count: usize) {
        self.queued.fetch_add(count, Ordering::Relaxed);
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
    pub(crate) fn end(&self, end: Error) {
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
        self.queued.store(0, Ordering::Relaxed);
        drop(state);
        drop(driver);
        for_each(wakers, Waker::wake);
        for_each(submitted, drop);
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state
            .lock()
            .expect("no code that panics runs under it")
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
