use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use protosocket::{Alarm, PeerAddress, Prefixed, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Protocol,
    sniffer::{MOST_BYTES, Rules},
};

/// Reads the beginning of a stream until a [`Sniffer`](super::Sniffer) knows what it speaks.
pub struct Sniff<S> {
    /// `None` when it is done.
    stream: Option<S>,
    seen: Vec<u8>,
    rules: Arc<Rules>,
    /// Rings when the peer has been silent for too long, if that matters.
    silence: Option<Pin<Box<dyn Alarm>>>,
}

impl<S> Sniff<S> {
    pub(super) fn new(stream: S, rules: Arc<Rules>) -> Self {
        Self {
            stream: Some(stream),
            seen: Vec::new(),
            rules,
            silence: None,
        }
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(silence), []) = (self.rules.silence, &self.seen[..]) else {
            return Poll::Pending;
        };
        let clock = &self.rules.clock;
        let alarm = &mut self.silence;
        let alarm = alarm.get_or_insert_with(|| clock.alarm(clock.now() + silence));
        alarm.as_mut().poll_due(cx)
    }
}

impl<S: Transport> Sniff<S> {
    fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        loop {
            if let Some(protocol) = self.rules.decide(&self.seen, false)? {
                return Poll::Ready(Ok(protocol));
            }
            let mut space = [0; MOST_BYTES];
            // INVARIANT: there is room, because nothing that is known is longer than all of it.
            let mut buffer = ReadBuf::new(&mut space[self.seen.len()..]);
            let stream = self.stream.as_mut().expect("polled after it was done");
            match Pin::new(stream).poll_read(cx, &mut buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    ready!(self.poll_silence(cx));
                    return Poll::Ready(self.at_end());
                }
            }
            if buffer.filled().is_empty() {
                return Poll::Ready(self.at_end());
            }
            self.seen.extend_from_slice(buffer.filled());
        }
    }

    /// No more is coming, or is waited for.
    fn at_end(&self) -> io::Result<Protocol> {
        if let Ok(Some(protocol)) = self.rules.decide(&self.seen, true) {
            return Ok(protocol);
        }
        let seen = self.seen.len();
        let error = format!("the stream ended after {seen} bytes, which do not say what it speaks");
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, error))
    }
}

impl<S: Transport> Future for Sniff<S> {
    type Output = io::Result<Sniffed<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let protocol = ready!(self.poll_protocol(cx))?;
        let seen = Bytes::from(std::mem::take(&mut self.seen));
        let stream = self.stream.take().expect("it was there to be polled");
        Poll::Ready(Ok(Sniffed {
            stream: Prefixed::new(seen, stream),
            protocol,
        }))
    }
}

impl<S> fmt::Debug for Sniff<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sniff")
            .field("seen", &self.seen.len())
            .finish_non_exhaustive()
    }
}

/// A stream of which it is known what it speaks.
#[derive(Debug)]
pub struct Sniffed<S> {
    stream: Prefixed<S>,
    protocol: Protocol,
}

impl<S> Sniffed<S> {
    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The stream below, from which its first bytes have been read.
    pub fn get_ref(&self) -> &S {
        self.stream.get_ref()
    }

    /// The stream, from its first byte on.
    pub fn into_inner(self) -> Prefixed<S> {
        self.stream
    }
}

impl<S: Transport> Transport for Sniffed<S> {
    fn peer_address(&self) -> PeerAddress {
        self.stream.peer_address()
    }

    fn lingers(&self) -> bool {
        self.stream.lingers()
    }

    fn abort(&mut self) {
        self.stream.abort();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sniffed<S> {
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
