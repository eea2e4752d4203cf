//! One direction of a stream, without I/O: bytes go in at one time and come out at another.

use std::{
    collections::VecDeque,
    io::IoSlice,
    ops::Range,
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};

use crate::Random;

/// How one direction of a stream behaves.
///
/// | what | default | why |
/// |---|---|---|
/// | [`latency`](Self::latency) | 100 µs to 1 ms | a local network |
/// | [`bandwidth`](Self::bandwidth) | unbounded | most tests are not about it |
/// | [`buffer`](Self::buffer) | 64 KiB | what a socket begins with |
/// | [`max_write`](Self::max_write), [`max_read`](Self::max_read) | unbounded | a kernel takes and gives what there is |
/// | [`buffered`](Self::buffered) | no | sockets send what is written |
#[derive(Debug, Clone)]
pub struct StreamConditions {
    /// How long bytes are under way; drawn anew for each piece, which never overtakes another.
    pub latency: Range<Duration>,
    /// Bytes in a second, if there is a bound.
    pub bandwidth: Option<u64>,
    /// Bytes that may be written and not read; the writer waits beyond that.
    pub buffer: usize,
    /// One write takes between 1 and this many bytes.
    pub max_write: usize,
    /// One read gives between 1 and this many bytes.
    pub max_read: usize,
    /// What is written stays with the writer until it flushes, or the buffer is full, as with TLS;
    /// and a flush may take as long as the latency.
    pub buffered: bool,
}

impl Default for StreamConditions {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(100)..Duration::from_millis(1),
            bandwidth: None,
            buffer: 64 * 1024,
            max_write: usize::MAX,
            max_read: usize::MAX,
            buffered: false,
        }
    }
}

impl StreamConditions {
    /// Conditions of all kinds: from a memory pipe to a bad line, from whole buffers to single
    /// bytes.
    pub fn random(random: &mut Random) -> Self {
        let micros = *random.one_of(&[1, 100, 1_000, 20_000, 200_000]);
        let slice = |random: &mut Random| match random.below(8) {
            0 => 1,
            1 => random.within(2..64),
            2 => random.within(64..5000),
            _ => usize::MAX,
        };
        // Single bytes through a long line would take hours of virtual time, and of polls.
        let (max_write, max_read) = (slice(random), slice(random));
        Self {
            latency: Duration::from_micros(micros / 2)..Duration::from_micros(micros),
            bandwidth: match random.below(4) {
                0 => Some(*random.one_of(&[64 * 1024, 1024 * 1024, 16 * 1024 * 1024])),
                _ => None,
            },
            buffer: *random.one_of(&[64, 1000, 4096, 16 * 1024, 64 * 1024, 1024 * 1024]),
            max_write,
            max_read,
            buffered: random.per_mille(250),
        }
    }

    pub(super) fn draw_latency(&self, random: &mut Random) -> Duration {
        draw(&self.latency, random)
    }
}

/// A duration out of a range; its start if the range is empty.
pub(super) fn draw(range: &Range<Duration>, random: &mut Random) -> Duration {
    let width = range.end.saturating_sub(range.start).as_nanos() as u64;
    match width {
        0 => range.start,
        width => range.start + Duration::from_nanos(random.next() % width),
    }
}

/// What a read finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Bytes(usize),
    End,
    Nothing,
}

#[derive(Debug)]
pub(super) struct Pipe {
    conditions: StreamConditions,
    random: Random,
    /// What was written and not read, the part that has arrived first.
    bytes: BytesMut,
    arrived: usize,
    /// Bytes at the end that wait for a flush.
    unflushed: usize,
    /// When how many more bytes arrive. INVARIANT: the instants never decrease.
    pieces: VecDeque<(Instant, usize)>,
    /// When the end arrives.
    end: Option<Instant>,
    /// Until when the line is busy with what was written.
    busy: Option<Instant>,
    /// Nothing arrives.
    stalled: bool,
    written: Progress,
    read: Progress,
}

/// How many bytes there had been, and when: one entry for each instant at which there were more.
#[derive(Debug, Default)]
struct Progress(Vec<(Instant, u64)>);

impl Progress {
    fn add(&mut self, now: Instant, count: usize) {
        let total = self.total() + count as u64;
        match self.0.last_mut() {
            Some(last) if last.0 == now => last.1 = total,
            _ => self.0.push((now, total)),
        }
    }

    fn total(&self) -> u64 {
        self.0.last().map_or(0, |last| last.1)
    }

