//! One port, several protocols: everything that a server promises holds for routed connections.

use std::{
    future::Future,
    io,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use protosocket::{
    Decoder, EncodeError, Encoder, Establisher, Handover, Input, Layered, Limits, LinesCodec,
    ManualClock, MemoryConnector, MemoryListener, MessageReactor, PeerAddress, ReactorContext,
    ReactorStatus, Refusal, SendBuffer, SendError, Sender, SocketConnector, SocketListener,
    Transport, memory_listener,
};
use protosocket_server::{
    Protocol, ProtosocketServerConfig, Route, Routed, Routes, ServerConnection, ServerConnector,
    Sniffed, Sniffer,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::common::{Client, Connector, Gate, Place, Record, Running, lock, until};

/// Lines, which are answered in capitals; `over` hands the stream over.
struct Shouting<L> {
    taken_over: Arc<Mutex<Vec<String>>>,
    listener: PhantomData<fn() -> L>,
}

impl<L> Shouting<L> {
    fn new() -> Self {
        Self {
            taken_over: Arc::default(),
            listener: PhantomData,
        }
    }
}

struct Capitals(LinesCodec);

impl Decoder for Capitals {
    type Message = String;

    fn decode(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<protosocket::Decoded<String>, protosocket::DecodeError> {
        self.0.decode(input)
    }
}

impl Encoder for Capitals {
    type Message = String;

    fn encode(&mut self, message: String, output: &mut SendBuffer) -> Result<(), EncodeError> {
        self.0.encode(message.to_uppercase(), output)
    }
}

struct Shouter;

impl MessageReactor for Shouter {
    type Codec = Capitals;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Capitals>,
        message: String,
    ) -> ReactorStatus {
        match message.as_str() {
            "over" => ReactorStatus::Handover,
            _ => context.reply(message),
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Capitals>,
        message: String,
    ) -> Result<(), SendError<String>> {
        context.send(message)
    }
}

impl<L> ServerConnector for Shouting<L>
where
    L: SocketListener<Stream: Send, Establish: Send>,
{
    type Codec = Capitals;
    type Reactor = Shouter;
    type SocketListener = L;

    fn codec(&self) -> Capitals {
        Capitals(LinesCodec::new())
    }

    fn new_reactor(&self, _: Sender<String>, _: &L::Stream) -> Shouter {
        Shouter
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }

    fn on_handover(&self, handover: Handover<L::Stream, Shouter>) {
        let unread = String::from_utf8_lossy(&handover.unread).into_owned();
        lock(&self.taken_over).push(unread);
    }
}

/// Reads a byte for the name that the client asks for, as TLS reads one.
#[derive(Clone)]
struct Naming;

struct Name<S> {
    stream: S,
    name: u8,
}

impl<S: Transport + Send> Establisher<S> for Naming {
    type Stream = Name<S>;
    type Establish = Pin<Box<dyn Future<Output = io::Result<Name<S>>> + Send>>;

    fn establish(&self, mut stream: S) -> Self::Establish {
        Box::pin(async move {
            // The bytes by which the tunnel was told are there to be read again.
            assert_eq!(stream.read_u16().await?, u16::from_be_bytes(*b"\0T"));
            match stream.read_u8().await? {
                b'!' => panic!("the test wants a panic"),
                b'?' => Err(io::Error::other("the test wants an error")),
                name => Ok(Name { stream, name }),
            }
        })
    }
}

impl<S: Transport> Transport for Name<S> {
    fn peer_address(&self) -> PeerAddress {
        self.stream.peer_address()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Name<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Name<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

type Port = Layered<MemoryListener, Sniffer>;
type Stream = <Port as SocketListener>::Stream;
type Tunnel = Routed<Stream, Naming>;

/// `\0T` begins a tunnel, in which `s` leads to capitals and `l` to lines; `\0S` is for capitals,
/// `\0P` for a panic, `\0N` for nobody, and everything else are lines.
struct Served {
    connector: MemoryConnector,
    record: Arc<Record>,
    server: Running,
    panics: Arc<Mutex<Option<Place>>>,
    gate: Gate,
    taken_over: Arc<Mutex<Vec<String>>>,
}

fn sniffer() -> Sniffer {
    Sniffer::new([])
        .prefix("tunnel", b"\0T")
        .prefix("shouting", b"\0S")
        .prefix("panic", b"\0P")
        .prefix("nobody", b"\0N")
        .otherwise(Protocol::Named("lines"))
}

fn speaks(name: &'static str) -> impl Fn(&Stream) -> bool + Send + Sync {
    move |stream: &Sniffed<_>| {
        assert_ne!(stream.protocol(), Protocol::Named("panic"), "on purpose");
        stream.protocol() == Protocol::Named(name)
    }
}

fn serve(config: impl FnOnce(ProtosocketServerConfig) -> ProtosocketServerConfig) -> Served {
    let record = Arc::new(Record::default());
    let config = config(ProtosocketServerConfig::default().observer(record.clone()));
    let (listener, connector) = memory_listener(1024);
    let shouting = Shouting::new();
    let taken_over = shouting.taken_over.clone();
    let in_tunnel = Connector::<Routed<<Tunnel as SocketListener>::Stream>>::new();
    let (panics, gate) = (in_tunnel.panics.clone(), in_tunnel.gate.clone());
    let tunnel = Routes::<Tunnel>::new()
        .route(|stream| stream.name == b's', Route::to(Shouting::new()))
        .route(|stream| stream.name == b'l', Route::to(in_tunnel));
    let short = Limits::server().max_message_size(100);
    let routes = Routes::<Port>::new()
        .route(
            speaks("tunnel"),
            Route::to(tunnel).through(Naming).limits(short),
        )
        .route(speaks("shouting"), Route::to(shouting))
        .route(speaks("lines"), Route::to(Connector::new()));
    let server = config.build_server(Layered::new(listener, sniffer()), routes);
    Served {
        connector,
        record,
        server: Running::spawn(server.expect("the configuration is valid")),
        panics,
        gate,
        taken_over,
    }
}

type MemoryClient = Client<protosocket::StreamWithAddress<tokio::io::DuplexStream, PeerAddress>>;

impl Served {
    async fn connect(&self, first: &[u8]) -> MemoryClient {
        let stream = self.connector.connect().await;
        let mut client = Client::new(stream.expect("the server listens"));
        client.send_raw(first).await;
        client
    }

    /// A connection of each route, which is served.
    async fn one_of_each(&self) -> [MemoryClient; 4] {
        let mut clients = [
            self.connect(b"").await,
            self.connect(b"\0S").await,
            self.connect(b"\0Ts").await,
            self.connect(b"\0Tl").await,
        ];
        // The first bytes travel on: they are the beginning of the first line.
        for (client, answer) in clients.iter_mut().zip(["a", "\0SA", "A", "a"]) {
            client.send("a").await;
            let line = client.line().await;
            assert_eq!(line.as_deref(), Some(answer));
        }
        clients
    }
}

#[tokio::test]
async fn each_stream_comes_to_its_connector_from_its_first_byte_on() {
    let port = serve(|config| config);
    let clients = port.one_of_each().await;
    assert_eq!(port.server.handle.connections(), 4);
    assert_eq!(port.record.opened(), 4);
    drop(clients);
    port.server.has_connections(0).await;
    assert_eq!(port.record.closed("end_of_input"), 4);
    assert!(port.server.drain().await.is_clean());
}

#[tokio::test]
async fn a_stream_that_no_route_is_for_is_refused() {
    let port = serve(|config| config);
    for bytes in [&b"\0N"[..], b"\0Tx"] {
        let mut client = port.connect(bytes).await;
        assert_eq!(client.line().await, None);
        port.server.has_connections(0).await;
    }
    assert_eq!(port.record.refused(Refusal::Protocol), 2);
    let says = "memory: the handshake failed: no route of this port is for such a stream";
    assert_eq!(port.record.failures(), [says, says]);
    assert_eq!(port.record.events().len(), 2);
}

#[tokio::test]
async fn d14_an_establisher_of_a_route_that_fails_ends_only_that_connection() {
    let port = serve(|config| config);
    let mut canaries = port.one_of_each().await;
    let mut client = port.connect(b"\0T?").await;
    assert_eq!(client.line().await, None);
    port.server.has_connections(4).await;
    assert_eq!(port.record.refused(Refusal::Handshake), 1);
    assert!(canaries[0].is_served().await);
}

#[tokio::test]
async fn d16_a_panic_anywhere_on_the_way_ends_only_that_connection() {
    let port = serve(|config| config);
    let mut canaries = port.one_of_each().await;
    // In a condition, in the establisher of a route, and in its connector.
    let mut panics = 0;
    let ways: [(&[u8], Option<Place>); 5] = [
        (b"\0P", None),
        (b"\0T!", None),
        (b"\0Tl", Some(Place::SpawnConnection)),
        (b"\0Tl", Some(Place::NewReactor)),
        (b"\0Tl", Some(Place::Codec)),
    ];
    for (bytes, place) in ways {
        *lock(&port.panics) = place;
        let mut client = port.connect(bytes).await;
        assert_eq!(client.line().await, None, "{place:?}");
        port.server.has_connections(4).await;
        *lock(&port.panics) = None;
        panics += 1;
        assert_eq!(port.record.refused(Refusal::Panicked), panics, "{place:?}");
        assert!(canaries[0].is_served().await && canaries[3].is_served().await);
    }
    assert_eq!(port.record.events().len(), 4 + panics);
    assert!(!port.server.task.is_finished());
    // And one of a connection that is served has its reason, as without routes.
    *lock(&port.panics) = Some(Place::OnInbound);
    let mut client = port.connect(b"\0Tl").await;
    until(|| port.record.opened() == 5).await;
    client.send("boom").await;
    assert_eq!(client.line().await, None);
    port.server.has_connections(4).await;
    assert_eq!(port.record.closed("panicked"), 1);
}

#[tokio::test]
async fn d13_all_stages_together_have_the_time_of_one_handshake() {
    let clock = ManualClock::new();
    let limits = Limits::server().handshake_timeout(Duration::from_secs(10));
    let port = serve(|config| config.limits(limits).clock(Arc::new(clock.clone())));
    let mut client = port.connect(b"\0").await;
    until(|| clock.next_alarm().is_some()).await;
    let deadline = clock.next_alarm();
    clock.advance(Duration::from_secs(9));
    client.send_raw(b"T").await;
    // The first stage is over, and the alarm of the second is that of the first.
    until(|| port.server.handle.connections() == 1 && clock.next_alarm() == deadline).await;
    tokio::task::yield_now().await;
    clock.advance(Duration::from_millis(999));
    tokio::task::yield_now().await;
    assert_eq!(port.server.handle.connections(), 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(client.line().await, None);
    port.server.has_connections(0).await;
    assert_eq!(port.record.refused(Refusal::Handshake), 1);
    assert_eq!(port.record.events().len(), 1);
}

#[tokio::test]
async fn d14_a_connection_is_one_handshake_through_all_of_its_stages() {
    let port = serve(|config| config.max_handshakes(2));
    let mut oldest = port.connect(b"\0").await;
    port.server.has_connections(1).await;
    let mut second = port.connect(b"\0").await;
    port.server.has_connections(2).await;
    // The oldest goes on to its second stage, and is the oldest there all the same.
    oldest.send_raw(b"T").await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let mut third = port.connect(b"\0").await;
    assert_eq!(oldest.line().await, None);
    port.server.has_connections(2).await;
    assert_eq!(port.record.refused(Refusal::Handshakes), 1);
    second.send_raw(b"Tl").await;
    third.send_raw(b"Tl").await;
    assert!(second.is_served().await && third.is_served().await);
    // Both have left the handshakes: two more fit.
    let mut more = [port.connect(b"\0").await, port.connect(b"\0").await];
    port.server.has_connections(4).await;
    for client in &mut more {
        client.send_raw(b"Tl").await;
        assert!(client.is_served().await);
    }
    assert_eq!(port.record.refused(Refusal::Handshakes), 1);
}

#[tokio::test]
async fn f18_a_drain_ends_stages_at_once_and_lets_routed_connections_finish() {
    let port = serve(|config| config);
    let mut clients = port.one_of_each().await;
    clients[3].send("hold late").await;
    let mut first = port.connect(b"\0").await;
    let mut second = port.connect(b"\0T").await;
    port.server.has_connections(6).await;
    let handle = port.server.handle.clone();
    let drained = tokio::spawn(async move { handle.drain(Duration::from_secs(20)).await });
    assert_eq!(first.line().await, None);
    assert_eq!(second.line().await, None);
    assert_eq!(port.record.refused(Refusal::Draining), 2);
    for client in &mut clients[..3] {
        assert_eq!(client.line().await, None);
    }
    port.gate.open();
    assert_eq!(clients[3].line().await.as_deref(), Some("late"));
    assert_eq!(clients[3].line().await, None);
    let report = drained.await.expect("it does not panic");
    assert_eq!((report.finished, report.dropped), (4, 2), "{report}");
    assert_eq!((report.unsent, report.unanswered), (0, 0), "{report}");
    assert_eq!(port.record.closed("drained"), 4);
}

#[tokio::test]
async fn each_route_has_the_limits_that_it_was_given_and_else_those_of_the_server() {
    let port = serve(|config| config);
    let line = "x".repeat(200);
    for (bytes, fits) in [(&b""[..], true), (b"\0Tl", false), (b"\0Ts", false)] {
        let mut client = port.connect(bytes).await;
        client.send(&line).await;
        assert_eq!(client.line().await.is_some(), fits, "{bytes:?}");
        drop(client);
        port.server.has_connections(0).await;
    }
    assert_eq!(port.record.closed("decode"), 2);
}

#[test]
fn c25_limits_of_a_route_that_cannot_work_are_refused_when_the_server_is_built() {
    let (listener, _connector) = memory_listener(1024);
    let nonsense = Limits::server().max_message_size(0);
    let inner = Routes::<Tunnel>::new().otherwise(Route::to(Shouting::new()).limits(nonsense));
    let routes = Routes::<Port>::new().otherwise(Route::to(inner).through(Naming));
    let config = ProtosocketServerConfig::default();
    let error = config.build_server(Layered::new(listener, sniffer()), routes);
    let error = error.expect_err("nothing could be received");
    assert!(error.to_string().contains("max_message_size"), "{error}");
}

#[tokio::test]
async fn the_connector_of_a_route_is_given_what_its_reactor_hands_over() {
    let port = serve(|config| config);
    let mut client = port.connect(b"").await;
    assert!(client.is_served().await);
    let mut shouting = port.connect(b"\0S").await;
    shouting.send("a\nover\nrest").await;
    assert_eq!(shouting.line().await.as_deref(), Some("\0SA"));
    assert_eq!(shouting.line().await, None);
    port.server.has_connections(1).await;
    assert_eq!(lock(&port.taken_over)[..], ["rest\n"]);
    assert_eq!(port.record.closed("handover"), 1);
}

#[tokio::test]
async fn stages_that_their_owner_drops_are_refused_and_counted() {
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default().observer(record.clone());
    let (listener, connector) = memory_listener(1024);
    let routes = Routes::<Port>::spawning(drop).otherwise(Route::to(Shouting::new()));
    let server = config.build_server(Layered::new(listener, sniffer()), routes);
    let server = Running::spawn(server.expect("the configuration is valid"));
    let mut client = Client::new(connector.connect().await.expect("the server listens"));
    assert_eq!(client.line().await, None);
    server.has_connections(0).await;
    assert_eq!(record.refused(Refusal::Dropped), 1);
    assert_eq!(record.events().len(), 1);
}

#[tokio::test]
async fn connections_that_cannot_be_sent_are_spawned_where_they_are() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (listener, connector) = memory_listener(1024);
            let here = Connector::new().spawning(|connection| {
                tokio::task::spawn_local(connection);
            });
            let routes = Routes::<Port>::spawning(|connection| {
                tokio::task::spawn_local(connection);
            });
            let server = ProtosocketServerConfig::default().build_server(
                Layered::new(listener, sniffer()),
                routes.otherwise(Route::to(here)),
            );
            let server = server.expect("the configuration is valid");
            tokio::task::spawn_local(server);
            let mut client = Client::new(connector.connect().await.expect("the server listens"));
            assert!(client.is_served().await);
        })
        .await;
}
