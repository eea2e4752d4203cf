use std::{
    fmt,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use protosocket::{
    CloseReason, Connection, ConnectionConfig, Establish, EstablishError, PeerAddress, Refusal,
    SocketListener, channel,
};

use crate::{ServerConnector, registry::Registration};

type StreamOf<C> = <<C as ServerConnector>::SocketListener as SocketListener>::Stream;
type EstablishOf<C> = <<C as ServerConnector>::SocketListener as SocketListener>::Establish;

/// One connection of a server, from the moment at which it was accepted: a future to be spawned.
///
/// It establishes the stream within its deadline, makes codec and reactor, and then is the
/// [`Connection`]. Why and how that ended goes to the reactor's `on_end` and the observer.
/// Dropping it closes the connection and counts it as dropped.
#[must_use = "a connection does nothing unless it is polled"]
pub struct ServerConnection<C: ServerConnector> {
    state: State<C>,
    connector: Arc<C>,
    registration: Registration,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of a connection's life is spent in the large one; a box would cost more"
)]
enum State<C: ServerConnector> {
    Establishing {
        establish: Establish<EstablishOf<C>>,
        peer: PeerAddress,
    },
    Connected(Connection<StreamOf<C>, C::Reactor>),
    Ended,
}

impl<C: ServerConnector> ServerConnection<C> {
    pub(crate) fn new(
        establish: EstablishOf<C>,
        peer: PeerAddress,
        connector: Arc<C>,
        registration: Registration,
    ) -> Self {
        let config = registration.registry().config().clone();
        let establish = Establish::new(establish, config, registration.handle().clone());
        Self {
            state: State::Establishing { establish, peer },
            connector,
            registration,
        }
    }

    fn config(&self) -> &ConnectionConfig {
        self.registration.registry().config()
    }

    /// Make codec and reactor for an established stream.
    fn connect(&mut self, stream: StreamOf<C>) -> Connection<StreamOf<C>, C::Reactor> {
        let config = self.config().clone();
        let (sender, outbound) = channel(config.limits().queued_messages());
        let reactor = self.connector.new_reactor(sender, &stream);
        Connection::over(stream, self.connector.codec(), reactor, outbound, &config)
            .with_handle(self.registration.handle().clone())
    }

    fn refuse(&self, peer: &PeerAddress, refusal: Refusal) {
        if let Some(observer) = self.config().observer() {
            observer.refused(Some(peer), refusal);
        }
    }
}

impl<C: ServerConnector> Future for ServerConnection<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let State::Establishing { establish, peer } = &mut this.state {
            // What a handshake or a factory does is foreign code: its panic ends this connection.
            let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(establish).poll(cx)));
            let peer = peer.clone();
            let established = match polled {
                Ok(Poll::Pending) => {
                    this.registration.begin_handshake();
                    return Poll::Pending;
                }
                Ok(Poll::Ready(result)) => result,
                Err(_) => Err(panicked()),
            };
            this.registration.end_handshake();
            let connected = established.and_then(|stream| {
                catch_unwind(AssertUnwindSafe(|| this.connect(stream))).map_err(|_| panicked())
            });
            match connected {
                Ok(connection) => this.state = State::Connected(connection),
                Err(error) => {
                    let refusal = match &error {
                        EstablishError::Io(error) if is_panic(error) => Refusal::Panicked,
                        EstablishError::Aborted => this.registration.refusal(),
                        _ => Refusal::Handshake,
                    };
                    tracing::debug!(%peer, %error, "a connection was not established");
                    this.state = State::Ended;
                    this.refuse(&peer, refusal);
                    this.registration.end(None);
                    return Poll::Ready(());
                }
            }
        }
        let State::Connected(connection) = &mut this.state else {
            return Poll::Ready(());
        };
        let end = ready!(Pin::new(connection).poll(cx));
        this.state = State::Ended;
        this.registration.end(Some((&end.reason, &end.stats)));
        if let Some(handover) = end.handover {
            let connector = &this.connector;
            let told = catch_unwind(AssertUnwindSafe(|| connector.on_handover(handover)));
            if told.is_err() {
                tracing::error!("on_handover panicked");
            }
        }
        Poll::Ready(())
    }
}

/// A panic on the way to a connection, as the error that it is to everybody else.
#[derive(Debug)]
struct FactoryPanic;

impl fmt::Display for FactoryPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the code that makes connections panicked")
    }
}

impl std::error::Error for FactoryPanic {}

fn panicked() -> EstablishError {
    tracing::error!("the code that makes connections panicked");
    EstablishError::Io(io::Error::other(FactoryPanic))
}

fn is_panic(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|source| source.is::<FactoryPanic>())
}

impl<C: ServerConnector> Drop for ServerConnection<C> {
    fn drop(&mut self) {
        // Whoever waits for the drain finds the stream closed and the observer told.
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Establishing { establish, peer } => {
                drop(establish);
                let refusal = match std::thread::panicking() {
                    true => Refusal::Panicked,
                    false => Refusal::Dropped,
                };
                self.refuse(&peer, refusal);
            }
            State::Connected(connection) if !connection.is_ended() => {
                let stats = connection.stats();
                drop(connection);
                self.registration.end(Some((&CloseReason::Dropped, &stats)));
            }
            State::Connected(_) | State::Ended => {}
        }
    }
}

impl<C: ServerConnector> fmt::Debug for ServerConnection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Establishing { peer, .. } => f
                .debug_struct("ServerConnection")
                .field("establishing", peer)
                .finish(),
            State::Connected(connection) => connection.fmt(f),
            State::Ended => f.write_str("ServerConnection(ended)"),
        }
    }
}
