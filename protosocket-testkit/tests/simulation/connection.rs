//! Two connections, everything that their owners and the network do to them, and what must hold.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Mutex,
    time::{Duration, Instant},
};

use protosocket::{
    ConnectionEnd, ConnectionHandle, InputPolicy, Limits, ReactorStatus, SendLimits, WeakSender,
};
use protosocket_testkit::{
    Random, for_each_seed_in_a_thread,
    simulation::{
        ConnectionPair, Endpoint, LinkHandle, Network, ResetCause, RunningConnection, Side,
        SimStream, Simulation, StreamConditions, Task,
    },
};

use crate::{
    application::Application,
    codec::{Kind, Message, Numbered, Origin, Panics, SharedLedger},
    deadlines::Quiet,
    peer::{Habits, Peer, Seen},
};

/// How long everything may take to end once the network is whole and nobody sends any more: more
/// than the longest deadline and the longest way through the slowest line.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// How long what was begun may take to come to rest, through the slowest line.
const RESTS_WITHIN: Duration = Duration::from_secs(300);

/// How long a probe may take through a network that is whole.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// How long a connection that has reached its age may take to finish.
const AGED: Duration = Duration::from_secs(3);

/// What a seed is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Nothing fails and nobody interferes: everything must be delivered and answered.
    Calm,
    /// The network stalls, and nothing else is wrong: it is all only later.
    Stalled,
    /// The owners drain, abort, drop, panic and disconnect.
    Busy,
    /// The network stalls and resets as well.
    Hostile,
}

impl Mood {
    /// Whether everything must be delivered and answered, and both must live until they are done.
    fn is_fair(self) -> bool {
        matches!(self, Self::Calm | Self::Stalled)
    }
}

struct World {
    simulation: Simulation,
    random: Random,
    mood: Mood,
    conditions: [StreamConditions; 2],
    /// The network is whole, and nobody interferes any more.
    peace: Rc<Cell<bool>>,
}

/// One of the two, while it runs.
struct One {
    side: Side,
    running: RunningConnection<Peer>,
    weak: WeakSender<Message>,
    seen: Rc<RefCell<Seen>>,
    panics: Rc<RefCell<Panics>>,
    said: SharedLedger,
    heard: SharedLedger,
    limits: Given,
    /// It takes whatever comes, at any time.
    always_takes: bool,
    /// Its reactor keeps the connection for answers.
    awaits: bool,
    /// What its owner did.
    done: Rc<Cell<Done>>,
    application: Rc<Cell<bool>>,
    tasks: Vec<Task<()>>,
}

/// The limits that bear on how a connection may end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    pub(crate) first_message: Option<Duration>,
    pub(crate) message: Option<Duration>,
    /// Bytes that buy a message a second.
    pub(crate) receive_rate: u32,
    pub(crate) idle: Option<Duration>,
    pub(crate) write: Option<Duration>,
    /// Bytes that must be written within that.
    pub(crate) write_progress: usize,
    linger: Option<Duration>,
    age: Option<Duration>,
}

