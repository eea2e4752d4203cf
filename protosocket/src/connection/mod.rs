//! The connection: one future that reads, decodes, calls the reactor, encodes and writes.

mod config;
pub use config::ConnectionConfig;

mod handle;
pub use handle::ConnectionHandle;

mod establish;
pub use establish::{Establish, EstablishError};

mod lingering;
pub use lingering::Lingering;

mod driver;
mod memory;
mod outbound;
mod receive;
mod timing;

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    CloseReason, ConnectionStats, MessageReactor, PeerAddress, Receiver, transport::Transport,
};
use driver::Driver;

/// A bidirectional connection of messages over a stream of bytes: a future to be spawned.
///
/// It reads from the stream, decodes, and calls the [`MessageReactor`] with each message; what the
/// reactor answers, what comes through the [`Sender`](crate::Sender), and what the reactor
/// produces by itself is encoded into one buffer and leaves with `writev`. It needs no lock, and
/// does not ask for a reactor that is `Send`.
///
/// # When it ends
/// - The peer has finished sending, no strong `Sender` remains, nothing is in flight, and all is
///   flushed. As long as the peer can send, the absence of senders does not end a connection
///   of a server; one of a client ends without senders when nothing is in flight.
/// - The reactor says so, the input cannot be decoded, the stream fails, a deadline passes, or a
///   [`ConnectionHandle`] drains or aborts it.
///
/// # How it ends
/// Every graceful end sends what has been accepted, flushes, shuts the stream down, and lingers
/// for a bounded time where the transport needs it. The output says why it ended, and counts what
/// was accepted and not sent.
///
/// Must be polled in a tokio runtime with time enabled, unless the configuration brings a clock
/// of its own.
#[must_use = "a connection does nothing unless it is polled"]
pub struct Connection<Stream, Reactor>
where
    Stream: AsyncRead + AsyncWrite + Unpin,
    Reactor: MessageReactor,
{
    /// `None` when it has ended.
    driver: Option<Driver<Stream, Reactor>>,
}

// Nothing in a connection is ever pinned: streams are `Unpin`, and reactors are called by `&mut`.
impl<Stream, Reactor> Unpin for Connection<Stream, Reactor>
where
    Stream: AsyncRead + AsyncWrite + Unpin,
    Reactor: MessageReactor,
{
}

impl<Stream, Reactor> Connection<Stream, Reactor>
where
    Stream: AsyncRead + AsyncWrite + Unpin,
    Reactor: MessageReactor,
{
    /// A connection over any stream. It cannot reset it, nor does it linger: sockets want
    /// [`over`](Self::over).
    ///
    /// `outbound` is one end of a [`channel`](crate::channel); the application keeps the other.
    pub fn new(
        stream: Stream,
        codec: Reactor::Codec,
        reactor: Reactor,
        outbound: Receiver<Reactor::LogicalOutbound>,
        config: &ConnectionConfig,
    ) -> Self {
        Self::build(Hooks::none(stream), codec, reactor, outbound, config)
    }

    /// A connection over a transport, which knows its peer's address, how to reset, and whether
    /// to linger.
    pub fn over(
        stream: Stream,
        codec: Reactor::Codec,
        reactor: Reactor,
        outbound: Receiver<Reactor::LogicalOutbound>,
        config: &ConnectionConfig,
    ) -> Self
    where
        Stream: Transport,
    {
        Self::build(Hooks::of(stream), codec, reactor, outbound, config)
    }

    /// Begin with bytes that were read from the stream before, such as those of a
    /// [`Handover`].
    pub fn with_unread(mut self, unread: BytesMut) -> Self {
        if let Some(driver) = &mut self.driver {
            driver.set_unread(unread);
        }
        self
    }

    /// Obey `handle`, which was made before the connection was.
    pub fn with_handle(mut self, handle: ConnectionHandle) -> Self {
        if let Some(driver) = &mut self.driver {
            driver.set_handle(handle);
        }
        self
    }

    /// A handle that can end this connection from elsewhere.
    pub fn handle(&mut self) -> ConnectionHandle {
        match &mut self.driver {
            Some(driver) => driver.handle(),
            None => ConnectionHandle::new(),
        }
    }

    /// What the connection has done so far.
    pub fn stats(&self) -> ConnectionStats {
        self.driver.as_ref().map(Driver::stats).unwrap_or_default()
    }

    /// Whether the connection has ended.
    pub fn is_ended(&self) -> bool {
        self.driver.is_none()
    }

    fn build(
        stream: Hooks<Stream>,
        codec: Reactor::Codec,
        reactor: Reactor,
        outbound: Receiver<Reactor::LogicalOutbound>,
        config: &ConnectionConfig,
    ) -> Self {
        Self {
            driver: Some(Driver::new(
                stream,
                codec,
                reactor,
                outbound,
                config.clone(),
            )),
        }
    }
}

