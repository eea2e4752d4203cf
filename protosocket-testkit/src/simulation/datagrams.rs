//! A network of datagrams, without I/O: what is sent at one time may come out at another, twice, in
//! another order, or never.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::pipe::draw;
use crate::Random;

/// How one direction between two addresses treats datagrams.
///
/// | what | default | why |
/// |---|---|---|
/// | [`loss`](Self::loss), [`duplication`](Self::duplication), [`reorder`](Self::reorder) | 0 | a test says what it wants |
/// | [`latency`](Self::latency) | 10 ms to 12 ms | a path across a country, with some jitter |
/// | [`reorder_by`](Self::reorder_by) | 30 ms | more than the spacing of most protocols' packets |
/// | [`bandwidth`](Self::bandwidth) | unbounded | most tests are not about it |
/// | [`queue`](Self::queue) | 64 KiB | what a router holds |
/// | [`mtu`](Self::mtu) | 1,472 bytes | Ethernet's payload less the heads of IPv4 and UDP |
#[derive(Debug, Clone)]
pub struct DatagramConditions {
    /// Of a thousand datagrams, so many are lost.
    pub loss: u32,
    /// Of a thousand, so many arrive twice.
    pub duplication: u32,
    /// Of a thousand, so many are held back, so that later ones overtake them.
    pub reorder: u32,
    /// For how long they are held back, at the most.
    pub reorder_by: Duration,
    /// How long a datagram is under way; drawn anew for each. One that draws less than the one
    /// before does not overtake it.
    pub latency: Range<Duration>,
    /// Bytes in a second, if there is a bound.
    pub bandwidth: Option<u64>,
    /// Bytes that wait for the bandwidth, at the most; what comes then is lost.
    pub queue: usize,
    /// The largest datagram, in bytes; a larger one is lost.
    pub mtu: usize,
}

impl Default for DatagramConditions {
    fn default() -> Self {
        Self {
            loss: 0,
            duplication: 0,
            reorder: 0,
            reorder_by: Duration::from_millis(30),
            latency: Duration::from_millis(10)..Duration::from_millis(12),
            bandwidth: None,
            queue: 64 * 1024,
            mtu: 1472,
        }
    }
}

impl DatagramConditions {
    /// Conditions of all kinds, from a clean path to one that loses a third.
    pub fn random(random: &mut Random) -> Self {
        let micros = *random.one_of(&[100, 10_000, 150_000]);
        let mut share = |most: &[u32]| *random.one_of(most);
        Self {
            loss: share(&[0, 0, 10, 100, 333]),
            duplication: share(&[0, 0, 10, 200]),
            reorder: share(&[0, 0, 10, 200]),
            bandwidth: (share(&[0, 1]) == 1).then_some(128 * 1024),
            queue: share(&[4_000, 64_000]) as usize,
            latency: Duration::from_micros(micros)..Duration::from_micros(micros * 3 / 2),
            ..Self::default()
        }
    }
}

/// What a [`DatagramNetwork`] has done so far.
///
/// `sent + duplicated` is the sum of all the others and of what is still under way, but for
/// `reordered`, which arrive as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramCounts {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Datagrams that were delivered, copies included.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Copies that were made.
    pub duplicated: u64,
    /// Held back, so that others may overtake.
    pub reordered: u64,
    /// Lost because of their size.
    pub too_large: u64,
    /// Lost because the queue was full.
    pub queue_full: u64,
    /// Swallowed by a blackhole.
    pub swallowed: u64,
}

/// A datagram on its way out of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram<A> {
    /// Who sent it.
    pub from: A,
    /// Whom it is for.
    pub to: A,
    /// What it carries.
    pub payload: Bytes,
}

/// A network of datagrams between addresses of any kind, for machines and for whatever else takes
/// the time as an argument. Nothing happens by itself: whoever runs it asks when the next datagram
/// arrives, moves its clock there, and takes it out.
#[derive(Debug)]
pub struct DatagramNetwork<A> {
    random: Random,
    conditions: DatagramConditions,
    paths: BTreeMap<(A, A), Path>,
    /// By arrival, then in the order of their sending.
    under_way: BTreeMap<(Instant, u64), Datagram<A>>,
    next: u64,
    counts: DatagramCounts,
}