impl Given {
    /// Whether no deadline comes to a connection whose peer answers, through a slow line.
    fn are_patient(&self) -> bool {
        let patient = |timeout: Option<Duration>| timeout.is_none_or(|time| time.as_secs() >= 5);
        let silent = self.first_message.is_none() && self.idle.is_none() && self.age.is_none();
        silent && patient(self.message) && patient(self.write)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Done {
    aborted: Option<Instant>,
    dropped: bool,
    /// The earliest deadline of a drain.
    drain: Option<Instant>,
}

fn policy(random: &mut Random) -> InputPolicy {
    *random.one_of(&[InputPolicy::Answering, InputPolicy::Multiplexing])
}

impl World {
    fn new(mut random: Random) -> Self {
        let moods = [
            Mood::Calm,
            Mood::Stalled,
            Mood::Busy,
            Mood::Hostile,
            Mood::Hostile,
        ];
        let mood = *random.one_of(&moods);
        let spurious = if random.per_mille(100) { 200 } else { 0 };
        let simulation = Simulation::new(&mut random)
            .horizon(Duration::from_secs(3600))
            .spurious_wakes(spurious);
        let conditions = [
            StreamConditions::random(&mut random),
            StreamConditions::random(&mut random),
        ];
        Self {
            simulation,
            random,
            mood,
            conditions,
            peace: Rc::default(),
        }
    }

    /// The largest body of which a hundred do not take for ever through this line.
    fn max_size(&mut self) -> usize {
        let most = |line: &StreamConditions| {
            let grain = line.max_write.min(line.max_read).min(line.buffer);
            let in_a_second = (line.buffer as f64 / line.latency.end.as_secs_f64()) as usize;
            grain.saturating_mul(64).min(in_a_second / 8)
        };
        let most = self.conditions.iter().map(most).min().unwrap_or(0);
        let edges = [100, 4096, 16 * 1024, 16 * 1024 + 1, 40_000, 128 * 1024];
        most.max(40).min(*self.random.one_of(&edges))
    }

    fn timeout(&mut self) -> Option<Duration> {
        let millis = *self.random.one_of(&[200, 1_000, 5_000, 30_000]);
        let set = self.random.per_mille(500);
        set.then(|| Duration::from_millis(millis))
    }

    fn limits(&mut self, server: bool, deadlocks: bool) -> (Limits, Given, SendLimits) {
        let calm = self.mood.is_fair();
        let linger = Duration::from_millis(*self.random.one_of(&[1, 50, 2_000]));
        let mut given = Given {
            linger: self.random.per_mille(900).then_some(linger),
            age: self.timeout().filter(|_| !calm && linger.as_millis() == 50),
            first_message: self.timeout().filter(|_| server && !calm),
            message: self.timeout().filter(|_| !calm),
            receive_rate: *self.random.one_of(&[1, 4096, 1 << 30]),
            idle: self.timeout().filter(|_| !calm),
            write: self.timeout().filter(|_| !calm),
            write_progress: *self.random.one_of(&[1, 1024]),
        };
        if deadlocks && given.write.is_none() {
            given.write = Some(Duration::from_secs(5));
        }
        let random = &mut self.random;
        let send = SendLimits {
            bulk_bytes: *random.one_of(&[1, 100, 5_000, 64 * 1024, 1024 * 1024]),
            bulk_messages: *random.one_of(&[1, 2, 16, 4096]),
            control_bytes: *random.one_of(&[1, 100, 64 * 1024]),
        };
        let limits = Limits::server()
            .first_message_timeout(given.first_message)
            .message_timeout(given.message)
            .min_receive_rate(given.receive_rate)
            .idle_timeout(given.idle)
            .write_timeout(given.write)
            .min_write_progress(given.write_progress)
            .linger_timeout(given.linger)
            .max_age(given.age)
            .drain_timeout(AGED)
            .receive_chunk(*random.one_of(&[1, 4096, 256 * 1024]))
            .max_queued_messages(*random.one_of(&[1, 3, 1024]))
            .send_limits(send);
        (limits, given, send)
    }

    fn habits(
        &mut self,
        policy: InputPolicy,
        max_size: usize,
        server: bool,
        ample: bool,
    ) -> Habits {
        let calm = self.mood.is_fair();
        let random = &mut self.random;
        let statuses = [
            ReactorStatus::Disconnect,
            ReactorStatus::Abort,
            ReactorStatus::Finish,
            ReactorStatus::Disconnect,
        ];
        let millis = |random: &mut Random| Duration::from_millis(random.below(500) as u64);
        let planned = !calm && random.per_mille(300);
        Habits {
            policy,
            at_once: *random.one_of(&[0, 500, 1000]),
            delay: millis(random),
            // Whoever must go on hearing takes what comes.
            max_pending: match policy {
                InputPolicy::Answering => *random.one_of(&[1, 5, usize::MAX]),
                InputPolicy::Multiplexing => usize::MAX,
            },
            // Nor may its acknowledgements use the reserve up, unless a deadline helps.
            acknowledges: match policy == InputPolicy::Multiplexing && !ample {
                true => 0,
                false => *random.one_of(&[0, 500, 1000]),
            },
            pause: random
                .per_mille(300)
                .then(|| (random.within(1..20) as u32, millis(random))),
            resumes_in_poll: random.per_mille(300),
            notes: (random.below_one_of(&[1, 30]) as u32, millis(random)),
            status: planned.then(|| (random.within(1..40) as u32, *random.one_of(&statuses))),
            on_end_of_input: match !calm && random.per_mille(200) {
                true => ReactorStatus::Disconnect,
                false => ReactorStatus::Continue,
            },
            on_drain: match random.per_mille(200) {
                true => ReactorStatus::Disconnect,
                false => ReactorStatus::Continue,
            },
            goodbye: random.per_mille(500),
            sends_rest: random.per_mille(500),
            awaits: !server || random.per_mille(300),
            max_size,
        }
    }

    /// A reactor, its codec and its limits.
    fn endpoint(
        &mut self,
        server: bool,
        policy: InputPolicy,
        deadlocks: bool,
        ledgers: (SharedLedger, SharedLedger),
    ) -> (Endpoint<Peer>, Parts) {
        let max_size = self.max_size();
        let (limits, given, send) = self.limits(server, deadlocks);
        let ample = deadlocks || send.control_bytes > 10_000;
        let habits = self.habits(policy, max_size, server, ample);
        let awaits = habits.awaits;
        // One that answers takes nothing while there is no room for answers, nor does one whose
        // reserve is used up.
        let always_takes = policy == InputPolicy::Multiplexing
            && habits.pause.is_none()
            && habits.acknowledges == 0;
        let random = &mut self.random;
        let mut panics = Panics::default();
        if !self.mood.is_fair() && random.per_mille(100) {
            let at = random.below(40) as u32;
            match random.below(3) {
                0 => panics.in_decode = Some(at),
                1 => panics.in_encode = Some(at),
                _ => panics.in_reactor = Some(at),
            }
        }
        let panics = Rc::new(RefCell::new(panics));
        let (said, heard) = ledgers.clone();
        let codec = Numbered {
            said,
            heard,
            limits: send,
            // Probes are of this size at the most.
            max_size: max_size.max(2000),
            piecewise: random.per_mille(300),
            head: None,
            panics: panics.clone(),
        };
        let simulation = self.simulation.handle();
        let peer = Peer::new(habits, simulation, random.fork(), ledgers, panics.clone());
        let parts = Parts {
            seen: peer.seen.clone(),
            own: peer.own.clone(),
            panics,
            given,
            always_takes,
            awaits,
            max_size,
        };
        (
            Endpoint::new(codec, peer)
                .limits(limits)
                .seed(self.random.next()),
            parts,
        )
    }
}

/// What a test keeps of an endpoint.
struct Parts {
    seen: Rc<RefCell<Seen>>,
    own: crate::peer::OwnSender,
    panics: Rc<RefCell<Panics>>,
    given: Given,
    always_takes: bool,
    awaits: bool,
    max_size: usize,
}

/// Live one life; returns how often its tasks were polled, and how long it was.
fn life(random: &mut Random) -> (u64, Duration) {
    let mut world = World::new(random.fork());
    let policies = loop {
        let pair = [policy(&mut world.random), policy(&mut world.random)];
        // Two that answer before they listen may wait for each other for ever: their owners have
        // been told to set a deadline.
        if !world.mood.is_fair() || pair.contains(&InputPolicy::Multiplexing) {
            break pair;
        }
    };
    let risky = !world.mood.is_fair() && world.random.per_mille(300);
    let deadlocks = risky || !policies.contains(&InputPolicy::Multiplexing);
    let ledgers = [SharedLedger::default(), SharedLedger::default()];
    let toward = |side: Side| match side {
        Side::Client => (ledgers[0].clone(), ledgers[1].clone()),
        Side::Server => (ledgers[1].clone(), ledgers[0].clone()),
    };
    let network = Network::new(&world.simulation, &mut world.random);
    let [from_client, from_server] = world.conditions.clone();
    network.set_conditions(from_client, from_server);
    let (client, near) = world.endpoint(false, policies[0], deadlocks, toward(Side::Client));
    let (server, far) = world.endpoint(true, policies[1], deadlocks, toward(Side::Server));
    let pair = ConnectionPair::open(&world.simulation, &network, client, server);
    let link = pair.link.clone();
    let mut ones = [
        world.start(Side::Client, pair.client, near, toward(Side::Client)),
        world.start(Side::Server, pair.server, far, toward(Side::Server)),
    ];
    world.interfere(&ones, &link);

    let chaos = Duration::from_millis(*world.random.one_of(&[100, 1_000, 10_000]));
    world.simulation.run_for(chaos).unwrap();
    network.heal();
    world.peace.set(true);
    let opened = world.simulation.now() - chaos;
    for one in &ones {
        one.seen.borrow_mut().calm = true;
        one.panics.borrow_mut().disarm();
        one.application.set(true);
    }
    // Until what waits behind the faults has come to rest, one way or the other.
    let patience = world.simulation.now() + RESTS_WITHIN;
    let timer = world.simulation.handle();
    let at_rest = || ones.iter().all(One::is_at_rest) || timer.now() >= patience;
    let _alarm = world
        .simulation
        .spawn_background("patience", timer.sleep_until(patience));
    world.simulation.run_until(at_rest).unwrap();
    let probed = world.probe(&mut ones);
    assert!(
        probed || !world.mood.is_fair(),
        "the network was healed, and they have not come to rest"
    );
    for one in &mut ones {
        one.running.sender = None;
    }
    let healed = world.simulation.now();
    world.simulation.run().unwrap();
    let took = world.simulation.now() - healed;
    assert!(took <= ENDS_WITHIN, "it took {took:?} to end");

    let calm = world.mood.is_fair();
    let ends = ones.each_ref().map(|one| one.running.task.take());
    for (one, end) in ones.iter().zip(&ends) {
        one.check(end.as_ref(), &link, opened, calm);
    }
    let whole = ones.each_ref().map(|one| one.said.borrow().is_whole());
    for (index, one) in ones.iter().enumerate() {
        // Whoever sees the end in order has seen everything before it.
        let seen = one.seen.borrow();
        assert!(
            !seen.end_of_input || whole[1 - index],
            "the {:?} was told of the end and not of everything before it",
            one.side
        );
    }
    (world.simulation.polls(), world.simulation.elapsed())
}

impl World {
    /// Begin to send into a connection.
    fn start(
        &mut self,
        side: Side,
        mut running: RunningConnection<Peer>,
        parts: Parts,
        ledgers: (SharedLedger, SharedLedger),
    ) -> One {
        let (said, heard) = ledgers;
        let sender = running.sender.take().expect("it was just opened");
        *parts.own.borrow_mut() = self.random.per_mille(700).then(|| sender.downgrade());
        let weak = sender.downgrade();
        let stop = Rc::new(Cell::new(false));
        let mut tasks = Vec::new();
        let names = [
            ("client's first", "client's second"),
            ("server's first", "server's second"),
        ];
        let names = names[usize::from(side == Side::Server)];
        for (name, origin) in [(names.0, Origin::First), (names.1, Origin::Second)] {
            if self.random.per_mille(250) {
                continue;
            }
            let application = Application {
                simulation: self.simulation.handle(),
                random: self.random.fork(),
                sender: sender.clone(),
                origin,
                said: said.clone(),
                max_size: parts.max_size,
                rare: !self.mood.is_fair(),
                stop: stop.clone(),
            };
            let count = self.random.below_one_of(&[1, 20, 120]);
            tasks.push(self.simulation.spawn(name, application.run(count)));
        }
        // A client goes on for as long as somebody may send, so that it can be probed.
        running.sender = (side == Side::Client || self.random.per_mille(500)).then_some(sender);
        One {
            side,
            running,
            weak,
            seen: parts.seen,
            panics: parts.panics,
            said,
            heard,
            limits: parts.given,
            always_takes: parts.always_takes,
            awaits: parts.awaits,
            done: Rc::default(),
            application: stop,
            tasks,
        }
    }

    /// Plan what owners and network do.
    fn interfere(&mut self, ones: &[One; 2], link: &LinkHandle) {
        let owners = matches!(self.mood, Mood::Busy | Mood::Hostile);
        for one in ones {
            if owners && self.random.per_mille(450) {
                self.own(one);
            }
        }
        if matches!(self.mood, Mood::Stalled | Mood::Hostile) {
            for _ in 0..self.random.within(1..3) {
                self.harm(link.clone());
            }
        }
    }

    /// An owner does something at some time.
    fn own(&mut self, one: &One) {
        let at = Duration::from_millis(self.random.below_one_of(&[1, 100, 3000]) as u64);
        let deadline = Duration::from_millis(self.random.below_one_of(&[1, 1000, 30_000]) as u64);
        let (simulation, done) = (self.simulation.handle(), one.done.clone());
        let handle: ConnectionHandle = one.running.handle.clone();
        let drop_it = one.running.task.clone();
        let what = self.random.below(5);
        let peace = self.peace.clone();
        self.simulation.spawn_background("owner", async move {
            simulation.sleep(at).await;
            if peace.get() || handle.is_ended() {
                return;
            }
            let mut did = done.get();
            match what {
                0 => {
                    did.aborted = Some(simulation.now());
                    handle.abort();
                }
                1 => {
                    did.dropped = true;
                    drop_it.cancel();
                }
                _ => {
                    let at = simulation.now() + deadline;
                    did.drain = Some(did.drain.map_or(at, |earlier| earlier.min(at)));
                    handle.drain(at);
                }
            }
            done.set(did);
        });
    }

    /// The network does something at some time.
    fn harm(&mut self, link: LinkHandle) {
        let at = Duration::from_millis(self.random.below_one_of(&[1, 100, 3000]) as u64);
        let lasts = Duration::from_millis(self.random.below_one_of(&[100, 5000]) as u64);
        let bytes = self.random.below_one_of(&[30, 1000, 100_000]) as u64;
        let side = *self.random.one_of(&[Side::Client, Side::Server]);
        let simulation = self.simulation.handle();
        // The first two are resets.
        let what = match self.mood {
            Mood::Stalled => self.random.within(2..6),
            _ => self.random.below(6),
        };
        let peace = self.peace.clone();
        self.simulation.spawn_background("network", async move {
            simulation.sleep(at).await;
            if peace.get() {
                return;
            }
            match what {
                0 => link.reset(),
                1 => link.reset_after(side, bytes),
                2 | 3 => link.stall_from(side),
                _ => link.stall(),
            }
            if what > 2 {
                simulation.sleep(lasts).await;
                link.heal();
            }
        });
    }

    /// What is asked on connections that have survived is answered. Whether they have.
    fn probe(&mut self, ones: &mut [One; 2]) -> bool {
        let alive = |one: &One| {
            let seen = one.seen.borrow();
            !one.running.task.is_finished()
                && one.is_at_rest()
                && one.limits.are_patient()
                && one.weak.upgrade().is_some()
                && !seen.end_of_input
                && seen.said.is_none()
                && one.done.get().drain.is_none()
        };
        if !ones.iter().all(alive) {
            return false;
        }
        for one in ones.iter_mut() {
            let Some(sender) = one.running.sender.clone() else {
                continue;
            };
            let mut application = Application {
                simulation: self.simulation.handle(),
                random: self.random.fork(),
                sender,
                origin: Origin::First,
                said: one.said.clone(),
                max_size: 2000,
                rare: false,
                stop: Rc::default(),
            };
            let (heard, side) = (one.heard.clone(), one.side);
            one.tasks.push(self.simulation.spawn("probe", async move {
                for _ in 0..5 {
                    if !application.send(Kind::Request).await {
                        let mut heard = heard.borrow_mut();
                        heard.accuse(format!("the {side:?} survived and takes no more"));
                    }
                }
            }));
        }
        let before = self.simulation.now();
        let run = self
            .simulation
            .run_until(|| ones.iter().all(One::is_at_rest));
        let took = self.simulation.now() - before;
        assert!(
            run.is_ok() && took <= ANSWERED_WITHIN,
            "the probes were not answered after {took:?}: {run:?}"
        );
        for one in ones.iter() {
            assert!(
                !one.running.task.is_finished() || one.running.sender.is_none(),
                "the {:?} ended under the probes",
                one.side
            );
        }
        true
    }
}

impl One {
    /// Whether it has ended, or everything that was asked of it is done.
    fn is_at_rest(&self) -> bool {
        let quiet = || {
            let (seen, said) = (self.seen.borrow(), self.said.borrow());
            let waits = seen.notes_left > 0 || !seen.pending.is_empty();
            let done = !waits && seen.awaited.is_empty();
            done && said.is_encoded() && said.is_whole()
        };
        self.running.task.is_finished() || (self.tasks.iter().all(Task::is_finished) && quiet())
    }

    /// Whoever ended in order while the peer was still writing has waited for it, so that the
    /// peer's kernel does not throw away what it was sent.
    fn check_linger(&self, link: &LinkHandle, opened: Instant, reason: &str) {
        let rude = [ResetCause::Late(self.side), ResetCause::Unread(self.side)];
        let (Some(linger), Some(finished)) = (self.limits.linger, link.finished_at(self.side))
        else {
            return;
        };
        let ended = self.seen.borrow().ended_at;
        let waited = ended.is_some_and(|at| at >= finished + linger);
        // A drain's deadline cuts the wait short, as an abort does; an age begins a drain.
        let aged = self.limits.age.map(|age| opened + age + AGED);
        let mut cuts = [self.done.get().drain, aged].into_iter().flatten();
        let cut = cuts.any(|at| ended >= Some(at));
        if link
            .reset_cause()
            .is_some_and(|cause| rude.contains(&cause))
            && !matches!(reason, "aborted" | "dropped" | "panicked" | "io")
        {
            assert!(
                waited || cut,
                "the {:?} ended by {reason} and did not linger",
                self.side
            );
        }
    }

    /// Everything that must hold of one end.
    fn check(
        &self,
        end: Option<&ConnectionEnd<SimStream, Peer>>,
        link: &LinkHandle,
        opened: Instant,
        calm: bool,
    ) {
        let side = self.side;
        let said = self.said.borrow();
        let seen = self.seen.borrow();
        let done = self.done.get();
        for ledger in [&*said, &*self.heard.borrow()] {
            assert!(ledger.violations.is_empty(), "{:?}", ledger.violations);
        }
        let &[(reason, stats)] = &seen.ends[..] else {
            panic!("the reactor of the {side:?} heard of {:?}", seen.ends);
        };
        if let Some(end) = end {
            assert_eq!((end.reason.name(), end.stats), (reason, stats));
        } else {
            assert_eq!(reason, "dropped");
        }

        // What was accepted was sent or is counted.
        let accepted = said.accepted();
        assert_eq!(
            stats.messages_out + stats.unsent,
            accepted,
            "the {side:?} accepted {accepted} messages and ended by {reason}: {stats:?}"
        );
        let received = self.heard.borrow().delivered;
        let in_decode = u64::from(reason == "panicked" && received > stats.messages_in);
        assert_eq!(stats.messages_in + in_decode, received);
        assert!(
            said.delivered <= stats.messages_out,
            "{} messages arrived of {}",
            said.delivered,
            stats.messages_out
        );
        let waiting = seen.pending.len();
        let awaited = if self.awaits { seen.awaited.len() } else { 0 };
        assert_eq!(stats.unanswered, (waiting + awaited) as u64);
        if reason != "panicked" {
            assert_eq!(seen.requests, seen.answers + seen.given_up + waiting as u64);
        }
        assert_eq!(stats.refused, seen.refused);
        assert!(stats.bytes_out == link.written(side), "{stats:?}");
        assert!(stats.bytes_in == link.read(side), "{stats:?}");

        // The observer and the handle know the same.
        let observer = &self.running.observer;
        assert_eq!(observer.opened(), 1);
        assert_eq!(observer.closed(), [reason]);
        assert_eq!(observer.traffic(), stats);
        assert!(self.running.handle.is_ended());

        // The reason is one that there was a reason for.
        let ended = seen.ended_at.expect("it has ended") - opened;
        let passed = |timeout: Option<Duration>| timeout.is_some_and(|timeout| ended >= timeout);
        let there_was = match reason {
            "end_of_input" => seen.end_of_input,
            "no_senders" => side == Side::Client && self.running.sender.is_none(),
            "disconnect" => seen.said == Some(ReactorStatus::Disconnect),
            "drained" => done.drain.is_some(),
            "drain_timeout" => done.drain.is_some() || passed(self.limits.age),
            "age" => passed(self.limits.age),
            "aborted" => done.aborted.is_some() || seen.said == Some(ReactorStatus::Abort),
            "panicked" => self.panics.borrow().happened,
            "dropped" => done.dropped,
            "io" => link.reset_cause().is_some(),
            "encode" => said.bad > 0,
            "first_message_timeout" => passed(self.limits.first_message) && received == 0,
            "message_timeout" => passed(self.limits.message),
            "idle_timeout" => passed(self.limits.idle),
            "write_timeout" => passed(self.limits.write),
            _ => false,
        };
        assert!(there_was, "the {side:?} ended by {reason} for no reason");
        Quiet {
            side,
            link,
            opened,
            limits: &self.limits,
            always_takes: self.always_takes,
            seen: &seen,
            said: &said,
            heard: &self.heard.borrow(),
        }
        .check();
        if let Some(deadline) = done.drain {
            let late = seen.ended_at > Some(deadline);
            assert!(!late, "the {side:?} ended by {reason} after its deadline");
        }
        if let Some(at) = done.aborted {
            assert!(seen.ended_at <= Some(at), "the {side:?} outlived its abort");
        }
        if matches!(reason, "end_of_input" | "no_senders" | "drained" | "age") {
            assert_eq!(stats.unanswered, 0, "the {side:?} ended by {reason}");
        }
        self.check_linger(link, opened, reason);
        let graceful = matches!(
            reason,
            "end_of_input" | "no_senders" | "disconnect" | "drained" | "age"
        );
        if graceful {
            assert_eq!(stats.unsent, said.bad, "the {side:?} ended by {reason}");
        }
        if calm {
            assert!(
                matches!(reason, "end_of_input" | "no_senders"),
                "the {side:?} ended by {reason} although nothing was wrong"
            );
            assert!(said.is_whole(), "not everything was delivered");
            assert_eq!((stats.unsent, stats.unanswered), (0, 0));
            assert!(seen.awaited.is_empty() || !self.awaits);
        }
    }
}

#[test]
fn connections_lose_nothing_uncounted_and_come_to_an_end() {
    for_each_seed_in_a_thread(0..300, |random| {
        life(random);
    });
}

#[test]
fn a_life_repeats_with_its_seed() {
    let lives = Mutex::new(Vec::new());
    for _ in 0..2 {
        for_each_seed_in_a_thread(0..40, |random| {
            let life = life(random);
            lives.lock().expect("nothing panics under it").push(life);
        });
    }
    let lives = lives.into_inner().expect("nothing panics under it");
    let (first, second) = lives.split_at(lives.len() / 2);
    assert_eq!(first, second);
}
