//! A server that echoes lines over TLS, and what its observer knows.

use std::{
    future::Future,
    io,
    marker::PhantomData,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use protosocket::{
    Layered, Limits, LinesCodec, ManualClock, MemoryConnector, MessageReactor, ReactorContext,
    ReactorStatus, SendError, Sender, SocketConnector, SocketListener, TcpConnector, TcpOptions,
    TcpSocketListener, UnixConnector, UnixSocketListener, memory_listener,
};
use protosocket_server::{
    DrainReport, ProtosocketServerConfig, ServerConnection, ServerConnector, ServerHandle,
};
use protosocket_testkit::Recorder;
use protosocket_tls::{
    Acceptor, Alert, ring,
    rustls::{
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    task::JoinHandle,
};

use crate::{
    pair::{client, server},
    pki::Authority,
};

/// How long a test waits for what must happen before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.expect("it takes too long")
}

/// Answers each line with itself.
pub(crate) struct Echo;

impl MessageReactor for Echo {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        line: String,
    ) -> ReactorStatus {
        context.reply(line)
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        line: String,
    ) -> Result<(), SendError<String>> {
        context.send(line)
    }
}

/// Makes one for each connection that comes in through `L`.
pub(crate) struct Echoes<L>(PhantomData<fn() -> L>);

impl<L> Default for Echoes<L> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<L> ServerConnector for Echoes<L>
where
    L: SocketListener<Stream: Send, Establish: Send> + Send,
{
    type Codec = LinesCodec;
    type Reactor = Echo;
    type SocketListener = L;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new()
    }

    fn new_reactor(&self, _: Sender<String>, _: &L::Stream) -> Echo {
        Echo
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

/// A server in a task of its own.
pub(crate) struct Served {
    pub(crate) handle: ServerHandle,
    pub(crate) record: Arc<Recorder>,
    pub(crate) task: JoinHandle<DrainReport>,
}

impl Served {
    pub(crate) fn new<L>(listener: L, acceptor: Acceptor) -> Self
    where
        L: SocketListener<Stream: Send, Establish: Send> + Send,
    {
        Self::with(ProtosocketServerConfig::default(), listener, acceptor)
    }

    fn with<L>(config: ProtosocketServerConfig, listener: L, acceptor: Acceptor) -> Self
    where
        L: SocketListener<Stream: Send, Establish: Send> + Send,
    {
        let record = Arc::new(Recorder::new());
        let listener = Layered::new(listener, acceptor);
        let config = config.observer(record.clone());
        let server = config.build_server(listener, Echoes::default());
        let server = server.expect("the configuration is valid");
        Self {
            handle: server.handle(),
            record,
            task: tokio::spawn(server),
        }
    }

    async fn drain(&self) -> DrainReport {
        soon(self.handle.drain(Duration::from_secs(10))).await
    }
}

/// Say a line and hear it.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, text: &str) {
    let line = format!("{text}\r\n");
    soon(stream.write_all(line.as_bytes()))
        .await
        .expect("the server reads");
    soon(stream.flush()).await.expect("the server reads");
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    soon(reader.read_line(&mut answer))
        .await
        .expect("the server answers");
    assert_eq!(answer, line);
}

#[tokio::test]
async fn lines_are_echoed_over_tcp_unix_sockets_and_pipes_and_a_drain_ends_in_order() {
    let authority = Authority::new();
    let connector = || client(&authority).build().expect("it is valid");
    let acceptor = || server(&authority).build().expect("it is valid");

    let any = "127.0.0.1:0".parse().expect("it is an address");
    let listener = TcpSocketListener::listen(any, TcpOptions::new()).expect("a port is free");
    let address = listener.local_address().expect("it is bound");
    let tcp = Served::new(listener, acceptor());
    exchange(&tcp, Layered::new(TcpConnector::new(address), connector())).await;

    let path = SocketPath::new();
    let listener = UnixSocketListener::listen(&path.0).expect("the path is free");
    let unix = Served::new(listener, acceptor());
    exchange(
        &unix,
        Layered::new(UnixConnector::new(&path.0), connector()),
    )
    .await;

    let (listener, memory) = memory_listener(1024);
    let pipes = Served::new(listener, acceptor());
    exchange(&pipes, Layered::new(memory, connector())).await;
}

