//! A server with many clients is drained, at any time and with any deadline.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use protosocket::{
    InputPolicy, Limits, PeerAddress, ReactorStatus, SendLimits, Sender, SocketConnector, Transport,
};
use protosocket_server::{
    DrainReport, ProtosocketServerConfig, ServerConnection, ServerConnector, ServerHandle,
};
use protosocket_testkit::{
    Random, Recorder, for_each_seed_in_a_thread,
    simulation::{
        Endpoint, Network, RunningConnection, SimListener, SimStream, Simulation, SimulationHandle,
        StreamConditions,
    },
};

use crate::{
    codec::{Kind, Message, Numbered, Origin, Panics, SharedLedger},
    peer::{Habits, Peer, Seen},
};

/// What a drain may take beyond its deadline: nothing, but for the poll at the deadline itself.
const SLACK: Duration = Duration::from_millis(1);

/// One connection as the server has it.
struct Served {
    seen: Rc<RefCell<Seen>>,
    said: SharedLedger,
}

/// Makes a server's connections out of what their clients have agreed on.
struct Connector {
    simulation: SimulationHandle,
    random: RefCell<Random>,
    habits: Habits,
    send: SendLimits,
    max_size: usize,
    /// What the client at this address says and hears.
    ledgers: Ledgers,
    served: Rc<RefCell<Vec<Served>>>,
    /// The codec of the reactor that was made last: a connection asks for one behind the other.
    codec: RefCell<Option<Numbered>>,
}

type Ledgers = Rc<RefCell<HashMap<PeerAddress, (SharedLedger, SharedLedger)>>>;

impl ServerConnector for Connector {
    type Codec = Numbered;
    type Reactor = Peer;
    type SocketListener = SimListener;

    fn codec(&self) -> Numbered {
        let codec = self.codec.borrow_mut().take();
        codec.expect("a reactor was made before")
    }

    fn new_reactor(&self, outbound: Sender<Message>, stream: &SimStream) -> Peer {
        let ledgers = self.ledgers.borrow();
        let (heard, said) = ledgers[&stream.peer_address()].clone();
        let random = self.random.borrow_mut().fork();
        let panics = Rc::new(RefCell::new(Panics::default()));
        let simulation = self.simulation.clone();
        let habits = self.habits.clone();
        let ledgers = (said.clone(), heard.clone());
        let peer = Peer::new(habits, simulation, random, ledgers, panics.clone());
        *peer.own.borrow_mut() = Some(outbound.downgrade());
        self.served.borrow_mut().push(Served {
            seen: peer.seen.clone(),
            said: said.clone(),
        });
        *self.codec.borrow_mut() = Some(Numbered {
            said,
            heard,
            limits: self.send,
            max_size: self.max_size,
            piecewise: false,
            head: None,
            panics,
        });
        peer
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        self.simulation
            .spawn("connection of the server", connection);
    }
}

/// What one client has to do with the server.
struct Client {
    running: Rc<RefCell<Option<RunningConnection<Peer>>>>,
    seen: Rc<RefCell<Seen>>,
    said: SharedLedger,
    heard: SharedLedger,
}

struct Scene {
    simulation: Simulation,
    random: Random,
    network: Network,
    send: SendLimits,
    max_size: usize,
    ledgers: Ledgers,
    served: Rc<RefCell<Vec<Served>>>,
    peace: Rc<Cell<bool>>,
}

fn habits(random: &mut Random, policy: InputPolicy, max_size: usize) -> Habits {
    let millis = |random: &mut Random, most| Duration::from_millis(random.below(most) as u64);
    Habits {
        policy,
        at_once: *random.one_of(&[0, 500, 1000]),
        delay: millis(random, 2000),
        max_pending: usize::MAX,
        acknowledges: 0,
        pause: random
            .per_mille(300)
            .then(|| (random.within(1..10) as u32, millis(random, 500))),
        resumes_in_poll: random.per_mille(300),
        notes: (0, Duration::ZERO),
        status: None,
        on_end_of_input: ReactorStatus::Continue,
        on_drain: ReactorStatus::Continue,
        goodbye: random.per_mille(500),
        sends_rest: true,
        awaits: policy == InputPolicy::Multiplexing,
        max_size,
    }
}

impl Scene {
    fn new(random: &mut Random) -> Self {
        let mut random = random.fork();
        let simulation = Simulation::new(&mut random);
        let network = Network::new(&simulation, &mut random);
        let micros = *random.one_of(&[100, 5_000, 100_000]);
        let mut conditions = || StreamConditions {
            latency: Duration::from_micros(micros / 2)..Duration::from_micros(micros),
            buffer: *random.one_of(&[1000, 16 * 1024, 64 * 1024]),
            buffered: random.per_mille(200),
            ..StreamConditions::default()
        };
        network.set_conditions(conditions(), conditions());
        if random.per_mille(500) {
            network.set_handshake(Duration::ZERO..Duration::from_millis(300));
        }
        let bulk_bytes = *random.one_of(&[100, 10_000, 1024 * 1024]);
        let max_size = *random.one_of(&[10, 1000, 20_000]);
        Self {
            simulation,
            network,
            send: SendLimits {
                bulk_bytes,
                ..SendLimits::DEFAULT
            },
            max_size,
            random,
            ledgers: Rc::default(),
            served: Rc::default(),
            peace: Rc::default(),
        }
    }

