//! Two machines and what is between them, on one virtual time.

use std::{
    io::IoSlice,
    time::{Duration, Instant},
};

use protosocket::{Host, Machine};

use super::{
    Stuck,
    datagrams::{DatagramConditions, DatagramNetwork},
    pipe::{Found, Pipe, StreamConditions},
    stream::Side,
};
use crate::{MachineSide, Random};

/// Steps of one run that may be taken before it is said to spin: more than any exchange of a test
/// needs.
const MANY_STEPS: usize = 1_000_000;

/// Two machines, each with its host, over a simulated stream or over simulated datagrams.
///
/// It is a function of the seed: which side is asked first, how much of what it has to say is taken
/// at a time, and what becomes of it on the way. Time passes only when neither side has anything to
/// do, and then to the next arrival or deadline.
///
/// ```
/// use std::{collections::VecDeque, convert::Infallible, time::{Duration, Instant}};
///
/// use bytes::Bytes;
/// use protosocket::{ActionId, Host, HostContext, Machine, Output, Rejected, Room};
/// use protosocket_testkit::{
///     Framed, MachineSide, Random, framed,
///     simulation::{MachinePair, Side, StreamConditions},
/// };
///
/// /// Says what it is told to, and counts what it hears.
/// #[derive(Default)]
/// struct Chatter {
///     says: VecDeque<Bytes>,
///     heard: usize,
/// }
///
/// impl Machine for Chatter {
///     type Codec = Framed;
///     type Command = Bytes;
///     type Event = ();
///     type Action = ();
///     type ActionResult = ();
///     type Error = Infallible;
///
///     fn handle_inbound(&mut self, _now: Instant, _message: Bytes) -> Result<(), Infallible> {
///         self.heard += 1;
///         Ok(())
///     }
///
///     fn handle_command(&mut self, _now: Instant, words: Bytes) -> Result<(), Rejected<Bytes>> {
///         self.says.push_back(words);
///         Ok(())
///     }
///
///     fn poll_event(&mut self) -> Option<()> {
///         None
///     }
///
///     fn poll_output(&mut self, _now: Instant, _room: Room) -> Option<Output<Bytes>> {
///         self.says.pop_front().map(Output::Bulk)
///     }
///
///     fn is_idle(&self) -> bool {
///         self.says.is_empty()
///     }
/// }
///
/// struct Nobody;
///
/// impl Host<Chatter> for Nobody {
///     type Message = Bytes;
///     fn on_event(&mut self, _: &mut HostContext<'_, Chatter>, _event: ()) {}
///     fn on_action(&mut self, _: &mut HostContext<'_, Chatter>, _: ActionId, _action: ()) {}
///     fn on_message(&mut self, _: &mut HostContext<'_, Chatter>, _message: Bytes) {}
/// }
///
/// let side = || MachineSide::new(Chatter::default(), Nobody, framed(), Instant::now());
/// let mut random = Random::new(5);
/// let conditions = StreamConditions {
///     latency: Duration::from_millis(40)..Duration::from_millis(60),
///     ..StreamConditions::default()
/// };
/// let mut pair = MachinePair::over_stream(side(), side(), conditions, &mut random);
/// pair.client.command("hello".into()).unwrap();
/// let took = pair.run_until(|pair| pair.server.machine.heard == 1).unwrap();
/// assert!((40..60).contains(&took.as_millis()), "{took:?}");
///
/// // What is stalled never arrives, and that is no endless test.
/// pair.stall_from(Side::Client);
/// pair.client.command("are you there?".into()).unwrap();
/// assert!(pair.run_until(|pair| pair.server.machine.heard == 2).is_err());
/// ```
pub struct MachinePair<A: Machine, HA, B: Machine, HB> {
    /// The side that begins, as far as that matters.
    pub client: MachineSide<A, HA>,
    /// The other one.
    pub server: MachineSide<B, HB>,
    begun: Instant,
    now: Instant,
    most_steps: usize,
    random: Random,
    between: Between,
}

enum Between {
    Stream(Box<[Pipe; 2]>),
    Datagrams(Box<DatagramNetwork<Side>>),
}