async fn exchange<C: SocketConnector<Stream: Send>>(server: &Served, connector: C) {
    let mut leaving = soon(connector.connect()).await.expect("it listens");
    let mut staying = soon(connector.connect()).await.expect("it listens");
    for text in ["hello", &"long ".repeat(10_000)] {
        echo(&mut leaving, text).await;
        echo(&mut staying, text).await;
    }
    soon(leaving.shutdown()).await.expect("it is open");
    let mut rest = Vec::new();
    soon(leaving.read_to_end(&mut rest))
        .await
        .expect("an end in order");
    assert!(rest.is_empty());
    soon(server.record.until_ended(1)).await;

    let report = server.drain();
    let (report, end) = tokio::join!(report, soon(staying.read_to_end(&mut rest)));
    end.expect("an end in order");
    assert_eq!(report.stuck, 0, "{report}");
    assert_eq!(server.record.closed(), ["end_of_input", "drained"]);
}

/// A path for a socket that no other test uses, removed with what is there.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new() -> Self {
        let name = format!("protosocket-tls-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // The listener has removed it, usually.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn l6_the_observer_is_told_what_is_spoken_instead_of_tls() {
    let authority = Authority::new();
    let (listener, connector) = memory_listener(64 * 1024);
    let served = Served::new(listener, server(&authority).build().expect("it is valid"));
    let mut stream = soon(connector.connect()).await.expect("it listens");
    soon(stream.write_all(b"GET / HTTP/1.1\r\n\r\n"))
        .await
        .expect("it fits");
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer))
        .await
        .expect("it is closed");
    // A fatal alert is all that a server of TLS can say.
    assert_eq!(answer[..2], [21, 3], "{answer:?}");
    soon(served.record.until_ended(1)).await;
    let [ending] = &served.record.endings()[..] else {
        panic!("one refusal");
    };
    assert_eq!(ending.end, "refused/handshake");
    assert!(ending.text.contains("looks like HTTP"), "{}", ending.text);
}

