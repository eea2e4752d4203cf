//! A protocol of datagrams that loses nothing over a network that loses much: stop and wait.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protosocket::{
    ActionId, DecodeError, Decoded, Decoder, EncodeError, Encoder, Host, HostContext, Input,
    Machine, Output, ReactorStatus, Rejected, Room, SendBuffer,
};
use protosocket_testkit::{
    MachineSide, Random, for_each_seed,
    simulation::{DatagramConditions, MachinePair, Side, StreamConditions, Stuck},
};

/// How long an acknowledgement is waited for at first; twice as long each time.
const FIRST: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Packet {
    Data(u32, Bytes),
    Acknowledge(u32),
}

struct Packets;

impl Decoder for Packets {
    type Message = Packet;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Packet>, DecodeError> {
        let Some(&[kind, a, b, c, d]) = input.bytes().first_chunk() else {
            return Ok(Decoded::Need(5));
        };
        input.advance(5);
        let number = u32::from_be_bytes([a, b, c, d]);
        Ok(Decoded::Message(match kind {
            0 => Packet::Data(number, input.take(input.len())),
            1 => Packet::Acknowledge(number),
            _ => return Err(DecodeError::malformed("no such packet")),
        }))
    }
}

impl Encoder for Packets {
    type Message = Packet;

    fn encode(&mut self, packet: Packet, output: &mut SendBuffer) -> Result<(), EncodeError> {
        let (kind, number, payload) = match packet {
            Packet::Data(number, payload) => (0, number, payload),
            Packet::Acknowledge(number) => (1, number, Bytes::new()),
        };
        output.put_u8(kind);
        output.put_u32(number);
        output.put_bytes(payload);
        Ok(())
    }
}

/// Sends one payload at a time, again and again until it is acknowledged.
struct StopAndWait {
    queue: VecDeque<Bytes>,
    /// The number of the first in the queue.
    number: u32,
    /// Send it, again or for the first time.
    send: bool,
    again_at: Option<Instant>,
    patience: Duration,
    expected: u32,
    acknowledge: Option<u32>,
    events: VecDeque<Bytes>,
    /// A mistake on purpose: what is lost is not sent again.
    forgetful: bool,
    /// It wants to end, and the other has ended.
    leaves: bool,
    left_alone: bool,
}

impl StopAndWait {
    fn new(forgetful: bool) -> Self {
        Self {
            queue: VecDeque::new(),
            number: 0,
            send: false,
            again_at: None,
            patience: FIRST,
            expected: 0,
            acknowledge: None,
            events: VecDeque::new(),
            forgetful,
            leaves: false,
            left_alone: false,
        }
    }
}

type Never = std::convert::Infallible;

impl Machine for StopAndWait {
    type Codec = Packets;
    type Command = Bytes;
    type Event = Bytes;
    type Action = ();
    type ActionResult = ();
    type Error = Never;

    fn handle_inbound(&mut self, _now: Instant, packet: Packet) -> Result<(), Never> {
        match packet {
            Packet::Data(number, payload) => {
                if number == self.expected {
                    self.expected += 1;
                    self.events.push_back(payload);
                }
                // An earlier one was acknowledged before, and that was lost.
                if number < self.expected {
                    self.acknowledge = Some(number);
                }
            }
            Packet::Acknowledge(number) if number == self.number && !self.queue.is_empty() => {
                self.queue.pop_front();
                self.number += 1;
                self.patience = FIRST;
                self.again_at = None;
                self.send = !self.queue.is_empty();
            }
            Packet::Acknowledge(_) => {}
        }
        Ok(())
    }

    fn handle_timeout(&mut self, _now: Instant) -> Result<(), Never> {
        self.again_at = None;
        self.send = !self.forgetful;
        self.patience = (self.patience * 2).min(LONGEST);
        Ok(())
    }

    fn handle_command(&mut self, _now: Instant, payload: Bytes) -> Result<(), Rejected<Bytes>> {
        self.send |= self.queue.is_empty();
        self.queue.push_back(payload);
        Ok(())
    }

    fn handle_end_of_input(&mut self, _now: Instant) -> Result<(), Never> {
        self.left_alone = true;
        Ok(())
    }

    fn poll_event(&mut self) -> Option<Bytes> {
        self.events.pop_front()
    }

    fn poll_output(&mut self, now: Instant, _room: Room) -> Option<Output<Packet>> {
        if let Some(number) = self.acknowledge.take() {
            return Some(Output::Control(Packet::Acknowledge(number)));
        }
        if !std::mem::take(&mut self.send) {
            return None;
        }
        self.again_at = Some(now + self.patience);
        let payload = self.queue.front()?.clone();
        Some(Output::Bulk(Packet::Data(self.number, payload)))
    }

