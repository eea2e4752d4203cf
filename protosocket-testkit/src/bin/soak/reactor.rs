//! What the server does with each request.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protosocket::{
    CloseReason, ConnectionStats, LengthDelimitedCodec, MessageReactor, PooledBuffer,
    ReactorContext, ReactorStatus, SendError, Sender, StreamWithAddress, TcpSocketListener, U32,
    WeakSender,
};
use protosocket_server::{ServerConnection, ServerConnector};
use tokio::net::TcpStream;

use crate::args::Sabotage;
use crate::ledger::Ledger;
use crate::protocol::{MAX_PAYLOAD, Operation, Request, answer};
use crate::verdict::KEPT_BY_THREADS;

/// Of so many echoes, one is not answered under [`Sabotage::Lose`], and is the last under
/// [`Sabotage::Die`].
const ONE_OF: u64 = 300;

/// Of so many connections, one leaves a descriptor behind under [`Sabotage::Clutch`].
const ONE_OF_CONNECTIONS: u64 = 10;

/// Half of every such time, under [`Sabotage::Stall`], whoever hears a request stands still.
const STALL_PERIOD: Duration = Duration::from_millis(500);

/// The connection that leaves memory behind under [`Sabotage::Hoard`]: after the warm-up of a case,
/// which takes 118 in `flood`, and before its end, which is beyond 180.
const HOARDING: u64 = 150;

/// What it leaves behind, in bytes: more than threads may keep for themselves, which is in what they
/// held before.
const HOARD: usize = 2 * KEPT_BY_THREADS as usize;

pub(crate) type Codec = LengthDelimitedCodec<U32, PooledBuffer>;

/// Makes the connections of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) echoes: Arc<AtomicU64>,
    pub(crate) connections: Arc<AtomicU64>,
    /// An answer was dropped under [`Sabotage::Forget`].
    pub(crate) forgotten: Arc<AtomicBool>,
    /// When the server started, from which [`Sabotage::Stall`] counts.
    pub(crate) started: Instant,
}

impl ServerConnector for Connector {
    type Codec = Codec;
    type Reactor = Reactor;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> Codec {
        Codec::new().max_length(MAX_PAYLOAD as u64)
    }

    fn new_reactor(&self, outbound: Sender<u64>, _: &StreamWithAddress<TcpStream>) -> Reactor {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        match self.sabotage {
            Some(Sabotage::Leak) => std::mem::forget(vec![0_u8; 512]),
            // Not zeros, which take no memory before they are written.
            Some(Sabotage::Hoard) if number == HOARDING => {
                std::mem::forget(std::hint::black_box(vec![1_u8; HOARD]));
            }
            Some(Sabotage::Clutch) if number.is_multiple_of(ONE_OF_CONNECTIONS) => {
                std::mem::forget(File::open("/dev/null"));
            }
            _ => {}
        }
        Reactor {
            connector: self.clone(),
            outbound: outbound.downgrade(),
            delayed: BinaryHeap::new(),
            never: 0,
            in_tasks: Arc::default(),
        }
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

/// One connection of the server.
#[derive(Debug)]
pub(crate) struct Reactor {
    connector: Connector,
    outbound: WeakSender<u64>,
    /// Answers that are due at an instant.
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Requests that are to have no answer.
    never: usize,
    in_tasks: Arc<InTasks>,
}

/// Requests whose answers tasks have not yet put into the channel.
///
/// A request is in flight until its answer is in the channel, and from then on the channel counts
/// it. The lock makes that one step, so that the end of a connection finds it in exactly one place.
#[derive(Debug, Default)]
struct InTasks(Mutex<usize>);

impl InTasks {
    fn with<T>(&self, f: impl FnOnce(&mut usize) -> T) -> T {
        // It is asked after a panic as well.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Connector {
    /// Holds the thread until the half of the period in which nothing moves is over. In the way of
    /// each request, so that no other thread can take over and hide it.
    fn stall(&self) {
        let period = STALL_PERIOD.as_nanos();
        let into = Duration::from_nanos((self.started.elapsed().as_nanos() % period) as u64);
        #[expect(
            clippy::disallowed_methods,
            reason = "a thread that stands still is what is asked for"
        )]
        std::thread::sleep((STALL_PERIOD / 2).saturating_sub(into));
    }
}

impl Reactor {
    fn echo(
        &mut self,
        context: &mut ReactorContext<'_, Codec>,
        payload: PooledBuffer,
    ) -> ReactorStatus {
        if self.connector.sabotage == Some(Sabotage::Stall) {
            self.connector.stall();
        }
        if let Some(sabotage @ (Sabotage::Lose | Sabotage::Die)) = self.connector.sabotage {
            let before = self.connector.echoes.fetch_add(1, Ordering::Relaxed);
            if before % ONE_OF == ONE_OF - 1 {
                if sabotage == Sabotage::Die {
                    std::process::exit(0);
                }
                return ReactorStatus::Continue;
            }
        }
        context.reply(payload)
    }

