//! Clients that connect again: how often, how far out of step, and when they give up.

use std::{
    cell::RefCell,
    num::NonZeroU32,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use protosocket::{Backoff, Reconnect, SocketConnector, TcpConnector};
use protosocket_testkit::{
    Random, for_each_seed,
    simulation::{Network, SimConnector, SimListener, Simulation, StreamConditions},
};

const OUTAGE: Duration = Duration::from_secs(60);

/// What an attempt takes.
const ROUND_TRIP: Duration = Duration::from_millis(10);

struct World {
    simulation: Simulation,
    network: Network,
    random: Random,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let simulation = Simulation::new(random);
        let network = Network::new(&simulation, random);
        let steady = StreamConditions {
            latency: ROUND_TRIP / 2..ROUND_TRIP / 2,
            ..StreamConditions::default()
        };
        network.set_conditions(steady.clone(), steady);
        Self {
            simulation,
            network,
            random: random.fork(),
        }
    }

    fn reconnect(&mut self) -> Reconnect<SimConnector> {
        let backoff = Backoff::new().seed(self.random.next());
        let connector = self.network.connector("server");
        let reconnect = Reconnect::new(connector, backoff).expect("the defaults are valid");
        reconnect.with_clock(Arc::new(self.simulation.clock()))
    }

    fn listener(&self) -> SimListener {
        self.network.listener("server")
    }
}

#[test]
fn c19_an_outage_of_a_minute_costs_few_attempts_and_is_over_within_the_longest_delay() {
    let (mut all, mut ran) = (0, 0);
    for_each_seed(0..500, |random| {
        ran += 1;
        let mut world = World::new(random);
        let mut reconnect = world.reconnect();
        let connected = world.simulation.spawn("client", async move {
            reconnect.connect().await.expect("it never gives up")
        });
        world.simulation.run_for(OUTAGE).unwrap();
        let attempts = world.network.connects();
        // Twelve on average: the bounds of the first eleven delays add up to 81 s, and each delay
        // is half of its bound.
        assert!((5..=25).contains(&attempts), "{attempts} attempts");
        all += attempts;
        let _listener = world.listener();
        world
            .simulation
            .run_until(|| connected.is_finished())
            .unwrap();
        assert!(world.simulation.elapsed() <= OUTAGE + Duration::from_secs(30) + 2 * ROUND_TRIP);
    });
    // One seed that is replayed says nothing about all of them.
    assert!(
        ran < 500 || (11 * ran..14 * ran).contains(&all),
        "{all} attempts in {ran} outages"
    );
}

#[test]
fn c19_clients_that_lose_their_server_together_do_not_come_back_together() {
    const CLIENTS: usize = 500;
    let mut world = World::new(&mut Random::new(1));
    let times = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..CLIENTS {
        let mut reconnect = world.reconnect();
        let (times, handle) = (times.clone(), world.simulation.handle());
        world.simulation.spawn("client", async move {
            reconnect.connect().await.expect("it never gives up");
            times.borrow_mut().push(handle.elapsed());
        });
    }
    world.simulation.run_for(OUTAGE).unwrap();
    let _listener = world.listener();
    world.simulation.run().unwrap();
    // Within half a minute, and in no second many more than there would be in each.
    let times: Vec<Duration> = times.take();
    assert_eq!(times.len(), CLIENTS);
    let mut seconds = [0; 31];
    for time in &times {
        seconds[(*time - OUTAGE).as_secs() as usize] += 1;
    }
    let busiest = seconds.iter().max().copied().unwrap_or_default();
    assert!(
        busiest <= CLIENTS / 10,
        "{busiest} in one second: {seconds:?}"
    );
}