/// One direction between two addresses.
#[derive(Debug)]
struct Path {
    conditions: Option<DatagramConditions>,
    swallows: bool,
    /// Until when the bandwidth is used up.
    busy: Option<Instant>,
    /// When the last one that was not held back arrives.
    last: Option<Instant>,
}

impl Path {
    fn new() -> Self {
        Self {
            conditions: None,
            swallows: false,
            busy: None,
            last: None,
        }
    }
}

impl<A: Clone + Ord> DatagramNetwork<A> {
    /// A network that treats every direction the same.
    pub fn new(conditions: DatagramConditions, random: &mut Random) -> Self {
        Self {
            random: random.fork(),
            conditions,
            paths: BTreeMap::new(),
            under_way: BTreeMap::new(),
            next: 0,
            counts: DatagramCounts::default(),
        }
    }

    /// Treat this one direction differently, from here on.
    pub fn set_conditions(&mut self, from: A, to: A, conditions: DatagramConditions) {
        self.path(from, to).conditions = Some(conditions);
    }

    /// Swallow everything in this direction until [`heal`](Self::heal). Nobody is told.
    pub fn blackhole(&mut self, from: A, to: A) {
        self.path(from, to).swallows = true;
    }

    /// End every blackhole.
    pub fn heal(&mut self) {
        for path in self.paths.values_mut() {
            path.swallows = false;
        }
    }

    /// A datagram is sent. What becomes of it shows in the [`counts`](Self::counts), and nowhere
    /// else, as with a socket.
    pub fn send(&mut self, now: Instant, from: A, to: A, payload: Bytes) {
        self.counts.sent += 1;
        let path = self.paths.entry((from.clone(), to.clone()));
        let path = path.or_insert_with(Path::new);
        let conditions = path.conditions.as_ref().unwrap_or(&self.conditions);
        if path.swallows {
            self.counts.swallowed += 1;
            return;
        }
        if payload.len() > conditions.mtu {
            self.counts.too_large += 1;
            return;
        }
        let mut leaves = now;
        if let Some(rate) = conditions.bandwidth {
            let busy = path.busy.unwrap_or(now).max(now);
            let waiting = (busy - now).as_secs_f64() * rate as f64;
            if waiting + payload.len() as f64 > conditions.queue as f64 {
                self.counts.queue_full += 1;
                return;
            }
            leaves = busy + Duration::from_secs_f64(payload.len() as f64 / rate as f64);
            path.busy = Some(leaves);
        }
        if self.random.per_mille(conditions.loss) {
            self.counts.lost += 1;
            return;
        }
        let copies = 1 + u64::from(self.random.per_mille(conditions.duplication));
        self.counts.duplicated += copies - 1;
        for _ in 0..copies {
            let mut at = leaves + draw(&conditions.latency, &mut self.random);
            if self.random.per_mille(conditions.reorder) {
                self.counts.reordered += 1;
                at += draw(&(Duration::ZERO..conditions.reorder_by), &mut self.random);
            } else {
                at = path.last.map_or(at, |last| last.max(at));
                path.last = Some(at);
            }
            let datagram = Datagram {
                from: from.clone(),
                to: to.clone(),
                payload: payload.clone(),
            };
            self.under_way.insert((at, self.next), datagram);
            self.next += 1;
        }
    }

    /// When the next datagram arrives.
    pub fn next_delivery(&self) -> Option<Instant> {
        self.under_way.keys().next().map(|key| key.0)
    }

    /// A datagram that has arrived by `now`: the earliest.
    pub fn deliver(&mut self, now: Instant) -> Option<Datagram<A>> {
        let entry = self.under_way.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        self.counts.delivered += 1;
        Some(entry.remove())
    }

    /// The earliest datagram that has arrived at `to` by `now`.
    pub fn deliver_to(&mut self, now: Instant, to: &A) -> Option<Datagram<A>> {
        let arrived = self.under_way.iter().take_while(|entry| entry.0.0 <= now);
        let mut theirs = arrived.filter(|entry| entry.1.to == *to);
        let key = *theirs.next()?.0;
        self.counts.delivered += 1;
        self.under_way.remove(&key)
    }

    /// What it has done so far.
    pub fn counts(&self) -> DatagramCounts {
        self.counts
    }

