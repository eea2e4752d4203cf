//! A busy connection with pooled payloads, or views, allocates nothing per message, either way.
//!
//! A program of its own, because an allocator that counts is one for a whole program.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use protosocket::{
    Connection, ConnectionConfig, LengthDelimitedCodec, Limits, LocalBytes, ManualClock,
    MessageReactor, Payload, PooledBuffer, ReactorContext, ReactorStatus, SendError, Sender,
    TrySendError, U32, WeakSender, channel,
};
use protosocket_testkit::{
    CountingAllocator, INSTRUMENTED_SYSTEM, Repeater, RepeatingStream, Setup, alone, frame, framed,
    repeating_stream, silent,
};

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

type Codec<P> = LengthDelimitedCodec<U32, P>;

/// Of each message, in bytes. With its prefix it divides what a connection reads at once, so that no
/// read ends inside a message: the beginning of one is kept in memory of its own.
const PAYLOAD: usize = 60;

/// What the channel holds. More than a connection decodes before it pulls.
const CAPACITY: usize = 1024;

/// What is done with each message that arrives.
enum Answer<P> {
    Reply,
    Through(WeakSender<P>, Option<Sender<P>>),
    Nothing,
}

impl<P: Payload> MessageReactor for Answer<P> {
    type Codec = Codec<P>;
    type Inbound = P;
    type Outbound = P;
    type LogicalOutbound = P;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec<P>>,
        message: P,
    ) -> ReactorStatus {
        match self {
            Self::Reply => context.reply(message),
            Self::Through(weak, sender) => {
                let sender = sender.get_or_insert_with(|| weak.upgrade().expect("it is open"));
                assert!(sender.try_send(message).is_ok(), "there is room");
                ReactorStatus::Continue
            }
            Self::Nothing => ReactorStatus::Continue,
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec<P>>,
        message: P,
    ) -> Result<(), SendError<P>> {
        context.send(message)
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Busy<P: Payload> {
    connection: Connection<RepeatingStream, Answer<P>>,
    peer: Repeater,
    sender: Sender<P>,
    flag: Arc<Flag>,
}

impl<P: Payload> Busy<P> {
    fn new(answer: impl FnOnce(&Sender<P>) -> Answer<P>) -> Self {
        Self::with_payload(&[7; PAYLOAD], answer)
    }

    fn with_payload(payload: &[u8], answer: impl FnOnce(&Sender<P>) -> Answer<P>) -> Self {
        Self::over(&frame(payload), answer)
    }

    /// With a peer that sends these bytes again and again.
    fn over(bytes: &[u8], answer: impl FnOnce(&Sender<P>) -> Answer<P>) -> Self {
        let (stream, peer) = repeating_stream(bytes);
        let (sender, receiver) = channel(CAPACITY);
        let config = ConnectionConfig::server(Limits::server())
            .expect("the defaults are valid")
            .with_clock(Arc::new(ManualClock::new()));
        let reactor = answer(&sender);
        let connection = Connection::new(stream, Codec::new(), reactor, receiver, &config);
        Self {
            connection,
            peer,
            sender,
            flag: Arc::new(Flag(AtomicBool::new(true))),
        }
    }

    fn settle(&mut self) {
        let waker = Waker::from(self.flag.clone());
        let mut cx = Context::from_waker(&waker);
        while self.flag.0.swap(false, Ordering::Relaxed) {
            assert!(Pin::new(&mut self.connection).poll(&mut cx).is_pending());
        }
    }

    /// Let `count` messages arrive.
    fn receive(&mut self, count: usize) {
        self.peer.send(count);
        self.settle();
    }

    /// Messages that the connection has received and sent.
    fn traffic(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        (stats.messages_in, stats.messages_out)
    }
}

impl Busy<PooledBuffer> {
    /// Send `count` messages from outside of the connection.
    fn send(&mut self, count: usize) {
        for _ in 0..count {
            let mut message = PooledBuffer::new();
            message.extend_from_slice(&[7; PAYLOAD]);
            if let Err(TrySendError::Full(message)) = self.sender.try_send(message) {
                self.settle();
                self.sender.try_send(message).expect("there is room again");
            }
        }
        self.settle();
    }
}

/// How often `work` allocates, growing a buffer included.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.stats();
    work();
    let after = ALLOCATOR.stats();
    after.allocations + after.reallocations - before.allocations - before.reallocations
}

/// Run the test `name`: `exchange` that many messages on the connection, each of which is expected
/// to count as `each` (received, sent), and none of which may allocate.
fn expect_none<P: Payload>(
    name: &str,
    answer: fn(&Sender<P>) -> Answer<P>,
    exchange: fn(&mut Busy<P>, usize),
    each: (u64, u64),
) {
    const FEW: usize = 2_000;
    alone(name, || {
        let mut busy = Busy::new(answer);
        let mut allocated = |messages: usize| {
            let before = busy.traffic();
            let written = busy.peer.written();
            let allocated = allocations(|| exchange(&mut busy, messages));
            let after = busy.traffic();
            let count = messages as u64;
            let traffic = (after.0 - before.0, after.1 - before.1);
            assert_eq!(traffic, (each.0 * count, each.1 * count));
            let written = busy.peer.written() - written;
            assert_eq!(written, traffic.1 as usize * (4 + PAYLOAD));
            allocated
        };
        // Buffers and pools grow until they hold what waits at once.
        allocated(10 * FEW);
        // The thread that has started this one may allocate in the beginning.
        let rounds: Vec<_> = (0..10)
            .map(|_| [allocated(FEW), allocated(10 * FEW)])
            .collect();
        assert!(
            rounds.contains(&[0, 0]),
            "allocations in {FEW} messages and in ten times as many: {rounds:?}"
        );
    });
}

#[test]
fn replies_from_the_reactor_allocate_nothing() {
    expect_none(
        "replies_from_the_reactor_allocate_nothing",
        |_| Answer::Reply,
        Busy::<PooledBuffer>::receive,
        (1, 1),
    );
}

#[test]
fn replies_of_views_allocate_nothing() {
    expect_none(
        "replies_of_views_allocate_nothing",
        |_| Answer::Reply,
        Busy::<LocalBytes>::receive,
        (1, 1),
    );
}

#[test]
fn replies_through_the_channel_allocate_nothing() {
    expect_none(
        "replies_through_the_channel_allocate_nothing",
        |sender| Answer::Through(sender.downgrade(), None),
        Busy::<PooledBuffer>::receive,
        (1, 1),
    );
}

#[test]
fn messages_that_are_only_received_allocate_nothing() {
    expect_none(
        "messages_that_are_only_received_allocate_nothing",
        |_| Answer::Nothing,
        Busy::<PooledBuffer>::receive,
        (1, 0),
    );
}

#[test]
fn messages_that_are_only_sent_allocate_nothing() {
    expect_none(
        "messages_that_are_only_sent_allocate_nothing",
        |_| Answer::Nothing,
        Busy::send,
        (0, 1),
    );
}

/// A counter that counts nothing would find nothing.
#[test]
fn an_allocation_is_counted() {
    alone("an_allocation_is_counted", || {
        let allocated = allocations(|| drop(std::hint::black_box(Box::new(7))));
        assert_eq!(allocated, 1);
        let grown = allocations(|| {
            let mut vec = vec![7_u8];
            vec.reserve_exact(1000);
            drop(std::hint::black_box(vec));
        });
        assert_eq!(grown, 2);
    });
}

/// What is allocated and not freed, in bytes.
fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// How much memory `work` allocates, in bytes.
fn allocated_bytes(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.stats();
    work();
    (ALLOCATOR.stats() - before).bytes_allocated
}

const LARGE: usize = 1024 * 1024;

#[test]
fn large_messages_arrive_in_memory_that_is_used_again() {
    alone("large_messages_arrive_in_memory_that_is_used_again", || {
        for answer in [
            |_: &_| Answer::<PooledBuffer>::Reply,
            |_: &_| Answer::Nothing,
        ] {
            let mut busy = Busy::with_payload(&[7; LARGE], answer);
            busy.receive(10);
            let allocated = allocated_bytes(|| busy.receive(100));
            assert_eq!(busy.traffic().0, 110);
            // Who uses which part of the memory has to be counted somewhere.
            assert!(allocated < LARGE, "{allocated} bytes for 100 messages");
        }
    });
}

#[test]
fn a_thread_keeps_some_memory_for_large_messages() {
    const MANY: usize = 30;
    let name = "a_thread_keeps_some_memory_for_large_messages";
    alone(name, || {
        // Two of these are a message.
        let mut half = vec![7; LARGE / 2];
        half[..4].copy_from_slice(&(LARGE as u32 - 4).to_be_bytes());
        let before = live();
        let mut busy: Vec<_> = (0..MANY)
            .map(|_| {
                let mut busy = Busy::<PooledBuffer>::over(&half, |_| Answer::Nothing);
                busy.receive(1);
                busy
            })
            .collect();
        assert!(
            live() - before > MANY * LARGE / 2,
            "they hold what has come"
        );
        for busy in &mut busy {
            busy.receive(1);
            assert_eq!(busy.traffic().0, 1);
        }
        // Each stream has its bytes twice.
        let kept = live() - before - MANY * 2 * half.len();
        assert!(kept < 6 * LARGE, "{kept} bytes are kept for nobody");
    });
}

#[test]
fn a_large_message_that_comes_slowly_is_not_moved_for_each_byte() {
    alone(
        "a_large_message_that_comes_slowly_is_not_moved_for_each_byte",
        || {
            // Another connection leaves memory that is large enough.
            let mut other = Setup::default().open(framed(), silent());
            other.peer.send(frame(&vec![7; LARGE]));
            other.settle();
            assert_eq!(other.knobs.received(), 1);

            let mut slow = Setup::default().open(framed(), silent());
            let message = frame(&vec![7; LARGE]);
            slow.peer.send(&message[..100_000]);
            slow.settle();
            let allocated = allocated_bytes(|| {
                for &byte in &message[100_000..101_000] {
                    slow.peer.send([byte]);
                    slow.settle();
                }
            });
            assert!(allocated < LARGE, "{allocated} bytes for a thousand");
            slow.peer.send(&message[101_000..]);
            slow.settle();
            assert_eq!(slow.knobs.received(), 1);
        },
    );
}
