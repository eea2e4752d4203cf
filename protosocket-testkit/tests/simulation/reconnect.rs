//! Clients that come back: through partitions, refusals, resets and restarts of their server.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use protosocket::{
    Backoff, InputPolicy, Limits, ReactorStatus, Reconnect, SendLimits, Sender, SocketConnector,
};
use protosocket_server::{
    ProtosocketServerConfig, ServerConnection, ServerConnector, ServerHandle,
};
use protosocket_testkit::{
    Framed, Probe, Random, for_each_seed_in_a_thread, framed,
    simulation::{
        Endpoint, Network, RunningConnection, Side, SimConnector, SimListener, SimStream,
        Simulation, SimulationHandle, StreamConditions,
    },
};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a request may take through a network that is whole.
const SERVED: Duration = Duration::from_secs(2);

/// A request, and the answer to it: who asks, over which of its connections, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    client: u32,
    attempt: u32,
    number: u32,
}

impl Call {
    fn encode(self, padding: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(12 + padding);
        for word in [self.client, self.attempt, self.number] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.resize(12 + padding, 0x5a);
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Self {
        let word = |at| u32::from_be_bytes(std::array::from_fn(|index| bytes[at + index]));
        assert!(
            bytes[12..].iter().all(|byte| *byte == 0x5a),
            "it was damaged"
        );
        Self {
            client: word(0),
            attempt: word(4),
            number: word(8),
        }
    }
}

/// What the server has executed, over all its lives.
#[derive(Debug, Default)]
struct Executed {
    calls: BTreeMap<(u32, u32), u32>,
    /// Of each connection of each client.
    in_attempts: BTreeSet<Call>,
    twice: Vec<Call>,
}

struct Echo {
    simulation: SimulationHandle,
    executed: Rc<RefCell<Executed>>,
    send: SendLimits,
}

impl ServerConnector for Echo {
    type Codec = Framed;
    type Reactor = Probe<Framed>;
    type SocketListener = SimListener;

    fn codec(&self) -> Framed {
        framed()
    }

    fn new_reactor(&self, _: Sender<Bytes>, _: &SimStream) -> Probe<Framed> {
        let executed = self.executed.clone();
        let (probe, _) = Probe::new(Box::new(move |context, message: Bytes| {
            let call = Call::decode(&message);
            let mut executed = executed.borrow_mut();
            *executed
                .calls
                .entry((call.client, call.number))
                .or_default() += 1;
            if !executed.in_attempts.insert(call) {
                executed.twice.push(call);
            }
            context.reply(message)
        }));
        probe
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        self.simulation
            .spawn_background("connection of the server", connection);
    }
}

/// What the reactor of a client's connection has heard, and who waits for it.
#[derive(Default)]
struct Heard {
    answers: Vec<Call>,
    waker: Option<Waker>,
}

/// What became of a request, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// It may have been executed, and it is not one that may be executed twice.
    Unknown,
}

/// What a client has seen, for the end of the test.
#[derive(Default)]
struct Report {
    outcomes: BTreeMap<u32, Outcome>,
    /// Requests that never left, according to the core: in which attempt.
    never_sent: Vec<Call>,
    /// When something was answered for the last time.
    answered_at: Option<Instant>,
    violations: Vec<String>,
}

struct Caller {
    id: u32,
    simulation: SimulationHandle,
    random: Random,
    reconnect: Reconnect<Counting>,
    limits: Limits,
    report: Rc<RefCell<Report>>,
    /// How many requests there are to be made; more may come.
    wanted: Rc<Cell<u32>>,
    /// Nothing more will be wanted.
    over: Rc<Cell<bool>>,
    attempt: u32,
}

/// Notes when connections are tried.
struct Counting {
    inner: SimConnector,
    times: Arc<std::sync::Mutex<Vec<Instant>>>,
    clock: protosocket::ManualClock,
}

impl SocketConnector for Counting {
    type Stream = SimStream;

    async fn connect(&self) -> Result<SimStream, protosocket::ConnectError> {
        let now = protosocket::Clock::now(&self.clock);
        self.times.lock().unwrap().push(now);
        self.inner.connect().await
    }
}

impl Caller {
    /// Whether a request may be executed twice.
    fn is_idempotent(number: u32) -> bool {
        number.is_multiple_of(2)
    }

