//! The k-th operation fails, for every k.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use protosocket::{PeerAddress, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Operations of one exchange, at most: more than that, and it does not end.
const MANY_OPERATIONS: usize = 100_000;

/// Which operation fails, counted over all streams that it was wrapped around.
#[derive(Debug, Clone)]
pub struct Failure {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The operation that fails, counted from 0.
    at: usize,
    kind: io::ErrorKind,
    done: AtomicUsize,
    /// What was being done when it failed.
    struck: Mutex<Option<StreamOperation>>,
}

/// An operation of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamOperation {
    /// `poll_read`.
    Read,
    /// `poll_write` and `poll_write_vectored`.
    Write,
    /// `poll_flush`.
    Flush,
    /// `poll_shutdown`.
    Shutdown,
}

impl Failure {
    /// Let the operation number `at`, counted from 0, fail with this error.
    pub fn at(at: usize, kind: io::ErrorKind) -> Self {
        Self {
            shared: Arc::new(Shared {
                at,
                kind,
                done: AtomicUsize::new(0),
                struck: Mutex::new(None),
            }),
        }
    }

    /// Make it happen to `stream`.
    pub fn wrap<S>(&self, stream: S) -> FailingStream<S> {
        FailingStream {
            stream,
            failure: self.clone(),
        }
    }

    /// The error that it fails with.
    pub fn kind(&self) -> io::ErrorKind {
        self.shared.kind
    }

    /// What failed, if it has.
    pub fn struck(&self) -> Option<StreamOperation> {
        *self.lock()
    }

    /// How many operations there were.
    pub fn operations(&self) -> usize {
        self.shared.done.load(Ordering::Relaxed)
    }

    fn strike(&self, operation: StreamOperation) -> io::Result<()> {
        let number = self.shared.done.fetch_add(1, Ordering::Relaxed);
        if number != self.shared.at {
            return Ok(());
        }
        *self.lock() = Some(operation);
        Err(self.shared.kind.into())
    }

    fn lock(&self) -> MutexGuard<'_, Option<StreamOperation>> {
        (self.shared.struck)
            .lock()
            .expect("no code that panics runs under it")
    }
}

/// Run an exchange once for each operation in it, and let that operation fail: first the first,
/// then the second, until one run meets no failure any more. Returns how many operations there
/// are, so that a test can see that it reached something.
///
/// `exchange` wraps its streams with [`Failure::wrap`], runs to its end, whatever that is, and
/// checks that the end is the right one for [`Failure::struck`].
///
/// # Panics
/// If the exchange still meets failures after 100,000 operations: it does not end.
pub fn fail_each_operation(kind: io::ErrorKind, mut exchange: impl FnMut(&Failure)) -> usize {
    for at in 0..MANY_OPERATIONS {
        let failure = Failure::at(at, kind);
        exchange(&failure);
        if failure.struck().is_none() {
            return at;
        }
    }
    panic!("an exchange of {MANY_OPERATIONS} operations does not end");
}

/// A stream of which one operation fails.
#[derive(Debug)]
pub struct FailingStream<S> {
    stream: S,
    failure: Failure,
}

impl<S: AsyncRead + Unpin> AsyncRead for FailingStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.failure.strike(StreamOperation::Read)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FailingStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.failure.strike(StreamOperation::Write)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.failure.strike(StreamOperation::Write)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.failure.strike(StreamOperation::Flush)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.failure.strike(StreamOperation::Shutdown)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Transport> Transport for FailingStream<S> {
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