#[tokio::test]
async fn l1_handshakes_that_stall_anywhere_end_at_their_deadline() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    let hello = crate::pair::Handshake::new(&connector, &acceptor);
    let hello = hello.begin().to_server.bytes();
    for sent in [&[][..], &hello[..1], &hello[..hello.len() / 2], &hello[..]] {
        let clock = ManualClock::new();
        let config = ProtosocketServerConfig::default()
            .limits(Limits::server().handshake_timeout(Duration::from_secs(10)))
            .clock(Arc::new(clock.clone()));
        let (listener, memory) = memory_listener(64 * 1024);
        let served = Served::with(config, listener, acceptor.clone());
        let mut stream = soon(memory.connect()).await.expect("it listens");
        soon(stream.write_all(sent)).await.expect("it fits");
        // Its alarm is set, and, if the hello is whole, it has been answered.
        soon(async {
            while clock.next_alarm().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        if sent.len() == hello.len() {
            soon(stream.read_u8()).await.expect("the ServerHello");
        }
        clock.advance(Duration::from_secs(10));
        let mut rest = Vec::new();
        soon(stream.read_to_end(&mut rest))
            .await
            .expect("it is closed");
        soon(served.record.until_ended(1)).await;
        let [ending] = &served.record.endings()[..] else {
            panic!("one refusal");
        };
        assert_eq!(ending.end, "refused/handshake");
        assert!(ending.text.contains("handshake_timeout"), "{}", ending.text);
    }
}

#[tokio::test]
async fn l2_5000_stalled_handshakes_do_not_keep_a_good_client_out() {
    let authority = Authority::new();
    let (listener, memory) = memory_listener(8 * 1024);
    let served = Served::new(listener, server(&authority).build().expect("it is valid"));
    let connector = client(&authority).build().expect("it is valid");
    let good = Layered::new(memory.clone(), connector);
    let mut canary = soon(good.connect()).await.expect("it listens");
    echo(&mut canary, "before").await;
    let mut stalled = Vec::new();
    for number in 0..5000 {
        let mut stream = soon(memory.connect()).await.expect("it listens");
        // A third of them begins a ClientHello, a third begins a record of any kind.
        let beginning: &[u8] = [&b""[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc", b"\x16"][number % 3];
        soon(stream.write_all(beginning)).await.expect("it fits");
        stalled.push(stream);
        if number % 500 == 0 {
            echo(&mut canary, "meanwhile").await;
        }
    }
    let mut newcomer = soon(good.connect()).await.expect("it listens");
    echo(&mut newcomer, "hello").await;
    echo(&mut canary, "after").await;
    // LIMIT of the server: max_handshakes, 1,024 by default.
    assert!(served.handle.connections() <= 1024 + 2);
    drop(stalled);
    assert_eq!(served.record.closed(), [""; 0]);
}

#[derive(Debug)]
struct Panics(Mutex<bool>, Arc<CertifiedKey>);

impl ResolvesServerCert for Panics {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let panics = std::mem::take(&mut *self.0.lock().expect("nobody panics with it"));
        assert!(!panics, "the test wants it");
        Some(self.1.clone())
    }
}

#[tokio::test]
async fn l11_a_resolver_that_panics_ends_that_handshake_only() {
    let authority = Authority::new();
    let signed = authority.sign(&[crate::pair::NAME]);
    let key = CertifiedKey::from_der(signed.chain, signed.key, ring().crypto());
    let panics = Arc::new(Panics(
        Mutex::new(false),
        Arc::new(key.expect("it is valid")),
    ));
    let acceptor = Acceptor::builder(ring()).resolver(panics.clone()).build();
    let (listener, memory) = memory_listener(8 * 1024);
    let served = Served::new(listener, acceptor.expect("it is valid"));
    let connector = client(&authority).build().expect("it is valid");
    let connector = Layered::new(memory, connector);
    let mut early = soon(connector.connect()).await.expect("it listens");
    echo(&mut early, "before").await;
    *panics.0.lock().expect("nobody panics with it") = true;
    let error = soon(connector.connect())
        .await
        .expect_err("its handshake panicked");
    assert_eq!(error.source.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    echo(&mut early, "after").await;
    let mut late = soon(connector.connect()).await.expect("it listens");
    echo(&mut late, "after").await;
    let endings = served.record.endings();
    let ends: Vec<_> = endings.iter().map(|ending| &*ending.end).collect();
    assert_eq!(ends, ["refused/panicked"]);
    assert!(!served.task.is_finished());
}

#[tokio::test]
async fn a_connector_gives_a_handshake_up_that_takes_too_long() {
    let authority = Authority::new();
    let (_listener, memory): (_, MemoryConnector) = memory_listener(8 * 1024);
    let connector = client(&authority).build().expect("it is valid");
    let connector = Layered::new(memory, connector).timeout(Duration::from_millis(10));
    let error = soon(connector.connect()).await.expect_err("nobody answers");
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut, "{error}");
}

#[tokio::test]
async fn l8_a_client_that_talks_behind_its_finished_still_hears_why_it_was_refused() {
    let authority = Authority::new();
    let acceptor = server(&authority).require_client_certificate(authority.roots());
    let any = "127.0.0.1:0".parse().expect("it is an address");
    let listener = TcpSocketListener::listen(any, TcpOptions::new()).expect("a port is free");
    let address = listener.local_address().expect("it is bound");
    let served = Served::new(listener, acceptor.build().expect("it is valid"));
    // It has no certificate, which a client of TLS 1.3 is not told within its handshake.
    let connector = client(&authority).build().expect("it is valid");
    let connector = Layered::new(TcpConnector::new(address), connector);
    let mut stream = soon(connector.connect()).await.expect("its side is done");
    // The alert is there, unread, when more is sent to whoever may have closed its socket.
    soon(stream.get_ref().get_ref().readable())
        .await
        .expect("it is open");
    for _ in 0..16 {
        soon(stream.write_all(&[0; 16 * 1024]))
            .await
            .expect("the server reads");
        soon(stream.flush()).await.expect("the server reads");
    }
    let error = soon(stream.read_u8()).await.expect_err("it was refused");
    let error = protosocket_tls::Error::of(&error).expect("it is one of TLS");
    assert_eq!(error.alert_received(), Some(Alert::CERTIFICATE_REQUIRED));
    drop(stream);
    soon(served.record.until_ended(1)).await;
    let [ending] = &served.record.endings()[..] else {
        panic!("one refusal");
    };
    assert_eq!(ending.end, "refused/handshake");
    assert!(ending.text.contains("it sent none"), "{}", ending.text);
}
