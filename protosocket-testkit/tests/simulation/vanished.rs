//! F9: a peer that vanishes is noticed by deadlines alone: nothing arrives, not even an end.

use std::time::Duration;

use bytes::Bytes;
use protosocket::{InputPolicy, Limits, SocketConnector, SocketListener};
use protosocket_testkit::{
    Framed, Knobs, Probe, Random, echo, for_each_seed_in_a_thread, framed, silent,
    simulation::{Endpoint, Network, RunningConnection, Simulation},
};

const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a message that have come buy it more, some 20 seconds here.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// A connection that ends in order waits so long for a peer that does not hear of it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

fn with_deadlines(limits: Limits) -> Limits {
    limits
        .write_timeout(WRITE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .message_timeout(MESSAGE_TIMEOUT)
        .first_message_timeout(IDLE_TIMEOUT)
        .linger_timeout(LINGER_TIMEOUT)
}

/// A client and an echo server behind a name that can be cut off.
struct Scene {
    simulation: Simulation,
    network: Network,
    client: RunningConnection<Probe<Framed>>,
    server: RunningConnection<Probe<Framed>>,
    heard: Knobs<Framed>,
}

impl Scene {
    fn new(random: &mut Random) -> Self {
        let simulation = Simulation::new(random);
        let network = Network::new(&simulation, random);
        let mut listener = network.listener("server");
        let connector = network.connector("server");
        let connected = simulation.spawn("connecting", async move { connector.connect().await });
        let accepted = simulation.block_on(async move {
            let accepted = std::future::poll_fn(|cx| listener.poll_accept(cx)).await;
            let stream = accepted.expect("nothing fails").establish.await;
            (stream.expect("nothing fails"), listener)
        });
        // The listener is not needed any more, and its going resets nobody that was accepted.
        let (far, _) = accepted.expect("somebody connects");
        simulation.run_until(|| connected.is_finished()).unwrap();
        let near = connected.take().unwrap().expect("somebody listens");
        let (reactor, heard) = Probe::new(silent());
        // It has more to say than fits, and hears the echo of it all the same.
        heard.set_policy(InputPolicy::Multiplexing);
        let client = Endpoint::new(framed(), reactor).limits(with_deadlines(Limits::client()));
        let server = Endpoint::new(framed(), Probe::new(echo()).0);
        let server = server.limits(with_deadlines(Limits::server()));
        Self {
            client: client.open(&simulation, "client", near),
            server: server.accept(&simulation, "server", far),
            simulation,
            network,
            heard,
        }
    }

    fn send(&self, message: Bytes) {
        let sender = self.client.sender.as_ref().expect("it is kept");
        sender.try_send(message).expect("there is room");
    }

    /// Cut the server off, and tell how both ended and after how long. Nobody heals the network.
    fn vanish(self) -> ([&'static str; 2], Duration) {
        let begin = self.simulation.elapsed();
        self.network.partition("server");
        self.simulation.run().expect("deadlines need no help");
        let ends = [&self.client, &self.server].map(|one| {
            assert_eq!(one.observer.closed().len(), 1);
            one.task.take().expect("it has ended").reason.name()
        });
        (ends, self.simulation.elapsed() - begin)
    }
}

fn vanishes_with_data_in_flight(random: &mut Random) {
    let scene = Scene::new(random);
    for _ in 0..40 {
        scene.send(Bytes::from(vec![7; 200_000]));
    }
    let some = random.within(1..20);
    let heard = scene.heard.clone();
    let is_under_way = || heard.received() >= some;
    scene.simulation.run_until(is_under_way).unwrap();
    let ([client, server], took) = scene.vanish();
    assert_eq!(client, "write_timeout");
    // What it still had to say may have fitted into what the network holds.
    assert!(
        ["write_timeout", "message_timeout", "idle_timeout"].contains(&server),
        "{server}"
    );
    assert!(took <= IDLE_TIMEOUT + LINGER_TIMEOUT, "{took:?}");
}

fn vanishes_while_idle(random: &mut Random) {
    let scene = Scene::new(random);
    scene.send(Bytes::from_static(b"hello"));
    let heard = scene.heard.clone();
    scene
        .simulation
        .run_until(|| heard.received() == 1)
        .unwrap();
    let (ends, took) = scene.vanish();
    assert_eq!(ends, ["idle_timeout"; 2]);
    assert!(took <= IDLE_TIMEOUT + LINGER_TIMEOUT, "{took:?}");
}

#[test]
fn f9_a_peer_that_vanishes_with_data_in_flight_is_given_up_by_the_write_deadline() {
    for_each_seed_in_a_thread(0..100, vanishes_with_data_in_flight);
}

#[test]
fn f9_a_peer_that_vanishes_while_idle_is_given_up_by_the_idle_deadline() {
    for_each_seed_in_a_thread(0..100, vanishes_while_idle);
}
