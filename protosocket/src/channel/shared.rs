use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::primitives::{Arc, AtomicUsize, AtomicWaker, Mutex, MutexGuard, Ordering, yield_now};
use super::queue::{QueueReceiver, QueueSender, queue};

/// No more messages are accepted.
const CLOSED: usize = 1;
/// Somebody waits for room, so a newcomer must not take it.
const WAITING: usize = 2;
/// One message that was accepted and not received.
const ONE: usize = 4;

/// Received messages are given back to the bound in batches of this size, or when the queue has
/// run dry: an atomic operation per batch instead of one per message.
const RELEASE: usize = 32;

/// A channel into a connection that holds at most `capacity` messages.
///
/// # Panics
/// If `capacity` is 0: nothing could ever be sent.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(
        capacity > 0,
        "a channel needs room for at least one message"
    );
    let (producer, consumer) = queue();
    let shared = Arc::new(Shared {
        state: AtomicUsize::new(0),
        strong: AtomicUsize::new(1),
        capacity: capacity.min(usize::MAX / ONE / 2),
        granted: AtomicUsize::new(0),
        waiters: Mutex::new(None),
        receiver: AtomicWaker::new(),
        template: producer,
    });
    let sender = Sender {
        queue: shared.template.clone(),
        shared: shared.clone(),
    };
    let receiver = Receiver {
        queue: consumer,
        peeked: None,
        unreleased: 0,
        armed: false,
        shared,
    };
    (sender, receiver)
}

/// What the two sides share. The order of messages is the queue's; this is the bound, the end,
/// and who is still there.
///
/// INVARIANT: no waker is cloned, woken or dropped while a lock is held. What a waker does is its
/// owner's: it may run the woken task on the spot, and that task may use this channel.
struct Shared<T> {
    /// `CLOSED`, `WAITING`, and the number of taken places in units of `ONE`: accepted messages,
    /// and places that were granted.
    state: AtomicUsize,
    /// Strong senders.
    strong: AtomicUsize,
    capacity: usize,
    /// Places that were granted to a waiting sender and not used yet: taken, but no message.
    granted: AtomicUsize,
    /// `None` until a sender has to wait: most never do.
    waiters: Mutex<Option<Box<Waiters>>>,
    /// The task of the receiver, woken by a message and when the last strong sender goes.
    receiver: AtomicWaker,
    /// From which the queues of new senders are made. INVARIANT: it lives as long as the
    /// receiver, so that the queue never believes its senders to be gone.
    template: QueueSender<T>,
}

/// Senders that wait for room, first come first served.
#[derive(Default)]
struct Waiters {
    next_ticket: u64,
    /// In the order of their tickets.
    waiting: VecDeque<(u64, Waker)>,
    /// Tickets that have been given a place and have not used it yet, in order.
    granted: VecDeque<u64>,
}

impl Waiters {
    fn position(&self, ticket: u64) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&ticket, |entry| entry.0)
            .ok()
    }
}

enum Refused {
    Full,
    Closed,
}

