//! Whether the deadlines of a connection came when they had to, as far as its stream, its codec and
//! its reactor can tell.

use std::time::{Duration, Instant};

use protosocket_testkit::simulation::{LinkHandle, Side};

use crate::{codec::Ledger, connection::Given, peer::Seen};

/// How much later than its deadline a connection may end: a stream that buffers takes its latency
/// to flush, and a connection is not idle before.
const SLACK: Duration = Duration::from_millis(300);

/// What one end of a stream has done, and for how long it had done nothing when it ended.
pub(crate) struct Quiet<'a> {
    pub(crate) side: Side,
    pub(crate) link: &'a LinkHandle,
    pub(crate) opened: Instant,
    pub(crate) limits: &'a Given,
    /// Nothing but the peer keeps it from receiving messages.
    pub(crate) always_takes: bool,
    pub(crate) seen: &'a Seen,
    pub(crate) said: &'a Ledger,
    pub(crate) heard: &'a Ledger,
}

impl Quiet<'_> {
    /// A deadline that ended it had passed, and none had passed that did not.
    pub(crate) fn check(&self) {
        match self.seen.ends[0].0 {
            "first_message_timeout" | "message_timeout" => self.was_slow(),
            "idle_timeout" => self.was_idle(),
            "write_timeout" => self.was_stuck(),
            // What came of a panic is not in the books.
            "panicked" => return,
            _ => {}
        }
        self.was_not_slow_for_longer();
        self.was_not_idle_for_longer();
        self.was_not_stuck_for_longer();
    }

    /// When it decided to end, or when it had room for last words after that.
    fn decided(&self) -> Instant {
        self.seen.decided.expect("it has ended").at
    }

    /// Just before it decided to end.
    fn before(&self) -> Instant {
        self.decided() - Duration::from_nanos(1)
    }

    /// When it was last anything but quiet, not after `at`.
    fn active(&self, at: Instant) -> Instant {
        let decided = self.seen.decided.expect("it has ended");
        let instants = [
            Some(self.opened),
            decided.heard_at,
            decided.spoke_at,
            self.link.last_write(self.side, at),
            self.link.last_read(self.side, at),
        ];
        instants.into_iter().flatten().max().expect("one is there")
    }

    /// A message had begun, or none had come yet, for as long as that may take.
    fn was_slow(&self) {
        let side = self.side;
        let (timeout, since) = match self.seen.heard_at {
            None if self.seen.ends[0].0 == "first_message_timeout" => {
                (self.limits.first_message, self.opened)
            }
            heard => {
                let read = self.link.read_by(side, self.before());
                assert!(
                    read > self.heard.received_bytes(),
                    "the {side:?} waited for the end of a message, and none had begun"
                );
                (self.limits.message, heard.unwrap_or(self.opened))
            }
        };
        let took = self.decided() - since;
        assert!(
            timeout.is_some_and(|timeout| took >= timeout),
            "the {side:?} gave a message {took:?} instead of {timeout:?}"
        );
    }

    fn was_idle(&self) {
        let (side, decided) = (self.side, self.seen.decided.expect("it has ended"));
        assert_eq!(decided.in_flight, 0, "the {side:?} was not idle");
        // One that had finished its output is not asked for last words: what it has thrown away
        // while it lingered cannot be told from what it read before.
        let since = match self.seen.finished {
            true => decided
                .heard_at
                .max(decided.spoke_at)
                .unwrap_or(self.opened),
            false => self.active(self.before()),
        };
        let was = decided.at - since;
        assert!(
            self.limits.idle.is_some_and(|timeout| was >= timeout),
            "the {side:?} ended for having been idle, after {was:?}"
        );
    }

    fn was_stuck(&self) {
        let (side, ended) = (self.side, self.seen.ended_at.expect("it has ended"));
        let timeout = self.limits.write.expect("without one nothing ends by it");
        let written = |at| self.link.written_by(side, at);
        let progress = written(ended) - written(ended - timeout);
        assert!(
            progress < self.limits.write_progress as u64,
            "the {side:?} was taken for stuck although it had written {progress} bytes in time"
        );
        let just_before = ended - Duration::from_nanos(1);
        let read = self.link.read_by(side.other(), just_before);
        assert!(
            written(ended) > read,
            "the {side:?} was taken for stuck although its peer had read everything"
        );
    }

    fn was_not_slow_for_longer(&self) {
        let (seen, decided) = (self.seen, self.decided());
        if !self.always_takes || seen.finished || seen.drained.is_some() {
            return;
        }
        // It is asked for last words when there is room for them, which may be long after it decided.
        let wrote = self.link.last_write(self.side, decided) == Some(decided);
        let unsent = seen.ends[0].1.unsent > 0;
        let waited_until_decided = !seen.end_of_input && !unsent && !wrote;
        if waited_until_decided && self.link.last_read(self.side, decided).is_none() {
            let timeout = self.limits.first_message;
            self.was_not_after(
                "first message",
                timeout.map(|timeout| self.opened + timeout),
            );
        }
        let Some(timeout) = self.limits.message else {
            return;
        };
        for (begin, end, received) in self.heard.bounds() {
            let begun = self.link.read_at(self.side, begin + 1);
            let Some(begun) = begun.filter(|at| *at <= decided) else {
                break;
            };
            if !received && !waited_until_decided {
                break;
            }
            let read = self.link.read_at(self.side, end).unwrap_or(decided);
            let bytes = end - begin;
            let bought = bytes as f64 / f64::from(self.limits.receive_rate);
            let took = read.min(decided) - begun;
            assert!(
                took <= timeout + Duration::from_secs_f64(bought) + Duration::from_millis(1),
                "the {:?} gave a message of {bytes} bytes {took:?} instead of {timeout:?}",
                self.side
            );
        }
    }

    fn was_not_idle_for_longer(&self) {
        let decided = self.seen.decided.expect("it has ended");
        let stats = &self.seen.ends[0].1;
        let partial = self.link.read_by(self.side, decided.at) != self.heard.received_bytes();
        // When one decided that had finished its output is not known: it is not asked for last words.
        let unknown = self.seen.finished;
        if decided.in_flight > 0 || partial || stats.unsent > 0 || unknown {
            return;
        }
        // Whoever is told of the end of the input waits for no answers any more.
        let active = self.active(decided.at);
        let active = self.seen.input_ended_at.map_or(active, |at| active.max(at));
        self.was_not_after("idle", self.limits.idle.map(|timeout| active + timeout));
    }

    fn was_not_stuck_for_longer(&self) {
        let ended = self.seen.ended_at.expect("it has ended");
        if self.said.wire_bytes() <= self.link.written(self.side) {
            return;
        }
        let last_write = self.link.last_write(self.side, ended);
        let since = [Some(self.opened), self.seen.spoke_at, last_write];
        let since = since.into_iter().flatten().max().expect("one is there");
        let late = self.limits.write.map(|timeout| since + timeout + SLACK);
        assert!(
            late.is_none_or(|late| ended <= late),
            "the {:?} was stuck and ended {:?} too late",
            self.side,
            late.map(|late| ended - late)
        );
    }

    fn was_not_after(&self, what: &str, deadline: Option<Instant>) {
        let decided = self.decided();
        let late = deadline.map_or(Duration::ZERO, |at| decided.saturating_duration_since(at));
        let after = |at: Instant| at - self.opened;
        assert!(
            late <= SLACK,
            "the {:?} outlived its {what} deadline by {late:?}: it decided to end by {} at {:?}, \
             read at {:?}, wrote at {:?}, heard at {:?}, spoke at {:?}",
            self.side,
            self.seen.ends[0].0,
            after(decided),
            self.link.last_read(self.side, decided).map(after),
            self.link.last_write(self.side, decided).map(after),
            self.seen.heard_at.map(after),
            self.seen.spoke_at.map(after),
        );
    }
}
