//! What an idle connection over TLS holds, beside what rustls holds of it.
//!
//! A program of its own, because an allocator that counts is one for a whole program.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use protosocket::{
    Connection, ConnectionConfig, Establisher, Limits, ManualClock, MessageReactor, ReactorContext,
    ReactorStatus, SendError, Transport, channel,
};
use protosocket_testkit::{
    CountingAllocator, Framed, INSTRUMENTED_SYSTEM, Resources, ScriptedStream, StreamPeer, alone,
    framed, scripted_stream,
};
use protosocket_tls::{
    Acceptor, Connector, Identity, ring,
    rustls::{self, RootCertStore, pki_types::CertificateDer},
};
use rcgen::generate_simple_self_signed;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

/// How many connections are weighed.
const MANY: usize = 64;

/// The most that an idle connection may hold beside what rustls and the stream of tokio-rustls do.
const BESIDE: usize = 16 * 1024;

const NAME: &str = "server.test";

#[test]
fn an_idle_connection_holds_little_beside_the_state_of_rustls() {
    alone(
        "an_idle_connection_holds_little_beside_the_state_of_rustls",
        || {
            let sides = Sides::new();
            // What is made once: tables of rustls, the buffers of this thread.
            sides.weigh();
            let weights = sides.weigh();
            for (side, ours, theirs) in [
                ("server", weights.server, weights.their_server),
                ("client", weights.client, weights.their_client),
            ] {
                eprintln!("{side}: {ours} bytes, of which rustls and tokio-rustls hold {theirs}");
                assert!(theirs > 1000, "it was weighed");
                assert!(
                    ours < theirs + BESIDE,
                    "{side}: {ours} bytes beside {theirs}"
                );
            }
        },
    );
}

/// Bytes of each side of an idle connection.
struct Weights {
    server: usize,
    client: usize,
    their_server: usize,
    their_client: usize,
}

struct Sides {
    acceptor: Acceptor,
    connector: Connector,
    their_acceptor: tokio_rustls::TlsAcceptor,
    their_connector: tokio_rustls::TlsConnector,
}

impl Sides {
    fn new() -> Self {
        let made = generate_simple_self_signed([NAME.to_owned()]).expect("it is a name");
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = || {
            made.signing_key
                .serialize_der()
                .try_into()
                .expect("it is a key")
        };
        let identity = Identity::der(vec![certificate.clone()], key());
        let acceptor = Acceptor::builder(ring()).certificate(identity).build();
        let connector = Connector::builder(ring()).server_name(NAME);
        let connector = connector.pin_certificate(certificate.clone()).build();

        let crypto = ring().crypto().clone();
        let server = rustls::ServerConfig::builder_with_provider(crypto.clone())
            .with_safe_default_protocol_versions()
            .expect("they are supported")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key());
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("it is a certificate");
        let client = rustls::ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .expect("they are supported")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            acceptor: acceptor.expect("it is valid"),
            connector: connector.expect("it is valid"),
            their_acceptor: Arc::new(server.expect("it is valid")).into(),
            their_connector: Arc::new(client).into(),
        }
    }

    fn weigh(&self) -> Weights {
        let mut ours = Vec::with_capacity(MANY);
        let mut theirs = Vec::with_capacity(MANY);
        for _ in 0..MANY {
            let pipe = Pipe::new();
            let client = self.connector.establish(pipe.client);
            let server = self.acceptor.establish(pipe.server);
            let (client, server) = pipe.wires.handshake(client, server);
            ours.push((connection(client), connection(server), pipe.wires));

            let pipe = Pipe::new();
            let name = NAME.try_into().expect("it is a name");
            let client = self.their_connector.connect(name, pipe.client);
            let server = self.their_acceptor.accept(pipe.server);
            let (client, server) = pipe.wires.handshake(client, server);
            theirs.push((Box::new(client), Box::new(server), pipe.wires));
        }
        // Say something each way, and be idle then.
        for (client, server, wires) in &mut ours {
            for _ in 0..4 {
                poll(&mut **client);
                poll(&mut **server);
                wires.carry();
            }
        }
        for (client, server, wires) in &mut theirs {
            say(&mut **client);
            wires.carry();
            hear(&mut **server);
            say(&mut **server);
            wires.carry();
            hear(&mut **client);
        }
        let (mut clients, mut servers, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (client, server, wires) in ours {
            clients.push(client);
            servers.push(server);
            kept.push(wires);
        }
        let (client, server) = (weight(clients), weight(servers));
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for (client, server, wires) in theirs {
            clients.push(client);
            servers.push(server);
            kept.push(wires);
        }
        Weights {
            client,
            server,
            their_client: weight(clients),
            their_server: weight(servers),
        }
    }
}

/// Bytes that each of them holds: what comes free with them.
fn weight<T>(them: Vec<T>) -> usize {
    let live = || Resources::now().live_bytes.expect("this allocator counts");
    let before = live();
    let list = them.capacity() * size_of::<T>();
    drop(them);
    let freed = usize::try_from(before - live()).expect("something comes free");
    (freed - list) / MANY
}