impl<T> Shared<T> {
    /// Take one place: one atomic operation on one word.
    #[inline]
    fn reserve(&self) -> Result<(), Refused> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            if state & WAITING != 0 || state / ONE >= self.capacity {
                return Err(Refused::Full);
            }
            match self.state.compare_exchange_weak(
                state,
                state + ONE,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(current) => state = current,
            }
        }
    }

    /// Give back `count` places, to those that wait first.
    fn release(&self, count: usize) {
        let before = self.state.fetch_sub(count * ONE, Ordering::AcqRel);
        if before & WAITING != 0 {
            let woken = match &mut *self.waiters() {
                Some(waiters) => self.grant(waiters),
                None => Vec::new(),
            };
            woken.into_iter().for_each(Waker::wake);
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Option<Box<Waiters>>> {
        self.waiters
            .lock()
            .expect("no code that panics runs under it")
    }

    /// Hand free places to those that wait. Returns whom to wake.
    fn grant(&self, waiters: &mut Waiters) -> Vec<Waker> {
        let mut woken = Vec::new();
        while !waiters.waiting.is_empty()
            && self.state.load(Ordering::Acquire) / ONE < self.capacity
        {
            // Nobody else takes places while WAITING is set, and this lock is held.
            self.state.fetch_add(ONE, Ordering::AcqRel);
            self.granted.fetch_add(1, Ordering::Relaxed);
            woken.extend(self.grant_next(waiters));
        }
        woken
    }

    /// A taken place becomes that of the first who waits, if somebody does.
    fn grant_next(&self, waiters: &mut Waiters) -> Option<Waker> {
        let next = waiters.waiting.pop_front();
        if waiters.waiting.is_empty() {
            self.state.fetch_and(!WAITING, Ordering::AcqRel);
        }
        let (ticket, waker) = next?;
        waiters.granted.push_back(ticket);
        Some(waker)
    }

    /// Accept nothing from here on. Those that wait are told at once.
    fn close(&self) {
        if self.state.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED != 0 {
            return;
        }
        let mut waiters = self.waiters();
        // Places that were granted stay taken: nobody asks for room again.
        let closed = waiters.take();
        self.state.fetch_and(!WAITING, Ordering::AcqRel);
        drop(waiters);
        let waiting = closed.map(|waiters| waiters.waiting).unwrap_or_default();
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Messages that were accepted and whose places have not been given back.
    fn accepted(&self) -> usize {
        // In this order, so that a granted place that is given back meanwhile is never taken for
        // a message: nothing would wake the receiver from waiting for it. The other way round, a
        // granted place that is used meanwhile is missed, but the message wakes the receiver.
        let granted = self.granted.load(Ordering::Acquire);
        let taken = self.state.load(Ordering::Acquire) / ONE;
        taken.saturating_sub(granted)
    }
}

/// Sends messages into a connection, from any task or thread.
///
/// Cloning is cheap, and each clone keeps its own order: what one `Sender` sends arrives in the
/// order in which it was sent. A message is *accepted* when a send returns `Ok`; an accepted
/// message is written to the peer, or counted in
/// [`ConnectionStats::unsent`](crate::ConnectionStats::unsent).
///
/// A strong `Sender` says that messages may still come: after the end of the peer's input a
/// connection waits for it. Whoever only holds one in reserve holds a [`WeakSender`].
pub struct Sender<T> {
    queue: QueueSender<T>,
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Send now or not at all.
    ///
    /// # Errors
    /// Returns the message: [`TrySendError::Full`] while the channel is full or others wait for
    /// room, [`TrySendError::Closed`] when the connection takes no more.
    #[inline]
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        match self.shared.reserve() {
            Ok(()) => {
                self.push(message);
                Ok(())
            }
            Err(Refused::Full) => Err(TrySendError::Full(message)),
            Err(Refused::Closed) => Err(TrySendError::Closed(message)),
        }
    }

    /// Send as soon as there is room, in the order in which room was asked for.
    ///
    /// Dropping the future before it is done sends nothing and gives up the place in the line.
    ///
    /// # Errors
    /// Returns the message when the connection takes no more.
    #[inline]
    pub fn send(&self, message: T) -> SendFuture<'_, T> {
        SendFuture {
            sender: self,
            message: Some(message),
            ticket: None,
        }
    }

    /// Whether the connection takes no more messages.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// How many messages the channel holds at most.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// A handle that does not say that messages may still come.
    pub fn downgrade(&self) -> WeakSender<T> {
        WeakSender {
            shared: self.shared.clone(),
        }
    }

    /// Put a message into the place that was reserved for it.
    #[inline]
    fn push(&self, message: T) {
        // No foreign code runs between the reservation and this: see `close_and_drop`.
        if self.queue.push(message) {
            self.shared.receiver.wake();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.strong.fetch_add(1, Ordering::Relaxed);
        Self {
            queue: self.shared.template.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.strong.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.receiver.wake();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("accepted", &self.shared.accepted())
            .field("capacity", &self.shared.capacity)
            .field("closed", &self.shared.is_closed())
            .finish()
    }
}

/// A [`Sender`] in reserve: it does not keep a connection waiting.
pub struct WeakSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> WeakSender<T> {
    /// A strong sender, or `None` when the connection takes no more messages.
    pub fn upgrade(&self) -> Option<Sender<T>> {
        if self.shared.is_closed() {
            return None;
        }
        self.shared.strong.fetch_add(1, Ordering::Relaxed);
        Some(Sender {
            queue: self.shared.template.clone(),
            shared: self.shared.clone(),
        })
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<T> fmt::Debug for WeakSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakSender")
            .field("closed", &self.shared.is_closed())
            .finish()
    }
}

/// A message on its way into the channel: what [`Sender::send`] returns.
#[must_use = "a message is sent when this future is awaited"]
pub struct SendFuture<'a, T> {
    sender: &'a Sender<T>,
    /// The message, until it has been accepted or given back.
    message: Option<T>,
    /// The place in the line, once one had to be taken.
    ticket: Option<u64>,
}

// The message is moved out of the future and never pinned.
impl<T> Unpin for SendFuture<'_, T> {}

impl<T> SendFuture<'_, T> {
    /// Join the line, unless a place has become free meanwhile.
    fn enqueue(&mut self, waker: &Waker) -> Poll<Result<(), Refused>> {
        let shared = &self.sender.shared;
        let waker = waker.clone();
        let mut guard = shared.waiters();
        let state = shared.state.fetch_or(WAITING, Ordering::AcqRel);
        if state & CLOSED != 0 {
            shared.state.fetch_and(!WAITING, Ordering::AcqRel);
            drop(guard);
            return Poll::Ready(Err(Refused::Closed));
        }
        let waiters = guard.get_or_insert_default();
        if waiters.waiting.is_empty() && state / ONE < shared.capacity {
            shared.state.fetch_add(ONE, Ordering::AcqRel);
            shared.state.fetch_and(!WAITING, Ordering::AcqRel);
            drop(guard);
            return Poll::Ready(Ok(()));
        }
        let ticket = waiters.next_ticket;
        waiters.next_ticket += 1;
        waiters.waiting.push_back((ticket, waker));
        self.ticket = Some(ticket);
        Poll::Pending
    }

    /// See whether the place that was waited for has been granted.
    fn poll_ticket(&mut self, ticket: u64, waker: &Waker) -> Poll<Result<(), Refused>> {
        let shared = &self.sender.shared;
        let waker = waker.clone();
        let mut guard = shared.waiters();
        // Only the end of the channel takes them all away.
        let Some(waiters) = &mut *guard else {
            self.ticket = None;
            drop(guard);
            return Poll::Ready(Err(Refused::Closed));
        };
        if let Ok(index) = waiters.granted.binary_search(&ticket) {
            waiters.granted.remove(index);
            shared.granted.fetch_sub(1, Ordering::Release);
            self.ticket = None;
            drop(guard);
            return Poll::Ready(Ok(()));
        }
        let index = waiters.position(ticket);
        let index = index.expect("what has not been granted waits");
        let stale = std::mem::replace(&mut waiters.waiting[index].1, waker);
        drop(guard);
        drop(stale);
        Poll::Pending
    }
}

