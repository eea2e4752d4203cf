//! The channel on real threads, with the real queue.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Barrier, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use protosocket::{
    Closed, Connection, ConnectionConfig, Limits, LinesCodec, MessageReactor, ReactorContext,
    ReactorStatus, Receiver, SendError, SendFuture, Sender, TrySendError, WeakSender, channel,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

/// Many more than any machine that runs this has cores to spare, so that threads are interrupted
/// in the middle of what they do.
const THREADS: usize = 16;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = poll(&mut cx) {
            return value;
        }
        thread::park();
    }
}

fn receive<T>(receiver: &mut Receiver<T>) -> Option<T> {
    block_on(|cx| receiver.poll_next(cx))
}

fn send<T>(sender: &Sender<T>, message: T) -> Result<(), Closed<T>> {
    let mut future = pin!(sender.send(message));
    block_on(|cx| future.as_mut().poll(cx))
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Woken {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll_once<T>(future: &mut SendFuture<'_, T>) -> Poll<Result<(), Closed<T>>> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

// What was accepted is received, in order.

/// `THREADS` threads that each send `each` messages, through a sender that they exchange for a
/// clone or for a weak one's upgrade every few messages, and drop right after the last.
fn stress(capacity: usize, each: usize) {
    let (sender, mut receiver) = channel(capacity);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let mut sender = sender.clone();
            thread::spawn(move || {
                let mut sequence = 0;
                while sequence < each {
                    // A clone may use another queue, so the order is that of one sender.
                    let replaced = match sequence % 3 {
                        0 => sender.downgrade().upgrade(),
                        _ => Some(sender.clone()),
                    };
                    sender = replaced.expect("the channel is open");
                    let life = Arc::new(());
                    for _ in 0..97.min(each - sequence) {
                        send(&sender, (thread, life.clone(), sequence)).expect("it is open");
                        sequence += 1;
                    }
                }
            })
        })
        .collect();
    drop(sender);
    let mut received = 0;
    let mut lives: Vec<Option<(Arc<()>, usize)>> = vec![None; THREADS];
    let mut seen = [0; THREADS];
    while let Some((thread, life, sequence)) = receive(&mut receiver) {
        received += 1;
        seen[thread] += sequence;
        match &mut lives[thread] {
            Some((current, last)) if Arc::ptr_eq(current, &life) => {
                assert_eq!(sequence, *last + 1, "a sender's messages changed places");
                *last = sequence;
            }
            current => *current = Some((life, sequence)),
        }
    }
    assert_eq!(received, THREADS * each, "accepted and not received");
    assert!(seen.iter().all(|sum| *sum == each * (each - 1) / 2));
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

#[test]
fn nothing_is_lost_and_each_sender_keeps_its_order() {
    // Without waiting, then with waiting most of the time.
    stress(1 << 20, 25_000);
    stress(64, 7_000);
}

#[test]
fn d8_the_last_message_before_the_last_drop_is_received() {
    for _ in 0..10 {
        stress(4_096, 1_000);
    }
    // A receiver that looks all the time is the one that sees the drop and not the message.
    for _ in 0..10_000 {
        let (sender, mut receiver) = channel(1);
        let barrier = Arc::new(Barrier::new(2));
        let ready = barrier.clone();
        let thread = thread::spawn(move || {
            ready.wait();
            sender.try_send(()).expect("there is room");
        });
        barrier.wait();
        let mut cx = Context::from_waker(Waker::noop());
        let first = loop {
            if let Poll::Ready(first) = receiver.poll_next(&mut cx) {
                break first;
            }
        };
        assert_eq!(first, Some(()));
        thread.join().unwrap();
    }
}

#[test]
fn a_burst_wakes_a_parked_receiver_once() {
    let (sender, mut receiver) = channel(8);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(receiver.poll_next(&mut cx).is_pending());
    let other = sender.clone();
    for value in 0..3 {
        sender.try_send(value).unwrap();
        other.try_send(value).unwrap();
    }
    assert_eq!(woken.count(), 1);
    let received = std::iter::from_fn(|| receiver.try_next()).count();
    assert_eq!(received, 6);
    assert!(receiver.poll_next(&mut cx).is_pending());
    drop(sender);
    assert_eq!(woken.count(), 1, "a sender is left");
    drop(other);
    assert_eq!(woken.count(), 2);
    assert_eq!(receiver.poll_next(&mut cx), Poll::Ready(None));
}

#[test]
fn a_disarmed_receiver_is_not_woken_until_it_is_armed_again() {
    let (sender, mut receiver) = channel(8);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(receiver.poll_ready(&mut cx).is_pending());
    receiver.disarm();
    sender.try_send(1).unwrap();
    assert_eq!(woken.count(), 0);
    assert_eq!(receiver.try_next(), Some(1));
    assert!(receiver.poll_ready(&mut cx).is_pending());
    sender.try_send(2).unwrap();
    assert_eq!(woken.count(), 1);
}

// The end.

#[test]
fn d7_what_waits_for_an_answer_is_told_when_the_receiver_goes() {
    let (sender, receiver) = channel(128);
    let answers: Vec<_> = (0..100)
        .map(|_| {
            let (request, answer) = oneshot::channel::<()>();
            sender.try_send(request).unwrap();
            answer
        })
        .collect();
    drop(receiver);
    for mut answer in answers {
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
    assert!(sender.is_closed());
}

#[test]
fn d7_a_send_that_races_the_end_is_refused_or_told() {
    const ROUNDS: usize = 2_000;
    let barrier = Arc::new(Barrier::new(2));
    let slot: Arc<Mutex<Option<Sender<oneshot::Sender<()>>>>> = Arc::default();
    let (mut accepted, mut refused) = (0, 0);
    let thread = {
        let (barrier, slot) = (barrier.clone(), slot.clone());
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                barrier.wait();
                let sender = slot.lock().unwrap().take().expect("set before the barrier");
                for _ in 0..8 {
                    let (request, mut answer) = oneshot::channel();
                    match sender.try_send(request) {
                        Ok(()) => accepted += 1,
                        Err(TrySendError::Closed(request)) => {
                            assert!(!request.is_closed());
                            refused += 1;
                            continue;
                        }
                        Err(TrySendError::Full(_)) => unreachable!("there is room for all"),
                    }
                    // By the end of the channel, not by that of the sender, which is still here.
                    block_on(|cx| Pin::new(&mut answer).poll(cx)).unwrap_err();
                }
                barrier.wait();
            }
            (accepted, refused)
        })
    };
    for _ in 0..ROUNDS {
        let (sender, receiver) = channel(8);
        *slot.lock().unwrap() = Some(sender);
        barrier.wait();
        drop(receiver);
        barrier.wait();
    }
    let (accepted, refused) = thread.join().unwrap();
    assert!(refused > 0, "of {} none met the end", accepted + refused);
}