    /// Datagrams that are under way.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    fn path(&mut self, from: A, to: A) -> &mut Path {
        self.paths.entry((from, to)).or_insert_with(Path::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(conditions: DatagramConditions) -> DatagramNetwork<u8> {
        DatagramNetwork::new(conditions, &mut Random::new(1))
    }

    fn payload(number: u32, size: usize) -> Bytes {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(size.max(4), 0);
        bytes.into()
    }

    /// What arrives of so many datagrams, sent a millisecond apart, and when.
    fn arrivals(network: &mut DatagramNetwork<u8>, count: u32) -> Vec<(u32, Duration)> {
        let begun = Instant::now();
        for number in 0..count {
            let now = begun + Duration::from_millis(u64::from(number));
            network.send(now, 1, 2, payload(number, 100));
        }
        let mut arrived = Vec::new();
        while let Some(at) = network.next_delivery() {
            let datagram = network.deliver(at).unwrap();
            assert_eq!((datagram.from, datagram.to), (1, 2));
            let number = u32::from_be_bytes(datagram.payload[..4].try_into().unwrap());
            arrived.push((number, at - begun));
        }
        let counts = network.counts();
        let gone = counts.lost + counts.too_large + counts.queue_full + counts.swallowed;
        assert_eq!(counts.sent + counts.duplicated, counts.delivered + gone);
        arrived
    }

    #[test]
    fn a_clean_path_delays_and_keeps_the_order() {
        let mut network = network(DatagramConditions {
            latency: Duration::from_millis(5)..Duration::from_millis(40),
            ..DatagramConditions::default()
        });
        let arrived = arrivals(&mut network, 1000);
        assert!(arrived.iter().map(|one| one.0).eq(0..1000));
        let sent = |number: u32| Duration::from_millis(u64::from(number));
        assert!(
            arrived
                .iter()
                .all(|(number, at)| *at >= sent(*number) + 5 * sent(1))
        );
    }

    #[test]
    fn loss_duplication_and_reorder_are_as_frequent_as_they_were_asked_for() {
        let mut network = network(DatagramConditions {
            loss: 200,
            duplication: 100,
            reorder: 50,
            ..DatagramConditions::default()
        });
        let arrived = arrivals(&mut network, 10_000);
        let counts = network.counts();
        assert!((1_850..2_150).contains(&counts.lost), "{counts:?}");
        assert!((700..900).contains(&counts.duplicated), "{counts:?}");
        assert!((350..540).contains(&counts.reordered), "{counts:?}");
        assert!(!arrived.is_sorted_by_key(|one| one.0));
    }

    #[test]
    fn bandwidth_delays_and_its_queue_overflows() {
        let mut network = network(DatagramConditions {
            bandwidth: Some(1000),
            queue: 500,
            latency: Duration::ZERO..Duration::ZERO,
            ..DatagramConditions::default()
        });
        let now = Instant::now();
        for number in 0..10 {
            network.send(now, 1, 2, payload(number, 100));
        }
        assert_eq!(network.counts().queue_full, 5);
        let fifth = now + Duration::from_millis(500);
        assert_eq!(std::iter::from_fn(|| network.deliver(fifth)).count(), 5);
        assert_eq!(network.under_way(), 0);
    }

    #[test]
    fn what_is_too_large_or_swallowed_never_arrives_until_the_heal() {
        let mut network = network(DatagramConditions::default());
        let now = Instant::now();
        network.send(now, 1, 2, payload(0, 1473));
        network.blackhole(1, 2);
        network.send(now, 1, 2, payload(1, 10));
        network.send(now, 2, 1, payload(2, 10));
        network.heal();
        network.send(now, 1, 2, payload(3, 10));
        let later = now + Duration::from_secs(1);
        let arrived: Vec<_> = std::iter::from_fn(|| network.deliver(later)).collect();
        assert_eq!(arrived.len(), 2);
        let counts = network.counts();
        assert_eq!((counts.too_large, counts.swallowed), (1, 1));
    }

    #[test]
    fn one_direction_may_differ_from_the_others() {
        let mut network = network(DatagramConditions::default());
        let deaf = DatagramConditions {
            loss: 1000,
            ..DatagramConditions::default()
        };
        network.set_conditions(1, 2, deaf);
        let now = Instant::now();
        network.send(now, 1, 2, payload(0, 10));
        network.send(now, 2, 1, payload(1, 10));
        assert_eq!((network.counts().lost, network.under_way()), (1, 1));
    }
}