impl<Stream, Reactor> Future for Connection<Stream, Reactor>
where
    Stream: AsyncRead + AsyncWrite + Unpin,
    Reactor: MessageReactor,
{
    type Output = ConnectionEnd<Stream, Reactor>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let driver = self.driver.as_mut().expect("polled after it was done");
        // A panic in a codec or reactor ends this connection with a reason, and nothing else.
        let polled = catch_unwind(AssertUnwindSafe(|| driver.poll(cx)));
        let reason = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(reason)) => reason,
            Err(panic) => driver.fail_by_panic(&*panic),
        };
        let driver = self.driver.take().expect("it was there to be polled");
        Poll::Ready(driver.end(reason))
    }
}

impl<Stream, Reactor> Drop for Connection<Stream, Reactor>
where
    Stream: AsyncRead + AsyncWrite + Unpin,
    Reactor: MessageReactor,
{
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            drop(driver.end(CloseReason::Dropped));
        }
    }
}

impl<Stream, Reactor> fmt::Debug for Connection<Stream, Reactor>
where
    Stream: AsyncRead + AsyncWrite + Unpin,
    Reactor: MessageReactor,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Connection");
        match &self.driver {
            Some(driver) => driver.describe(&mut debug),
            None => {
                debug.field("phase", &"ended");
            }
        }
        debug.finish()
    }
}

/// How a [`Connection`] ended: its output.
pub struct ConnectionEnd<Stream, Reactor: MessageReactor> {
    /// Why.
    pub reason: CloseReason,
    /// What it did.
    pub stats: ConnectionStats,
    /// What it was made of, if the reactor answered
    /// [`Handover`](crate::ReactorStatus::Handover).
    pub handover: Option<Handover<Stream, Reactor>>,
}

impl<Stream, Reactor: MessageReactor> fmt::Debug for ConnectionEnd<Stream, Reactor> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionEnd")
            .field("reason", &self.reason)
            .field("stats", &self.stats)
            .field("handover", &self.handover.is_some())
            .finish()
    }
}

/// The parts of a connection whose reactor took the stream over. Everything that was accepted
/// has been written and flushed.
pub struct Handover<Stream, Reactor: MessageReactor> {
    /// The stream, open both ways as far as the peer has not ended its side.
    pub stream: Stream,
    /// What was read from it and not decoded. What the decoder was skipping is not known to whoever
    /// goes on from here, so hand over between messages.
    pub unread: BytesMut,
    /// The codec.
    pub codec: Reactor::Codec,
    /// The reactor.
    pub reactor: Reactor,
}

impl<Stream, Reactor: MessageReactor> fmt::Debug for Handover<Stream, Reactor> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover")
            .field("unread", &self.unread.len())
            .finish_non_exhaustive()
    }
}

/// A stream and what can be done with it beyond reading and writing.
struct Hooks<Stream> {
    stream: Stream,
    peer: fn(&Stream) -> PeerAddress,
    lingers: bool,
    abort: fn(&mut Stream),
}

impl<Stream> Hooks<Stream> {
    fn none(stream: Stream) -> Self {
        Self {
            stream,
            peer: |_| PeerAddress::Unknown,
            lingers: false,
            abort: |_| {},
        }
    }

    fn peer(&self) -> PeerAddress {
        (self.peer)(&self.stream)
    }

    fn of(stream: Stream) -> Self
    where
        Stream: Transport,
    {
        Self {
            peer: Stream::peer_address,
            lingers: stream.lingers(),
            abort: Stream::abort,
            stream,
        }
    }
}
