//! Output that repeats itself.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

// LIMIT: slices of one write. A kernel takes 1,024.
const MOST_SLICES: usize = 16;

/// A block of bytes that is sent over and over: nothing is copied per message, so that the client
/// is no bottleneck where it need not be one.
#[derive(Debug)]
pub(super) struct Cycle {
    block: Arc<[u8]>,
    /// Where in the block the next byte is.
    position: usize,
    /// What may be written.
    unsent: u64,
}

impl Cycle {
    /// Nothing is sent until it is [added](Self::add).
    pub(super) fn new(block: Arc<[u8]>) -> Self {
        Self {
            block,
            position: 0,
            unsent: 0,
        }
    }

    /// Lets so many more bytes out.
    #[inline]
    pub(super) fn add(&mut self, bytes: u64) {
        self.unsent += bytes;
    }

    /// Bytes that may be written.
    #[inline]
    pub(super) fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Ready when everything is written.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub(super) fn poll_write<S>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while self.unsent > 0 {
            ready!(self.poll_write_once(stream, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes once, if there is something to write.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub(super) fn poll_write_once<S>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.unsent == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut slices = [IoSlice::new(&[]); MOST_SLICES];
        let (mut at, mut left, mut used) = (self.position, self.unsent, 0);
        for slice in &mut slices {
            let rest = &self.block[at..];
            let length = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            if length == 0 {
                break;
            }
            *slice = IoSlice::new(&rest[..length]);
            left -= length as u64;
            at = 0;
            used += 1;
        }
        let count = ready!(Pin::new(stream).poll_write_vectored(cx, &slices[..used]))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.position = (self.position + count) % self.block.len();
        self.unsent -= count as u64;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes as many bytes as it is told, from as many slices as that needs.
    struct Sink {
        taken: Vec<u8>,
        most: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let count = bytes.len().min(self.most);
            self.taken.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn the_block_repeats_whatever_a_write_takes() {
        let mut cx = Context::from_waker(Waker::noop());
        let block: Vec<u8> = (0..7).collect();
        for most in 1..200 {
            let mut sink = Sink {
                taken: Vec::new(),
                most,
            };
            let mut cycle = Cycle::new(Arc::from(block.as_slice()));
            for bytes in [0, 1, 13, 7, 300] {
                cycle.add(bytes);
                assert!(cycle.poll_write(&mut sink, &mut cx).is_ready());
            }
            let expected: Vec<u8> = block.iter().copied().cycle().take(321).collect();
            assert_eq!(sink.taken, expected, "{most} bytes a write");
            assert_eq!(cycle.unsent(), 0);
        }
    }
}