    fn deadline(&self) -> Option<Instant> {
        self.again_at
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.acknowledge.is_none()
    }

    fn status(&self) -> ReactorStatus {
        match self.leaves {
            true => ReactorStatus::Disconnect,
            false => ReactorStatus::Continue,
        }
    }
}

#[derive(Default)]
struct Heard(Vec<Bytes>);

impl Host<StopAndWait> for Heard {
    type Message = Bytes;

    fn on_event(&mut self, _: &mut HostContext<'_, StopAndWait>, event: Bytes) {
        self.0.push(event);
    }

    fn on_action(&mut self, _: &mut HostContext<'_, StopAndWait>, _: ActionId, (): ()) {}

    fn on_message(&mut self, _: &mut HostContext<'_, StopAndWait>, _: Bytes) {}
}

type Pair = MachinePair<StopAndWait, Heard, StopAndWait, Heard>;

fn pair(conditions: DatagramConditions, forgetful: bool, random: &mut Random) -> Pair {
    let now = Instant::now();
    let side = || {
        let machine = StopAndWait::new(forgetful);
        MachineSide::new(machine, Heard::default(), Packets, now)
    };
    MachinePair::over_datagrams(side(), side(), conditions, random)
}

fn payloads(random: &mut Random) -> Vec<Bytes> {
    let count = random.within(1..30);
    (0..count)
        .map(|_| {
            let size = random.below_one_of(&[1, 100, 1400]);
            random.bytes(size).into()
        })
        .collect()
}

fn exchange(random: &mut Random, forgetful: bool) -> Result<(), Stuck> {
    let conditions = DatagramConditions::random(random);
    let (there, back) = (payloads(random), payloads(random));
    let mut pair = pair(conditions, forgetful, random);
    for payload in &there {
        pair.client.command(payload.clone()).expect("it takes all");
    }
    for payload in &back {
        pair.server.command(payload.clone()).expect("it takes all");
    }
    // A while in which one direction or both swallow everything, and then everything is whole.
    for _ in 0..random.below(4) {
        pair.run_for(Duration::from_millis(random.below(2000) as u64))?;
        pair.stall_from(*random.one_of(&[Side::Client, Side::Server]));
        if random.per_mille(500) {
            pair.stall_from(Side::Client);
            pair.stall_from(Side::Server);
        }
        pair.run_for(Duration::from_millis(random.below(10_000) as u64))?;
        pair.heal();
    }
    let idle = |pair: &Pair| pair.client.machine.is_idle() && pair.server.machine.is_idle();
    let took = pair.run_until(idle)?;
    assert_eq!(pair.server.host.0, there);
    assert_eq!(pair.client.host.0, back);
    // Each round trip fails with a chance of five in nine at the worst, and costs three seconds.
    assert!(took < Duration::from_secs(1200), "it took {took:?}");
    Ok(())
}

#[test]
fn stop_and_wait_delivers_each_payload_once_and_in_order() {
    for_each_seed(0..1000, |random| exchange(random, false).unwrap());
}

#[test]
fn whoever_sends_nothing_again_is_stuck_and_named() {
    let mut stuck = 0;
    for seed in 0..100 {
        match exchange(&mut Random::new(seed), true) {
            Ok(()) => {}
            Err(Stuck::Stalled(_, names)) => {
                assert!(!names.is_empty());
                stuck += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(stuck > 50, "{stuck} of 100 were stuck");
}

#[test]
fn machines_that_talk_for_ever_are_a_failure() {
    let mut random = Random::new(1);
    let no_time = DatagramConditions {
        latency: Duration::ZERO..Duration::ZERO,
        ..DatagramConditions::default()
    };
    let mut pair = pair(no_time, false, &mut random).most_steps(1000);
    for _ in 0..10_000 {
        pair.client
            .command(Bytes::from_static(b"again"))
            .expect("it takes all");
    }
    let stuck = pair.run_until(|_| false).unwrap_err();
    assert_eq!(
        stuck,
        Stuck::Spins(Duration::ZERO, vec!["client".to_owned()])
    );
}

#[test]
fn over_a_stream_a_side_that_leaves_ends_the_input_of_the_other() {
    let now = Instant::now();
    let side = || MachineSide::new(StopAndWait::new(false), Heard::default(), Packets, now);
    let conditions = StreamConditions::default();
    let mut pair = MachinePair::over_stream(side(), side(), conditions, &mut Random::new(1));
    pair.client.machine.leaves = true;
    pair.run_until(|pair| pair.server.machine.left_alone)
        .unwrap();
    assert!(!pair.client.machine.left_alone);
}
