//! A stream in memory whose every readiness is scripted.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use protosocket::{PeerAddress, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The connection's end of the stream.
///
/// It never wakes spuriously: a waker is kept only when a readiness was refused, and woken only
/// when that very readiness becomes available. A connection that forgets to ask stays asleep.
#[derive(Debug)]
pub struct ScriptedStream(Arc<Mutex<State>>);

/// The test's end of the stream.
#[derive(Debug, Clone)]
pub struct StreamPeer(Arc<Mutex<State>>);

/// What the connection did to the stream, writes in a row counted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEvent {
    /// Bytes were taken.
    Write,
    /// A flush was done.
    Flush,
    /// The output was shut down.
    Shutdown,
    /// A reset was asked for.
    Abort,
    /// It was dropped.
    Drop,
}

#[derive(Debug)]
enum Read {
    Bytes(Bytes),
    Error(io::ErrorKind),
    End,
}

impl Read {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Error(_) | Self::End => 0,
        }
    }
}

#[derive(Debug)]
enum WriteFault {
    Error(io::ErrorKind),
    Zero,
}

#[derive(Debug)]
struct State {
    reads: VecDeque<Read>,
    max_read: usize,
    bytes_read: usize,
    /// How many reads have brought bytes.
    reads_done: usize,
    read_waker: Option<Waker>,
    /// How many bytes the peer still takes.
    window: usize,
    max_write: usize,
    vectored: bool,
    write_faults: VecDeque<WriteFault>,
    write_waker: Option<Waker>,
    written: Vec<u8>,
    /// The length of each write that succeeded.
    writes: Vec<usize>,
    flush: Gate,
    shutdown: Gate,
    lingers: bool,
    log: Vec<StreamEvent>,
}

/// An operation that can be held back, or fail.
#[derive(Debug, Default)]
struct Gate {
    held: bool,
    errors: VecDeque<io::ErrorKind>,
    waker: Option<Waker>,
}

impl Gate {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.errors.pop_front() {
            return Poll::Ready(Err(kind.into()));
        }
        if self.held {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn release(&mut self) {
        self.held = false;
        wake(&mut self.waker);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// A stream and its other end, with all gates open.
pub fn scripted_stream() -> (ScriptedStream, StreamPeer) {
    let state = Arc::new(Mutex::new(State {
        reads: VecDeque::new(),
        max_read: usize::MAX,
        bytes_read: 0,
        reads_done: 0,
        read_waker: None,
        window: usize::MAX,
        max_write: usize::MAX,
        vectored: true,
        write_faults: VecDeque::new(),
        write_waker: None,
        written: Vec::new(),
        writes: Vec::new(),
        flush: Gate::default(),
        shutdown: Gate::default(),
        lingers: false,
        log: Vec::new(),
    }));
    (ScriptedStream(state.clone()), StreamPeer(state))
}

impl StreamPeer {
    /// Let the connection read these bytes, in reads of their own.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        // A read of nothing would be the end.
        if !bytes.is_empty() {
            self.push(Read::Bytes(Bytes::copy_from_slice(bytes)));
        }
    }

    /// Let one read fail. Errors that are not transient stay.
    pub fn fail_read(&self, kind: io::ErrorKind) {
        self.push(Read::Error(kind));
    }

    /// Finish sending.
    pub fn end(&self) {
        self.push(Read::End);
    }

    /// One read returns at most this many bytes.
    pub fn set_max_read(&self, bytes: usize) {
        self.lock().max_read = bytes;
    }

    /// How many reads have brought bytes.
    pub fn reads(&self) -> usize {
        self.lock().reads_done
    }

    /// Bytes that the connection has read.
    pub fn bytes_read(&self) -> usize {
        self.lock().bytes_read
    }

    /// Take no more bytes than this from here on.
    pub fn set_window(&self, bytes: usize) {
        self.lock().window = bytes;
    }

    /// How much it has taken and still takes.
    pub fn granted(&self) -> usize {
        let state = self.lock();
        state.written.len().saturating_add(state.window)
    }

    /// Take this many bytes more.
    pub fn open_window(&self, bytes: usize) {
        let mut state = self.lock();
        state.window = state.window.saturating_add(bytes);
        wake(&mut state.write_waker);
    }

    /// One write takes at most this many bytes.
    pub fn set_max_write(&self, bytes: usize) {
        self.lock().max_write = bytes;
    }

    /// Claim not to know `writev`.
    pub fn set_not_vectored(&self) {
        self.lock().vectored = false;
    }

    /// Let one write fail.
    pub fn fail_write(&self, kind: io::ErrorKind) {
        self.lock().write_faults.push_back(WriteFault::Error(kind));
    }

    /// Let one write take nothing.
    pub fn write_zero(&self) {
        self.lock().write_faults.push_back(WriteFault::Zero);
    }

    /// All that was written.
    pub fn written(&self) -> Vec<u8> {
        self.lock().written.clone()
    }

    /// Give up what was written, which a real stream would not hold.
    pub fn forget_written(&self) {
        let mut state = self.lock();
        state.written = Vec::new();
        state.writes = Vec::new();
    }

    /// Take back what has been sent and not been read beyond this, as a peer does whose own
    /// buffer is full.
    pub fn forget_unread(&self, bytes: usize) {
        let mut state = self.lock();
        let mut unread: usize = state.reads.iter().map(Read::len).sum();
        while unread > bytes
            && let Some(read) = state.reads.pop_back()
        {
            unread -= read.len();
        }
    }

    /// How much was written.
    pub fn written_len(&self) -> usize {
        self.lock().written.len()
    }

    /// The length of each write.
    pub fn writes(&self) -> Vec<usize> {
        self.lock().writes.clone()
    }

    /// Whether the connection waits for room to write.
    pub fn is_write_blocked(&self) -> bool {
        self.lock().write_waker.is_some()
    }

    /// Whether the connection waits for something to read.
    pub fn is_awaited(&self) -> bool {
        self.lock().read_waker.is_some()
    }

    /// Let a flush wait.
    pub fn hold_flush(&self) {
        self.lock().flush.held = true;
    }

    /// Let it go on.
    pub fn release_flush(&self) {
        self.lock().flush.release();
    }

    /// Let one flush fail.
    pub fn fail_flush(&self, kind: io::ErrorKind) {
        self.lock().flush.errors.push_back(kind);
    }

    /// Let the shutdown wait.
    pub fn hold_shutdown(&self) {
        self.lock().shutdown.held = true;
    }

    /// Let it go on.
    pub fn release_shutdown(&self) {
        self.lock().shutdown.release();
    }

    /// Let one shutdown fail.
    pub fn fail_shutdown(&self, kind: io::ErrorKind) {
        self.lock().shutdown.errors.push_back(kind);
    }

    /// Ask connections to linger, as TCP does.
    pub fn set_lingers(&self) {
        self.lock().lingers = true;
    }

    /// What was done to the stream.
    pub fn log(&self) -> Vec<StreamEvent> {
        self.lock().log.clone()
    }

    /// Whether this was done to the stream.
    pub fn saw(&self, event: StreamEvent) -> bool {
        self.lock().log.contains(&event)
    }

    fn push(&self, read: Read) {
        let mut state = self.lock();
        state.reads.push_back(read);
        wake(&mut state.read_waker);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code that panics runs under it")
    }
}

impl ScriptedStream {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code that panics runs under it")
    }
}

impl State {
    fn note(&mut self, event: StreamEvent) {
        if self.log.last() != Some(&event) {
            self.log.push(event);
        }
    }