impl<A, HA, B, HB> MachinePair<A, HA, B, HB>
where
    A: Machine,
    HA: Host<A>,
    B: Machine,
    HB: Host<B>,
{
    /// Two sides over a stream that treats each direction the same. A side whose machine wants to
    /// end, and has said everything, ends its direction; the other is told of the end of its input.
    pub fn over_stream(
        client: MachineSide<A, HA>,
        server: MachineSide<B, HB>,
        conditions: StreamConditions,
        random: &mut Random,
    ) -> Self {
        let mut random = random.fork();
        let pipes = [(); 2].map(|()| Pipe::new(conditions.clone(), random.fork()));
        Self::new(client, server, random, Between::Stream(Box::new(pipes)))
    }

    /// Two sides over datagrams: each message of a machine is one, and one that cannot be decoded
    /// on arrival is told to the machine like any other input that cannot.
    pub fn over_datagrams(
        client: MachineSide<A, HA>,
        server: MachineSide<B, HB>,
        conditions: DatagramConditions,
        random: &mut Random,
    ) -> Self {
        let mut random = random.fork();
        let network = DatagramNetwork::new(conditions, &mut random);
        let between = Between::Datagrams(Box::new(network));
        Self::new(client, server, random, between)
    }

    fn new(
        client: MachineSide<A, HA>,
        server: MachineSide<B, HB>,
        random: Random,
        between: Between,
    ) -> Self {
        let now = client.now.max(server.now);
        let mut pair = Self {
            client,
            server,
            begun: now,
            now,
            most_steps: MANY_STEPS,
            random,
            between,
        };
        pair.move_to(now);
        pair
    }

    /// Say that it spins after this many steps of one run, instead of a million.
    #[must_use]
    pub fn most_steps(mut self, steps: usize) -> Self {
        self.most_steps = steps;
        self
    }

    /// How much virtual time has passed.
    pub fn elapsed(&self) -> Duration {
        self.now - self.begun
    }

    /// The datagrams between the two, to be swallowed and counted.
    ///
    /// # Panics
    /// If it is a stream that is between them.
    pub fn datagrams(&mut self) -> &mut DatagramNetwork<Side> {
        match &mut self.between {
            Between::Datagrams(network) => network,
            Between::Stream(_) => panic!("these machines speak over a stream"),
        }
    }

    /// Deliver nothing that `side` writes until [`heal`](Self::heal).
    pub fn stall_from(&mut self, side: Side) {
        let now = self.now;
        match &mut self.between {
            Between::Stream(pipes) => pipes[side.index()].stall(now),
            Between::Datagrams(network) => network.blackhole(side, side.other()),
        }
    }

    /// Deliver again: the bytes that were held back, and the datagrams that are sent from here on.
    pub fn heal(&mut self) {
        let now = self.now;
        match &mut self.between {
            Between::Stream(pipes) => pipes.iter_mut().for_each(|pipe| pipe.heal(now)),
            Between::Datagrams(network) => network.heal(),
        }
    }

    /// Run until `condition` holds, which is asked after every step. Returns how much virtual time
    /// that took.
    ///
    /// # Errors
    /// [`Stuck`] if nothing will ever happen any more, or something for ever without time passing.
    pub fn run_until(
        &mut self,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<Duration, Stuck> {
        let begun = self.now;
        let mut steps = 0;
        while !condition(self) {
            steps += 1;
            if steps > self.most_steps {
                return Err(Stuck::Spins(self.elapsed(), self.unfinished()));
            }
            if self.step() {
                continue;
            }
            match self.next_instant() {
                Some(at) => self.move_to(at),
                None => return Err(Stuck::Stalled(self.elapsed(), self.unfinished())),
            }
        }
        Ok(self.now - begun)
    }

    /// Run for this much virtual time, whatever happens in it.
    ///
    /// # Errors
    /// [`Stuck`] if something happens for ever without time passing.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Stuck> {
        let until = self.now + time;
        let mut steps = 0;
        loop {
            steps += 1;
            if steps > self.most_steps {
                return Err(Stuck::Spins(self.elapsed(), self.unfinished()));
            }
            if self.step() {
                continue;
            }
            match self.next_instant().filter(|at| *at <= until) {
                Some(at) => self.move_to(at),
                None => {
                    self.move_to(until);
                    return Ok(());
                }
            }
        }
    }

    /// Let each side hear and say something. Whether anything came of it.
    fn step(&mut self) -> bool {
        let now = self.now;
        let first = self.random.per_mille(500);
        let mut moved = false;
        for client in [first, !first] {
            let (random, between) = (&mut self.random, &mut self.between);
            moved |= match client {
                true => step(&mut self.client, Side::Client, between, now, random),
                false => step(&mut self.server, Side::Server, between, now, random),
            };
        }
        moved
    }

    fn next_instant(&self) -> Option<Instant> {
        let arrivals = match &self.between {
            Between::Stream(pipes) => {
                let open = [self.server.can_hear(), self.client.can_hear()];
                let pipes = pipes.iter().zip(open);
                let next = pipes.filter_map(|(pipe, open)| pipe.next_arrival().filter(|_| open));
                next.min()
            }
            Between::Datagrams(network) => network.next_delivery(),
        };
        let deadlines = [self.client.deadline(), self.server.deadline()];
        let next = deadlines.into_iter().flatten().chain(arrivals).min()?;
        // What lies in the past was tried in the last step, and nothing came of it.
        (next > self.now).then_some(next)
    }

    fn move_to(&mut self, at: Instant) {
        self.now = self.now.max(at);
        self.client.pass(self.now - self.client.now);
        self.server.pass(self.now - self.server.now);
    }

    fn unfinished(&self) -> Vec<String> {
        let idle = [self.client.machine.is_idle(), self.server.machine.is_idle()];
        let names = ["client", "server"].into_iter().zip(idle);
        let names = names.filter(|(_, idle)| !idle);
        names.map(|(name, _)| name.to_owned()).collect()
    }
}

