//! A client and a server without a network: every byte between them passes through the test.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use protosocket::Establisher;
use protosocket_testkit::{ScriptedStream, StreamPeer, scripted_stream};
use protosocket_tls::{
    Accept, Acceptor, AcceptorBuilder, Connect, Connector, ConnectorBuilder, TlsStream, ring,
    rustls,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::pki::Authority;

pub(crate) type Stream = TlsStream<ScriptedStream>;

/// The name that the server of a test has.
pub(crate) const NAME: &str = "server.test";

/// A server with a certificate for [`NAME`], to be changed.
pub(crate) fn server(authority: &Authority) -> AcceptorBuilder {
    Acceptor::builder(ring()).certificate(authority.sign(&[NAME]).identity())
}

/// A client that trusts this authority, to be changed.
pub(crate) fn client(authority: &Authority) -> ConnectorBuilder {
    let client = Connector::builder(ring()).server_name(NAME);
    client.roots(authority.roots())
}

/// One direction: what one side has written, and how much of it has been carried to the other.
pub(crate) struct Wire {
    pub(crate) from: StreamPeer,
    pub(crate) to: StreamPeer,
    carried: usize,
    /// Bytes that are carried at a time.
    pub(crate) slice: usize,
}

impl Wire {
    pub(crate) fn new(from: &StreamPeer, to: &StreamPeer) -> Self {
        Self {
            from: from.clone(),
            to: to.clone(),
            carried: 0,
            slice: usize::MAX,
        }
    }

    /// Carry what there is. Whether there was anything.
    pub(crate) fn carry(&mut self) -> bool {
        self.carry_to(usize::MAX)
    }

    /// Carry no more than so many bytes in all. Whether there was anything.
    pub(crate) fn carry_to(&mut self, most: usize) -> bool {
        let written = self.from.written();
        let until = written.len().min(most);
        let fresh = &written[self.carried.min(until)..until];
        for slice in fresh.chunks(self.slice) {
            self.to.send(slice);
        }
        self.carried += fresh.len();
        !fresh.is_empty()
    }

    /// Forget what has been written, which is carried by hand.
    pub(crate) fn skip(&mut self) {
        self.carried = self.from.written_len();
    }

    /// Everything that was written.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.from.written()
    }
}

/// Two sides amid their handshake.
pub(crate) struct Handshake {
    pub(crate) client: Side<Connect<ScriptedStream>>,
    pub(crate) server: Side<Accept<ScriptedStream>>,
    pub(crate) to_server: Wire,
    pub(crate) to_client: Wire,
}

/// What became of a side.
pub(crate) enum Side<F> {
    Busy(F),
    Done(Box<Stream>),
    Failed(io::Error),
}

impl<F: Future<Output = io::Result<Stream>> + Unpin> Side<F> {
    pub(crate) fn poll(&mut self) {
        let Self::Busy(future) = self else { return };
        match poll_once(future) {
            Poll::Pending => {}
            Poll::Ready(Ok(stream)) => *self = Self::Done(Box::new(stream)),
            Poll::Ready(Err(error)) => *self = Self::Failed(error),
        }
    }

    #[track_caller]
    pub(crate) fn stream(self) -> Stream {
        match self {
            Self::Done(stream) => *stream,
            Self::Failed(error) => panic!("the handshake failed: {error}"),
            Self::Busy(_) => panic!("the handshake is not done"),
        }
    }

    #[track_caller]
    pub(crate) fn error(self) -> io::Error {
        match self {
            Self::Failed(error) => error,
            Self::Done(_) => panic!("the handshake is done"),
            Self::Busy(_) => panic!("the handshake goes on"),
        }
    }
}

impl Handshake {
    pub(crate) fn new(connector: &Connector, acceptor: &Acceptor) -> Self {
        let (near, near_peer) = scripted_stream();
        let (far, far_peer) = scripted_stream();
        Self {
            client: Side::Busy(connector.establish(near)),
            server: Side::Busy(acceptor.establish(far)),
            to_server: Wire::new(&near_peer, &far_peer),
            to_client: Wire::new(&far_peer, &near_peer),
        }
    }

    /// Carry at most so many bytes at a time.
    pub(crate) fn slices(mut self, slice: usize) -> Self {
        self.to_server.slice = slice;
        self.to_client.slice = slice;
        self
    }

    /// Poll both and carry, until nothing more comes of it.
    pub(crate) fn run(mut self) -> Self {
        self.settle();
        self
    }

    /// Let the client say its first words, which are not carried yet.
    pub(crate) fn begin(mut self) -> Self {
        self.client.poll();
        self
    }