    /// How much of `offered` is taken now.
    fn admit(&mut self, offered: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.write_faults.pop_front() {
            Some(WriteFault::Zero) => return Poll::Ready(Ok(0)),
            Some(WriteFault::Error(kind)) => return Poll::Ready(Err(kind.into())),
            None => {}
        }
        let count = offered.min(self.max_write).min(self.window);
        if count == 0 && offered > 0 {
            self.write_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.window != usize::MAX {
            self.window -= count;
        }
        self.writes.push(count);
        self.note(StreamEvent::Write);
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for ScriptedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        let state = &mut *state;
        assert!(
            buffer.remaining() > 0,
            "a read without room looks like the end"
        );
        match state.reads.front_mut() {
            None => {
                state.read_waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Read::End) => Poll::Ready(Ok(())),
            Some(Read::Error(kind)) => {
                let kind = *kind;
                if matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                    state.reads.pop_front();
                }
                Poll::Ready(Err(kind.into()))
            }
            Some(Read::Bytes(bytes)) => {
                let count = bytes.len().min(buffer.remaining()).min(state.max_read);
                buffer.put_slice(&bytes[..count]);
                bytes.advance(count);
                state.bytes_read += count;
                state.reads_done += 1;
                if bytes.is_empty() {
                    state.reads.pop_front();
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for ScriptedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let admitted = state.admit(bytes.len(), cx);
        if let Poll::Ready(Ok(count)) = admitted {
            state.written.extend_from_slice(&bytes[..count]);
        }
        admitted
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        assert!(state.vectored, "this stream does not know writev");
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let admitted = state.admit(offered, cx);
        if let Poll::Ready(Ok(count)) = admitted {
            let mut left = count;
            for slice in slices {
                let part = left.min(slice.len());
                state.written.extend_from_slice(&slice[..part]);
                left -= part;
            }
        }
        admitted
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        let polled = state.flush.poll(cx);
        if let Poll::Ready(Ok(())) = polled {
            state.note(StreamEvent::Flush);
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        let polled = state.shutdown.poll(cx);
        if let Poll::Ready(Ok(())) = polled {
            state.note(StreamEvent::Shutdown);
        }
        polled
    }
}

impl Transport for ScriptedStream {
    fn peer_address(&self) -> PeerAddress {
        PeerAddress::Memory
    }

    fn lingers(&self) -> bool {
        self.lock().lingers
    }

    fn abort(&mut self) {
        self.lock().note(StreamEvent::Abort);
    }
}

impl Drop for ScriptedStream {
    fn drop(&mut self) {
        self.lock().note(StreamEvent::Drop);
    }
}
