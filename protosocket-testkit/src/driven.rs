//! Polls a connection when, and only when, it was woken.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use protosocket::{
    Clock, Codec, Connection, ConnectionConfig, ConnectionEnd, ConnectionHandle, Limits,
    ManualClock, MessageReactor, Receiver, SendLimits, Sender, Transport, channel,
};

use super::{
    probe::{Answer, Inbound, Knobs, Outbound, Probe},
    recorder::Recorder,
    stream::{ScriptedStream, StreamPeer, scripted_stream},
};

/// More polls than any connection here needs between two events: it spins.
const MANY_POLLS: usize = 20_000;

/// A connection over a scripted stream, on a clock that stands still, polled only when woken.
///
/// Nothing happens by itself, so what does not happen after [`settle`](Self::settle) would never
/// have happened: a lost wake is a failed assertion, and so is one that is not needed.
pub struct Driven<R: MessageReactor, S: Transport = ScriptedStream> {
    connection: Connection<S, R>,
    end: Option<ConnectionEnd<S, R>>,
    flag: Arc<Flag>,
    polls: usize,
    /// The other end of the connection's stream.
    pub peer: StreamPeer,
    /// The clock of its deadlines.
    pub clock: ManualClock,
    /// What its observer was told.
    pub observer: Arc<Recorder>,
    /// Drains and aborts it.
    pub handle: ConnectionHandle,
}

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<R: MessageReactor, S: Transport> Driven<R, S> {
    /// Poll for as long as it is woken.
    #[track_caller]
    pub fn settle(&mut self) {
        for _ in 0..MANY_POLLS {
            if !self.is_woken() || self.end.is_some() {
                return;
            }
            self.poll_once();
        }
        panic!("the connection keeps waking itself: {:?}", self.connection);
    }

    /// Poll, whether it was woken or not.
    pub fn poll_once(&mut self) {
        self.flag.0.store(false, Ordering::SeqCst);
        self.polls += 1;
        let waker = Waker::from(self.flag.clone());
        let polled = Pin::new(&mut self.connection).poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(end) = polled {
            self.end = Some(end);
        }
    }

    /// Whether it asks to be polled.
    pub fn is_woken(&self) -> bool {
        self.flag.0.load(Ordering::SeqCst)
    }

    /// How often it has been polled.
    pub fn polls(&self) -> usize {
        self.polls
    }

    /// Move the time forward, and poll if that wakes it.
    #[track_caller]
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.settle();
    }

    /// Move the time forward from one alarm to the next, polling whenever that wakes it, until it
    /// has ended, waits for nothing but its peer, or would have to wait longer than `most`.
    #[track_caller]
    pub fn pass(&mut self, most: Duration) {
        self.settle();
        let until = self.clock.now() + most;
        while let Some(at) = self.clock.next_alarm().filter(|at| *at <= until)
            && !self.is_ended()
        {
            self.advance(at.saturating_duration_since(self.clock.now()));
        }
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    /// The connection itself, to look at.
    pub fn connection(&self) -> &Connection<S, R> {
        &self.connection
    }

    /// Settle, and expect that it has ended: once, as far as its observer knows, and with every
    /// byte and message reported.
    #[track_caller]
    pub fn finish(&mut self) -> ConnectionEnd<S, R> {
        self.settle();
        let Some(end) = self.end.take() else {
            panic!("it has not ended and waits: {:?}", self.connection);
        };
        assert_eq!(self.observer.closed(), [end.reason.name()]);
        assert_eq!(self.observer.traffic(), end.stats);
        assert!(self.handle.is_ended());
        end
    }

    /// Settle, and name the reason for which it ended.
    #[track_caller]
    pub fn reason(&mut self) -> &'static str {
        self.finish().reason.name()
    }

    /// Drop it.
    pub fn into_observer(self) -> Arc<Recorder> {
        self.observer.clone()
    }
}

/// How to make a [`Driven`] connection. The fields are set before [`open`](Self::open).
pub struct Setup {
    /// Its deadlines and limits.
    pub limits: Limits,
    /// Whether it is the side that opened the connection.
    pub client: bool,
    /// What the channel holds.
    pub capacity: usize,
    /// Bytes that were read from the stream before.
    pub unread: Bytes,
    /// The other end of `stream`.
    pub peer: StreamPeer,
    /// Its clock.
    pub clock: ManualClock,
    /// What it runs over.
    pub stream: ScriptedStream,
}

impl Default for Setup {
    fn default() -> Self {
        let (stream, peer) = scripted_stream();
        Self {
            limits: Limits::server(),
            client: false,
            capacity: 1024,
            unread: Bytes::new(),
            peer,
            clock: ManualClock::new(),
            stream,
        }
    }
}

