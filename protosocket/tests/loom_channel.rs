//! The channel under a model checker: its real source, every interleaving that matters.
//!
//! The sources are included rather than linked, so that the crate needs no second build with
//! other primitives. What is modelled in their place stands in `primitives`.

use std::{
    pin::pin,
    sync::{Arc, atomic},
    task::{Context, Poll, Wake, Waker},
};

use loom::{model::Builder, sync::Notify, thread};

#[expect(
    dead_code,
    unreachable_pub,
    reason = "the crate's source, of which the models use a part"
)]
#[path = "../src/channel/shared.rs"]
mod shared;

#[path = "../src/channel/queue.rs"]
mod queue;

use shared::{Closed, Receiver, Sender, TrySendError, channel};

/// What the channel is built from, for the model checker.
mod primitives {
    pub(super) use loom::{
        sync::{
            Mutex, MutexGuard,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        thread::yield_now,
    };
    // Counting references is not what the models are about, and every count would be one more
    // place to interleave at.
    pub(super) use std::sync::Arc;
    use std::task::Waker;

    /// The contract of the real one: a wake after `register` wakes what was registered, and what
    /// happened before the wake is seen by whoever registers next.
    pub(super) struct AtomicWaker(Mutex<Option<Waker>>);

    impl AtomicWaker {
        pub(super) fn new() -> Self {
            Self(Mutex::new(None))
        }

        pub(super) fn register(&self, waker: &Waker) {
            let stale = self.0.lock().unwrap().replace(waker.clone());
            drop(stale);
        }

        pub(super) fn take(&self) -> Option<Waker> {
            self.0.lock().unwrap().take()
        }

        pub(super) fn wake(&self) {
            let waker = self.take();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// A queue with the contract of the real one: several queues that share a waker, each with a
    /// flag that says whether it is worth a look, and a wake under the queue's lock.
    pub(super) mod spillway {
        use std::{
            cell::Cell,
            collections::VecDeque,
            task::{Context, Poll},
        };

        use super::{Arc, AtomicBool, AtomicWaker, Mutex, Ordering};

        std::thread_local! {
            /// How many queues the next channel has at most.
            pub(crate) static CHUTES: Cell<usize> = const { Cell::new(usize::MAX) };
        }

        struct Chute<T> {
            queue: Mutex<VecDeque<T>>,
            clean: AtomicBool,
        }

        struct Chutes<T> {
            chutes: Vec<Chute<T>>,
            waker: AtomicWaker,
            // Which queue a sender gets is no matter of concurrency.
            next: std::sync::atomic::AtomicUsize,
        }

        impl<T> Chutes<T> {
            fn dirty(&self, from: usize) -> Option<usize> {
                let count = self.chutes.len();
                (from..from + count)
                    .map(|index| index % count)
                    .find(|index| !self.chutes[*index].clean.load(Ordering::Acquire))
            }

            fn choose(&self) -> usize {
                self.next.fetch_add(1, Ordering::Relaxed) % self.chutes.len()
            }
        }

        pub(crate) struct Sender<T> {
            chute: usize,
            shared: Arc<Chutes<T>>,
        }

        pub(crate) struct Receiver<T> {
            cursor: usize,
            buffer: VecDeque<T>,
            shared: Arc<Chutes<T>>,
        }

        pub(crate) fn channel_with_concurrency<T>(concurrency: usize) -> (Sender<T>, Receiver<T>) {
            let chutes = (0..concurrency.min(CHUTES.get()))
                .map(|_| Chute {
                    queue: Mutex::new(VecDeque::new()),
                    clean: AtomicBool::new(true),
                })
                .collect();
            let shared = Arc::new(Chutes {
                chutes,
                waker: AtomicWaker::new(),
                next: std::sync::atomic::AtomicUsize::new(0),
            });
            let sender = Sender {
                chute: shared.choose(),
                shared: shared.clone(),
            };
            let receiver = Receiver {
                cursor: 0,
                buffer: VecDeque::new(),
                shared,
            };
            (sender, receiver)
        }

        impl<T> Clone for Sender<T> {
            fn clone(&self) -> Self {
                Self {
                    chute: self.shared.choose(),
                    shared: self.shared.clone(),
                }
            }
        }

        impl<T> Sender<T> {
            pub(crate) fn send(&self, value: T) -> Result<(), T> {
                let chute = &self.shared.chutes[self.chute];
                let mut queue = chute.queue.lock().unwrap();
                queue.push_back(value);
                if queue.len() == 1 {
                    chute.clean.store(false, Ordering::Release);
                    self.shared.waker.wake();
                }
                Ok(())
            }
        }

        impl<T> Receiver<T> {
            pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
                if let Some(value) = self.buffer.pop_front() {
                    return Poll::Ready(Some(value));
                }
                let mut dirty = self.shared.dirty(self.cursor);
                if dirty.is_none() {
                    self.shared.waker.register(cx.waker());
                    dirty = self.shared.dirty(self.cursor);
                }
                let Some(index) = dirty else {
                    return Poll::Pending;
                };
                let chute = &self.shared.chutes[index];
                let mut queue = chute.queue.lock().unwrap();
                std::mem::swap(&mut *queue, &mut self.buffer);
                chute.clean.store(true, Ordering::Release);
                drop(queue);
                self.cursor = (index + 1) % self.shared.chutes.len();
                Poll::Ready(self.buffer.pop_front())
            }
        }
    }
}

/// Run a model with one queue, and with as many as the channel has.
///
/// `preemptions` bounds how often a thread is interrupted where it did not wait. Without a bound
/// a model of three threads takes hours. Two threads can afford two or three, within which what
/// goes wrong in a structure of one word and one lock goes wrong; three threads can afford one,
/// or two if they do little.
fn model(preemptions: usize, body: impl Fn() + Clone + Send + Sync + 'static) {
    for chutes in [1, usize::MAX] {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(preemptions);
        let runs = Arc::new(atomic::AtomicUsize::new(0));
        let (body, count) = (body.clone(), runs.clone());
        builder.check(move || {
            primitives::spillway::CHUTES.set(chutes);
            count.fetch_add(1, atomic::Ordering::Relaxed);
            body();
        });
        let runs = runs.load(atomic::Ordering::Relaxed);
        assert!(runs > 1, "a model without a choice proves nothing");
    }
}

/// Wakes a thread of the model. A wake-up that is lost leaves all threads waiting, which the
/// checker reports.
struct Bell {
    notify: Notify,
    /// Whether anybody still waits. No part of what is checked, so it is not the checker's.
    waits: atomic::AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if self.waits.load(atomic::Ordering::Relaxed) {
            self.notify.notify();
        }
    }
}

fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let bell = Arc::new(Bell {
        notify: Notify::new(),
        waits: atomic::AtomicBool::new(true),
    });
    let waker = Waker::from(bell.clone());
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = poll(&mut cx) {
            bell.waits.store(false, atomic::Ordering::Relaxed);
            return value;
        }
        bell.notify.wait();
    }
}