impl<T> Future for SendFuture<'_, T> {
    type Output = Result<(), Closed<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(self.message.is_some(), "polled after it was done");
        let reserved = match self.ticket {
            Some(ticket) => self.poll_ticket(ticket, cx.waker()),
            None => match self.sender.shared.reserve() {
                Err(Refused::Full) => self.enqueue(cx.waker()),
                result => Poll::Ready(result),
            },
        };
        let Poll::Ready(reserved) = reserved else {
            return Poll::Pending;
        };
        let message = self.message.take().expect("checked above");
        Poll::Ready(match reserved {
            Ok(()) => {
                self.sender.push(message);
                Ok(())
            }
            Err(_) => Err(Closed(message)),
        })
    }
}

impl<T> Drop for SendFuture<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let shared = &self.sender.shared;
        let mut guard = shared.waiters();
        let Some(waiters) = &mut *guard else { return };
        if let Ok(index) = waiters.granted.binary_search(&ticket) {
            // The place was granted and not used: the next in line gets it.
            waiters.granted.remove(index);
            let next = shared.grant_next(waiters);
            if next.is_none() {
                shared.state.fetch_sub(ONE, Ordering::AcqRel);
                shared.granted.fetch_sub(1, Ordering::Release);
            }
            drop(guard);
            next.into_iter().for_each(Waker::wake);
        } else if let Some(index) = waiters.position(ticket) {
            let waiting = waiters.waiting.remove(index);
            if waiters.waiting.is_empty() {
                shared.state.fetch_and(!WAITING, Ordering::AcqRel);
            }
            drop(guard);
            drop(waiting);
        }
    }
}

impl<T> fmt::Debug for SendFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture")
            .field("waiting", &self.ticket.is_some())
            .finish()
    }
}

/// The connection's end of the channel.
///
/// When it is dropped, no more messages are accepted, and those that were are dropped at once,
/// so that whatever waits for their answers is told.
pub struct Receiver<T> {
    queue: QueueReceiver<T>,
    /// A message that arrived while the waker was being registered.
    peeked: Option<T>,
    /// Messages received whose places have not been given back.
    unreleased: usize,
    /// Whether the task may be registered.
    armed: bool,
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The next message, if there is one. Registers no waker, so it does not make a send from
    /// the same task wake that task.
    #[inline]
    pub fn try_next(&mut self) -> Option<T> {
        if self.is_empty() {
            self.release();
            return None;
        }
        let message = match self.peeked.take() {
            Some(message) => message,
            // If there is none, it is about to be pushed, by another thread.
            None => self.queue.pop()?,
        };
        self.unreleased += 1;
        if self.unreleased >= RELEASE {
            self.release();
        }
        Some(message)
    }