impl Setup {
    /// One whose send buffer is full from `bulk` bytes on, with half as much for control.
    pub fn bulk(bulk: usize) -> Self {
        Self {
            limits: Limits::server().send_limits(SendLimits {
                bulk_bytes: bulk,
                control_bytes: bulk / 2,
                ..SendLimits::DEFAULT
            }),
            ..Self::default()
        }
    }

    /// One that this program opened, with the limits of a client.
    pub fn client() -> Self {
        Self {
            client: true,
            limits: Limits::client(),
            ..Self::default()
        }
    }

    /// One that a peer opened, with these limits.
    pub fn limits(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// A connection with a reactor that answers as told.
    pub fn open<C: Codec + 'static>(self, codec: C, answer: Answer<C>) -> Opened<C>
    where
        Inbound<C>: Clone,
    {
        self.open_over(|stream| stream, codec, answer)
    }

    /// The same, over what `wrap` makes of the scripted stream.
    pub fn open_over<C: Codec + 'static, S: Transport>(
        self,
        wrap: impl FnOnce(ScriptedStream) -> S,
        codec: C,
        answer: Answer<C>,
    ) -> Opened<C, S>
    where
        Inbound<C>: Clone,
    {
        let (probe, knobs) = Probe::new(answer);
        let (sender, receiver) = channel(self.capacity);
        Opened {
            peer: self.peer.clone(),
            connection: self.drive_over(wrap, codec, probe, receiver),
            knobs,
            sender: Some(sender),
        }
    }

    /// A connection with any reactor.
    pub fn drive<R: MessageReactor>(
        self,
        codec: R::Codec,
        reactor: R,
        receiver: Receiver<R::LogicalOutbound>,
    ) -> Driven<R> {
        self.drive_over(|stream| stream, codec, reactor, receiver)
    }

    /// A connection with any reactor, over what `wrap` makes of the scripted stream.
    pub fn drive_over<R: MessageReactor, S: Transport>(
        self,
        wrap: impl FnOnce(ScriptedStream) -> S,
        codec: R::Codec,
        reactor: R,
        receiver: Receiver<R::LogicalOutbound>,
    ) -> Driven<R, S> {
        let config = match self.client {
            true => ConnectionConfig::client(self.limits),
            false => ConnectionConfig::server(self.limits),
        };
        let observer = Arc::new(Recorder::default());
        let config = config
            .expect("these limits are valid")
            .with_clock(Arc::new(self.clock.clone()))
            .with_observer(observer.clone());
        let mut connection = Connection::over(wrap(self.stream), codec, reactor, receiver, &config);
        if !self.unread.is_empty() {
            connection = connection.with_unread(BytesMut::from(&self.unread[..]));
        }
        Driven {
            handle: connection.handle(),
            connection,
            end: None,
            // A task that was just spawned is polled.
            flag: Arc::new(Flag(AtomicBool::new(true))),
            polls: 0,
            peer: self.peer,
            clock: self.clock,
            observer,
        }
    }
}

/// A connection with a [`Probe`], and everything that reaches into it.
pub struct Opened<C: Codec + 'static, S: Transport = ScriptedStream>
where
    Inbound<C>: Clone,
{
    /// The connection, polled only when woken.
    pub connection: Driven<Probe<C>, S>,
    /// The other end of its stream.
    pub peer: StreamPeer,
    /// What its reactor does and saw.
    pub knobs: Knobs<C>,
    /// The way into it, until [`drop_sender`](Self::drop_sender).
    pub sender: Option<Sender<Outbound<C>>>,
}

impl<C: Codec + 'static, S: Transport> Opened<C, S>
where
    Inbound<C>: Clone,
{
    /// The way into the connection.
    ///
    /// # Panics
    /// After [`drop_sender`](Self::drop_sender).
    pub fn sender(&self) -> &Sender<Outbound<C>> {
        self.sender.as_ref().expect("it has not been dropped")
    }

    /// Send through the channel, which has room.
    #[track_caller]
    pub fn send(&self, message: Outbound<C>) {
        assert!(self.sender().try_send(message).is_ok());
    }

    /// Let the last sender go.
    pub fn drop_sender(&mut self) {
        self.sender = None;
    }

    /// As [`Driven::settle`].
    #[track_caller]
    pub fn settle(&mut self) {
        self.connection.settle();
    }

    /// As [`Driven::finish`]; the reactor must have been told the same, once.
    #[track_caller]
    pub fn finish(&mut self) -> ConnectionEnd<S, Probe<C>> {
        let end = self.connection.finish();
        assert_eq!(self.knobs.lock().ends, [(end.reason.name(), end.stats)]);
        end
    }

    /// Settle, and name the reason for which it ended.
    #[track_caller]
    pub fn reason(&mut self) -> &'static str {
        self.finish().reason.name()
    }
}