fn receive<T>(receiver: &mut Receiver<T>) -> Option<T> {
    block_on(|cx| receiver.poll_next(cx))
}

fn receive_all<T>(receiver: &mut Receiver<T>) -> Vec<T> {
    std::iter::from_fn(|| receive(receiver)).collect()
}

fn send<T>(sender: &Sender<T>, message: T) -> Result<(), Closed<T>> {
    let mut future = pin!(sender.send(message));
    block_on(|cx| future.as_mut().poll(cx))
}

/// Receive to the end, and send `message` meanwhile: two tasks of one thread, which is one
/// thread less to interleave with.
fn receive_all_beside<T>(receiver: &mut Receiver<T>, sender: Sender<T>, message: T) -> Vec<T> {
    let mut sends = Some(Box::pin(async move { sender.send(message).await.is_ok() }));
    let mut received = Vec::new();
    block_on(|cx| {
        if let Some(Poll::Ready(sent)) = sends.as_mut().map(|sends| sends.as_mut().poll(cx)) {
            assert!(sent, "the channel is open");
            sends = None;
        }
        while let Poll::Ready(message) = receiver.poll_next(cx) {
            match message {
                Some(message) => received.push(message),
                None => return Poll::Ready(()),
            }
        }
        Poll::Pending
    });
    received
}

/// A message that counts how many of its kind are gone.
#[derive(Debug)]
struct Counted(Arc<atomic::AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, atomic::Ordering::Relaxed);
    }
}

