//! The corpus: bytes that are no handshake, for a decoder and for a server.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use protosocket::{
    DecodeError, Decoded, Decoder, EncodeError, Encoder, Establisher, Input, Layered, PeerAddress,
    Prefixed, SendBuffer, TcpOptions, TcpSocketListener, Transport,
};
use protosocket_server::ProtosocketServerConfig;
use protosocket_testkit::{
    LineEcho,
    corpus::{Corpus, RuleIndex},
};
use protosocket_tls::{Acceptor, ClientHello, Parsed, TlsStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::{pair::server, pki::Authority, served::Echoes};

fn corpus() -> Corpus {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    Corpus::load_all(folder, &["tls"]).expect("it can be read")
}

/// ClientHellos, one behind the other.
struct Hellos;

impl Decoder for Hellos {
    type Message = ClientHello;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<ClientHello>, DecodeError> {
        let length = input.len();
        match ClientHello::parse(input.bytes()) {
            Ok(Parsed::ClientHello(hello)) => {
                input.advance(length);
                Ok(Decoded::Message(hello))
            }
            Ok(Parsed::NeedMore(missing)) => Ok(Decoded::Need(length + missing)),
            Err(error) => Err(DecodeError::malformed(error.to_string())),
        }
    }
}

impl Encoder for Hellos {
    type Message = ClientHello;

    fn encode(&mut self, _: ClientHello, _: &mut SendBuffer) -> Result<(), EncodeError> {
        Err(EncodeError::invalid("a ClientHello is only read"))
    }
}

#[test]
fn the_corpus_against_a_decoder() {
    let report = corpus().run_decoder(|_| Hellos, |_| Bytes::new());
    report.expect_all();
}

#[test]
fn the_corpus_against_a_server() {
    let acceptor = server(&Authority::new()).build().expect("it is valid");
    let report = corpus().run_server(
        || LineEcho,
        move |setup| {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = TcpSocketListener::listen(any, TcpOptions::new());
            let listener = listener.expect("a port is free");
            let address = listener.local_address().expect("it is bound");
            let server = ProtosocketServerConfig::default()
                .limits(setup.limits)
                .observer(setup.observer);
            let listener = Layered::new(listener, BesideCanaries(acceptor.clone()));
            let server = server.build_server(listener, Echoes::default());
            (address, server.expect("the configuration is valid"))
        },
    );
    report.expect_all();
}

#[test]
fn every_rule_is_shown_where_it_applies() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/rules.toml");
    let index = RuleIndex::load(rules, corpus().cases()).expect("it can be read");
    let expected = [
        "L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8", "L9", "L10", "L11",
    ];
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    assert_eq!(index.gaps(root, &expected), [""; 0]);
}

/// Lets canaries in without TLS, of which they know nothing: they begin with their name.
struct BesideCanaries(Acceptor);

impl<S: Transport + Send> Establisher<S> for BesideCanaries {
    type Stream = Either<S>;
    type Establish = Pin<Box<dyn Future<Output = io::Result<Either<S>>> + Send>>;

    fn establish(&self, mut stream: S) -> Self::Establish {
        let acceptor = self.0.clone();
        Box::pin(async move {
            let first = match stream.read_u8().await {
                Ok(first) => Bytes::copy_from_slice(&[first]),
                Err(_) => Bytes::new(),
            };
            let is_canary = &first[..] == b"c";
            let stream = Prefixed::new(first, stream);
            match is_canary {
                true => Ok(Either::Canary(stream)),
                false => Ok(Either::Tls(Box::new(acceptor.establish(stream).await?))),
            }
        })
    }
}

/// What comes out of it.
enum Either<S> {
    Canary(Prefixed<S>),
    Tls(Box<TlsStream<Prefixed<S>>>),
}

/// Do the same with either.
macro_rules! either {
    ($self:expr, $stream:ident => $what:expr) => {
        match $self {
            Either::Canary($stream) => $what,
            Either::Tls($stream) => $what,
        }
    };
}

impl<S: Transport> Transport for Either<S> {
    fn peer_address(&self) -> PeerAddress {
        either!(self, stream => stream.peer_address())
    }

    fn lingers(&self) -> bool {
        either!(self, stream => stream.lingers())
    }

    fn abort(&mut self) {
        either!(self, stream => stream.abort());
    }
}

impl<S: Transport> AsyncRead for Either<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl<S: Transport> AsyncWrite for Either<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }
}