    async fn run(mut self) {
        while !self.is_done() {
            let stream = match self.reconnect.connect().await {
                Ok(stream) => stream,
                Err(error) => panic!("it does not give up: {error}"),
            };
            self.attempt += 1;
            self.talk(stream).await;
        }
    }

    fn is_done(&self) -> bool {
        self.over.get() && self.next().is_none()
    }

    /// The first request that has no outcome.
    fn next(&self) -> Option<u32> {
        let report = self.report.borrow();
        (0..self.wanted.get()).find(|number| !report.outcomes.contains_key(number))
    }

    /// Make requests over one connection, until it ends or all are done.
    async fn talk(&mut self, stream: SimStream) {
        let heard = Rc::new(RefCell::new(Heard::default()));
        let hears = heard.clone();
        let (probe, knobs) = Probe::new(Box::new(move |_, message: Bytes| {
            let mut heard = hears.borrow_mut();
            heard.answers.push(Call::decode(&message));
            if let Some(waker) = heard.waker.take() {
                waker.wake();
            }
            ReactorStatus::Continue
        }));
        knobs.set_policy(InputPolicy::Multiplexing);
        // A server that has said its last word will answer nothing more.
        knobs.lock().on_end_of_input = ReactorStatus::Disconnect;
        let mut connection = Endpoint::new(framed(), probe)
            .limits(self.limits.clone())
            .open(&self.simulation, "connection of a client", stream);
        // In the order of the sends, which is that of the wire.
        let mut accepted: Vec<Call> = Vec::new();
        let mut answered = 0;
        loop {
            let outstanding = accepted.len() - answered;
            let next = self.unasked(&accepted);
            if outstanding == 0 && next.is_none() && self.over.get() {
                break;
            }
            let width = self.random.within(1..6);
            if outstanding < width
                && let Some(number) = next
            {
                let call = Call {
                    client: self.id,
                    attempt: self.attempt,
                    number,
                };
                let padding = *self.random.one_of(&[0, 10, 5000]);
                let sender = connection.sender.as_ref().expect("it is kept to the end");
                match sender.send(call.encode(padding)).await {
                    Ok(()) => accepted.push(call),
                    Err(_) => break,
                }
                continue;
            }
            if self.next_event(&heard, &mut connection, answered).await {
                break;
            }
            answered += self.take_answers(&heard, answered, &accepted);
        }
        self.settle(connection, &heard, answered, &accepted).await;
    }

    /// A request without an outcome that was not made over this connection.
    fn unasked(&self, accepted: &[Call]) -> Option<u32> {
        let report = self.report.borrow();
        (0..self.wanted.get()).find(|number| {
            let asked = accepted.iter().any(|call| call.number == *number);
            !asked && !report.outcomes.contains_key(number)
        })
    }

