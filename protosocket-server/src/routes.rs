use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use protosocket::{
    Accepted, ConfigError, ConnectionConfig, EstablishError, Establisher, Limits, Plain,
    SocketListener, Transport,
};

use crate::{
    Admitted, Serve, WrongProtocol,
    admission::{Admission, Stage, panicked},
};

/// Gives each connection to one of several connectors, by what is known of its stream.
///
/// A server that is built with it has one accept loop and one set of limits, drain and observer for
/// all. What the stream is known by comes from the listener: a [`Sniffer`](crate::Sniffer) tells
/// what the peer speaks, TLS the name and protocol that were asked for. The first route whose
/// condition holds takes the connection; where none does and there is no
/// [`otherwise`](Self::otherwise), it is refused as
/// [`Refusal::Protocol`](protosocket::Refusal::Protocol).
///
/// A route can put an [`Establisher`] onto the stream, such as TLS, and lead to `Routes` again.
/// Each of these stages is a task that ends with it, and the connection is one of its connector's,
/// where that spawns it: nothing of the way to it is left when it has begun. The stages have
/// [`handshake_timeout`](Limits::handshake_timeout) together, and count as one handshake.
///
/// ```
/// use protosocket::{Layered, SocketListener, TcpSocketListener};
/// use protosocket_server::{Protocol, Route, Routed, Routes, Serve, Sniffer};
///
/// type Port = Layered<TcpSocketListener, Sniffer>;
///
/// # type Stream = <Port as SocketListener>::Stream;
/// # fn example<A, B>(lines: A, resp: B) -> Routes<Port>
/// # where
/// #     A: Serve<Listener = Routed<Stream>> + Send + Sync,
/// #     B: Serve<Listener = Routed<Stream>> + Send + Sync,
/// # {
/// Routes::<Port>::new()
///     .route(|stream| stream.protocol() == Protocol::Resp, Route::to(resp))
///     .otherwise(Route::to(lines))
/// # }
/// ```
pub struct Routes<L: SocketListener> {
    ways: Vec<Conditional<L::Stream>>,
    otherwise: Option<Box<dyn Way<L::Stream>>>,
    spawn: Box<Spawn<L>>,
}

struct Conditional<S> {
    when: Box<When<S>>,
    way: Box<dyn Way<S>>,
}

type When<S> = dyn Fn(&S) -> bool + Send + Sync;
type Spawn<L> = dyn Fn(RoutedConnection<L>) + Send + Sync;

impl<L> Routes<L>
where
    L: SocketListener<Stream: Send, Establish: Send>,
{
    /// No routes yet. The stages of connections before their routes are known are spawned with
    /// `tokio::spawn`.
    pub fn new() -> Self {
        Self::spawning(|connection| {
            tokio::spawn(connection);
        })
    }
}

impl<L: SocketListener> Routes<L> {
    /// No routes yet, and another way to spawn what comes before them:
    /// `tokio::task::spawn_local`, if the connectors do.
    pub fn spawning(spawn: impl Fn(RoutedConnection<L>) + Send + Sync + 'static) -> Self {
        Self {
            ways: Vec::new(),
            otherwise: None,
            spawn: Box::new(spawn),
        }
    }

    /// Take this route if `when` says so and no earlier one does.
    ///
    /// `when` is called in the connection's own task: a panic there ends that connection and
    /// nothing else.
    #[must_use]
    pub fn route<E, C>(
        mut self,
        when: impl Fn(&L::Stream) -> bool + Send + Sync + 'static,
        route: Route<E, C>,
    ) -> Self
    where
        E: Establisher<L::Stream>,
        C: Serve<Listener = Routed<L::Stream, E>> + Send + Sync,
    {
        self.ways.push(Conditional {
            when: Box::new(when),
            way: Box::new(route),
        });
        self
    }

    /// Take this route if no other is taken.
    #[must_use]
    pub fn otherwise<E, C>(mut self, route: Route<E, C>) -> Self
    where
        E: Establisher<L::Stream>,
        C: Serve<Listener = Routed<L::Stream, E>> + Send + Sync,
    {
        self.otherwise = Some(Box::new(route));
        self
    }

    /// The stream comes last, so that a panic drops it first: whoever hears of the end finds it
    /// closed.
    fn hand_on(&self, admission: Admission, stream: L::Stream) {
        let chosen = self.ways.iter().find(|route| (route.when)(&stream));
        let chosen = chosen.map(|route| &route.way);
        match chosen.or(self.otherwise.as_ref()) {
            Some(way) => way.take(admission, stream),
            None => {
                drop(stream);
                let error = io::Error::from(WrongProtocol::without_a_route());
                let refusal = admission.explain(&EstablishError::Io(error));
                admission.refuse(refusal);
            }
        }
    }
}