#[test]
fn messages_go_with_the_receiver_and_not_with_the_senders() {
    let (sender, receiver) = channel(64);
    let weak: Vec<Weak<()>> = (0..64)
        .map(|_| {
            let message = Arc::new(());
            let weak = Arc::downgrade(&message);
            // Over all the queues that the channel has.
            sender.clone().try_send(message).unwrap();
            weak
        })
        .collect();
    drop(receiver);
    assert!(weak.iter().all(|message| message.upgrade().is_none()));
    drop(sender);
}

#[test]
fn a_message_that_panics_as_it_is_dropped_does_not_keep_the_others() {
    struct Panics(bool, #[expect(dead_code, reason = "counted")] Arc<()>);
    impl Drop for Panics {
        fn drop(&mut self) {
            assert!(!self.0, "as it was asked to");
        }
    }
    let (sender, receiver) = channel(8);
    let alive = Arc::new(());
    for index in 0..8 {
        let message = Panics(index == 2, alive.clone());
        assert!(sender.clone().try_send(message).is_ok());
    }
    catch_unwind(AssertUnwindSafe(|| drop(receiver))).unwrap_err();
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_closed_channel_gives_the_message_back() {
    let (sender, mut receiver) = channel(1);
    sender.try_send("accepted").unwrap();
    let waits = sender.clone();
    let mut waiting = waits.send("waiting");
    assert!(poll_once(&mut waiting).is_pending());
    receiver.close();
    assert_eq!(poll_once(&mut waiting), Poll::Ready(Err(Closed("waiting"))));
    assert_eq!(sender.try_send("late"), Err(TrySendError::Closed("late")));
    assert_eq!(send(&sender, "later"), Err(Closed("later")));
    // What was accepted is received, and then nothing more can come.
    assert_eq!(receive(&mut receiver), Some("accepted"));
    assert_eq!(receive(&mut receiver), None);
}

#[test]
fn a_weak_sender_revives_an_abandoned_channel_and_no_closed_one() {
    let (sender, mut receiver) = channel(1);
    let weak = sender.downgrade();
    drop(sender);
    assert!(receiver.is_finished());
    let sender = weak.upgrade().expect("it is open");
    assert!(!receiver.is_abandoned());
    sender.try_send(1).unwrap();
    drop(sender);
    assert_eq!(receive(&mut receiver), Some(1));
    assert_eq!(receive(&mut receiver), None);
    assert!(weak.upgrade().is_none());
}

// Room.

#[test]
fn a_full_channel_gives_the_message_back() {
    let (sender, mut receiver) = channel(2);
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
    assert_eq!(sender.capacity(), 2);
    assert_eq!(receiver.len(), 2);
    assert_eq!(receive(&mut receiver), Some(1));
    assert_eq!(receive(&mut receiver), Some(2));
    assert_eq!(receiver.try_next(), None);
    sender.try_send(3).unwrap();
}

#[test]
fn the_capacity_is_exact_under_contention() {
    const CAPACITY: usize = 100;
    let (sender, mut receiver) = channel(CAPACITY);
    let barrier = Barrier::new(THREADS);
    let fill = |sender: &Sender<usize>| {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let sender = sender.clone();
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        (0..CAPACITY)
                            .filter(|n| sender.try_send(*n).is_ok())
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap())
                .sum::<usize>()
        })
    };
    for _ in 0..20 {
        assert_eq!(fill(&sender), CAPACITY);
        assert_eq!(receiver.len(), CAPACITY);
        assert_eq!(std::iter::from_fn(|| receiver.try_next()).count(), CAPACITY);
    }
    // And while it is received from, through all the ways to take and to give up a place.
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let sender = sender.clone();
                scope.spawn(move || {
                    for round in 0..1_000 {
                        match (thread + round) % 3 {
                            0 => drop(sender.try_send(0)),
                            1 => drop(poll_once(&mut sender.send(0))),
                            _ => send(&sender, 0).expect("it is open"),
                        }
                    }
                })
            })
            .collect();
        let receiver = &mut receiver;
        let watch = scope.spawn(move || {
            let mut cx = Context::from_waker(Waker::noop());
            while !done.load(Ordering::Acquire) {
                assert!(receiver.len() <= CAPACITY);
                if receiver.poll_next(&mut cx).is_pending() {
                    thread::yield_now();
                }
            }
            while receiver.try_next().is_some() {}
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        done.store(true, Ordering::Release);
        watch.join().unwrap();
    });
    // Every place has come back.
    assert_eq!(fill(&sender), CAPACITY);
    assert_eq!(receiver.len(), CAPACITY);
}