    /// Answer through the channel, from a task that holds the connection open meanwhile.
    fn answer_by_task(&self, number: u64, wait: Duration) {
        self.in_tasks.with(|count| *count += 1);
        // The channel is gone: the request stays in flight, as which it is counted.
        let Some(outbound) = self.outbound.upgrade() else {
            return;
        };
        let in_tasks = self.in_tasks.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            in_tasks.with(|count| {
                if outbound.try_send(number).is_ok() {
                    *count -= 1;
                }
            });
        });
    }

    /// Send what is due, while there is room.
    fn send_due(&mut self, context: &mut ReactorContext<'_, Codec>) -> ReactorStatus {
        while let Some(&Reverse((at, number))) = self.delayed.peek()
            && at <= context.now()
            && !context.room().is_empty()
        {
            self.delayed.pop();
            if let Err(error) = context.send(answer(number, 64)) {
                return context.fail(error);
            }
        }
        ReactorStatus::Continue
    }
}

impl MessageReactor for Reactor {
    type Codec = Codec;
    type Inbound = PooledBuffer;
    type Outbound = PooledBuffer;
    /// The number of a request whose answer is due.
    type LogicalOutbound = u64;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec>,
        payload: PooledBuffer,
    ) -> ReactorStatus {
        let request = Request::of_payload(&payload);
        let wait = match self.connector.sabotage {
            Some(Sabotage::Hurry) => Duration::ZERO,
            _ => Duration::from_millis(request.argument.into()),
        };
        match request.operation {
            Operation::Echo => self.echo(context, payload),
            Operation::Later => {
                let due = (context.now() + wait, request.number);
                self.delayed.push(Reverse(due));
                ReactorStatus::Continue
            }
            Operation::ByTask => {
                self.answer_by_task(request.number, wait);
                ReactorStatus::Continue
            }
            Operation::Never => {
                self.never += 1;
                ReactorStatus::Continue
            }
            Operation::Panic => {
                self.connector.ledger.give_up();
                panic!("asked to panic");
            }
            Operation::Abort => {
                self.connector.ledger.give_up();
                ReactorStatus::Abort
            }
            Operation::Goodbye => match context.send(answer(request.number, 64)) {
                Ok(()) => ReactorStatus::Disconnect,
                Err(error) => context.fail(error),
            },
            Operation::Large => {
                let size = (request.argument as usize).min(MAX_PAYLOAD);
                context.reply(answer(request.number, size))
            }
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec>,
        number: u64,
    ) -> Result<(), SendError<PooledBuffer>> {
        context.send(answer(number, 64))
    }

    fn on_drain(&mut self, _: &mut ReactorContext<'_, Codec>, _: Instant) -> ReactorStatus {
        if self.connector.sabotage == Some(Sabotage::Forget)
            && !self.delayed.is_empty()
            && !self.connector.forgotten.swap(true, Ordering::Relaxed)
        {
            self.delayed.pop();
        }
        ReactorStatus::Continue
    }

    fn deadline(&self) -> Option<Instant> {
        self.delayed.peek().map(|Reverse((at, _))| *at)
    }

    fn on_deadline(&mut self, context: &mut ReactorContext<'_, Codec>) -> ReactorStatus {
        self.send_due(context)
    }

    fn in_flight(&self) -> usize {
        self.delayed.len() + self.never + self.in_tasks.with(|count| *count)
    }

    fn on_end(&mut self, _: &CloseReason, _: &ConnectionStats) {
        self.connector.ledger.tell_end();
    }
}