impl<L> Default for Routes<L>
where
    L: SocketListener<Stream: Send, Establish: Send>,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<L: SocketListener> Serve for Routes<L> {
    type Listener = L;

    fn configure(&mut self, config: &ConnectionConfig) -> Result<(), ConfigError> {
        let ways = self.ways.iter_mut().map(|route| &mut route.way);
        ways.chain(&mut self.otherwise)
            .try_for_each(|way| way.configure(config))
    }

    fn serve(this: &Arc<Self>, connection: Admitted<L::Establish>) {
        (this.spawn)(RoutedConnection {
            stage: Some(Stage::new(connection)),
            routes: this.clone(),
        });
    }
}

impl<L: SocketListener> fmt::Debug for Routes<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("routes", &self.ways.len())
            .field("otherwise", &self.otherwise.is_some())
            .finish()
    }
}

/// Where [`Routes`] lead: what is put onto the stream, and who serves what comes of it.
#[derive(Debug)]
pub struct Route<E, C> {
    establisher: E,
    limits: Option<Limits>,
    /// Made of server and route when the server is built.
    config: Option<ConnectionConfig>,
    /// Shared from the first connection on.
    to: Arc<C>,
}

impl<C: Serve> Route<Plain, C> {
    /// To this connector, with the stream as it is.
    pub fn to(connector: C) -> Self {
        Self {
            establisher: Plain,
            limits: None,
            config: None,
            to: Arc::new(connector),
        }
    }
}

impl<E, C> Route<E, C> {
    /// Put `establisher` onto the stream first. What it takes counts as part of the handshake.
    #[must_use]
    pub fn through<F>(self, establisher: F) -> Route<F, C> {
        Route {
            establisher,
            limits: self.limits,
            config: self.config,
            to: self.to,
        }
    }

    /// The limits of this route's connections; those of the server by default, or of the route to
    /// these routes. What belongs to the server goes on to be its own: how long a handshake may
    /// take, and how many connections there are.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }
}

/// A [`Route`] of whatever types.
trait Way<S>: Send + Sync {
    fn configure(&mut self, config: &ConnectionConfig) -> Result<(), ConfigError>;

    fn take(&self, admission: Admission, stream: S);
}

impl<S, E, C> Way<S> for Route<E, C>
where
    S: Transport,
    E: Establisher<S>,
    C: Serve<Listener = Routed<S, E>> + Send + Sync,
{
    fn configure(&mut self, config: &ConnectionConfig) -> Result<(), ConfigError> {
        let config = match &self.limits {
            Some(limits) => config.clone().with_limits(limits.clone())?,
            None => config.clone(),
        };
        if let Some(connector) = Arc::get_mut(&mut self.to) {
            connector.configure(&config)?;
        }
        self.config = Some(config);
        Ok(())
    }

    fn take(&self, mut admission: Admission, stream: S) {
        if let Some(config) = &self.config {
            admission.set_config(config.clone());
        }
        let establish = self.establisher.establish(stream);
        C::serve(&self.to, Admitted::new(establish, admission));
    }
}

/// What connections of a route come in through, as far as types go: the `SocketListener` of
/// connectors that are routed to. A connector that is to stand on any listener is generic over it,
/// and the compiler finds this one.
///
/// `S` is the stream that [`Routes`] look at, and `E` what the route puts onto it.
#[derive(Debug)]
pub struct Routed<S, E = Plain> {
    never: Infallible,
    types: PhantomData<fn(S) -> E>,
}

impl<S, E> SocketListener for Routed<S, E>
where
    S: Transport,
    E: Establisher<S>,
{
    type Stream = E::Stream;
    type Establish = E::Establish;

    fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        match self.never {}
    }
}

/// A connection whose route is not known yet: a future to be spawned, which ends by handing it
/// on. Dropping it closes the connection and counts it as dropped.
#[must_use = "a connection does nothing unless it is polled"]
pub struct RoutedConnection<L: SocketListener> {
    /// `None` once it was handed on or refused.
    stage: Option<Stage<L::Establish>>,
    routes: Arc<Routes<L>>,
}

impl<L: SocketListener> Future for RoutedConnection<L> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(stage) = &mut this.stage else {
            return Poll::Ready(());
        };
        let established = ready!(stage.poll(cx));
        let stage = this.stage.take().expect("it was there to be polled");
        let stream = match established {
            Ok(stream) => stream,
            Err(refusal) => {
                stage.refuse(refusal);
                return Poll::Ready(());
            }
        };
        let (routes, admission) = (&this.routes, stage.into_admission());
        // Conditions, establishers and connectors are foreign code. A panic drops the admission,
        // which counts it.
        if catch_unwind(AssertUnwindSafe(|| routes.hand_on(admission, stream))).is_err() {
            panicked();
        }
        Poll::Ready(())
    }
}

impl<L: SocketListener> fmt::Debug for RoutedConnection<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutedConnection")
            .field("establishing", &self.stage.as_ref().map(Stage::peer))
            .finish()
    }
}