    fn serve(&mut self, watcher: Arc<Recorder>) -> (ServerHandle, usize) {
        let policy = InputPolicy::Answering;
        let connector = Connector {
            simulation: self.simulation.handle(),
            random: RefCell::new(self.random.fork()),
            habits: habits(&mut self.random, policy, self.max_size),
            send: self.send,
            max_size: self.max_size,
            ledgers: self.ledgers.clone(),
            served: self.served.clone(),
            codec: RefCell::default(),
        };
        let most = *self.random.one_of(&[3, 1000, 1000]);
        let server = ProtosocketServerConfig::default()
            .limits(Limits::server().send_limits(self.send))
            .max_connections(most)
            .max_handshakes(*self.random.one_of(&[1, 1000]))
            .clock(Arc::new(self.simulation.clock()))
            .observer(watcher)
            .build_server(self.network.listener("server"), connector)
            .expect("the configuration is valid");
        let handle = server.handle();
        self.simulation.spawn("server", server);
        (handle, most)
    }

    /// A client that comes at some time and asks for a while.
    fn client(&mut self) -> Client {
        let connector = self.network.connector("server");
        let ledgers = (SharedLedger::default(), SharedLedger::default());
        let address = connector.local_address();
        self.ledgers.borrow_mut().insert(address, ledgers.clone());
        let (said, heard) = ledgers.clone();
        let panics = Rc::new(RefCell::new(Panics::default()));
        let mut random = self.random.fork();
        let peer = Peer::new(
            habits(&mut random, InputPolicy::Multiplexing, self.max_size),
            self.simulation.handle(),
            random.fork(),
            ledgers,
            panics.clone(),
        );
        let codec = Numbered {
            said: said.clone(),
            heard: heard.clone(),
            limits: self.send,
            max_size: self.max_size,
            piecewise: false,
            head: None,
            panics,
        };
        let client = Client {
            running: Rc::default(),
            seen: peer.seen.clone(),
            said: said.clone(),
            heard,
        };
        let (running, handle) = (client.running.clone(), self.simulation.handle());
        let (send, max_size, peace) = (self.send, self.max_size, self.peace.clone());
        self.simulation.spawn("client", async move {
            let comes = random.below_one_of(&[1, 500, 3000]) as u64;
            handle.sleep(Duration::from_millis(comes)).await;
            let Ok(stream) = connector.connect().await else {
                return;
            };
            let fault = stream.link();
            let limits = Limits::client().send_limits(send);
            let mut opened = Endpoint::new(codec, peer).limits(limits).open(
                &handle,
                "connection of a client",
                stream,
            );
            let sender = opened.sender.take().expect("it was just opened");
            *running.borrow_mut() = Some(opened);
            if random.per_mille(150) {
                // It never says anything, and never goes.
                let _silent = sender;
                while !peace.get() {
                    handle.sleep(Duration::from_secs(1)).await;
                }
                return;
            }
            for _ in 0..random.below_one_of(&[5, 60]) {
                let message = Message {
                    origin: Origin::First,
                    number: said.borrow().next(Origin::First),
                    kind: *random.one_of(&[Kind::Request, Kind::Request, Kind::Note]),
                    size: random.below(max_size + 1),
                };
                if sender.send(message).await.is_err() {
                    return;
                }
                said.borrow_mut().accept(Origin::First);
                if random.per_mille(300) {
                    let lull = random.below_one_of(&[2, 100, 1000]) as u64;
                    handle.sleep(Duration::from_millis(lull)).await;
                }
                if random.per_mille(15) && !peace.get() {
                    match random.below(3) {
                        0 => fault.reset(),
                        _ => fault.stall(),
                    }
                }
            }
        });
        client
    }
}