#[test]
fn those_who_wait_are_served_in_turn_and_before_newcomers() {
    let (sender, mut receiver) = channel(1);
    sender.try_send(0).unwrap();
    let mut waiting: Vec<_> = (1..=4).map(|value| sender.send(value)).collect();
    for future in &mut waiting {
        assert!(poll_once(future).is_pending());
    }
    for turn in 0..4 {
        assert_eq!(receiver.try_next(), Some(turn));
        // The place is given back when the receiver finds nothing more.
        assert_eq!(receiver.try_next(), None);
        assert_eq!(sender.try_send(99), Err(TrySendError::Full(99)));
        assert!(poll_once(&mut sender.send(98)).is_pending());
        // Only the first in the line has a place.
        for future in waiting.iter_mut().skip(1) {
            assert!(poll_once(future).is_pending());
        }
        assert_eq!(poll_once(&mut waiting.remove(0)), Poll::Ready(Ok(())));
    }
    assert_eq!(receiver.try_next(), Some(4));
    assert_eq!(receiver.try_next(), None);
    sender.try_send(5).unwrap();
}

#[test]
fn a_send_that_is_given_up_leaves_no_hole() {
    for given_up in 0..3 {
        for granted in [false, true] {
            let (sender, mut receiver) = channel(1);
            sender.try_send(0).unwrap();
            let mut waiting: Vec<_> = (1..=3).map(|value| sender.send(value)).collect();
            for future in &mut waiting {
                assert!(poll_once(future).is_pending());
            }
            let mut expected = vec![1, 2, 3];
            let mut received = Vec::new();
            if granted {
                // The first has a place, which it may be about to give up.
                assert_eq!(receiver.try_next(), Some(0));
                assert_eq!(receiver.try_next(), None);
            }
            expected.remove(given_up);
            drop(waiting.remove(given_up));
            for _ in 0..3 {
                waiting.retain_mut(|future| poll_once(future).is_pending());
                received.extend(std::iter::from_fn(|| receiver.try_next()).filter(|v| *v > 0));
            }
            assert_eq!(received, expected);
            assert_eq!(receiver.try_next(), None);
            sender.try_send(4).unwrap();
            assert_eq!(sender.try_send(5), Err(TrySendError::Full(5)));
        }
    }
}