    /// The last of it that was not after `at`.
    fn by(&self, at: Instant) -> Option<(Instant, u64)> {
        let count = self.0.partition_point(|step| step.0 <= at);
        self.0[..count].last().copied()
    }

    /// When there had been so many.
    fn reached(&self, bytes: u64) -> Option<Instant> {
        let before = self.0.partition_point(|step| step.1 < bytes);
        self.0.get(before).map(|step| step.0)
    }
}

impl Pipe {
    pub(super) fn new(conditions: StreamConditions, random: Random) -> Self {
        assert!(conditions.buffer > 0, "a pipe must hold at least one byte");
        assert!(
            conditions.max_write > 0 && conditions.max_read > 0,
            "reads and writes take at least one byte"
        );
        Self {
            conditions,
            random,
            bytes: BytesMut::new(),
            arrived: 0,
            unflushed: 0,
            pieces: VecDeque::new(),
            end: None,
            busy: None,
            stalled: false,
            written: Progress::default(),
            read: Progress::default(),
        }
    }

    /// Take some of what is offered, `most` bytes at the most. Nothing if there is no room.
    pub(super) fn write(&mut self, now: Instant, slices: &[IoSlice<'_>], most: usize) -> usize {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let slice = slice(self.conditions.max_write, &mut self.random);
        let count = offered.min(self.room()).min(slice).min(most);
        if count == 0 {
            return 0;
        }
        let mut left = count;
        for slice in slices {
            let part = left.min(slice.len());
            self.bytes.extend_from_slice(&slice[..part]);
            left -= part;
        }
        self.unflushed += count;
        self.written.add(now, count);
        if !self.conditions.buffered || self.room() == 0 {
            self.flush(now);
        }
        count
    }

    /// Whether something waits for a flush.
    pub(super) fn has_unflushed(&self) -> bool {
        self.unflushed > 0
    }

    /// Send what waits for it.
    pub(super) fn flush(&mut self, now: Instant) {
        let count = std::mem::take(&mut self.unflushed);
        if count == 0 {
            return;
        }
        let busy = self.busy.unwrap_or(now).max(now);
        let takes = self.conditions.bandwidth.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos((count as u64).saturating_mul(1_000_000_000) / rate.max(1))
        });
        self.busy = Some(busy + takes);
        let at = self.arrival(busy + takes);
        match self.pieces.back_mut() {
            Some((last, bytes)) if *last == at => *bytes += count,
            _ => self.pieces.push_back((at, count)),
        }
    }

    /// Nothing more is written.
    pub(super) fn finish(&mut self, now: Instant) {
        self.flush(now);
        if self.end.is_none() {
            let at = self.arrival(self.busy.unwrap_or(now).max(now));
            self.end = Some(at);
        }
    }

    /// Give what has arrived.
    pub(super) fn read(&mut self, now: Instant, into: &mut [u8]) -> Found {
        self.arrive(now);
        if self.arrived > 0 {
            let slice = slice(self.conditions.max_read, &mut self.random);
            let count = self.arrived.min(into.len()).min(slice);
            into[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes.advance(count);
            self.arrived -= count;
            self.read.add(now, count);
            return Found::Bytes(count);
        }
        let ended = !self.stalled && self.pieces.is_empty();
        match self.end {
            Some(at) if ended && at <= now => Found::End,
            _ => Found::Nothing,
        }
    }

    /// When a read will find more than at the last one.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        if self.stalled {
            return None;
        }
        self.pieces.front().map(|piece| piece.0).or(self.end)
    }

    /// Whether a write would take anything.
    pub(super) fn room(&self) -> usize {
        self.conditions.buffer.saturating_sub(self.bytes.len())
    }

    /// Bytes that have arrived and were not read.
    pub(super) fn waiting(&mut self, now: Instant) -> usize {
        self.arrive(now);
        self.arrived
    }

    /// Bytes that were written and not read.
    pub(super) fn unread(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that are under way.
    pub(super) fn under_way(&self) -> usize {
        self.bytes.len() - self.arrived - self.unflushed
    }

    /// Whether the end has been written.
    pub(super) fn is_finished(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the end has been read, or could be.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        self.arrive(now);
        self.bytes.is_empty() && !self.stalled && self.end.is_some_and(|at| at <= now)
    }

    /// A reset has overtaken what is under way: that is lost, and what waits as well if
    /// `and_waiting`. Returns how much that is. An end that has arrived stays, unless something
    /// before it is lost.
    pub(super) fn cut(&mut self, now: Instant, and_waiting: bool) -> usize {
        self.arrive(now);
        let keep = if and_waiting { 0 } else { self.arrived };
        let lost = self.bytes.len() - keep;
        if lost > 0 || self.end.is_some_and(|at| at > now) {
            self.end = None;
        }
        self.bytes.truncate(keep);
        self.arrived = keep;
        self.unflushed = 0;
        self.pieces.clear();
        lost
    }

    /// Nobody will read this any more.
    pub(super) fn discard(&mut self) {
        self.bytes.clear();
        self.arrived = 0;
        self.unflushed = 0;
        self.pieces.clear();
    }

    /// What waits for a flush will never be sent. Returns how much that is.
    pub(super) fn forget_unflushed(&mut self) -> usize {
        let count = std::mem::take(&mut self.unflushed);
        self.bytes.truncate(self.bytes.len() - count);
        count
    }

    /// Let nothing arrive.
    pub(super) fn stall(&mut self, now: Instant) {
        self.arrive(now);
        self.stalled = true;
    }

    /// Let things arrive again, from now on.
    pub(super) fn heal(&mut self, now: Instant) {
        if !std::mem::take(&mut self.stalled) {
            return;
        }
        let at = now + self.conditions.draw_latency(&mut self.random);
        for piece in &mut self.pieces {
            piece.0 = piece.0.max(at);
        }
        self.end = self.end.map(|end| end.max(at));
    }

    pub(super) fn set_conditions(&mut self, conditions: StreamConditions) {
        self.conditions = conditions;
    }

    pub(super) fn written(&self) -> u64 {
        self.written.total()
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.read.total()
    }

    /// When something was written last, not after `at`, and how much there was then.
    pub(super) fn written_by(&self, at: Instant) -> Option<(Instant, u64)> {
        self.written.by(at)
    }

    /// When something was read last, not after `at`, and how much had been then.
    pub(super) fn read_by(&self, at: Instant) -> Option<(Instant, u64)> {
        self.read.by(at)
    }

    /// When so many bytes had been read.
    pub(super) fn read_reached(&self, bytes: u64) -> Option<Instant> {
        self.read.reached(bytes)
    }

    pub(super) fn latency(&mut self) -> Duration {
        self.conditions.draw_latency(&mut self.random)
    }

    /// When something arrives that leaves at `leaves`, behind all that left before.
    fn arrival(&mut self, leaves: Instant) -> Instant {
        let at = leaves + self.conditions.draw_latency(&mut self.random);
        self.pieces.back().map_or(at, |last| last.0.max(at))
    }

    fn arrive(&mut self, now: Instant) {
        if self.stalled {
            return;
        }
        while let Some((at, count)) = self.pieces.front()
            && *at <= now
        {
            self.arrived += count;
            self.pieces.pop_front();
        }
    }
}