    /// `Ready` if there is a message; otherwise registers for the next one, and for the moment
    /// at which the last strong sender goes. Ask [`is_finished`](Self::is_finished) afterwards:
    /// that moment may have passed before the waker was there to be woken.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.release();
        if self.peeked.is_none() {
            // Registered before it is looked, so that a message is seen here or wakes.
            self.register(cx);
            self.peeked = self.queue.pop();
        }
        match self.peeked {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        }
    }

    /// Register for the moment at which the last strong sender goes, without a look at the
    /// messages: for a receiver that takes none at the moment. A message may wake it as well.
    pub fn register(&mut self, cx: &mut Context<'_>) {
        self.shared.receiver.register(cx.waker());
        self.armed = true;
    }

    /// Take back the registration, for as long as the task is running anyway: what the task itself
    /// sends meanwhile does not make it run again.
    #[inline]
    pub fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            drop(self.shared.receiver.take());
        }
    }

    /// The next message, or `None` when everything was received and nothing more can come: the
    /// channel was closed, or no strong sender is left, which closes it.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            if let Some(message) = self.try_next() {
                return Poll::Ready(Some(message));
            }
            let waiting = self.poll_ready(cx).is_pending();
            if self.is_finished() {
                self.close();
            }
            // What a `WeakSender` let in before it was closed is received as well.
            if self.shared.is_closed() && self.is_empty() {
                return Poll::Ready(None);
            }
            if waiting {
                return Poll::Pending;
            }
        }
    }

    /// Whether no accepted message is waiting.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Accepted messages that have not been received.
    #[inline]
    pub fn len(&self) -> usize {
        self.shared.accepted().saturating_sub(self.unreleased)
    }

    /// Whether no strong sender is left. A [`WeakSender`] may still make one.
    pub fn is_abandoned(&self) -> bool {
        self.shared.strong.load(Ordering::Acquire) == 0
    }

    /// Whether there is no sender, weak ones included, and no message: nothing will ever come.
    pub(crate) fn is_unreachable(&mut self) -> bool {
        self.is_finished() && Arc::get_mut(&mut self.shared).is_some()
    }

    /// Whether no strong sender is left and everything was received.
    pub fn is_finished(&self) -> bool {
        // In this order: what a sender sent before it went is counted by then.
        self.is_abandoned() && self.is_empty()
    }

    /// Accept nothing from here on. What was accepted can still be received.
    pub fn close(&mut self) {
        self.shared.close();
    }

    /// Accept nothing from here on, and drop what was accepted. Returns how much that was.
    pub fn close_and_drop(&mut self) -> usize {
        self.close();
        let mut dropped = 0;
        while !self.is_empty() {
            match self.try_next() {
                Some(message) => {
                    drop(message);
                    dropped += 1;
                }
                // A sender on another thread stands between its reservation and its push. It
                // runs no foreign code there, so this is a matter of its next few instructions.
                None => yield_now(),
            }
        }
        self.release();
        dropped
    }

    /// Give the places of what was received back to those that wait for room.
    #[inline]
    pub(crate) fn release(&mut self) {
        if self.unreleased > 0 {
            self.shared.release(std::mem::take(&mut self.unreleased));
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        /// Goes on when a message panics as it is dropped: its neighbours must not be left in
        /// the queue, where senders would keep them for as long as they live.
        struct Rest<'a, T>(&'a mut Receiver<T>);

        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                self.0.close_and_drop();
            }
        }

        // A waker keeps the memory of its task, which must not live as long as the senders do.
        self.disarm();
        Rest(self).0.close_and_drop();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("len", &self.len())
            .finish()
    }
}

/// The connection takes no more messages. Here is the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Closed<T>(pub T);

impl<T> fmt::Display for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is gone and takes no more messages")
    }
}

impl<T> fmt::Debug for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closed(..)")
    }
}

impl<T> std::error::Error for Closed<T> {}

/// Why a message was not accepted. Here is the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The channel is full, or others wait for room.
    Full(T),
    /// The connection takes no more messages.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The message.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(message) | Self::Closed(message) => message,
        }
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the connection's channel is full",
            Self::Closed(_) => "the connection is gone and takes no more messages",
        })
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> std::error::Error for TrySendError<T> {}