#[test]
fn a_granted_place_is_no_message() {
    let (sender, mut receiver) = channel(1);
    sender.try_send(0).unwrap();
    let mut granted = sender.send(1);
    assert!(poll_once(&mut granted).is_pending());
    assert_eq!(receiver.try_next(), Some(0));
    assert_eq!(receiver.try_next(), None);
    assert!(receiver.is_empty());
    assert_eq!(receiver.len(), 0);
    assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    // One that is never given back does not keep the channel from ending.
    std::mem::forget(granted);
    drop(sender);
    assert!(receiver.is_finished());
    assert_eq!(receive(&mut receiver), None);
}

// Foreign code: what a waker does is its owner's.

/// Whether `work` comes to its end. What it must not do is wait for itself.
fn comes_to_its_end(work: impl FnOnce() + Send + 'static) {
    let (done, wait) = std::sync::mpsc::channel();
    thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    wait.recv_timeout(std::time::Duration::from_secs(10))
        .expect("it waits for itself, or it panicked");
}

#[test]
fn a_waker_may_drop_the_receiver_on_the_spot() {
    struct DropReceiver(Mutex<Option<Receiver<u8>>>);
    impl Wake for DropReceiver {
        fn wake(self: Arc<Self>) {
            let receiver = self.0.lock().unwrap().take();
            drop(receiver);
        }
    }
    comes_to_its_end(|| {
        let (sender, receiver) = channel(2);
        let task = Arc::new(DropReceiver(Mutex::new(Some(receiver))));
        let waker = Waker::from(task.clone());
        let mut cx = Context::from_waker(&waker);
        let poll = match &mut *task.0.lock().unwrap() {
            Some(receiver) => receiver.poll_ready(&mut cx),
            None => unreachable!("nothing has woken"),
        };
        assert!(poll.is_pending());
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Err(TrySendError::Closed(2)));
    });
}