#[test]
fn d8_the_message_before_the_last_drop_is_received() {
    model(1, || {
        let (sender, mut receiver) = channel(4);
        let other = sender.clone();
        let threads = [(sender, 1), (other, 2)].map(|(sender, value)| {
            thread::spawn(move || {
                sender.try_send(value).unwrap();
            })
        });
        let mut received = receive_all(&mut receiver);
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn d8_a_channel_is_not_finished_while_a_message_is_in_it() {
    model(3, || {
        let (sender, receiver) = channel(1);
        let thread = thread::spawn(move || sender.try_send(1).unwrap());
        assert!(!receiver.is_finished());
        thread.join().unwrap();
        assert!(receiver.is_abandoned() && !receiver.is_finished());
    });
}

#[test]
fn d8_the_order_of_a_sender_is_kept_to_the_end() {
    model(2, || {
        let (sender, mut receiver) = channel(4);
        let thread = thread::spawn(move || {
            for value in 1..=2 {
                sender.try_send(value).unwrap();
            }
        });
        assert_eq!(receive_all(&mut receiver), [1, 2]);
        thread.join().unwrap();
    });
}

#[test]
fn a_parked_receiver_is_woken_by_a_send() {
    model(3, || {
        let (sender, mut receiver) = channel(1);
        let thread = thread::spawn(move || {
            sender.try_send(1).unwrap();
            sender
        });
        assert_eq!(receive(&mut receiver), Some(1));
        // The sender is alive until here, so it was the message that woke.
        drop(thread.join().unwrap());
        assert_eq!(receive(&mut receiver), None);
    });
}

#[test]
fn a_parked_receiver_is_woken_by_the_last_drop() {
    model(3, || {
        let (sender, mut receiver) = channel::<u8>(1);
        let other = sender.clone();
        let threads = [sender, other].map(|sender| thread::spawn(move || drop(sender)));
        assert_eq!(receive(&mut receiver), None);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_receiver_that_was_disarmed_is_woken_once_it_parks_again() {
    model(2, || {
        let (sender, mut receiver) = channel(2);
        let thread = thread::spawn(move || {
            sender.try_send(1).unwrap();
            sender.try_send(2).unwrap();
            sender
        });
        let mut received = Vec::new();
        // As a connection does: what comes after it has looked, and before it sleeps, is pulled.
        block_on(|cx| {
            receiver.disarm();
            loop {
                while let Some(message) = receiver.try_next() {
                    received.push(message);
                }
                if received.len() == 2 {
                    return Poll::Ready(());
                }
                if receiver.poll_ready(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        });
        assert_eq!(received, [1, 2]);
        thread.join().unwrap();
    });
}

#[test]
fn what_was_accepted_is_received_or_dropped_by_the_end() {
    model(2, || {
        let dropped = Arc::new(atomic::AtomicUsize::new(0));
        let (sender, mut receiver) = channel(4);
        let threads = [sender.clone(), sender].map(|sender| {
            let message = Counted(dropped.clone());
            thread::spawn(move || {
                let accepted = match sender.try_send(message) {
                    Ok(()) => 1,
                    Err(TrySendError::Closed(message)) => {
                        std::mem::forget(message);
                        0
                    }
                    Err(TrySendError::Full(_)) => unreachable!("there is room for all"),
                };
                (sender, accepted)
            })
        });
        let received = usize::from(receiver.try_next().is_some());
        let counted = receiver.close_and_drop();
        // Nothing is kept by the senders, which live on.
        assert_eq!(dropped.load(atomic::Ordering::Relaxed), received + counted);
        drop(receiver);
        let ends = threads.map(|thread| thread.join().unwrap());
        let accepted: usize = ends.iter().map(|end| end.1).sum();
        assert_eq!(accepted, received + counted);
        assert_eq!(dropped.load(atomic::Ordering::Relaxed), accepted);
    });
}

#[test]
fn a_closed_channel_ends_when_everything_was_received() {
    model(3, || {
        let (sender, mut receiver) = channel(2);
        let thread = thread::spawn(move || {
            let accepted = usize::from(send(&sender, 1).is_ok());
            (sender, accepted)
        });
        receiver.close();
        let received = receive_all(&mut receiver).len();
        let (_sender, accepted) = thread.join().unwrap();
        assert_eq!(received, accepted);
    });
}

#[test]
fn senders_that_wait_get_the_one_place_in_turn() {
    model(2, || {
        let (sender, mut receiver) = channel(1);
        sender.try_send(0).unwrap();
        let other = sender.clone();
        let thread = thread::spawn(move || send(&other, 2).unwrap());
        let mut received = receive_all_beside(&mut receiver, sender, 1);
        assert_eq!(received.remove(0), 0);
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
        thread.join().unwrap();
    });
}

#[test]
fn a_newcomer_does_not_take_the_place_that_is_about_to_be_granted() {
    model(3, || {
        let (sender, mut receiver) = channel(1);
        sender.try_send(0).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits = pin!(sender.send(1));
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        let newcomer = sender.clone();
        let thread = thread::spawn(move || {
            let mut cx = Context::from_waker(Waker::noop());
            assert_eq!(newcomer.try_send(2), Err(TrySendError::Full(2)));
            assert!(pin!(newcomer.send(3)).poll(&mut cx).is_pending());
        });
        assert_eq!(receiver.try_next(), Some(0));
        assert_eq!(receiver.try_next(), None);
        thread.join().unwrap();
        assert_eq!(waits.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
        assert_eq!(receiver.try_next(), Some(1));
    });
}

#[test]
fn a_sender_that_waits_is_told_of_the_end() {
    model(3, || {
        let (sender, receiver) = channel(1);
        sender.try_send(0).unwrap();
        let thread = thread::spawn(move || send(&sender, 1).is_err());
        drop(receiver);
        assert!(thread.join().unwrap());
    });
}

/// Drop the future of a send after `polls` polls, while the receiver frees the place that it
/// waits for, and see that the one behind it gets it.
fn cancelled_after(polls: usize) {
    model(2, move || {
        let (sender, mut receiver) = channel(1);
        sender.try_send(0).unwrap();
        let cancels = sender.clone();
        let thread = thread::spawn(move || {
            let mut future = pin!(cancels.send(1));
            let mut cx = Context::from_waker(Waker::noop());
            (0..polls).any(|_| future.as_mut().poll(&mut cx).is_ready())
        });
        let mut received = receive_all_beside(&mut receiver, sender, 2);
        let sent = thread.join().unwrap();
        received.sort_unstable();
        let expected: &[i32] = if sent { &[0, 1, 2] } else { &[0, 2] };
        assert_eq!(received, expected);
    });
}

#[test]
fn a_send_that_is_dropped_before_it_is_polled_leaves_no_trace() {
    cancelled_after(0);
}

#[test]
fn a_send_that_is_dropped_while_it_waits_or_is_granted_passes_its_place_on() {
    cancelled_after(1);
}

#[test]
fn a_send_that_is_dropped_after_its_second_poll_passes_its_place_on() {
    cancelled_after(2);
}

#[test]
fn a_granted_place_that_is_dropped_at_the_end_is_no_message() {
    model(3, || {
        let (sender, mut receiver) = channel(1);
        sender.try_send(0).unwrap();
        let other = sender.clone();
        let thread = thread::spawn(move || {
            let mut future = pin!(other.send(1));
            let mut cx = Context::from_waker(Waker::noop());
            // What waits or has been granted when this returns is dropped.
            matches!(future.as_mut().poll(&mut cx), Poll::Ready(Ok(())))
        });
        assert_eq!(receive(&mut receiver), Some(0));
        // Gives the place back, to the other thread if it waits.
        let mut received = usize::from(receiver.try_next().is_some());
        receiver.close();
        // Whoever sees a message that is not there waits for a wake-up that never comes.
        block_on(|cx| {
            while !receiver.is_empty() {
                if receiver.poll_ready(cx).is_pending() {
                    return Poll::Pending;
                }
                received += usize::from(receiver.try_next().is_some());
            }
            Poll::Ready(())
        });
        assert_eq!(received, usize::from(thread.join().unwrap()));
        drop(sender);
    });
}

#[test]
fn a_sender_made_from_a_weak_one_at_the_end_is_refused_or_received() {
    model(3, || {
        let (sender, mut receiver) = channel(2);
        let weak = sender.downgrade();
        let thread = thread::spawn(move || match weak.upgrade() {
            Some(sender) => usize::from(sender.try_send(1).is_ok()),
            None => 0,
        });
        drop(sender);
        let received = receive_all(&mut receiver).len();
        assert_eq!(received, thread.join().unwrap());
    });
}
