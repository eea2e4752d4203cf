//! What the tests share: a line server that does as it is told, its clients, and waiting.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    io,
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use protosocket::{
    CloseReason, ConnectionObserver, ConnectionStats, DecodeError, Decoded, Decoder, EncodeError,
    Encoder, EstablishError, Input, LinesCodec, MessageReactor, PeerAddress, ReactorContext,
    ReactorStatus, Refusal, SendBuffer, SendError, Sender, SocketConnector, SocketListener,
    StreamWithAddress, TcpConnector, TcpSocketListener, WeakSender,
};
use protosocket_server::{
    DrainReport, ProtosocketServer, ProtosocketServerConfig, Serve, ServerConnection,
    ServerConnector, ServerHandle,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
};

/// How long a test waits for what must happen before it fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The output of `future`, which does not hang.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens before the test loses its patience")
}

/// Wait until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Code of a connection that can be made to panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Codec,
    NewReactor,
    SpawnConnection,
    Decode,
    Encode,
    OnInbound,
    OnOutbound,
    Poll,
    PollReady,
    PollOutbound,
    InFlight,
    /// From the moment at which the connector was told, without a `boom`.
    InFlightNow,
    OnEnd,
}

fn trip(armed: Option<Place>, place: Place) {
    assert_ne!(armed, Some(place), "the test wants a panic");
}

/// Lets go of all answers that reactors hold back, once.
#[derive(Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }
}

/// A listener whose connections can be spawned.
pub(crate) trait Listener: SocketListener<Stream: Send, Establish: Send> + Send {}

impl<L> Listener for L where L: SocketListener<Stream: Send, Establish: Send> + Send {}

/// Serves lines: `hold TEXT` is answered with `TEXT` once the gate is open, `boom` sets off the
/// panic that the connector was told of, and everything else is answered at once with itself.
pub(crate) struct Connector<L: Listener> {
    pub(crate) gate: Gate,
    /// A sender into each connection, in the order of their coming.
    pub(crate) senders: Arc<Mutex<Vec<WeakSender<String>>>>,
    /// Where the next connection panics.
    pub(crate) panics: Arc<Mutex<Option<Place>>>,
    spawn: Box<Spawn<L>>,
    look: Box<Look<L>>,
    hear: Arc<Hear>,
    listener: PhantomData<fn() -> L>,
}

type Spawn<L> = dyn Fn(ServerConnection<Connector<L>>) + Send + Sync;
type Hear = dyn Fn(&str) + Send + Sync;
type Look<L> = dyn Fn(&<L as SocketListener>::Stream) + Send + Sync;

impl<L: Listener> Connector<L> {
    pub(crate) fn new() -> Self {
        Self {
            gate: Gate(watch::Sender::new(false)),
            senders: Arc::default(),
            panics: Arc::default(),
            spawn: Box::new(|connection| {
                tokio::spawn(connection);
            }),
            look: Box::new(|_| {}),
            hear: Arc::new(|_| {}),
            listener: PhantomData,
        }
    }

    /// Do this with connections instead of spawning them.
    pub(crate) fn spawning(
        mut self,
        spawn: impl Fn(ServerConnection<Self>) + Send + Sync + 'static,
    ) -> Self {
        self.spawn = Box::new(spawn);
        self
    }

    /// Look at the stream of each connection.
    pub(crate) fn looking(mut self, look: impl Fn(&L::Stream) + Send + Sync + 'static) -> Self {
        self.look = Box::new(look);
        self
    }

    /// Hear each message, inside of the poll that received it.
    pub(crate) fn hearing(mut self, hear: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.hear = Arc::new(hear);
        self
    }

    /// Spawn a server.
    pub(crate) fn serve(self, config: ProtosocketServerConfig, listener: L) -> Running {
        let server = config.build_server(listener, self);
        Running::spawn(server.expect("the configuration is valid"))
    }
}

