//! What [`MachineReactor`] costs a message: an echo by a machine that does nothing else, beside the
//! same echo by a reactor, and beside that through the connection's channel.
//!
//! Over a stream in memory that costs next to nothing, so this is all the work of a connection but
//! its system calls.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion};
use protosocket::{
    ActionId, Connection, ConnectionConfig, Host, HostContext, LengthDelimitedCodec, Limits,
    Machine, MachineReactor, ManualClock, MessageReactor, Output, PooledBuffer, ReactorContext,
    ReactorStatus, Rejected, Room, SendError, Sender, U32, WeakSender, channel,
};
use protosocket_testkit::{RepeatingStream, frame, repeating_stream};

type Codec = LengthDelimitedCodec<U32, Message>;
type Message = PooledBuffer;

/// Messages that arrive at once.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Of a message, in bytes.
const SIZE: usize = 64;

/// Answers each message with itself.
struct Direct;

impl MessageReactor for Direct {
    type Codec = Codec;
    type Inbound = Message;
    type Outbound = Message;
    type LogicalOutbound = Message;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec>,
        message: Message,
    ) -> ReactorStatus {
        context.reply(message)
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec>,
        message: Message,
    ) -> Result<(), SendError<Message>> {
        context.send(message)
    }
}

/// Sends each message into the channel of its own connection.
struct Through {
    outbound: WeakSender<Message>,
    sender: Option<Sender<Message>>,
}

impl MessageReactor for Through {
    type Codec = Codec;
    type Inbound = Message;
    type Outbound = Message;
    type LogicalOutbound = Message;

    fn on_inbound_message(
        &mut self,
        _: &mut ReactorContext<'_, Codec>,
        message: Message,
    ) -> ReactorStatus {
        let upgraded = || self.outbound.upgrade().expect("the connection is open");
        let sender = self.sender.get_or_insert_with(upgraded);
        assert!(sender.try_send(message).is_ok(), "there is room");
        ReactorStatus::Continue
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec>,
        message: Message,
    ) -> Result<(), SendError<Message>> {
        context.send(message)
    }
}

/// [`Direct`] as a machine.
#[derive(Default)]
struct Echo {
    replies: VecDeque<Message>,
}

impl Machine for Echo {
    type Codec = Codec;
    type Command = Infallible;
    type Event = Infallible;
    type Action = Infallible;
    type ActionResult = Infallible;
    type Error = io::Error;

    fn handle_inbound(&mut self, _: Instant, message: Message) -> Result<(), io::Error> {
        self.replies.push_back(message);
        Ok(())
    }

    fn handle_command(
        &mut self,
        _: Instant,
        command: Infallible,
    ) -> Result<(), Rejected<Infallible>> {
        match command {}
    }

    fn poll_event(&mut self) -> Option<Infallible> {
        None
    }

    fn poll_output(&mut self, _: Instant, room: Room) -> Option<Output<Message>> {
        if room.is_empty() {
            return None;
        }
        self.replies.pop_front().map(Output::Bulk)
    }

    fn is_idle(&self) -> bool {
        self.replies.is_empty()
    }
}

struct NoHost;

impl Host<Echo> for NoHost {
    type Message = Message;

    fn on_event(&mut self, _: &mut HostContext<'_, Echo>, event: Infallible) {
        match event {}
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Echo>, _: ActionId, action: Infallible) {
        match action {}
    }

    fn on_message(&mut self, _: &mut HostContext<'_, Echo>, _: Message) {
        unreachable!("nobody sends through the channel");
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Time the echo of 64 B messages by the reactor that `make` makes.
fn echo<R>(criterion: &mut Criterion, name: &str, make: fn(Sender<Message>) -> R)
where
    R: MessageReactor<Codec = Codec, LogicalOutbound = Message>,
{
    let mut group = criterion.benchmark_group("echo");
    for in_flight in IN_FLIGHT {
        let (stream, peer) = repeating_stream(&frame(&[7; SIZE]));
        let (sender, receiver) = channel(IN_FLIGHT[2]);
        let config = ConnectionConfig::server(Limits::server())
            .expect("the defaults are valid")
            .with_clock(Arc::new(ManualClock::new()));
        let reactor = make(sender);
        let mut connection = Connection::new(stream, Codec::new(), reactor, receiver, &config);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        settle(&mut connection, &flag);
        group.bench_function(BenchmarkId::new(name, in_flight), |bencher| {
            bencher.iter_custom(|count| {
                let mut left = count as usize;
                let before = peer.written();
                let begun = Instant::now();
                while left > 0 {
                    let messages = left.min(in_flight);
                    peer.send(messages);
                    settle(&mut connection, &flag);
                    left -= messages;
                }
                let elapsed = begun.elapsed();
                assert_eq!(peer.written() - before, count as usize * (4 + SIZE));
                elapsed
            });
        });
    }
}

/// Poll the connection for as long as it is woken.
fn settle<R: MessageReactor>(connection: &mut Connection<RepeatingStream, R>, flag: &Arc<Flag>) {
    let waker = Waker::from(flag.clone());
    let mut cx = Context::from_waker(&waker);
    while flag.0.swap(false, Ordering::Relaxed) {
        let polled = Pin::new(&mut *connection).poll(&mut cx);
        assert!(polled.is_pending(), "the peer has not ended");
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    echo(&mut criterion, "direct", |_| Direct);
    echo(&mut criterion, "machine", |_| {
        MachineReactor::new(Echo::default(), NoHost)
    });
    echo(&mut criterion, "channel", |sender| Through {
        outbound: sender.downgrade(),
        sender: None,
    });
    criterion.final_summary();
}
