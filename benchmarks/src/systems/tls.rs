//! Echoes over TLS 1.3. All of them have the same configuration of rustls, in which nothing is left to
//! choose but what is measured: one cipher suite, one certificate, no resumption.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Server, Start, framed, hand_loop, ours, serve_tasks};
use crate::work::Tls as Work;

/// How a system echoes over TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tls {
    /// Starts its server.
    pub(super) start: Start,
    /// Whether it has buffers for messages at a rate.
    has_buffers: bool,
}

pub(super) const HAND_LOOP: Tls = Tls {
    start: || serve(hand_loop::echo),
    has_buffers: true,
};

pub(super) const OURS: Tls = Tls {
    start: || ours::start_over_tls(config()?),
    has_buffers: true,
};

pub(super) const FRAMED: Tls = Tls {
    start: || serve(framed::echo),
    has_buffers: true,
};

pub(super) const ALONE: Tls = Tls {
    start: || serve(echo_bytes),
    has_buffers: false,
};

impl Tls {
    /// Whether it can do this work.
    pub(super) fn does(&self, work: Work) -> bool {
        match work {
            Work::Echo(_) => self.has_buffers,
            Work::Handshake { .. } | Work::Idle { .. } => true,
        }
    }
}

/// The one provider of cryptography, with the one cipher suite.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
        ..default_provider()
    })
}

fn config() -> io::Result<Arc<ServerConfig>> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(io::Error::other)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
        })
        .map_err(io::Error::other)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// In a box, because whatever moves it holds its kilobyte twice.
type Stream = Box<TlsStream<TcpStream>>;

/// A task for each connection around the stream of tokio-rustls, which is closed in order.
fn serve<F>(echo: fn(Stream) -> F) -> io::Result<Server>
where
    F: Future<Output = io::Result<Stream>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(config()?);
    serve_tasks(move |stream| {
        let accept = Box::pin(acceptor.accept(stream));
        async move {
            let mut stream = echo(Box::new(accept.await?)).await?;
            poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await
        }
    })
}

/// Sends back what comes, from a few bytes of the stack.
async fn echo_bytes(mut stream: Stream) -> io::Result<Stream> {
    loop {
        let mut bytes = [0; 128];
        let mut read = ReadBuf::new(&mut bytes);
        poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut read)).await?;
        let mut unsent = read.filled();
        if unsent.is_empty() {
            return Ok(stream);
        }
        while !unsent.is_empty() {
            let count = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, unsent)).await?;
            unsent = &unsent[count..];
        }
        poll_fn(|cx| Pin::new(&mut stream).poll_flush(cx)).await?;
    }
}
