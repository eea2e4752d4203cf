//! A busy server of calls allocates nothing for a call that is ready at once, or pending once, and holds
//! a bounded amount of memory for calls that never finish. A busy client allocates nothing for a unary
//! call, nor for an item of a stream.
//!
//! A program of its own, because an allocator that counts is one for a whole program.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Buf;
use futures_core::Stream;
use protosocket::{
    Connection, ConnectionConfig, DecodeError, Decoded, Decoder, EncodeError, Encoder, Input,
    Limits, ManualClock, SendBuffer, channel,
};
use protosocket_rpc::{
    RpcServerConfig,
    client::{Configuration, RpcClient, RpcCompletionReactor},
    server::{ConnectionService, RpcKind, RpcReactor},
};
use protosocket_testkit::{
    CountingAllocator, INSTRUMENTED_SYSTEM, Repeater, RepeatingStream, alone, repeating_stream,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

/// A message of a fixed size that divides what a connection reads at once, so that no read ends inside
/// of one: the beginning of a message is kept in memory of its own.
#[derive(Debug, Clone, Copy, Default)]
struct Number {
    id: u64,
    code: u8,
}

const SIZE: usize = 16;

protosocket_rpc::messages! {
    Number { id, code }
}

struct Numbers;

impl Decoder for Numbers {
    type Message = Number;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Number>, DecodeError> {
        let Some(mut bytes) = input.bytes().get(..SIZE) else {
            return Ok(Decoded::Need(SIZE));
        };
        let id = bytes.get_u64();
        let code = bytes.get_u8();
        input.advance(SIZE);
        Ok(Decoded::Message(Number { id, code }))
    }
}

impl Encoder for Numbers {
    type Message = Number;

    fn encode(&mut self, message: Number, output: &mut SendBuffer) -> Result<(), EncodeError> {
        output.put_u64(message.id);
        output.put_slice(&[message.code, 0, 0, 0, 0, 0, 0, 0]);
        Ok(())
    }
}

/// Requests with different ids.
fn requests(count: usize) -> Vec<u8> {
    (1..=count as u64)
        .flat_map(|id| {
            let mut bytes = [0; SIZE];
            bytes[..8].copy_from_slice(&id.to_be_bytes());
            bytes
        })
        .collect()
}

/// Requests that a connection reads at once.
const IDS: usize = 1024;

#[derive(Clone, Copy)]
enum Kind {
    Ready,
    /// Pending so many times, each of which it wakes itself.
    Pending(u32),
    /// A stream of so many items.
    Stream(u32),
    Never,
}

struct Service(Kind);

struct Rpc {
    number: Number,
    kind: Kind,
}

impl Future for Rpc {
    type Output = Number;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Number> {
        match &mut self.kind {
            Kind::Pending(0) | Kind::Ready => return Poll::Ready(self.number),
            Kind::Pending(left) => {
                *left -= 1;
                cx.waker().wake_by_ref();
            }
            Kind::Stream(_) | Kind::Never => {}
        }
        Poll::Pending
    }
}

impl Stream for Rpc {
    type Item = Number;

    fn poll_next(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Number>> {
        let number = self.number;
        match &mut self.kind {
            Kind::Stream(left) if *left > 0 => {
                *left -= 1;
                Poll::Ready(Some(number))
            }
            _ => Poll::Ready(None),
        }
    }
}

impl ConnectionService for Service {
    type Codec = Numbers;
    type Request = Number;
    type Response = Number;
    type UnaryFutureType = Rpc;
    type StreamType = Rpc;

    fn new_rpc(&mut self, number: Number) -> RpcKind<Rpc, Rpc> {
        let rpc = Rpc {
            number,
            kind: self.0,
        };
        match self.0 {
            Kind::Stream(_) => RpcKind::Streaming(rpc),
            _ => RpcKind::Unary(rpc),
        }
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

struct Busy {
    connection: Connection<RepeatingStream, RpcReactor<Service>>,
    peer: Repeater,
    flag: Arc<Flag>,
    clock: ManualClock,
}

impl Busy {
    fn new(kind: Kind) -> Self {
        Self::over(IDS, kind)
    }

    /// With a peer that sends so many requests with different ids, again and again.
    fn over(ids: usize, kind: Kind) -> Self {
        let (stream, peer) = repeating_stream(&requests(ids));
        let (_, receiver) = channel::<Infallible>(1);
        let clock = ManualClock::new();
        let config = ConnectionConfig::server(Limits::server())
            .expect("the defaults are valid")
            .with_clock(Arc::new(clock.clone()));
        let reactor = RpcReactor::new(Service(kind), &RpcServerConfig::default());
        let reactor = reactor.expect("the defaults are valid");
        Self {
            connection: Connection::new(stream, Numbers, reactor, receiver, &config),
            peer,
            flag: Arc::new(Flag(AtomicBool::new(true))),
            clock,
        }
    }

    /// Let all requests arrive so many times.
    fn receive(&mut self, times: usize) {
        self.peer.send(times);
        self.settle();
    }

    fn settle(&mut self) {
        let waker = Waker::from(self.flag.clone());
        let mut cx = Context::from_waker(&waker);
        while self.flag.0.swap(false, Ordering::Relaxed) {
            assert!(Pin::new(&mut self.connection).poll(&mut cx).is_pending());
        }
    }
}

/// How often `work` allocates, growing a buffer included.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.stats();
    work();
    let after = ALLOCATOR.stats();
    after.allocations + after.reallocations - before.allocations - before.reallocations
}

/// Run the test `name`: calls of this kind, each of which is answered with so many messages, and none
/// of which may allocate.
fn expect_none(name: &str, kind: Kind, answers: usize) {
    const FEW: usize = 2;
    alone(name, || {
        let mut busy = Busy::new(kind);
        let mut allocated = |batches: usize| {
            let written = busy.peer.written();
            let allocated = allocations(|| {
                for _ in 0..batches {
                    busy.receive(1);
                }
            });
            let written = busy.peer.written() - written;
            assert_eq!(written, batches * IDS * SIZE * answers);
            allocated
        };
        // Slots, queues and buffers grow until they hold what is in flight at once.
        allocated(10 * FEW);
        // The thread that has started this one may allocate in the beginning.
        let rounds: Vec<_> = (0..10)
            .map(|_| [allocated(FEW), allocated(10 * FEW)])
            .collect();
        assert!(
            rounds.contains(&[0, 0]),
            "allocations in {FEW} batches and in ten times as many: {rounds:?}"
        );
    });
}

#[test]
fn ready_calls_allocate_nothing() {
    expect_none("ready_calls_allocate_nothing", Kind::Ready, 1);
}

#[test]
fn calls_that_are_pending_once_allocate_nothing() {
    let name = "calls_that_are_pending_once_allocate_nothing";
    expect_none(name, Kind::Pending(1), 1);
}

#[test]
fn streams_allocate_nothing() {
    expect_none("streams_allocate_nothing", Kind::Stream(3), 4);
}

/// What is written comes back: each request is its own response.
#[derive(Default)]
struct Mirror {
    bytes: VecDeque<u8>,
    reader: Option<Waker>,
}

impl AsyncRead for Mirror {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        while buffer.remaining() > 0 && !self.bytes.is_empty() {
            let part = self.bytes.as_slices().0;
            let count = part.len().min(buffer.remaining());
            buffer.put_slice(&part[..count]);
            self.bytes.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Mirror {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bytes.extend(bytes);
        self.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A client and its connection, each polled by hand.
struct Calling<S: AsyncRead + AsyncWrite + Unpin> {
    client: RpcClient<Number, Number>,
    connection: Connection<S, RpcCompletionReactor<Numbers>>,
    waker: Waker,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Calling<S> {
    fn new(stream: S) -> Self {
        let (client, reactor) = RpcCompletionReactor::new(&Configuration::new());
        let (_, receiver) = channel::<Infallible>(1);
        let config = ConnectionConfig::client(Limits::client())
            .expect("the defaults are valid")
            .with_clock(Arc::new(ManualClock::new()));
        Self {
            client,
            connection: Connection::new(stream, Numbers, reactor, receiver, &config),
            waker: Waker::from(Arc::new(Flag::default())),
        }
    }

    fn connection(&mut self) {
        let mut cx = Context::from_waker(&self.waker);
        assert!(Pin::new(&mut self.connection).poll(&mut cx).is_pending());
    }

    fn poll<F: Future + Unpin>(&self, call: &mut F) -> Poll<F::Output> {
        Pin::new(call).poll(&mut Context::from_waker(&self.waker))
    }

    fn poll_next<T: Stream + Unpin>(&self, stream: &mut T) -> Poll<Option<T::Item>> {
        Pin::new(stream).poll_next(&mut Context::from_waker(&self.waker))
    }
}

/// Calls that are in flight at once. More than what is delivered, or sent, at once.
const CALLS: usize = 1000;

/// The allocations of unary calls, whose ids are `chosen` by the caller or are not, in rounds of two
/// batches and of ten times as many.
fn allocated_by_calls(chosen: bool) -> Vec<[usize; 2]> {
    let mut calling = Calling::new(Mirror::default());
    let mut calls = Vec::with_capacity(CALLS);
    let mut run = |times: usize| {
        for _ in 0..times {
            for number in 1..=CALLS as u64 {
                let id = if chosen { number } else { 0 };
                let mut call = calling.client.send_unary(Number { id, code: 0 }).unwrap();
                assert!(calling.poll(&mut call).is_pending());
                calls.push(call);
            }
            calling.connection();
            for call in &mut calls {
                assert!(matches!(calling.poll(call), Poll::Ready(Ok(_))));
            }
            calls.clear();
        }
    };
    run(2);
    (0..10)
        .map(|_| [2, 20].map(|times| allocations(|| run(times))))
        .collect()
}

#[test]
fn a_client_allocates_nothing_for_unary_calls() {
    alone("a_client_allocates_nothing_for_unary_calls", || {
        for chosen in [false, true] {
            let rounds = allocated_by_calls(chosen);
            assert!(
                rounds.contains(&[0, 0]),
                "allocations in two batches and in ten times as many: {rounds:?}"
            );
        }
    });
}

/// Items of the stream 1 that arrive at once.
const ITEMS: usize = 60;

#[test]
fn a_client_allocates_nothing_for_the_items_of_a_stream() {
    let name = "a_client_allocates_nothing_for_the_items_of_a_stream";
    alone(name, || {
        let (stream, peer) = repeating_stream(&requests(1).repeat(ITEMS));
        let mut calling = Calling::new(stream);
        let request = Number { id: 1, code: 0 };
        let mut streaming = calling.client.send_streaming(request).unwrap();
        assert!(calling.poll_next(&mut streaming).is_pending());
        calling.connection();
        let mut run = |times: usize| {
            for _ in 0..times {
                peer.send(1);
                calling.connection();
                for _ in 0..ITEMS {
                    let item = calling.poll_next(&mut streaming);
                    assert!(matches!(item, Poll::Ready(Some(Ok(_)))));
                }
                assert!(calling.poll_next(&mut streaming).is_pending());
            }
        };
        // There are two queues, which take turns.
        run(4);
        let rounds: Vec<_> = (0..10)
            .map(|_| [2, 20].map(|times| allocations(|| run(times))))
            .collect();
        assert!(
            rounds.contains(&[0, 0]),
            "allocations in two batches and in ten times as many: {rounds:?}"
        );
    });
}

/// A counter that counts nothing would find nothing.
#[test]
fn an_allocation_is_counted() {
    alone("an_allocation_is_counted", || {
        let allocated = allocations(|| drop(std::hint::black_box(Box::new(7))));
        assert_eq!(allocated, 1);
    });
}

/// What is allocated and not freed, in bytes.
fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

#[test]
fn calls_that_never_finish_hold_a_bounded_amount_of_memory() {
    let name = "calls_that_never_finish_hold_a_bounded_amount_of_memory";
    alone(name, || {
        // The same ids again: half of the calls end the other half. Different ids: up to the limit.
        let mut busy = Busy::new(Kind::Never);
        busy.receive(10);
        let held = live();
        busy.receive(1000);
        assert!(live() <= held, "{} bytes more", live() - held);

        drop(busy);
        let before = live();
        let mut busy = Busy::over(100 * IDS, Kind::Never);
        busy.receive(1);
        let stats = busy.connection.stats();
        assert_eq!(stats.messages_in, 100 * IDS as u64);
        assert_eq!(stats.unanswered, 4096);
        // The stream has its bytes twice.
        let held = live() - before - 2 * 100 * IDS * SIZE;
        assert!(held < 4096 * 512, "{held} bytes for 4,096 calls");
    });
}

#[test]
fn an_idle_connection_gives_back_what_a_burst_took() {
    let name = "an_idle_connection_gives_back_what_a_burst_took";
    alone(name, || {
        let mut busy = Busy::new(Kind::Pending(1));
        // What a thread keeps for its connections is there.
        Busy::new(Kind::Pending(1)).receive(1);
        let before = live();
        busy.receive(1);
        assert_eq!(busy.connection.stats().messages_out, IDS as u64);
        let burst = live() - before;
        // The first time, because they were in use; the second, because they were not.
        for _ in 0..2 {
            assert!(live() - before >= burst);
            busy.clock.advance(Duration::from_secs(10));
            busy.settle();
        }
        let held = live() - before;
        assert!(held < 2048 && held < burst / 10, "{held} bytes of {burst}");
        // And it is as good as before.
        busy.receive(1);
        assert_eq!(busy.connection.stats().messages_out, 2 * IDS as u64);
    });
}
