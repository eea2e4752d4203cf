use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Network, ProxyError, ProxyHeader};
use crate::transport::{Establisher, PeerAddress, Prefixed, Transport};

/// Takes a header of 4 KiB: addresses, names and a certificate. Proxies send less than a tenth.
const MAX_HEADER: usize = 4096;

/// What one read takes at most: a header with two paths of Unix sockets fits.
const READ: usize = 256;

/// Reads the header of a proxy, so that streams have the addresses of its clients.
///
/// An [`Establisher`] for a [`Layered`](crate::Layered) listener. Only the headers of trusted
/// proxies are believed:
///
/// | the peer is | [`strict`](Self::strict) | [`optional`](Self::optional) |
/// |---|---|---|
/// | trusted, with a header | the header counts | the header counts |
/// | trusted, without one | refused | a stream like any other |
/// | not trusted | refused at once, nothing is read | a stream like any other, and nothing is looked at: what may be a header is the first input of the protocol |
///
/// A header that is begun and wrong is refused in each mode. The protocol's own rule is not to
/// guess: with `optional`, whoever can connect from a trusted address decides whether there is a
/// header, so every program at that address must be trusted. Peers that are trusted must speak
/// first; with `optional`, a protocol in which the server does works for the others alone.
///
/// The header has as long as the handshake may take. What a proxy calls LOCAL, such as a health
/// check, and what comes from where it does not know, keeps its real address.
///
/// # Limits per address
/// A server's limits per address are about the clients: they wait for the header, and a proxy's
/// connections without one are bounded by `max_handshakes` alone. An observer hears of a refusal
/// with the address that is known by then.
///
/// ```
/// use protosocket::{Layered, TcpOptions, TcpSocketListener, proxy::{Network, ProxyAcceptor}};
///
/// # fn example(listener: TcpSocketListener) -> Result<(), Box<dyn std::error::Error>> {
/// let proxies: [Network; 2] = ["10.0.0.0/8".parse()?, "2001:db8::7".parse()?];
/// let listener = Layered::new(listener, ProxyAcceptor::strict(proxies));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ProxyAcceptor {
    rules: Arc<Rules>,
}

#[derive(Debug, Clone)]
struct Rules {
    trusted: Vec<Network>,
    trusts_local: bool,
    is_optional: bool,
    max_header: usize,
}

impl ProxyAcceptor {
    /// A header must come, and from one of these.
    pub fn strict(trusted: impl IntoIterator<Item = Network>) -> Self {
        Self::new(trusted, false)
    }

    /// A header may come from one of these, and is not looked for in what others send.
    pub fn optional(trusted: impl IntoIterator<Item = Network>) -> Self {
        Self::new(trusted, true)
    }

    fn new(trusted: impl IntoIterator<Item = Network>, is_optional: bool) -> Self {
        Self {
            rules: Arc::new(Rules {
                trusted: trusted.into_iter().collect(),
                trusts_local: false,
                is_optional,
                max_header: MAX_HEADER,
            }),
        }
    }

    /// Trust whoever connects through a Unix socket or a pipe of this process, too: who that can
    /// be is a matter of the socket's permissions.
    #[must_use]
    pub fn trust_local(mut self) -> Self {
        Arc::make_mut(&mut self.rules).trusts_local = true;
        self
    }

    /// The longest header of version 2, in bytes, 4 KiB by default. No more than
    /// [`ProxyHeader::LONGEST`] can come, and memory is taken for what has come.
    #[must_use]
    pub fn max_header(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.rules).max_header = bytes;
        self
    }
}

impl Rules {
    fn trusts(&self, peer: &PeerAddress) -> bool {
        match peer {
            PeerAddress::Ip(address) => {
                let mut trusted = self.trusted.iter();
                trusted.any(|network| network.contains(address.ip()))
            }
            PeerAddress::Unix(_) | PeerAddress::Memory => self.trusts_local,
            PeerAddress::Unknown => false,
        }
    }
}

impl<S: Transport> Establisher<S> for ProxyAcceptor {
    type Stream = Proxied<S>;
    type Establish = ReadHeader<S>;

    fn establish(&self, stream: S) -> ReadHeader<S> {
        ReadHeader {
            stream: Some(stream),
            seen: BytesMut::new(),
            rules: self.rules.clone(),
        }
    }

    fn is_proxy(&self, peer: &PeerAddress) -> bool {
        self.rules.trusts(peer)
    }
}

/// Reads the header before a stream.
pub struct ReadHeader<S> {
    /// `None` when it is done.
    stream: Option<S>,
    seen: BytesMut,
    rules: Arc<Rules>,
}

impl<S: Transport> ReadHeader<S> {
    /// The header, if there is one, and how many bytes it takes.
    fn poll_header(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(ProxyHeader, usize)>, io::Error>> {
        let rules = &self.rules;
        let stream = self.stream.as_mut().expect("polled after it was done");
        let peer = stream.peer_address();
        if !rules.trusts(&peer) {
            return Poll::Ready(match rules.is_optional {
                true => Ok(None),
                false => Err(ProxyError::Untrusted(peer).into()),
            });
        }
        loop {
            match ProxyHeader::parse(&self.seen, rules.max_header) {
                Ok(None) => {}
                Ok(header) => return Poll::Ready(Ok(header)),
                Err(ProxyError::Missing) if rules.is_optional => return Poll::Ready(Ok(None)),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
            let mut space = [0; READ];
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                // Who is done before a header could be told from other bytes sent none.
                return Poll::Ready(match rules.is_optional && !is_certain(&self.seen) {
                    true => Ok(None),
                    false => Err(ProxyError::Truncated(self.seen.len()).into()),
                });
            }
            self.seen.extend_from_slice(buffer.filled());
        }
    }
}

/// Whether nothing but a header begins like that.
fn is_certain(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PROXY ") || bytes.len() >= 12
}

impl<S: Transport> Future for ReadHeader<S> {
    type Output = io::Result<Proxied<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let header = ready!(self.poll_header(cx))?;
        let stream = self.stream.take().expect("it was there to be polled");
        let mut seen = std::mem::take(&mut self.seen);
        let header = header.map(|(header, length)| {
            drop(seen.split_to(length));
            Box::new(header)
        });
        let rest = match seen.is_empty() {
            true => Bytes::new(),
            false => seen.freeze(),
        };
        Poll::Ready(Ok(Proxied {
            stream: Prefixed::new(rest, stream),
            header,
        }))
    }
}

impl<S> fmt::Debug for ReadHeader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadHeader")
            .field("seen", &self.seen.len())
            .finish_non_exhaustive()
    }
}

/// A stream that a proxy has passed on, or may have: its
/// [`peer_address`](Transport::peer_address) is that of the client.
#[derive(Debug)]
pub struct Proxied<S> {
    stream: Prefixed<S>,
    header: Option<Box<ProxyHeader>>,
}

impl<S> Proxied<S> {
    /// What the proxy said, if there was a header.
    pub fn header(&self) -> Option<&ProxyHeader> {
        self.header.as_deref()
    }

    /// The stream below, whose peer is the proxy.
    pub fn get_ref(&self) -> &S {
        self.stream.get_ref()
    }
}

impl<S: Transport> Transport for Proxied<S> {
    fn peer_address(&self) -> PeerAddress {
        let client = self.header().and_then(ProxyHeader::client);
        client.unwrap_or_else(|| self.stream.peer_address())
    }

    fn lingers(&self) -> bool {
        self.stream.lingers()
    }

    fn abort(&mut self) {
        self.stream.abort();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Proxied<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Proxied<S> {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