/// How much one read or write takes.
fn slice(most: usize, random: &mut Random) -> usize {
    match most {
        usize::MAX => usize::MAX,
        most => 1 + random.below(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(conditions: StreamConditions) -> Pipe {
        Pipe::new(conditions, Random::new(1))
    }

    fn write(pipe: &mut Pipe, now: Instant, bytes: &[u8]) -> usize {
        pipe.write(now, &[IoSlice::new(bytes)], usize::MAX)
    }

    /// Everything that arrives, each read with its time, until the end.
    fn drain(pipe: &mut Pipe, begun: Instant) -> Vec<(Duration, Vec<u8>)> {
        let mut reads = Vec::new();
        let mut now = begun;
        loop {
            let mut buffer = [0; 64];
            match pipe.read(now, &mut buffer) {
                Found::Bytes(count) => reads.push((now - begun, buffer[..count].to_vec())),
                Found::End => return reads,
                Found::Nothing => now = pipe.next_arrival().expect("there is an end"),
            }
        }
    }

    fn steady(latency: Duration) -> StreamConditions {
        StreamConditions {
            latency: latency..latency,
            ..StreamConditions::default()
        }
    }

    #[test]
    fn bytes_arrive_in_order_and_the_end_behind_them() {
        let conditions = StreamConditions {
            latency: Duration::ZERO..Duration::from_millis(50),
            max_read: 3,
            ..StreamConditions::default()
        };
        for seed in 0..200 {
            let now = Instant::now();
            let mut pipe = Pipe::new(conditions.clone(), Random::new(seed));
            for part in ["ab", "cde", "f", "ghijk"] {
                assert_eq!(write(&mut pipe, now, part.as_bytes()), part.len());
            }
            pipe.finish(now);
            let reads = drain(&mut pipe, now);
            assert!(reads.is_sorted_by_key(|read| read.0));
            assert!(reads.iter().all(|read| read.1.len() <= 3));
            let all: Vec<u8> = reads.into_iter().flat_map(|read| read.1).collect();
            assert_eq!(all, b"abcdefghijk", "seed {seed}");
        }
    }

    #[test]
    fn bandwidth_is_paid_for_every_byte_and_latency_once() {
        let now = Instant::now();
        let mut pipe = pipe(StreamConditions {
            bandwidth: Some(1000),
            ..steady(Duration::from_millis(7))
        });
        write(&mut pipe, now, &[0; 10]);
        write(&mut pipe, now, &[0; 5]);
        pipe.finish(now);
        let times: Vec<_> = drain(&mut pipe, now).iter().map(|read| read.0).collect();
        assert_eq!(times, [17, 22].map(Duration::from_millis));
    }

    #[test]
    fn a_full_buffer_takes_nothing_until_it_is_read() {
        let now = Instant::now();
        let mut pipe = pipe(StreamConditions {
            buffer: 4,
            ..steady(Duration::ZERO)
        });
        assert_eq!(write(&mut pipe, now, b"abcdef"), 4);
        assert_eq!(write(&mut pipe, now, b"ef"), 0);
        assert_eq!(pipe.read(now, &mut [0; 3]), Found::Bytes(3));
        assert_eq!(write(&mut pipe, now, b"efghi"), 3);
    }

    #[test]
    fn what_is_stalled_arrives_after_the_heal() {
        let now = Instant::now();
        let mut pipe = pipe(steady(Duration::from_millis(1)));
        write(&mut pipe, now, b"a");
        pipe.stall(now);
        pipe.finish(now);
        let later = now + Duration::from_secs(9);
        assert_eq!(pipe.next_arrival(), None);
        assert_eq!(pipe.read(later, &mut [0; 1]), Found::Nothing);
        pipe.heal(later);
        let arrives = later + Duration::from_millis(1);
        assert_eq!(pipe.next_arrival(), Some(arrives));
        assert_eq!(pipe.read(later, &mut [0; 1]), Found::Nothing);
        assert_eq!(pipe.read(arrives, &mut [0; 1]), Found::Bytes(1));
        assert_eq!(pipe.read(arrives, &mut [0; 1]), Found::End);
    }

    #[test]
    fn what_is_buffered_leaves_with_a_flush_or_when_there_is_no_room() {
        let now = Instant::now();
        let mut pipe = pipe(StreamConditions {
            buffered: true,
            buffer: 4,
            ..steady(Duration::ZERO)
        });
        write(&mut pipe, now, b"abc");
        assert_eq!(pipe.read(now, &mut [0; 9]), Found::Nothing);
        pipe.flush(now);
        assert_eq!(pipe.read(now, &mut [0; 9]), Found::Bytes(3));
        write(&mut pipe, now, b"defg");
        assert_eq!(pipe.read(now, &mut [0; 9]), Found::Bytes(4));
        write(&mut pipe, now, b"hi");
        assert_eq!(pipe.forget_unflushed(), 2);
        write(&mut pipe, now, b"j");
        pipe.finish(now);
        assert_eq!(pipe.read(now, &mut [0; 9]), Found::Bytes(1));
        assert_eq!(pipe.read(now, &mut [0; 9]), Found::End);
    }

    #[test]
    fn an_end_is_not_seen_behind_what_a_reset_took() {
        let now = Instant::now();
        let mut pipe = pipe(steady(Duration::ZERO));
        write(&mut pipe, now, b"abc");
        pipe.finish(now);
        assert_eq!(pipe.read(now, &mut [0; 1]), Found::Bytes(1));
        let mut kept = Pipe::new(steady(Duration::ZERO), Random::new(1));
        write(&mut kept, now, b"abc");
        kept.finish(now);
        assert_eq!(pipe.cut(now, true), 2);
        assert_eq!(pipe.read(now, &mut [0; 9]), Found::Nothing);
        assert_eq!(kept.cut(now, false), 0);
        assert_eq!(kept.read(now, &mut [0; 9]), Found::Bytes(3));
        assert_eq!(kept.read(now, &mut [0; 9]), Found::End);
    }

    #[test]
    fn slices_are_of_all_lengths_up_to_the_bound() {
        let now = Instant::now();
        let mut pipe = pipe(StreamConditions {
            max_write: 3,
            ..steady(Duration::ZERO)
        });
        let mut lengths: Vec<_> = (0..100).map(|_| write(&mut pipe, now, &[0; 9])).collect();
        lengths.sort_unstable();
        lengths.dedup();
        assert_eq!(lengths, [1, 2, 3]);
    }
}