    /// Wait for an answer, more to do, or the end: whether it was the end.
    async fn next_event(
        &self,
        heard: &Rc<RefCell<Heard>>,
        connection: &mut RunningConnection<Probe<Framed>>,
        answered: usize,
    ) -> bool {
        // There may be more to do by then.
        let mut tick = self.simulation.sleep(Duration::from_millis(200));
        std::future::poll_fn(|cx| {
            if connection.task.is_finished() {
                return Poll::Ready(true);
            }
            let mut heard = heard.borrow_mut();
            if heard.answers.len() > answered || Pin::new(&mut tick).poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            heard.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Note the answers that have come since, and how many there are.
    fn take_answers(
        &mut self,
        heard: &Rc<RefCell<Heard>>,
        answered: usize,
        accepted: &[Call],
    ) -> usize {
        let heard = heard.borrow();
        let mut report = self.report.borrow_mut();
        let new = &heard.answers[answered..];
        for (index, call) in new.iter().enumerate() {
            // Answers come in the order of the requests.
            let expected = accepted.get(answered + index);
            if expected != Some(call) {
                let violation = format!("{call:?} was answered instead of {expected:?}");
                report.violations.push(violation);
            }
            report.outcomes.insert(call.number, Outcome::Answered);
            report.answered_at = Some(self.simulation.now());
        }
        if !new.is_empty() {
            self.reconnect.succeeded();
        }
        new.len()
    }

    /// The connection is at its end: what of its requests was executed?
    async fn settle(
        &mut self,
        mut connection: RunningConnection<Probe<Framed>>,
        heard: &Rc<RefCell<Heard>>,
        mut answered: usize,
        accepted: &[Call],
    ) {
        connection.sender = None;
        let Some(end) = connection.task.clone().await else {
            return;
        };
        answered += self.take_answers(heard, answered, accepted);
        let mut report = self.report.borrow_mut();
        let unsent = end.stats.unsent as usize;
        let sent = accepted.len().checked_sub(unsent);
        let Some(sent) = sent.filter(|sent| *sent >= answered) else {
            let violation = format!("{unsent} of {} were not sent", accepted.len());
            report.violations.push(violation);
            return;
        };
        if end.stats.messages_out != sent as u64 {
            let violation = format!("{sent} were sent, and {:?}", end.stats);
            report.violations.push(violation);
        }
        report.never_sent.extend(&accepted[sent..]);
        for call in &accepted[answered..sent] {
            if !Self::is_idempotent(call.number) {
                report.outcomes.insert(call.number, Outcome::Unknown);
            }
        }
    }
}

struct Scene {
    simulation: Simulation,
    random: Random,
    network: Network,
    executed: Rc<RefCell<Executed>>,
    send: SendLimits,
    server: Rc<RefCell<Option<ServerHandle>>>,
}

impl Scene {
    fn new(random: &mut Random) -> Self {
        let mut random = random.fork();
        let simulation = Simulation::new(&mut random);
        let network = Network::new(&simulation, &mut random);
        let micros = *random.one_of(&[100, 5_000, 50_000]);
        let conditions = StreamConditions {
            latency: Duration::from_micros(micros / 2)..Duration::from_micros(micros),
            buffer: *random.one_of(&[1000, 64 * 1024]),
            max_write: *random.one_of(&[100, usize::MAX]),
            ..StreamConditions::default()
        };
        network.set_conditions(conditions.clone(), conditions);
        Self {
            simulation,
            network,
            executed: Rc::default(),
            send: SendLimits {
                bulk_bytes: *random.one_of(&[100, 1024 * 1024]),
                ..SendLimits::DEFAULT
            },
            random,
            server: Rc::default(),
        }
    }

    /// Start the server, or start it again.
    fn starter(&self) -> impl Fn() + 'static {
        let (simulation, network) = (self.simulation.handle(), self.network.clone());
        let (executed, send) = (self.executed.clone(), self.send);
        let server = self.server.clone();
        move || {
            let echo = Echo {
                simulation: simulation.clone(),
                executed: executed.clone(),
                send,
            };
            let limits = Limits::server().send_limits(echo.send);
            let started = ProtosocketServerConfig::default()
                .limits(limits)
                .clock(Arc::new(simulation.clock()))
                .build_server(network.listener("server"), echo)
                .expect("the configuration is valid");
            *server.borrow_mut() = Some(started.handle());
            simulation.spawn_background("server", started);
        }
    }

    /// What goes wrong, one thing after another.
    fn trouble(&mut self) -> impl Future<Output = ()> + 'static {
        let (simulation, network) = (self.simulation.handle(), self.network.clone());
        let mut random = self.random.fork();
        let (server, start) = (self.server.clone(), self.starter());
        async move {
            for _ in 0..random.within(1..6) {
                let wait = random.below_one_of(&[100, 3000]) as u64;
                simulation.sleep(Duration::from_millis(wait)).await;
                let lasts = Duration::from_millis(random.below_one_of(&[100, 20_000]) as u64);
                match random.below(5) {
                    0 => network.partition("server"),
                    1 => {
                        network.set_refusing("server", true);
                        network.links().iter().for_each(|link| link.reset());
                    }
                    2 => {
                        let links = network.links();
                        if let Some(link) = links.last() {
                            link.reset();
                        }
                    }
                    3 => {
                        let bytes = random.below(20_000) as u64;
                        for link in network.links() {
                            let side = Side::Client;
                            link.reset_after(side, link.written(side) + bytes);
                        }
                    }
                    _ => {
                        // A restart: it is drained, away for a while, and there again.
                        let handle = server.borrow_mut().take();
                        if let Some(handle) = handle {
                            handle.drain(lasts / 2).await;
                        }
                        simulation.sleep(lasts / 2).await;
                        start();
                        continue;
                    }
                }
                simulation.sleep(lasts).await;
                network.heal();
            }
        }
    }
}

fn clients_come_back(random: &mut Random) {
    let mut scene = Scene::new(random);
    scene.starter()();
    let longest = Duration::from_millis(*scene.random.one_of(&[500, 5_000, 30_000]));
    let (wanted, over) = (Rc::new(Cell::new(10)), Rc::new(Cell::new(false)));
    let count = scene.random.within(1..8) as u32;
    let mut reports = Vec::new();
    let mut attempts = Vec::new();
    for id in 0..count {
        let backoff = Backoff::new().longest(longest).seed(scene.random.next());
        let times = Arc::new(std::sync::Mutex::new(Vec::new()));
        let connector = Counting {
            inner: scene.network.connector("server").timeout(CONNECT),
            times: times.clone(),
            clock: scene.simulation.clock(),
        };
        let reconnect = Reconnect::new(connector, backoff).expect("the backoff is valid");
        let report = Rc::new(RefCell::new(Report::default()));
        let caller = Caller {
            id,
            simulation: scene.simulation.handle(),
            random: scene.random.fork(),
            reconnect: reconnect.with_clock(Arc::new(scene.simulation.clock())),
            // What was cut off by a partition is noticed by nothing but a deadline.
            limits: Limits::client()
                .send_limits(scene.send)
                .max_queued_messages(*scene.random.one_of(&[1, 100]))
                .write_timeout(Duration::from_secs(5)),
            report: report.clone(),
            wanted: wanted.clone(),
            over: over.clone(),
            attempt: 0,
        };
        scene.simulation.spawn("client", caller.run());
        reports.push(report);
        attempts.push(times);
    }

    // Trouble, and meanwhile ever more to do.
    let (more, timer) = (wanted.clone(), scene.simulation.handle());
    scene.simulation.spawn_background("demand", async move {
        for _ in 0..30 {
            timer.sleep(Duration::from_millis(200)).await;
            more.set(more.get() + 1);
        }
    });
    let trouble = scene.trouble();
    scene.simulation.block_on(trouble).unwrap();

    // Everything is whole, and everybody has one request more.
    scene.network.heal();
    let healed = scene.simulation.now();
    let last = wanted.get();
    wanted.set(last + 1);
    let everybody_served = || {
        let served = |report: &Rc<RefCell<Report>>| {
            let answered = report.borrow().answered_at;
            answered.is_some_and(|at| at > healed)
        };
        reports.iter().all(served)
    };
    scene.simulation.run_until(everybody_served).unwrap();
    let took = scene.simulation.now() - healed;
    // At the worst, a client has just begun to wait.
    let most = longest + CONNECT + SERVED;
    assert!(
        took <= most,
        "after {took:?} somebody was not served, {most:?} are allowed"
    );
    over.set(true);
    scene.simulation.run().unwrap();

    let executed = scene.executed.borrow();
    assert!(executed.twice.is_empty(), "{:?}", executed.twice);
    for (id, report) in reports.iter().enumerate() {
        check(&report.borrow(), id as u32, &executed);
    }
    for times in &attempts {
        check_attempts(&times.lock().unwrap());
    }
}

/// What a client knows of its requests is true.
fn check(report: &Report, client: u32, executed: &Executed) {
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    for call in &report.never_sent {
        assert!(
            !executed.in_attempts.contains(call),
            "{call:?} was said never to have been sent, and was executed"
        );
    }
    for (number, outcome) in &report.outcomes {
        let times = executed.calls.get(&(client, *number)).copied().unwrap_or(0);
        if *outcome == Outcome::Answered {
            assert!(times >= 1, "request {number} was answered and not executed");
        }
        if !Caller::is_idempotent(*number) {
            assert!(times <= 1, "request {number} was executed {times} times");
        }
    }
}

/// No client connects in a storm, whatever happens to its connections.
fn check_attempts(times: &[Instant]) {
    const IN_A_SECOND: usize = 25;
    for window in times.windows(IN_A_SECOND) {
        let width = window[IN_A_SECOND - 1] - window[0];
        assert!(
            width >= Duration::from_secs(1),
            "{IN_A_SECOND} attempts in {width:?}"
        );
    }
}

#[test]
fn clients_come_back_and_know_what_was_executed() {
    for_each_seed_in_a_thread(0..60, clients_come_back);
}
