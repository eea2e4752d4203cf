use std::{
    fmt, io,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::Transport;

/// Reads of one poll, before others have their turn.
const READS_PER_POLL: usize = 16;

/// A handshake that has failed, and whose peer has been told: it may need time to read that.
///
/// A kernel that gets bytes for a TCP socket that is closed answers with a reset, which makes the
/// peer's kernel throw away what its program has not read yet. So an
/// [`Establisher`](crate::Establisher) of a server that writes last words shuts the stream down and
/// fails with one of these. [`Establish`](crate::Establish) reads the stream until its end, or
/// until `linger_timeout` or the handshake's own deadline passes, and fails with the error inside.
pub struct Lingering {
    error: io::Error,
    /// Nobody locks it: errors must be `Sync`, and streams need not be.
    stream: Mutex<Box<dyn AsyncRead + Send + Unpin>>,
}

impl Lingering {
    /// An error that keeps `stream` until its peer has read the last words. It is `error` itself
    /// if the stream needs no such thing ([`Transport::lingers`]).
    pub fn after(error: io::Error, stream: impl Transport + Send) -> io::Error {
        if !stream.lingers() {
            return error;
        }
        let stream: Box<dyn AsyncRead + Send + Unpin> = Box::new(stream);
        let stream = Mutex::new(stream);
        io::Error::new(error.kind(), Self { error, stream })
    }

    /// Why the handshake failed.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// Close the stream, if `error` keeps one: why the handshake failed.
    pub fn end(error: io::Error) -> io::Error {
        match error.downcast::<Self>() {
            Ok(lingering) => lingering.into_error(),
            Err(error) => error,
        }
    }

    pub(super) fn into_error(self) -> io::Error {
        self.error
    }

    /// Read what still comes. Ready at the end.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A thread that panics with the lock cannot be, as nobody locks.
        let Ok(stream) = self.stream.get_mut() else {
            return Poll::Ready(());
        };
        let mut memory = [0; 4096];
        for _ in 0..READS_PER_POLL {
            let mut buffer = ReadBuf::new(&mut memory);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl std::error::Error for Lingering {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl fmt::Display for Lingering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for Lingering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lingering")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