impl Connector<TcpSocketListener> {
    /// Spawn a server on an address of the system's choice.
    pub(crate) fn serve_tcp(self, config: ProtosocketServerConfig) -> (Running, SocketAddr) {
        let address = "127.0.0.1:0".parse().expect("it is an address");
        let server = config.bind_tcp(address, self).expect("a port is free");
        let listener = server.listener().expect("it listens");
        let address = listener.local_address().expect("it is bound");
        (Running::spawn(server), address)
    }
}

/// A server in a task of its own.
pub(crate) struct Running {
    pub(crate) handle: ServerHandle,
    pub(crate) task: JoinHandle<DrainReport>,
}

impl Running {
    pub(crate) fn spawn<C>(server: ProtosocketServer<C>) -> Self
    where
        C: Serve<Listener: Send> + Send + Sync,
    {
        Self {
            handle: server.handle(),
            task: tokio::spawn(server),
        }
    }

    /// Wait until there are that many connections.
    pub(crate) async fn has_connections(&self, count: usize) {
        until(|| self.handle.connections() == count).await;
    }

    /// Drain with time to spare.
    pub(crate) async fn drain(&self) -> DrainReport {
        soon(self.handle.drain(PATIENCE)).await
    }
}

impl<L: Listener> ServerConnector for Connector<L> {
    type Codec = Codec;
    type Reactor = Reactor;
    type SocketListener = L;

    fn codec(&self) -> Codec {
        trip(*lock(&self.panics), Place::Codec);
        Codec {
            lines: LinesCodec::new(),
            panics: *lock(&self.panics),
        }
    }