#[test]
fn c19_attempts_that_are_exhausted_name_the_last_error() {
    let mut world = World::new(&mut Random::new(1));
    let mut reconnect = world.reconnect().max_attempts(NonZeroU32::new(4));
    let failed = world
        .simulation
        .block_on(async move { reconnect.connect().await });
    let error = failed.unwrap().map(|_| ()).unwrap_err();
    assert_eq!(error.attempts, 4);
    assert_eq!(
        error.source.source.kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    let text = error.to_string();
    assert!(
        text.contains("4 attempts") && text.contains("refused"),
        "{text}"
    );
    assert_eq!(world.network.connects(), 4);
}

#[test]
fn only_the_first_attempt_of_all_is_made_at_once() {
    let (mut waited, mut ran) = (0, 0);
    for_each_seed(0..50, |random| {
        ran += 1;
        let mut world = World::new(random);
        let _listener = world.listener();
        let mut reconnect = world.reconnect();
        let handle = world.simulation.handle();
        let times = world.simulation.block_on(async move {
            drop(reconnect.connect().await);
            let first = handle.elapsed();
            drop(reconnect.connect().await);
            (first, handle.elapsed())
        });
        let (first, second) = times.unwrap();
        assert_eq!(first, ROUND_TRIP);
        let delay = second - first - ROUND_TRIP;
        assert!(delay <= Duration::from_millis(50), "{delay:?}");
        waited += usize::from(delay > Duration::from_millis(1));
    });
    assert!(ran < 50 || waited > ran * 4 / 5, "{waited} of {ran} waited");
}

/// The bound of the delays after so many connections that were opened, and what was done with them.
fn bound_after(connections: usize, lives: Duration, succeed: bool) -> Duration {
    let mut world = World::new(&mut Random::new(3));
    let _listener = world.listener();
    let mut reconnect = world.reconnect();
    let handle = world.simulation.handle();
    let bound = world.simulation.block_on(async move {
        for _ in 0..connections {
            let stream = reconnect.connect().await.expect("somebody listens");
            if succeed {
                reconnect.succeeded();
            }
            handle.sleep(lives).await;
            drop(stream);
        }
        reconnect.connect().await.expect("somebody listens");
        reconnect.backoff().bound()
    });
    bound.unwrap()
}

#[test]
fn a_connection_that_is_lost_at_once_is_a_failure_and_one_that_lived_is_not() {
    let at_once = Duration::ZERO;
    // The first is opened without a delay, and each of those after it doubles the bound.
    assert_eq!(bound_after(5, at_once, false), Duration::from_millis(1600));
    assert_eq!(bound_after(5, at_once, true), Duration::from_millis(100));
    let long = Duration::from_secs(30);
    assert_eq!(bound_after(5, long, false), Duration::from_millis(100));
    let short = long - Duration::from_millis(1);
    assert_eq!(bound_after(5, short, false), Duration::from_millis(1600));
}

#[test]
fn a_partition_is_waited_out_within_the_connect_timeout() {
    let mut world = World::new(&mut Random::new(1));
    let _listener = world.listener();
    world.network.partition("server");
    let connector = world
        .network
        .connector("server")
        .timeout(Duration::from_secs(3));
    let begun: Instant = world.simulation.now();
    let failed = world
        .simulation
        .block_on(async move { connector.connect().await });
    let error = failed.unwrap().map(|_| ()).unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(world.simulation.now() - begun, Duration::from_secs(3));
    let mut reconnect = world.reconnect();
    let connected = world
        .simulation
        .spawn("client", async move { reconnect.connect().await });
    world.simulation.run_for(Duration::from_secs(5)).unwrap();
    world.network.heal();
    world.simulation.run_for(ROUND_TRIP).unwrap();
    assert!(connected.take().is_some_and(|connected| connected.is_ok()));
}

#[test]
fn connecting_again_can_be_spawned_on_any_thread() {
    fn is_send<T: Send>(_: T) {}
    let connector = TcpConnector::new(([127, 0, 0, 1], 1).into());
    let mut reconnect = Reconnect::new(connector, Backoff::new()).expect("the defaults are valid");
    is_send(reconnect.connect());
}
