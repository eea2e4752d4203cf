//! When the calls of an open loop are due, and what became of them.
//!
//! A call counts from when it was due, whatever kept it back: the server, the connection, or this
//! client, whose own part is told as the delay of sending.

use std::io;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::super::latency::{Times, due, due_at};
use super::super::message::not_an_echo;
use super::super::record;
use crate::work::Schedule;

// LIMIT: calls that have no answer. Those that are due meanwhile wait here, and their time runs.
pub(super) const MOST_OUTSTANDING: usize = 1_024;

/// The calls of a run.
pub(super) struct OpenLoop {
    /// Without one, every call is due at once until the time is over.
    schedule: Option<Schedule>,
    start: Instant,
    duration: Duration,
    sent: u64,
    /// When the outstanding calls were due, by slot.
    outstanding: Vec<Option<Instant>>,
    free: Vec<usize>,
    times: Times,
}

impl OpenLoop {
    pub(super) fn new(payload: usize, rate: Option<NonZeroU32>, duration: Duration) -> Self {
        Self {
            schedule: rate.map(|rate| Schedule {
                payload,
                connections: 1,
                rate: rate.get(),
            }),
            start: Instant::now(),
            duration,
            sent: 0,
            outstanding: vec![None; MOST_OUTSTANDING],
            free: (0..MOST_OUTSTANDING).rev().collect(),
            times: Times::new(),
        }
    }

    /// The slot of the next call, if one is due.
    pub(super) fn next(&mut self, now: Instant) -> Option<usize> {
        if self.sent >= self.due(now) {
            return None;
        }
        let slot = self.free.pop()?;
        let at = match self.schedule {
            Some(schedule) => self.start + due_at(schedule, self.sent),
            None => now,
        };
        record(&mut self.times.send_delays, now - at, 1);
        self.outstanding[slot] = Some(at);
        self.sent += 1;
        Some(slot)
    }

    /// Takes the answer to a call.
    ///
    /// # Errors
    ///
    /// When there is no such call.
    pub(super) fn answered(&mut self, slot: usize, now: Instant) -> io::Result<()> {
        let call = self.outstanding.get_mut(slot).and_then(Option::take);
        let at = call.ok_or_else(not_an_echo)?;
        record(&mut self.times.round_trips, now - at, 1);
        self.free.push(slot);
        Ok(())
    }

    /// Whether there are no more calls, and all are answered.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        now - self.start >= self.duration
            && self.sent >= self.due(now)
            && self.free.len() == MOST_OUTSTANDING
    }

    pub(super) fn into_times(self) -> Times {
        self.times
    }

    /// Calls that are due until then, or all that there are.
    fn due(&self, now: Instant) -> u64 {
        let elapsed = now - self.start;
        match self.schedule {
            Some(schedule) => due(schedule, elapsed.min(self.duration)),
            None if elapsed < self.duration => u64::MAX,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Option<NonZeroU32> = NonZeroU32::new(1_000);

    #[test]
    fn what_waits_for_an_answer_counts_from_when_it_was_due() {
        let mut calls = OpenLoop::new(64, RATE, Duration::from_secs(2));
        let late = calls.start + Duration::from_millis(1_500);
        let slots: Vec<usize> = std::iter::from_fn(|| calls.next(late)).collect();
        assert_eq!(slots.len(), MOST_OUTSTANDING, "of 1,501 that are due");
        for slot in slots {
            calls.answered(slot, late).expect("an outstanding call");
        }
        assert_eq!(std::iter::from_fn(|| calls.next(late)).count(), 477);
        let times = calls.into_times();
        for (nanoseconds, milliseconds) in [
            (times.send_delays.max(), 1_500),
            (times.round_trips.min(), 1_500 - 1_023),
        ] {
            let expected = milliseconds * 1_000_000;
            let off = nanoseconds.abs_diff(expected);
            assert!(off < expected / 500, "{milliseconds}: {off}");
        }
    }

    #[test]
    fn a_run_has_all_its_calls_and_ends_when_the_last_is_answered() {
        let mut calls = OpenLoop::new(64, RATE, Duration::from_millis(2));
        let end = calls.start + Duration::from_millis(9);
        let slots: Vec<usize> = std::iter::from_fn(|| calls.next(end)).collect();
        assert_eq!(slots.len(), 3);
        for slot in slots {
            assert!(!calls.is_done(end));
            calls.answered(slot, end).expect("an outstanding call");
        }
        assert!(calls.is_done(end));
        assert!(calls.answered(0, end).is_err(), "answered twice");
        assert!(calls.answered(MOST_OUTSTANDING, end).is_err());
    }

    #[test]
    fn without_a_rate_every_call_is_due_until_the_time_is_over() {
        let mut calls = OpenLoop::new(64, None, Duration::from_millis(2));
        let (start, end) = (calls.start, calls.start + Duration::from_millis(2));
        assert_eq!(
            std::iter::from_fn(|| calls.next(start)).count(),
            MOST_OUTSTANDING
        );
        calls.answered(0, end).expect("an outstanding call");
        assert_eq!(calls.next(end), None);
        assert!(!calls.is_done(end));
    }
}