/// Let one side hear what has arrived and say what it has.
fn step<M: Machine, H: Host<M>>(
    machine: &mut MachineSide<M, H>,
    side: Side,
    between: &mut Between,
    now: Instant,
    random: &mut Random,
) -> bool {
    let overdue = machine.deadline().is_some_and(|at| at <= now);
    if overdue {
        machine.pass(Duration::ZERO);
        return true;
    }
    match between {
        Between::Stream(pipes) => {
            let heard = hear(machine, &mut pipes[side.other().index()], now);
            let most = *random.one_of(&[1, 10, 100, 64 * 1024]);
            heard | say(machine, &mut pipes[side.index()], most, now)
        }
        Between::Datagrams(network) => {
            let mut moved = false;
            if let Some(datagram) = network.deliver_to(now, &side) {
                machine.receive_datagram(&datagram.payload);
                moved = true;
            }
            if let Some(payload) = machine.send_datagram() {
                network.send(now, side, side.other(), payload);
                moved = true;
            }
            moved
        }
    }
}

fn hear<M: Machine, H: Host<M>>(
    machine: &mut MachineSide<M, H>,
    pipe: &mut Pipe,
    now: Instant,
) -> bool {
    if !machine.can_hear() {
        return false;
    }
    if machine.hear_kept() {
        return true;
    }
    let mut buffer = [0; 4096];
    match pipe.read(now, &mut buffer) {
        Found::Bytes(count) => {
            machine.receive(&buffer[..count]);
            true
        }
        Found::End => {
            machine.end_input();
            true
        }
        Found::Nothing => false,
    }
}

fn say<M: Machine, H: Host<M>>(
    machine: &mut MachineSide<M, H>,
    pipe: &mut Pipe,
    most: usize,
    now: Instant,
) -> bool {
    if pipe.is_finished() {
        return false;
    }
    let bytes = machine.unsent(most.min(pipe.room()));
    let written = pipe.write(now, &[IoSlice::new(&bytes)], usize::MAX);
    machine.sent(written);
    pipe.flush(now);
    if written > 0 {
        return true;
    }
    let done = !machine.is_open() && bytes.is_empty() && pipe.room() > 0;
    if done {
        pipe.finish(now);
    }
    done
}
