use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Alert, Error, watched::Watched};

/// Bytes of a peer whose handshake has failed that are read before its stream is dropped.
const UNREAD: usize = 64 * 1024;

/// The end of a handshake that failed: what the peer must be told is written, its stream is shut
/// down, and what it has sent already is read, because a kernel that drops unread bytes sends a
/// reset, which can overtake the alert. What the peer sends later is for a server to wait for:
/// [`Lingering`](protosocket::Lingering).
#[derive(Debug)]
pub(crate) struct Farewell<S> {
    /// Until it is done.
    stream: Option<S>,
    /// What is left of the last words.
    words: Vec<u8>,
    error: Option<io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Farewell<Watched<S>> {
    /// After a handshake that rustls has given up.
    pub(crate) fn after(stream: Watched<S>, error: io::Error) -> Self {
        // rustls says nothing to some that do not begin as they must.
        let unsaid = match stream.has_written() {
            true => None,
            false => Error::alert_for_handshake(&error),
        };
        Self::new(stream, unsaid, error)
    }

    /// As the future, with what the peer has sent in view: the first bytes may have come one by one.
    pub(crate) fn poll_error(&mut self, cx: &mut Context<'_>) -> Poll<(S, io::Error)> {
        let (stream, error) = ready!(Pin::new(self).poll(cx));
        let error = Error::of_handshake(error, stream.beginning());
        Poll::Ready((stream.stream, error))
    }
}

impl<S> Farewell<S> {
    /// With an alert that nobody has written yet, if there is one to write.
    pub(crate) fn new(stream: S, alert: Option<Alert>, error: io::Error) -> Self {
        Self {
            stream: Some(stream),
            // A fatal one (RFC 8446 section 6), as it is written before anything is encrypted.
            words: alert.map_or_else(Vec::new, |alert| vec![0x15, 3, 3, 0, 2, 2, alert.0]),
            error: Some(error),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Farewell<S> {
    fn poll_say(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(self.stream.as_mut().expect(DONE));
        while !self.words.is_empty() {
            match ready!(stream.as_mut().poll_write(cx, &self.words))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => drop(self.words.drain(..count)),
            }
        }
        stream.poll_shutdown(cx)
    }

    fn forget_unread(&mut self, cx: &mut Context<'_>) {
        let stream = self.stream.as_mut().expect(DONE);
        let mut memory = [0; 4096];
        let mut left = UNREAD;
        while left > 0 {
            let mut buffer = ReadBuf::new(&mut memory);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    left = left.saturating_sub(buffer.filled().len());
                }
                _ => return,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Farewell<S> {
    type Output = (S, io::Error);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Whether it could be said changes nothing about why.
        let _ = ready!(self.poll_say(cx));
        self.forget_unread(cx);
        let done = self.stream.take().zip(self.error.take());
        Poll::Ready(done.expect(DONE))
    }
}

const DONE: &str = "a future is not polled after it was ready";
