use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Speech;

/// The stream below, and the first bytes that came from it: they tell what a peer speaks that
/// does not speak TLS. And whether anything was written to it.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    pub(crate) stream: S,
    beginning: [u8; Speech::ENOUGH],
    seen: u8,
    wrote: bool,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            beginning: [0; Speech::ENOUGH],
            seen: 0,
            wrote: false,
        }
    }

    pub(crate) fn beginning(&self) -> &[u8] {
        &self.beginning[..self.seen.into()]
    }

    pub(crate) fn has_written(&self) -> bool {
        self.wrote
    }

    fn watch(&mut self, bytes: &[u8]) {
        let seen = usize::from(self.seen);
        let count = bytes.len().min(Speech::ENOUGH - seen);
        self.beginning[seen..seen + count].copy_from_slice(&bytes[..count]);
        self.seen += count as u8;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if usize::from(self.seen) < Speech::ENOUGH {
            self.watch(&buffer.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
