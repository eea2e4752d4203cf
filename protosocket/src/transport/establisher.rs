use std::{
    future::{Future, Ready, ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready as ready_poll},
    time::Duration,
};

use super::{
    Accepted, ConnectError, PeerAddress, SocketConnector, SocketListener, Transport, within,
};
use crate::{Lingering, limits::HANDSHAKE_TIMEOUT};

/// Makes a stream of another one: a TLS handshake, a proxy header, a look at the first bytes.
///
/// A [`Layered`] listener runs it on what is accepted, a [`Layered`] connector on what is opened;
/// both are listeners and connectors themselves, so that establishers stand on each other.
pub trait Establisher<S>: Send + Sync + 'static {
    /// What comes out.
    type Stream: Transport;
    /// Makes it, off the accept path.
    type Establish: Future<Output = io::Result<Self::Stream>> + Unpin + 'static;

    /// Begin with `stream`. What takes time, or can fail, belongs into the future.
    fn establish(&self, stream: S) -> Self::Establish;

    /// What [`SocketListener::is_proxy`] says of a listener with this on it, if that below it does
    /// not say so.
    fn is_proxy(&self, _peer: &PeerAddress) -> bool {
        false
    }
}

impl<S, E: Establisher<S>> Establisher<S> for Arc<E> {
    type Stream = E::Stream;
    type Establish = E::Establish;

    fn establish(&self, stream: S) -> Self::Establish {
        E::establish(self, stream)
    }

    fn is_proxy(&self, peer: &PeerAddress) -> bool {
        E::is_proxy(self, peer)
    }
}

/// A listener or connector, and the [`Establisher`] that stands on its streams.
#[derive(Debug, Clone)]
pub struct Layered<T, E> {
    below: T,
    establisher: Arc<E>,
    timeout: Option<Duration>,
}

impl<T, E> Layered<T, E> {
    /// Put `establisher` onto the streams of `below`.
    pub fn new(below: T, establisher: E) -> Self {
        Self {
            below,
            establisher: Arc::new(establisher),
            timeout: Some(HANDSHAKE_TIMEOUT),
        }
    }

    /// How long a connector's establisher may take on a connection that is open, 10 seconds by
    /// default. A server has [`Limits::handshake_timeout`](crate::Limits::handshake_timeout) for
    /// what its listener accepts, on its own clock.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// The listener or connector below.
    pub fn get_ref(&self) -> &T {
        &self.below
    }

    /// What stands on it.
    pub fn establisher(&self) -> &E {
        &self.establisher
    }
}

impl<L, E> SocketListener for Layered<L, E>
where
    L: SocketListener,
    E: Establisher<L::Stream>,
{
    type Stream = E::Stream;
    type Establish = LayeredEstablish<L::Establish, L::Stream, E>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        let accepted = ready_poll!(self.below.poll_accept(cx))?;
        Poll::Ready(Ok(Accepted {
            peer: accepted.peer,
            establish: LayeredEstablish {
                establisher: self.establisher.clone(),
                stage: Stage::Below(accepted.establish),
            },
        }))
    }

    fn is_proxy(&self, peer: &PeerAddress) -> bool {
        self.below.is_proxy(peer) || self.establisher.is_proxy(peer)
    }
}

impl<C, E> SocketConnector for Layered<C, E>
where
    C: SocketConnector + Sync,
    C::Stream: Send,
    E: Establisher<C::Stream>,
    E::Establish: Send,
{
    type Stream = E::Stream;

    async fn connect(&self) -> Result<Self::Stream, ConnectError> {
        let stream = self.below.connect().await?;
        let address = stream.peer_address();
        match within(self.timeout, self.establisher.establish(stream)).await {
            Some(established) => established.map_err(|error| {
                let source = Lingering::end(error);
                ConnectError { address, source }
            }),
            None => Err(ConnectError::handshake_timed_out(address)),
        }
    }
}

/// Makes a stream of what a [`Layered`] listener accepted: first that of the listener below, then
/// what its [`Establisher`] makes of that.
#[derive(Debug)]
pub struct LayeredEstablish<F, S, E: Establisher<S>> {
    establisher: Arc<E>,
    stage: Stage<F, E::Establish>,
}

#[derive(Debug)]
enum Stage<F, G> {
    Below(F),
    Layer(G),
}

impl<F, S, E> Future for LayeredEstablish<F, S, E>
where
    F: Future<Output = io::Result<S>> + Unpin,
    E: Establisher<S>,
{
    type Output = io::Result<E::Stream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Below(below) => {
                    let stream = ready_poll!(Pin::new(below).poll(cx))?;
                    this.stage = Stage::Layer(this.establisher.establish(stream));
                }
                Stage::Layer(layer) => return Pin::new(layer).poll(cx),
            }
        }
    }
}

/// Takes each stream as it is: the [`Establisher`] where none is needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl<S: Transport> Establisher<S> for Plain {
    type Stream = S;
    type Establish = Ready<io::Result<S>>;

    fn establish(&self, stream: S) -> Self::Establish {
        ready(Ok(stream))
    }
}