/// A connection that says one message and answers none.
fn connection<S: Transport>(stream: S) -> Box<Connection<S, Quiet>> {
    let config = ConnectionConfig::server(Limits::server()).expect("it is valid");
    let config = config.with_clock(Arc::new(ManualClock::new()));
    let (sender, receiver) = channel(4);
    assert!(
        sender.try_send(b"hello"[..].into()).is_ok(),
        "there is room"
    );
    let connection = Connection::over(stream, framed(), Quiet, receiver, &config);
    Box::new(connection)
}

struct Quiet;

impl MessageReactor for Quiet {
    type Codec = Framed;
    type Inbound = bytes::Bytes;
    type Outbound = bytes::Bytes;
    type LogicalOutbound = bytes::Bytes;

    fn on_inbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, Framed>,
        _message: bytes::Bytes,
    ) -> ReactorStatus {
        ReactorStatus::Continue
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Framed>,
        message: bytes::Bytes,
    ) -> Result<(), SendError<bytes::Bytes>> {
        context.send(message)
    }
}

/// Both ends of a stream, and what carries bytes between them.
struct Pipe {
    client: ScriptedStream,
    server: ScriptedStream,
    wires: Wires,
}

struct Wires {
    client: StreamPeer,
    server: StreamPeer,
}

impl Pipe {
    fn new() -> Self {
        let (client, client_peer) = scripted_stream();
        let (server, server_peer) = scripted_stream();
        Self {
            client,
            server,
            wires: Wires {
                client: client_peer,
                server: server_peer,
            },
        }
    }
}

impl Wires {
    fn carry(&self) {
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            to.send(from.written());
            from.forget_written();
        }
    }

    fn handshake<C, S>(
        &self,
        mut client: impl Future<Output = io::Result<C>> + Unpin,
        mut server: impl Future<Output = io::Result<S>> + Unpin,
    ) -> (C, S) {
        let (mut done_client, mut done_server) = (None, None);
        while done_client.is_none() || done_server.is_none() {
            if done_client.is_none() {
                done_client = poll(&mut client).map(|done| done.expect("it succeeds"));
            }
            self.carry();
            if done_server.is_none() {
                done_server = poll(&mut server).map(|done| done.expect("it succeeds"));
            }
            self.carry();
        }
        done_client.zip(done_server).expect("both are done")
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn say<S: AsyncWrite + Unpin>(stream: &mut S) {
    let cx = &mut Context::from_waker(Waker::noop());
    let written = Pin::new(&mut *stream).poll_write(cx, b"\0\0\0\x05hello");
    assert!(matches!(written, Poll::Ready(Ok(9))));
    assert!(Pin::new(stream).poll_flush(cx).is_ready());
}

fn hear<S: AsyncRead + Unpin>(stream: &mut S) {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut memory = [0; 100];
    let mut buffer = ReadBuf::new(&mut memory);
    assert!(Pin::new(&mut *stream).poll_read(cx, &mut buffer).is_ready());
    assert_eq!(buffer.filled().len(), 9);
    // Ask again, as whoever waits for more does.
    let mut buffer = ReadBuf::new(&mut memory);
    assert!(Pin::new(stream).poll_read(cx, &mut buffer).is_pending());
}

#[test]
fn a_stalled_handshake_holds_little_more_than_what_its_client_has_said() {
    alone(
        "a_stalled_handshake_holds_little_more_than_what_its_client_has_said",
        || {
            let sides = Sides::new();
            let pipe = Pipe::new();
            let mut client = sides.connector.establish(pipe.client);
            assert!(poll(&mut client).is_none(), "it waits for an answer");
            let hello = pipe.wires.client.written();
            // One that announces the 64 KiB that rustls takes, and stops before the last of them.
            let mut endless = Vec::new();
            let message = [&[1, 0, 0xff, 0xf0][..], &[0; 0xff00]].concat();
            for part in message.chunks(1 << 14) {
                endless.extend([0x16, 3, 1]);
                endless.extend((part.len() as u16).to_be_bytes());
                endless.extend(part);
            }
            let weigh = |said: &[u8]| {
                let stall = || {
                    let (stream, peer) = scripted_stream();
                    let mut server = sides.acceptor.establish(stream);
                    peer.send(said);
                    assert!(poll(&mut server).is_none(), "it waits for more");
                    peer.forget_written();
                    server
                };
                drop(stall());
                weight((0..MANY).map(|_| stall()).collect())
            };
            for (stage, said, most) in [
                ("silent", &[][..], 8 * 1024),
                ("half a ClientHello", &hello[..hello.len() / 2], 16 * 1024),
                ("a ClientHello, answered", &hello[..], 32 * 1024),
                ("nearly 64 KiB of one", &endless[..], 80 * 1024),
            ] {
                let bytes = weigh(said);
                eprintln!("{stage}: {bytes} bytes");
                assert!(bytes < most, "{stage}: {bytes} bytes");
            }
        },
    );
}