#[test]
fn a_waker_may_send_on_the_spot() {
    struct SendOnce(Sender<u8>);
    impl Wake for SendOnce {
        fn wake(self: Arc<Self>) {
            self.0.try_send(2).unwrap();
        }
    }
    comes_to_its_end(|| {
        let (sender, mut receiver) = channel(2);
        // Both use the one queue of two: clones take turns.
        let (other, same) = (sender.clone(), sender.clone());
        for sends in [other, same] {
            let waker = Waker::from(Arc::new(SendOnce(sends)));
            assert!(
                receiver
                    .poll_ready(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            sender.try_send(1).unwrap();
            assert_eq!(receiver.len(), 2);
            assert_eq!(std::iter::from_fn(|| receiver.try_next()).sum::<u8>(), 3);
        }
    });
}

#[test]
fn a_waker_that_panics_harms_no_other_sender() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("as it was asked to");
        }
    }
    let (sender, mut receiver) = channel(4);
    let waker = Waker::from(Arc::new(Panics));
    assert!(
        receiver
            .poll_ready(&mut Context::from_waker(&waker))
            .is_pending()
    );
    catch_unwind(AssertUnwindSafe(|| sender.try_send(1))).unwrap_err();
    sender.try_send(2).unwrap();
    assert_eq!(receive(&mut receiver), Some(1));
    assert_eq!(receive(&mut receiver), Some(2));
}

#[test]
fn the_waker_of_a_waiting_send_may_own_another_one() {
    struct Owns(#[expect(dead_code, reason = "owned")] Mutex<SendFuture<'static, u8>>);
    impl Wake for Owns {
        fn wake(self: Arc<Self>) {}
    }
    comes_to_its_end(|| {
        let (sender, _receiver) = channel(1);
        let sender: &'static Sender<u8> = Box::leak(Box::new(sender));
        sender.try_send(0).unwrap();
        let mut inner = sender.send(1);
        assert!(poll_once(&mut inner).is_pending());
        let owner = Waker::from(Arc::new(Owns(Mutex::new(inner))));
        let mut outer = sender.send(2);
        let poll = Pin::new(&mut outer).poll(&mut Context::from_waker(&owner));
        assert!(poll.is_pending());
        drop(owner);
        // Replaces the waker, which was the last to own the other future.
        assert!(poll_once(&mut outer).is_pending());
        drop(outer);
    });
}

// A connection on the channel.

/// Sends what arrives into its own connection's channel, if it keeps a way into it.
struct Loops {
    sender: Option<WeakSender<String>>,
    wants_outbound: bool,
}

impl MessageReactor for Loops {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        _: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> ReactorStatus {
        let sender = self.sender.as_ref().and_then(WeakSender::upgrade);
        sender
            .expect("it is open")
            .try_send(message)
            .expect("there is room");
        ReactorStatus::Continue
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> Result<(), SendError<String>> {
        context.send(message)
    }

    fn wants_outbound(&self, _room: protosocket::Room) -> bool {
        self.wants_outbound
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_reactor_sends_to_itself_costs_no_second_poll() {
    let (near, mut far) = tokio::io::duplex(1024);
    let (sender, receiver) = channel(8);
    let reactor = Loops {
        sender: Some(sender.downgrade()),
        wants_outbound: true,
    };
    let config = ConnectionConfig::server(Limits::default()).unwrap();
    let mut connection = Connection::new(near, LinesCodec::new(), reactor, receiver, &config);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut connection).poll(&mut cx).is_pending());
    for round in 1..=3 {
        far.write_all(b"hello\n").await.unwrap();
        assert_eq!(woken.count(), round, "by the bytes");
        assert!(Pin::new(&mut connection).poll(&mut cx).is_pending());
        assert_eq!(woken.count(), round, "by its own message");
        let mut reply = [0; 7];
        far.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"hello\r\n");
    }
    sender.try_send("from outside".to_owned()).unwrap();
    assert_eq!(woken.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_messages_hears_that_its_last_sender_has_gone() {
    let (near, _far) = tokio::io::duplex(1024);
    let (sender, receiver) = channel(8);
    let reactor = Loops {
        sender: None,
        wants_outbound: false,
    };
    let config = ConnectionConfig::client(Limits::default()).unwrap();
    let mut connection = Connection::new(near, LinesCodec::new(), reactor, receiver, &config);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut connection).poll(&mut cx).is_pending());
    drop(sender);
    assert_eq!(woken.count(), 1);
    assert!(Pin::new(&mut connection).poll(&mut cx).is_ready());
}