fn server_is_drained(random: &mut Random) {
    let mut scene = Scene::new(random);
    let watcher = Arc::new(Recorder::new());
    let (handle, most) = scene.serve(watcher.clone());
    let count = scene.random.within(1..12);
    let clients: Vec<Client> = (0..count).map(|_| scene.client()).collect();
    if scene.random.per_mille(200) {
        let error = *scene
            .random
            .one_of(&[io::ErrorKind::ConnectionAborted, io::ErrorKind::OutOfMemory]);
        scene.network.fail_accept("server", error.into());
    }
    let before = Duration::from_millis(scene.random.below_one_of(&[1, 500, 5000]) as u64);
    scene.simulation.run_for(before).unwrap();
    assert!(handle.connections() <= most);

    // The drain.
    let deadline = Duration::from_millis(scene.random.below_one_of(&[1, 500, 20_000]) as u64);
    let begun = scene.simulation.now();
    let there = handle.connections();
    let draining = handle.clone();
    let report = scene
        .simulation
        .spawn("drain", async move { draining.drain(deadline).await });
    let mut cut = begun + deadline;
    if scene.random.per_mille(200) {
        let (earlier, again) = (deadline / 2, handle.clone());
        let wait = Duration::from_millis(scene.random.below(100) as u64);
        cut = cut.min(begun + wait + earlier);
        let timer = scene.simulation.handle();
        scene.simulation.spawn("second drain", async move {
            timer.sleep(wait).await;
            again.drain(earlier).await
        });
    }
    // Once that has begun, nobody comes in any more.
    scene.simulation.run_for(Duration::ZERO).unwrap();
    let late = scene.network.connector("server");
    let timer = scene.simulation.handle();
    let wait = Duration::from_millis(scene.random.below_one_of(&[1, 2000]) as u64);
    let refused = scene.simulation.spawn("late", async move {
        timer.sleep(wait).await;
        late.connect().await
    });
    scene.simulation.run_until(|| report.is_finished()).unwrap();
    let took = scene.simulation.now() - begun;
    assert!(
        scene.simulation.now() <= cut + SLACK,
        "the drain took {took:?}"
    );
    let report = report.take().expect("it has finished");
    assert_eq!(handle.connections(), 0);
    let opened = watcher.opened();
    assert_eq!(opened, watcher.closed().len());
    check_report(&report, there, begun, cut, &scene.served.borrow());

    // The network is whole again, and what the clients are told has been sent is whole.
    scene.network.heal();
    scene.peace.set(true);
    scene.simulation.run().unwrap();
    let error = refused
        .take()
        .expect("it has ended")
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(watcher.opened(), opened);
    for client in &clients {
        check_client(client);
    }
}

/// The report adds up to what has become of those that were there.
fn check_report(
    report: &DrainReport,
    there: usize,
    begun: Instant,
    cut: Instant,
    served: &[Served],
) {
    let all = report.finished + report.forced + report.failed + report.dropped + report.stuck;
    assert_eq!(all, there, "{report}");
    assert_eq!(report.stuck, 0, "{report}");
    let mut expected = DrainReport::default();
    for one in served {
        let seen = one.seen.borrow();
        let &[(reason, stats)] = &seen.ends[..] else {
            panic!("a reactor heard of {:?}", seen.ends);
        };
        let said = one.said.borrow();
        assert!(said.violations.is_empty(), "{:?}", said.violations);
        assert_eq!(stats.messages_out + stats.unsent, said.accepted());
        assert_eq!(stats.unanswered, seen.pending.len() as u64);
        let ended = seen.ended_at.expect("it has ended");
        assert!(ended <= cut, "a connection ended after the deadline");
        if ended < begun {
            continue;
        }
        expected.unsent += stats.unsent;
        expected.unanswered += stats.unanswered;
        match reason {
            "drain_timeout" => {
                assert_eq!(ended, cut, "a connection was cut off before the deadline");
                expected.forced += 1;
            }
            "drained" | "end_of_input" => {
                assert_eq!(
                    (stats.unsent, stats.unanswered),
                    (0, 0),
                    "{reason}: {stats:?}"
                );
                expected.finished += 1;
            }
            "io" => expected.failed += 1,
            "aborted" => expected.failed += 1,
            other => panic!("a connection ended by {other} in a drain"),
        }
    }
    // Connections that ended at the very instant of the drain's begin may have done so before.
    let ambiguous = served
        .iter()
        .any(|one| one.seen.borrow().ended_at == Some(begun));
    if !ambiguous {
        let counts = |report: &DrainReport| {
            (
                report.finished,
                report.forced,
                report.failed,
                report.unsent,
                report.unanswered,
            )
        };
        assert_eq!(counts(report), counts(&expected), "{report}");
    }
}

fn check_client(client: &Client) {
    for ledger in [&client.said, &client.heard] {
        let ledger = ledger.borrow();
        assert!(ledger.violations.is_empty(), "{:?}", ledger.violations);
    }
    let seen = client.seen.borrow();
    if client.running.borrow().is_none() {
        return;
    }
    let &[(reason, stats)] = &seen.ends[..] else {
        panic!("a client's reactor heard of {:?}", seen.ends);
    };
    let said = client.said.borrow();
    assert_eq!(
        stats.messages_out + stats.unsent,
        said.accepted(),
        "{reason}"
    );
    if seen.end_of_input {
        assert!(
            client.heard.borrow().is_whole(),
            "a client was told of the end and not of everything before it"
        );
    }
}

#[test]
fn servers_are_drained_by_their_deadline_and_report_what_became_of_all() {
    for_each_seed_in_a_thread(0..100, server_is_drained);
}
