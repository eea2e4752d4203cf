//! A busy server of calls allocates nothing for a call that is ready at once, or pending once, and holds
//! a bounded amount of memory for calls that never finish.
//!
//! A program of its own, because an allocator that counts is one for a whole program.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Buf;
use futures_core::Stream;
use protosocket::{
    Connection, ConnectionConfig, DecodeError, Decoded, Decoder, EncodeError, Encoder, Input,
    Limits, ManualClock, SendBuffer, channel,
};
use protosocket_rpc::{
    Message, ProtosocketControlCode, RpcServerConfig,
    server::{ConnectionService, RpcKind, RpcReactor},
};
use protosocket_testkit::{
    CountingAllocator, INSTRUMENTED_SYSTEM, Repeater, RepeatingStream, alone, repeating_stream,
};

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

/// A message of a fixed size that divides what a connection reads at once, so that no read ends inside
/// of one: the beginning of a message is kept in memory of its own.
#[derive(Debug, Clone, Copy)]
struct Number {
    id: u64,
    code: u8,
}

const SIZE: usize = 16;

impl Message for Number {
    fn message_id(&self) -> u64 {
        self.id
    }

    fn control_code(&self) -> ProtosocketControlCode {
        ProtosocketControlCode::from_u8(self.code)
    }

    fn set_message_id(&mut self, message_id: u64) {
        self.id = message_id;
    }

    fn cancelled(message_id: u64) -> Self {
        Self {
            id: message_id,
            code: 1,
        }
    }

    fn ended(message_id: u64) -> Self {
        Self {
            id: message_id,
            code: 2,
        }
    }
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

/// Requests with different ids, as many as may be in flight.
fn requests() -> Vec<u8> {
    (1..=IDS as u64)
        .flat_map(|id| {
            let mut bytes = [0; SIZE];
            bytes[..8].copy_from_slice(&id.to_be_bytes());
            bytes
        })
        .collect()
}

/// What a connection reads at once.
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
}

impl Busy {
    fn new(kind: Kind) -> Self {
        let (stream, peer) = repeating_stream(&requests());
        let (_, receiver) = channel::<Infallible>(1);
        let config = ConnectionConfig::server(Limits::server())
            .expect("the defaults are valid")
            .with_clock(Arc::new(ManualClock::new()));
        let reactor = RpcReactor::new(Service(kind), &RpcServerConfig::default());
        let reactor = reactor.expect("the defaults are valid");
        Self {
            connection: Connection::new(stream, Numbers, reactor, receiver, &config),
            peer,
            flag: Arc::new(Flag(AtomicBool::new(true))),
        }
    }

    /// Let `count` requests arrive.
    fn receive(&mut self, count: usize) {
        self.peer.send(count);
        let waker = Waker::from(self.flag.clone());
        let mut cx = Context::from_waker(&waker);
        while self.flag.0.swap(false, Ordering::Relaxed) {
            assert!(Pin::new(&mut self.connection).poll(&mut cx).is_pending());
        }
    }
}
