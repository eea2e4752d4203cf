use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use protosocket::{CloseReason, Connection, ConnectionConfig, SocketListener, channel};

use crate::{
    ServerConnector,
    admission::{Admitted, Stage, panicked},
    registry::Registration,
};

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
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of a connection's life is spent in the large one; a box would cost more"
)]
enum State<C: ServerConnector> {
    Establishing(Stage<EstablishOf<C>>),
    Connected(Connection<StreamOf<C>, C::Reactor>, Registration),
    Ended,
}

impl<C: ServerConnector> ServerConnection<C> {
    pub(crate) fn new(admitted: Admitted<EstablishOf<C>>, connector: Arc<C>) -> Self {
        Self {
            state: State::Establishing(Stage::new(admitted)),
            connector,
        }
    }

    /// Drive the handshake, and make codec and reactor for the stream that comes of it.
    fn poll_establish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Establishing(stage) = &mut self.state else {
            return Poll::Ready(());
        };
        let established = ready!(stage.poll(cx));
        let State::Establishing(stage) = std::mem::replace(&mut self.state, State::Ended) else {
            return Poll::Ready(());
        };
        let stream = match established {
            Ok(stream) => stream,
            Err(refusal) => {
                stage.refuse(refusal);
                return Poll::Ready(());
            }
        };
        let admission = stage.into_admission();
        let config = admission.config();
        // So is a factory foreign code.
        match catch_unwind(AssertUnwindSafe(|| self.connect(stream, config))) {
            Ok(connection) => {
                let registration = admission.into_registration();
                let connection = connection.with_handle(registration.handle().clone());
                self.state = State::Connected(connection, registration);
            }
            Err(_) => admission.refuse(panicked()),
        }
        Poll::Ready(())
    }

    fn connect(
        &self,
        stream: StreamOf<C>,
        config: &ConnectionConfig,
    ) -> Connection<StreamOf<C>, C::Reactor> {
        let (sender, outbound) = channel(config.limits().queued_messages());
        let reactor = self.connector.new_reactor(sender, &stream);
        Connection::over(stream, self.connector.codec(), reactor, outbound, config)
    }
}

impl<C: ServerConnector> Future for ServerConnection<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let State::Establishing(_) = &this.state {
            ready!(this.poll_establish(cx));
        }
        let State::Connected(connection, registration) = &mut this.state else {
            return Poll::Ready(());
        };
        let end = ready!(Pin::new(connection).poll(cx));
        registration.end(Some((&end.reason, &end.stats)));
        this.state = State::Ended;
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

impl<C: ServerConnector> Drop for ServerConnection<C> {
    fn drop(&mut self) {
        // Whoever waits for the drain finds the stream closed and the observer told.
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Connected(connection, mut registration) if !connection.is_ended() => {
                let stats = connection.stats();
                drop(connection);
                registration.end(Some((&CloseReason::Dropped, &stats)));
            }
            _ => {}
        }
    }
}

impl<C: ServerConnector> fmt::Debug for ServerConnection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Establishing(stage) => f
                .debug_struct("ServerConnection")
                .field("establishing", stage.peer())
                .finish(),
            State::Connected(connection, _) => connection.fmt(f),
            State::Ended => f.write_str("ServerConnection(ended)"),
        }
    }
}
