//! Two connections over one simulated stream, ready to run.

use std::sync::Arc;

use protosocket::{
    Connection, ConnectionConfig, ConnectionEnd, ConnectionHandle, Limits, MessageReactor, Sender,
    channel,
};

use super::{
    SimulationHandle,
    executor::Task,
    network::Network,
    stream::{LinkHandle, SimStream},
};
use crate::Recorder;

/// What one end of a simulated stream is to be: a codec, a reactor, and limits.
pub struct Endpoint<R: MessageReactor> {
    codec: R::Codec,
    reactor: R,
    limits: Option<Limits>,
    seed: u64,
}

impl<R: MessageReactor> Endpoint<R> {
    /// One with the default limits of its role.
    pub fn new(codec: R::Codec, reactor: R) -> Self {
        Self {
            codec,
            reactor,
            limits: None,
            seed: 0,
        }
    }

    /// One with these limits, that of its channel included.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Draw the jitter of its age from this seed; from 0 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Run a connection that `name` opened.
    ///
    /// # Panics
    /// If the limits cannot work.
    pub fn open(
        self,
        simulation: &SimulationHandle,
        name: &'static str,
        stream: SimStream,
    ) -> RunningConnection<R> {
        let limits = self.limits.clone().unwrap_or_else(Limits::client);
        let config = ConnectionConfig::client(limits);
        self.run(
            simulation,
            name,
            stream,
            config.expect("the limits can work"),
        )
    }

    /// Run a connection that `name` accepted.
    ///
    /// # Panics
    /// If the limits cannot work.
    pub fn accept(
        self,
        simulation: &SimulationHandle,
        name: &'static str,
        stream: SimStream,
    ) -> RunningConnection<R> {
        let limits = self.limits.clone().unwrap_or_else(Limits::server);
        let config = ConnectionConfig::server(limits);
        self.run(
            simulation,
            name,
            stream,
            config.expect("the limits can work"),
        )
    }

    fn run(
        self,
        simulation: &SimulationHandle,
        name: &'static str,
        stream: SimStream,
        config: ConnectionConfig,
    ) -> RunningConnection<R> {
        let observer = Arc::new(Recorder::default());
        let config = config
            .with_clock(Arc::new(simulation.clock()))
            .with_seed(self.seed)
            .with_observer(observer.clone());
        let (sender, receiver) = channel(config.limits().queued_messages());
        let mut connection = Connection::over(stream, self.codec, self.reactor, receiver, &config);
        RunningConnection {
            sender: Some(sender),
            handle: connection.handle(),
            observer,
            task: simulation.spawn(name, connection),
        }
    }
}

/// A connection in a simulation, and everything that reaches into it.
pub struct RunningConnection<R: MessageReactor> {
    /// Sends into it; taken or dropped when there is nothing more to send.
    pub sender: Option<Sender<R::LogicalOutbound>>,
    /// Drains and aborts it.
    pub handle: ConnectionHandle,
    /// What its observer was told.
    pub observer: Arc<Recorder>,
    /// Its task: how it ended. Cancel it to drop the connection.
    pub task: Task<ConnectionEnd<SimStream, R>>,
}

/// Two connections over one simulated stream.
///
/// ```
/// use protosocket_testkit::{
///     Probe,
///     Random,
///     echo,
///     framed,
///     silent,
///     simulation::{ConnectionPair, Endpoint, Network, Simulation},
/// };
///
/// let mut random = Random::new(3);
/// let simulation = Simulation::new(&mut random);
/// let network = Network::new(&simulation, &mut random);
/// let (client, heard) = Probe::new(silent());
/// let (server, _) = Probe::new(echo());
/// let mut pair = ConnectionPair::open(
///     &simulation,
///     &network,
///     Endpoint::new(framed(), client),
///     Endpoint::new(framed(), server),
/// );
/// pair.server.sender = None;
/// pair.client.sender.as_ref().unwrap().try_send("hello".into()).unwrap();
/// simulation.run_until(|| heard.received() == 1).unwrap();
/// pair.client.sender = None;
/// simulation.run().unwrap();
/// assert_eq!(pair.client.task.take().unwrap().reason.name(), "no_senders");
/// assert_eq!(pair.server.task.take().unwrap().reason.name(), "end_of_input");
/// ```
pub struct ConnectionPair<A: MessageReactor, B: MessageReactor> {
    /// The one that opened the stream.
    pub client: RunningConnection<A>,
    /// The one that accepted it.
    pub server: RunningConnection<B>,
    /// The stream between them.
    pub link: LinkHandle,
}

impl<A: MessageReactor, B: MessageReactor> ConnectionPair<A, B> {
    /// Run two connections over a stream of `network`.
    pub fn open(
        simulation: &SimulationHandle,
        network: &Network,
        client: Endpoint<A>,
        server: Endpoint<B>,
    ) -> Self {
        let (near, far) = network.pair();
        let link = near.link();
        Self {
            client: client.open(simulation, "client", near),
            server: server.accept(simulation, "server", far),
            link,
        }
    }
}
