//! Faults between a connection and any stream.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use protosocket::{Accepted, Alarm, Clock, PeerAddress, SocketListener, TokioClock, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Random;

/// Bytes that are under way to a reader whose stream has latency, at most.
const UNDER_WAY: usize = 64 * 1024;

/// What goes wrong on a [`FaultStream`]. By default, nothing.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    latency: Duration,
    bytes_per_second: Option<u64>,
    longest_slice: Option<usize>,
    reset_after_reading: Option<u64>,
    reset_after_writing: Option<u64>,
    end_after_reading: Option<u64>,
    would_block: u32,
    interrupted: u32,
    spurious_wakes: u32,
}

impl Faults {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// What the peer sends is readable so much later. Wrap the other end for the other direction.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// So many bytes a second go through, each way.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        assert!(bytes_per_second > 0, "nothing would ever go through");
        self.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// One read or write takes between one byte and so many.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    pub fn slices(mut self, longest: usize) -> Self {
        assert!(longest > 0, "a read of nothing would be the end");
        self.longest_slice = Some(longest);
        self
    }

    /// One read or write takes one byte.
    #[must_use]
    pub fn one_byte(self) -> Self {
        self.slices(1)
    }

    /// The stream is reset once so many bytes have been read from it.
    #[must_use]
    pub fn reset_after_reading(mut self, bytes: u64) -> Self {
        self.reset_after_reading = Some(bytes);
        self
    }

    /// The stream is reset once it has taken so many bytes.
    #[must_use]
    pub fn reset_after_writing(mut self, bytes: u64) -> Self {
        self.reset_after_writing = Some(bytes);
        self
    }

    /// The peer appears to finish sending after so many bytes, and goes on reading.
    #[must_use]
    pub fn end_after_reading(mut self, bytes: u64) -> Self {
        self.end_after_reading = Some(bytes);
        self
    }

    /// So many of a thousand operations answer with the error `WouldBlock` and wake nobody, as
    /// streams do that were not written with care.
    #[must_use]
    pub fn would_block(mut self, per_mille: u32) -> Self {
        self.would_block = per_mille;
        self
    }

    /// So many of a thousand operations answer with the error `Interrupted`.
    #[must_use]
    pub fn interrupted(mut self, per_mille: u32) -> Self {
        self.interrupted = per_mille;
        self
    }

    /// So many of a thousand operations do nothing but wake their task.
    ///
    /// # Panics
    /// If it is 1,000 or more: nothing would ever be done.
    #[must_use]
    pub fn spurious_wakes(mut self, per_mille: u32) -> Self {
        assert!(per_mille < 1000, "nothing would ever be done");
        self.spurious_wakes = per_mille;
        self
    }
}

/// A stream that goes wrong as told, over one that need not.
#[derive(Debug)]
pub struct FaultStream<S> {
    stream: S,
    /// Lets the peer see a reset too.
    abort: fn(&mut S),
    faults: Faults,
    random: Random,
    clock: Arc<dyn Clock>,
    reading: Way,
    writing: Way,
    /// What has been read and is not due yet; an empty one is the end.
    under_way: VecDeque<(Instant, Bytes)>,
    is_reset: bool,
}

/// One direction.
#[derive(Default)]
struct Way {
    bytes: u64,
    /// When the next byte may go through.
    free_at: Option<Instant>,
    alarm: Option<Pin<Box<dyn Alarm>>>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way")
            .field("bytes", &self.bytes)
            .field("free_at", &self.free_at)
            .finish()
    }
}

impl Way {
    fn poll_until(&mut self, at: Instant, clock: &dyn Clock, cx: &mut Context<'_>) -> Poll<()> {
        if at <= clock.now() {
            self.alarm = None;
            return Poll::Ready(());
        }
        let alarm = match &mut self.alarm {
            Some(alarm) => {
                alarm.as_mut().reset(at);
                alarm
            }
            None => self.alarm.insert(clock.alarm(at)),
        };
        alarm.as_mut().poll_due(cx)
    }

