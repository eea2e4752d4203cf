use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use protosocket::{PeerAddress, Transport};
use rustls::{CommonState, HandshakeKind, pki_types::CertificateDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Error, ProtocolVersion, watched::Watched};

/// A stream that is encrypted, and whose peer is who its certificate says.
///
/// Slices of a vectored write are put together into full records of 16 KiB. The end of the output
/// is announced with `close_notify` before the stream below is shut down; the end of the input is
/// one only behind the peer's, and [`Error::Truncated`] otherwise.
pub struct TlsStream<S> {
    inner: tokio_rustls::TlsStream<Watched<S>>,
}

impl<S> TlsStream<S> {
    pub(crate) fn new(inner: impl Into<tokio_rustls::TlsStream<Watched<S>>>) -> Self {
        Self {
            inner: inner.into(),
        }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.inner.get_ref().0.stream
    }

    /// The version of TLS that was agreed upon.
    pub fn protocol_version(&self) -> ProtocolVersion {
        let version = self.session().protocol_version();
        ProtocolVersion(version.map_or(0, u16::from))
    }

    /// The name of the cipher suite that was agreed upon, as the IANA writes it with
    /// `TLS13_` for `TLS_` in those of TLS 1.3.
    pub fn cipher_suite(&self) -> &'static str {
        let suite = self.session().negotiated_cipher_suite();
        suite
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or_default()
    }

    /// The application protocol that was agreed upon (RFC 7301), or `None` if there was none to
    /// agree upon.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.session().alpn_protocol()
    }

    /// Which server the client wants (RFC 6066, "SNI"), as a server knows it; `None` if the client
    /// named none, and always on the client's own side.
    pub fn server_name(&self) -> Option<&str> {
        match &self.inner {
            tokio_rustls::TlsStream::Server(stream) => stream.get_ref().1.server_name(),
            tokio_rustls::TlsStream::Client(_) => None,
        }
    }

    /// The peer's certificate, and those that it sent along; `None` if it sent none. A session
    /// that was resumed has those of its first handshake.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session().peer_certificates()
    }

    /// Whether this is a session of an earlier connection, without a handshake of its own.
    pub fn is_resumed(&self) -> bool {
        self.session().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn session(&self) -> &CommonState {
        self.inner.get_ref().1
    }
}

impl<S: Transport> Transport for TlsStream<S> {
    fn peer_address(&self) -> PeerAddress {
        self.get_ref().peer_address()
    }

    fn lingers(&self) -> bool {
        self.get_ref().lingers()
    }

    fn abort(&mut self) {
        self.inner.get_mut().0.stream.abort();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if self.session().wants_write() {
            // What TLS answers by itself, such as a refusal to renegotiate, must not wait for the
            // next message. If it cannot be written, the next message will tell.
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        read.map_err(Error::of_stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("version", &self.protocol_version())
            .field("cipher_suite", &self.cipher_suite())
            .field("server_name", &self.server_name())
            .field("resumed", &self.is_resumed())
            .finish_non_exhaustive()
    }
}
