//! What a message costs on its way through the channel: `try_send` or `send`, and `try_next`.

use std::{
    hint::black_box,
    pin::pin,
    sync::{Arc, Barrier},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion};
use protosocket::{PooledBuffer, Receiver, Sender, TrySendError, channel};

/// What the channel holds, in messages: more than any batch.
const CAPACITY: usize = 1024;

/// Messages that are sent before they are received: one request in flight, a few, and as many as
/// a connection decodes between two writes.
const BATCHES: [usize; 3] = [1, 64, 512];

/// Sent and received in turn on one thread, as a reactor does that answers through its channel.
fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one_thread");
    for batch in BATCHES {
        group.bench_function(BenchmarkId::new("try_send", batch), |bencher| {
            let (sender, mut receiver) = channel(CAPACITY);
            bencher.iter_custom(|count| {
                in_rows(count, |messages| {
                    round_trips(&mut receiver, batch, messages, |message| {
                        sender.try_send(message).is_ok()
                    })
                })
            });
        });
        group.bench_function(BenchmarkId::new("send_with_room", batch), |bencher| {
            let (sender, mut receiver) = channel(CAPACITY);
            let mut cx = Context::from_waker(Waker::noop());
            bencher.iter_custom(|count| {
                in_rows(count, |messages| {
                    round_trips(&mut receiver, batch, messages, |message| {
                        let sent = pin!(sender.send(message)).poll(&mut cx);
                        matches!(sent, Poll::Ready(Ok(())))
                    })
                })
            });
        });
        group.bench_function(BenchmarkId::new("two_senders", batch), |bencher| {
            let (sender, mut receiver) = channel(CAPACITY);
            let senders = [sender.clone(), sender];
            let mut turn = 0;
            bencher.iter_custom(|count| {
                in_rows(count, |messages| {
                    round_trips(&mut receiver, batch, messages, |message| {
                        turn ^= 1;
                        senders[turn].try_send(message).is_ok()
                    })
                })
            });
        });
    }
}

/// Time `messages`: `send` for `batch` of them and the receiving of these, and so on.
fn round_trips(
    receiver: &mut Receiver<PooledBuffer>,
    batch: usize,
    messages: Vec<PooledBuffer>,
    mut send: impl FnMut(PooledBuffer) -> bool,
) -> Duration {
    let mut cx = Context::from_waker(Waker::noop());
    let mut messages = messages.into_iter();
    let begun = Instant::now();
    while messages.len() > 0 {
        // As a connection does at the beginning of its poll.
        receiver.disarm();
        for message in messages.by_ref().take(batch) {
            assert!(send(message), "there is room");
        }
        while let Some(message) = receiver.try_next() {
            drop(black_box(message));
        }
        // And at its end.
        assert!(receiver.poll_ready(&mut cx).is_pending());
    }
    begun.elapsed()
}

/// Sum what `time` takes for `count` messages, at most 512 of them at once: looking at the clock
/// costs as much as a message.
fn in_rows(count: u64, mut time: impl FnMut(Vec<PooledBuffer>) -> Duration) -> Duration {
    let mut left = count;
    let mut total = Duration::ZERO;
    while left > 0 {
        let row = left.min(512);
        total += time((0..row).map(|_| PooledBuffer::new()).collect());
        left -= row;
    }
    total
}

/// From other threads, which are as fast as the receiver lets them be.
fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("threads");
    for count in [1, 2, 4] {
        group.bench_function(BenchmarkId::new("try_send", count), |bencher| {
            bencher.iter_custom(|messages| {
                from_threads(count, messages, |sender, message| {
                    let mut message = message;
                    while let Err(TrySendError::Full(refused)) = sender.try_send(message) {
                        message = refused;
                        thread::yield_now();
                    }
                })
            });
        });
        group.bench_function(BenchmarkId::new("send", count), |bencher| {
            bencher.iter_custom(|messages| {
                from_threads(count, messages, |sender, message| {
                    let mut sending = pin!(sender.send(message));
                    let sent = block_on(|cx| sending.as_mut().poll(cx));
                    assert!(sent.is_ok(), "it is open");
                })
            });
        });
    }
}

/// Time `messages` messages from `count` threads to this one.
fn from_threads(count: u64, messages: u64, send: impl Fn(&Sender<u64>, u64) + Sync) -> Duration {
    let (sender, mut receiver) = channel(CAPACITY);
    let barrier = Barrier::new(count as usize + 1);
    let (barrier, send) = (&barrier, &send);
    thread::scope(|scope| {
        for index in 0..count {
            let sender = sender.clone();
            let share = messages / count + u64::from(index < messages % count);
            scope.spawn(move || {
                barrier.wait();
                (0..share).for_each(|message| send(&sender, message));
            });
        }
        drop(sender);
        barrier.wait();
        let begun = Instant::now();
        let mut received = 0;
        block_on(|cx| {
            while let Some(message) = std::task::ready!(receiver.poll_next(cx)) {
                black_box(message);
                received += 1;
            }
            Poll::Ready(())
        });
        let elapsed = begun.elapsed();
        assert_eq!(received, messages);
        elapsed
    })
}

fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = poll(&mut cx) {
            return value;
        }
        thread::park();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    one_thread(&mut criterion);
    threads(&mut criterion);
    criterion.final_summary();
}