    /// Wait until the bandwidth allows another byte.
    fn poll_free(&mut self, clock: &dyn Clock, cx: &mut Context<'_>) -> Poll<()> {
        match self.free_at {
            Some(at) => self.poll_until(at, clock, cx),
            None => Poll::Ready(()),
        }
    }

    fn note(&mut self, bytes: usize, bytes_per_second: Option<u64>, now: Instant) {
        self.bytes += bytes as u64;
        if let Some(rate) = bytes_per_second {
            let took = Duration::from_secs_f64(bytes as f64 / rate as f64);
            self.free_at = Some(now + took);
        }
    }
}

impl<S> FaultStream<S> {
    /// Faults on any stream, drawn from `seed`, on tokio's clock.
    ///
    /// A reset is felt at this end alone; the peer sees what it sees when `stream` is dropped.
    pub fn new(stream: S, faults: Faults, seed: u64) -> Self {
        Self {
            stream,
            abort: |_| {},
            faults,
            random: Random::new(seed),
            clock: Arc::new(TokioClock),
            reading: Way::default(),
            writing: Way::default(),
            under_way: VecDeque::new(),
            is_reset: false,
        }
    }

    /// Faults on a transport, drawn from `seed`, on tokio's clock. A reset is felt at both ends,
    /// as far as the transport has resets.
    pub fn over(stream: S, faults: Faults, seed: u64) -> Self
    where
        S: Transport,
    {
        Self {
            abort: S::abort,
            ..Self::new(stream, faults, seed)
        }
    }