    fn new_reactor(&self, outbound: Sender<String>, stream: &L::Stream) -> Reactor {
        trip(*lock(&self.panics), Place::NewReactor);
        (self.look)(stream);
        lock(&self.senders).push(outbound.downgrade());
        let mut gate = self.gate.0.subscribe();
        Reactor {
            gate: Box::pin(async move {
                // An error says that the test is over.
                let _ = gate.wait_for(|open| *open).await;
            }),
            open: false,
            held: VecDeque::new(),
            hear: self.hear.clone(),
            panics: *lock(&self.panics),
            wanted: self.panics.clone(),
            armed: None,
        }
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        trip(*lock(&self.panics), Place::SpawnConnection);
        (self.spawn)(connection);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Lines, the panics that a test wants, and an error that quotes its peer at `quote`.
pub(crate) struct Codec {
    lines: LinesCodec,
    panics: Option<Place>,
}

impl Decoder for Codec {
    type Message = String;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<String>, DecodeError> {
        if input.bytes().starts_with(b"boom") {
            trip(self.panics, Place::Decode);
        }
        if input.bytes().starts_with(b"quote") {
            let quoted = String::from_utf8_lossy(input.bytes());
            return Err(DecodeError::malformed(quoted.into_owned()));
        }
        self.lines.decode(input)
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<String>, DecodeError> {
        self.lines.decode_end(input)
    }
}

impl Encoder for Codec {
    type Message = String;

    fn encode(&mut self, message: String, output: &mut SendBuffer) -> Result<(), EncodeError> {
        if message == "boom" {
            trip(self.panics, Place::Encode);
        }
        self.lines.encode(message, output)
    }
}

pub(crate) struct Reactor {
    gate: Pin<Box<dyn Future<Output = ()> + Send>>,
    open: bool,
    held: VecDeque<String>,
    hear: Arc<Hear>,
    panics: Option<Place>,
    wanted: Arc<Mutex<Option<Place>>>,
    /// What panics, once `boom` has been received.
    armed: Option<Place>,
}

impl MessageReactor for Reactor {
    type Codec = Codec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec>,
        message: String,
    ) -> ReactorStatus {
        (self.hear)(&message);
        if message == "boom" {
            self.armed = self.panics;
            trip(self.armed, Place::OnInbound);
        }
        match message.strip_prefix("hold ") {
            Some(text) => {
                self.held.push_back(text.to_owned());
                ReactorStatus::Continue
            }
            None => context.reply(message),
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Codec>,
        message: String,
    ) -> Result<(), SendError<String>> {
        if message == "boom" {
            trip(self.panics, Place::OnOutbound);
        }
        context.send(message)
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
        _context: &mut ReactorContext<'_, Codec>,
    ) -> ReactorStatus {
        trip(self.armed, Place::Poll);
        ReactorStatus::Continue
    }

    fn poll_outbound_many(
        &mut self,
        cx: &mut Context<'_>,
        context: &mut ReactorContext<'_, Codec>,
    ) -> Poll<Option<()>> {
        trip(self.armed, Place::PollOutbound);
        if self.held.is_empty() {
            return Poll::Ready(None);
        }
        if !self.open && self.gate.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.open = true;
        while !context.room().is_empty()
            && let Some(text) = self.held.pop_front()
        {
            context.send(text).expect("there is room");
        }
        Poll::Ready(Some(()))
    }

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        trip(self.armed, Place::PollReady);
        Poll::Ready(())
    }

    fn in_flight(&self) -> usize {
        trip(self.armed, Place::InFlight);
        trip(*lock(&self.wanted), Place::InFlightNow);
        self.held.len()
    }

    fn on_end(&mut self, _reason: &CloseReason, _stats: &ConnectionStats) {
        trip(self.armed, Place::OnEnd);
    }
}

/// A client of lines.
pub(crate) struct Client<S> {
    stream: BufReader<S>,
}

impl Client<StreamWithAddress<TcpStream>> {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_by(&TcpConnector::new(address)).await
    }

    pub(crate) async fn connect_by(connector: &TcpConnector) -> Self {
        let stream = soon(connector.connect()).await;
        Self::new(stream.expect("the server listens"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) async fn send(&mut self, line: &str) {
        self.send_raw(format!("{line}\n").as_bytes()).await;
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        let sent = soon(self.stream.write_all(bytes)).await;
        sent.expect("the server reads");
    }

    /// The next line, or `None` when the server has closed the connection or reset it.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match soon(self.stream.read_line(&mut line)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// Whether the server serves this client.
    pub(crate) async fn is_served(&mut self) -> bool {
        let written = soon(self.stream.write_all(b"hello\n")).await;
        written.is_ok() && self.line().await.as_deref() == Some("hello")
    }
}

/// What an observer heard, with reasons by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Opened(PeerAddress),
    Closed(PeerAddress, &'static str),
    Refused(Option<PeerAddress>, Refusal),
}

/// Remembers everything.
#[derive(Default)]
pub(crate) struct Record {
    events: Mutex<Vec<Event>>,
    failures: Mutex<Vec<String>>,
}

impl Record {
    pub(crate) fn events(&self) -> Vec<Event> {
        lock(&self.events).clone()
    }

    /// Why handshakes failed.
    pub(crate) fn failures(&self) -> Vec<String> {
        lock(&self.failures).clone()
    }

    pub(crate) fn opened(&self) -> usize {
        self.count(|event| matches!(event, Event::Opened(_)))
    }

    pub(crate) fn closed(&self, name: &str) -> usize {
        self.count(|event| matches!(event, Event::Closed(_, reason) if *reason == name))
    }

    pub(crate) fn refused(&self, refusal: Refusal) -> usize {
        self.count(|event| matches!(event, Event::Refused(_, other) if *other == refusal))
    }

    fn count(&self, filter: impl Fn(&Event) -> bool) -> usize {
        lock(&self.events)
            .iter()
            .filter(|event| filter(event))
            .count()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events().fmt(f)
    }
}

impl ConnectionObserver for Record {
    fn opened(&self, peer: &PeerAddress) {
        lock(&self.events).push(Event::Opened(peer.clone()));
    }

    fn closed(&self, peer: &PeerAddress, reason: &CloseReason, _stats: &ConnectionStats) {
        lock(&self.events).push(Event::Closed(peer.clone(), reason.name()));
    }

    fn handshake_failed(&self, peer: &PeerAddress, error: &EstablishError) {
        lock(&self.failures).push(format!("{peer}: {error}"));
    }

    fn refused(&self, peer: Option<&PeerAddress>, refusal: Refusal) {
        lock(&self.events).push(Event::Refused(peer.cloned(), refusal));
    }
}

/// An error of the system by its number.
pub(crate) fn os_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