    /// Poll the server alone, until it has read what there is.
    pub(crate) fn settle_server(&mut self) {
        self.server.poll();
    }

    pub(crate) fn settle(&mut self) {
        loop {
            self.client.poll();
            self.server.poll();
            // Both must run, so no shortcut.
            let carried = self.to_server.carry() | self.to_client.carry();
            if !carried {
                return;
            }
        }
    }

    /// Both sides, done.
    #[track_caller]
    pub(crate) fn pair(self) -> Pair {
        Pair {
            client: self.client.stream(),
            server: self.server.stream(),
            to_server: self.to_server,
            to_client: self.to_client,
        }
    }
}

/// Two established sides.
pub(crate) struct Pair {
    pub(crate) client: Stream,
    pub(crate) server: Stream,
    pub(crate) to_server: Wire,
    pub(crate) to_client: Wire,
}

impl Pair {
    #[track_caller]
    pub(crate) fn new(connector: &Connector, acceptor: &Acceptor) -> Self {
        Handshake::new(connector, acceptor).run().pair()
    }

    /// Say something each way and hear it.
    #[track_caller]
    pub(crate) fn exchange(&mut self) {
        for text in [&b"ping"[..], b"and again"] {
            write(&mut self.client, text);
            self.to_server.carry();
            assert_eq!(read(&mut self.server).expect("it came"), text);
            write(&mut self.server, text);
            self.to_client.carry();
            assert_eq!(read(&mut self.client).expect("it came"), text);
        }
    }
}

/// Poll a future that nobody wakes.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Write all of `bytes` and flush.
#[track_caller]
pub(crate) fn write(stream: &mut Stream, mut bytes: &[u8]) {
    let cx = &mut Context::from_waker(Waker::noop());
    while !bytes.is_empty() {
        let Poll::Ready(Ok(count)) = Pin::new(&mut *stream).poll_write(cx, bytes) else {
            panic!("the stream takes everything");
        };
        bytes = &bytes[count..];
    }
    let flushed = Pin::new(stream).poll_flush(cx);
    assert!(matches!(flushed, Poll::Ready(Ok(()))), "{flushed:?}");
}

/// Finish the output.
#[track_caller]
pub(crate) fn shutdown(stream: &mut Stream) {
    let cx = &mut Context::from_waker(Waker::noop());
    let done = Pin::new(stream).poll_shutdown(cx);
    assert!(matches!(done, Poll::Ready(Ok(()))), "{done:?}");
}

/// What one read brings: bytes, nothing at the end, or the error. Nothing to read is `WouldBlock`.
pub(crate) fn read(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut memory = [0; 32 * 1024];
    let mut buffer = ReadBuf::new(&mut memory);
    let cx = &mut Context::from_waker(Waker::noop());
    match Pin::new(stream).poll_read(cx, &mut buffer) {
        Poll::Ready(Ok(())) => Ok(buffer.filled().to_vec()),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// The records in `bytes`: content type and length of each.
#[track_caller]
pub(crate) fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, length));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "half a record");
    records
}

/// A client that speaks nothing above TLS 1.2, which nobody can configure: a minimum is for
/// safety, a maximum would be against it.
pub(crate) fn client_of_tls12(authority: &Authority, protocols: &[&str]) -> Connector {
    let config = config_of_version(authority, &rustls::version::TLS12);
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = protocols.iter().map(|it| (*it).into()).collect();
    Connector::from_config(Arc::new(config), NAME.try_into().expect("it is a name"))
}

/// A client that would send early data if a server let it.
pub(crate) fn client_with_early_data(authority: &Authority) -> Connector {
    let mut config = Arc::unwrap_or_clone(config_of_client(authority));
    config.enable_early_data = true;
    Connector::from_config(Arc::new(config), NAME.try_into().expect("it is a name"))
}

/// A client of rustls, for what ours has no setting for.
pub(crate) fn config_of_client(authority: &Authority) -> Arc<rustls::ClientConfig> {
    config_of_version(authority, &rustls::version::TLS13)
}

fn config_of_version(
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der()).expect("it is a certificate");
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[version])
        .expect("it is supported")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// The numbers of the extensions of a ClientHello that is the first record of `bytes`.
pub(crate) fn extensions_of_client_hello(bytes: &[u8]) -> Vec<u16> {
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    // Behind the headers of record and message, version and random: session id, cipher suites,
    // compression methods.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(bytes[at]);
    at += 2 + usize::from(number(at));
    at += 1 + usize::from(bytes[at]);
    let end = at + 2 + usize::from(number(at));
    at += 2;
    let mut found = Vec::new();
    while at < end {
        found.push(number(at));
        at += 4 + usize::from(number(at + 2));
    }
    found
}