    /// Take latency and bandwidth by `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Let other things go wrong from here on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream below, alone.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Whether this operation goes on.
    fn poll_fault(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let due = |limit: Option<u64>, bytes| limit.is_some_and(|limit| bytes >= limit);
        if !self.is_reset
            && (due(self.faults.reset_after_reading, self.reading.bytes)
                || due(self.faults.reset_after_writing, self.writing.bytes))
        {
            self.is_reset = true;
            (self.abort)(&mut self.stream);
        }
        if self.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.random.per_mille(self.faults.would_block) {
            return Poll::Ready(Err(io::ErrorKind::WouldBlock.into()));
        }
        if self.random.per_mille(self.faults.interrupted) {
            return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
        }
        if self.random.per_mille(self.faults.spurious_wakes) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// How much of `bytes` goes through at once, in a direction that stops at `limit`.
    fn slice(&mut self, bytes: usize, done: u64, limit: Option<u64>) -> usize {
        let mut most = bytes;
        if let Some(longest) = self.faults.longest_slice {
            most = most.min(1 + self.random.below(longest));
        }
        if let Some(rate) = self.faults.bytes_per_second {
            // A hundredth of a second at once, so that time passes evenly.
            let share = usize::try_from(rate / 100).unwrap_or(usize::MAX);
            most = most.min(share.max(1));
        }
        if let Some(limit) = limit {
            let left = limit.saturating_sub(done);
            most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        most
    }

    fn read_limit(&self) -> Option<u64> {
        match (
            self.faults.reset_after_reading,
            self.faults.end_after_reading,
        ) {
            (Some(reset), Some(end)) => Some(reset.min(end)),
            (limit, None) | (None, limit) => limit,
        }
    }
}

impl<S: AsyncRead + Unpin> FaultStream<S> {
    /// Take in what the stream below has, each piece to be read when its latency is over.
    fn poll_arrivals(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let under_way: usize = self.under_way.iter().map(|(_, bytes)| bytes.len()).sum();
        let has_ended = (self.under_way.back()).is_some_and(|(_, bytes)| bytes.is_empty());
        if has_ended || under_way >= UNDER_WAY {
            return Poll::Pending;
        }
        let mut memory = [0; 4096];
        let mut buffer = ReadBuf::new(&mut memory);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let due = self.clock.now() + self.faults.latency;
        let bytes = Bytes::copy_from_slice(buffer.filled());
        self.under_way.push_back((due, bytes));
        Poll::Ready(Ok(()))
    }

    fn poll_read_late(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while let Poll::Ready(arrived) = self.poll_arrivals(cx) {
            arrived?;
        }
        let Some(&(due, _)) = self.under_way.front() else {
            return Poll::Pending;
        };
        ready!(self.reading.poll_until(due, &*self.clock, cx));
        if let Some((_, bytes)) = self.under_way.front_mut()
            && !bytes.is_empty()
        {
            let count = bytes.len().min(most);
            buffer.put_slice(&bytes[..count]);
            bytes.advance(count);
            if bytes.is_empty() {
                self.under_way.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FaultStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_fault(cx))?;
        if let Some(end) = this.faults.end_after_reading
            && this.reading.bytes >= end
        {
            return Poll::Ready(Ok(()));
        }
        ready!(this.reading.poll_free(&*this.clock, cx));
        let most = this.slice(buffer.remaining(), this.reading.bytes, this.read_limit());
        let before = buffer.filled().len();
        if this.faults.latency > Duration::ZERO || !this.under_way.is_empty() {
            ready!(this.poll_read_late(cx, most, buffer))?;
        } else {
            let unfilled = buffer.initialize_unfilled_to(most);
            let mut part = ReadBuf::new(unfilled);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
        }
        let count = buffer.filled().len() - before;
        this.reading
            .note(count, this.faults.bytes_per_second, this.clock.now());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FaultStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_fault(cx))?;
        ready!(this.writing.poll_free(&*this.clock, cx));
        let limit = this.faults.reset_after_writing;
        let most = this.slice(bytes.len(), this.writing.bytes, limit);
        let count = ready!(Pin::new(&mut this.stream).poll_write(cx, &bytes[..most]))?;
        this.writing
            .note(count, this.faults.bytes_per_second, this.clock.now());
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_fault(cx))?;
        ready!(this.writing.poll_free(&*this.clock, cx));
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let limit = this.faults.reset_after_writing;
        let mut left = this.slice(offered, this.writing.bytes, limit);
        let mut cut = Vec::with_capacity(slices.len());
        for slice in slices {
            let count = left.min(slice.len());
            cut.push(IoSlice::new(&slice[..count]));
            left -= count;
            if left == 0 {
                break;
            }
        }
        let count = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, &cut))?;
        this.writing
            .note(count, this.faults.bytes_per_second, this.clock.now());
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_fault(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_fault(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Transport> Transport for FaultStream<S> {
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

/// A listener that puts faults under every connection that it accepts, each from a seed of its own.
#[derive(Debug)]
pub struct FaultListener<L> {
    listener: L,
    faults: Faults,
    random: Random,
    clock: Arc<dyn Clock>,
}

impl<L> FaultListener<L> {
    /// Faults on what `listener` accepts, on tokio's clock.
    pub fn new(listener: L, faults: Faults, seed: u64) -> Self {
        Self {
            listener,
            faults,
            random: Random::new(seed),
            clock: Arc::new(TokioClock),
        }
    }

    /// Take latency and bandwidth by `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The listener below.
    pub fn get_ref(&self) -> &L {
        &self.listener
    }
}

impl<L: SocketListener> SocketListener for FaultListener<L> {
    type Stream = FaultStream<L::Stream>;
    type Establish = EstablishWithFaults<L::Establish>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        let Accepted { peer, establish } = ready!(self.listener.poll_accept(cx))?;
        let establish = EstablishWithFaults {
            establish,
            faults: self.faults.clone(),
            seed: self.random.next(),
            clock: self.clock.clone(),
        };
        Poll::Ready(Ok(Accepted { peer, establish }))
    }

    fn is_proxy(&self, peer: &PeerAddress) -> bool {
        self.listener.is_proxy(peer)
    }
}

/// Puts faults under a stream once it is established.
#[derive(Debug)]
pub struct EstablishWithFaults<E> {
    establish: E,
    faults: Faults,
    seed: u64,
    clock: Arc<dyn Clock>,
}

impl<S, E> Future for EstablishWithFaults<E>
where
    S: Transport,
    E: Future<Output = io::Result<S>> + Unpin,
{
    type Output = io::Result<FaultStream<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let stream = ready!(Pin::new(&mut this.establish).poll(cx))?;
        let stream = FaultStream::over(stream, this.faults.clone(), this.seed);
        Poll::Ready(Ok(stream.with_clock(this.clock.clone())))
    }
}
