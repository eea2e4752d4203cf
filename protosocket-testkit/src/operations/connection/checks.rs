//! What must hold of a connection.

use std::time::Duration;

use protosocket::{CloseReason, ConnectionStats, ReactorStatus};

use super::{RETRY, Seen, World, wire::Wire};
use crate::{StreamEvent, TraceEnd, trace};

/// What one read takes at most, in bytes.
const READ: usize = 128 * 1024;

/// What is read ahead while the reactor takes nothing, in bytes.
const READ_AHEAD: usize = 16 * 1024;

/// Alarms until the last deadline has passed: more of them are a clock that never ends it.
const MOST_ALARMS: usize = 1000;

impl World {
    /// Let it come to rest, and look at it.
    pub(super) fn settle(&mut self) {
        self.hold.state().calls = 0;
        self.driven.settle();
        let seen = Seen {
            polls: self.driven.polls(),
            work: self.work(),
            ahead: self.ahead(),
            was_ready: self.hold.state().ready,
        };
        let polls = seen.polls - self.seen.polls;
        let work = seen.work - self.seen.work;
        assert!(
            polls <= 100 + work / 8,
            "{polls} polls for {work} units of work"
        );
        if !self.driven.is_ended() {
            self.check_bounds(&seen);
            self.check_senders();
        }
        self.seen = seen;
    }

    /// What explains polls: bytes read and written one by one, messages, errors to get over.
    fn work(&self) -> usize {
        let state = self.hold.state();
        self.peer.bytes_read()
            + self.peer.written_len()
            + state.received.len()
            + state.next_number as usize
            + self.transients
    }

    /// Bytes that were read and not decoded, while it is open.
    fn ahead(&self) -> usize {
        let shown = self.setting.unread + self.peer.bytes_read();
        (shown as u64).saturating_sub(self.progress.get()) as usize
    }

    fn check_bounds(&self, seen: &Seen) {
        let state = self.hold.state();
        let unsent = state.expected.len() - self.peer.written_len();
        let send = &self.setting.send;
        assert!(
            // One message may exceed the bulk limit, and another one the reserve.
            unsent <= send.bulk_bytes + send.control_bytes + 2 * state.largest,
            "{unsent} bytes wait to be written, the limits are {send:?}"
        );
        let queued: usize = state.accepted.iter().map(|line| line.len()).sum();
        assert!(queued <= self.setting.capacity, "{queued} in the channel");

        let largest = READ + READ_AHEAD + self.setting.receive_chunk;
        let largest = largest + self.setting.max_message_size;
        let was_paused = !self.seen.was_ready && !seen.was_ready;
        if seen.ahead > largest || (was_paused && seen.ahead > READ_AHEAD.max(self.seen.ahead)) {
            // Once it is closing, what is read is discarded.
            let phase = format!("{:?}", self.driven.connection());
            let discards = ["Closing", "ShuttingDown", "Lingering"];
            assert!(
                discards.iter().any(|name| phase.contains(name)),
                "{} bytes were read ahead, {} before: {phase}",
                seen.ahead,
                self.seen.ahead
            );
        }
    }

    fn check_senders(&self) {
        let state = self.hold.state();
        let queued: usize = state.accepted.iter().map(|line| line.len()).sum();
        let woken = self.sending.iter().filter(|s| s.note.is_set()).count();
        assert!(
            woken == self.sending.len() || queued + woken >= self.setting.capacity,
            "{} sends wait with {queued} messages in a channel of {}",
            self.sending.len() - woken,
            self.setting.capacity
        );
    }

    /// Bring it to its end, in one of the ways in which that must succeed.
    pub(super) fn end(mut self, ending: u8) {
        self.settle();
        match ending % 6 {
            _ if self.driven.is_ended() => {}
            0 => self.finish_everything(),
            1 => self.finish_by_senders(),
            2 => self.drain_with_everything_stuck(),
            3 if !self.setting.client => self.wait_for_deadlines(),
            4 => {
                self.abort();
                self.settle();
            }
            5 => return self.drop_it(),
            _ => self.finish_everything(),
        }
        let reason = match self.driven.is_ended() {
            true => self.check_end(),
            false => panic!("it has not ended: {:?}", self.driven.connection()),
        };
        self.check_order(&reason);
    }

    /// Nothing is left to do and nothing is in the way: it must end, without a deadline.
    fn finish_everything(&mut self) {
        self.open_everything();
        self.hold.change(|state| state.wants_outbound = true);
        self.end_input();
        self.sending.clear();
        self.lines.clear();
        self.settle_with_retries();
    }

    /// Everything is done but for its senders: their going must wake it. A client needs no end of
    /// its input for that, and a reactor that takes no messages must not be in the way when there
    /// are none.
    fn finish_by_senders(&mut self) {
        self.open_everything();
        if !self.setting.client {
            self.end_input();
        }
        self.sending.clear();
        self.settle_with_retries();
        if self.is_anything_queued() {
            self.hold.change(|state| state.wants_outbound = true);
            self.settle_with_retries();
        }
        self.lines.clear();
        self.settle_with_retries();
    }

    fn is_anything_queued(&self) -> bool {
        self.hold
            .state()
            .accepted
            .iter()
            .any(|line| !line.is_empty())
    }

    fn settle_with_retries(&mut self) {
        self.settle();
        // Each error that says to try again costs a retry.
        for _ in 0..self.transients + 1 {
            if !self.driven.is_ended() {
                self.driven.clock.advance(RETRY);
                self.time_has_passed = true;
                self.settle();
            }
        }
    }

    fn open_everything(&mut self) {
        self.peer.set_max_read(usize::MAX);
        self.peer.set_max_write(usize::MAX);
        self.peer.open_window(usize::MAX);
        self.peer.release_flush();
        self.peer.release_shutdown();
        self.quieten_reactor();
    }

    fn quieten_reactor(&mut self) {
        self.hold.set_ready(true);
        self.hold.change(|state| state.in_flight = 0);
        self.hold.change_output(|state| state.produces = false);
    }

    /// Whatever is in the way, the deadline of a drain ends it.
    fn drain_with_everything_stuck(&mut self) {
        let time = Duration::from_secs(1);
        self.driven.handle.drain(self.now() + time);
        self.has_drained = true;
        self.settle();
        self.driven.clock.advance(time);
        self.time_has_passed = true;
        self.settle();
    }

    /// The peer does nothing any more, and the reactor waits for nothing else: a deadline ends it.
    fn wait_for_deadlines(&mut self) {
        self.quieten_reactor();
        self.hold.change(|state| state.wants_outbound = true);
        self.time_has_passed = true;
        for _ in 0..MOST_ALARMS {
            self.settle();
            if self.driven.is_ended() {
                return;
            }
            let Some(at) = self.driven.clock.next_alarm() else {
                panic!("it waits for ever: {:?}", self.driven.connection());
            };
            let step = at.saturating_duration_since(self.now());
            self.driven.clock.advance(step);
        }
    }

    fn now(&self) -> std::time::Instant {
        protosocket::Clock::now(&self.driven.clock)
    }

    fn drop_it(self) {
        let observer = self.driven.into_observer();
        assert_eq!((observer.opened(), observer.closed()), (1, vec!["dropped"]));
        let ends = std::mem::take(&mut self.hold.state().ends);
        let [("dropped", stats)] = ends[..] else {
            panic!("the reactor was told of {ends:?}");
        };
        assert_eq!(observer.traffic(), stats);
        let world = Remains {
            hold: &self.hold,
            peer: &self.peer,
        };
        world.check_stats(&stats);
        if stats.unsent > 0 {
            assert!(self.peer.saw(StreamEvent::Abort), "the peer may be misled");
        }
    }

    fn check_end(&mut self) -> CloseReason {
        let end = self.driven.finish();
        assert_eq!(self.driven.observer.opened(), 1);
        let reason = end.reason;
        let ends = std::mem::take(&mut self.hold.state().ends);
        assert_eq!(ends, [(reason.name(), end.stats)], "what on_end was told");
        let remains = Remains {
            hold: &self.hold,
            peer: &self.peer,
        };
        remains.check_stats(&end.stats);
        self.check_reason(&reason);
        self.check_received(&reason);
        if reason.is_graceful() {
            self.check_graceful(&reason, &end.stats);
        }
        if let Some(handover) = end.handover {
            let shown = self.setting.unread + self.peer.bytes_read();
            let left = shown - handover.unread.len();
            assert_eq!(handover.unread, self.script[left..shown], "what is unread");
        }
        for sending in &self.sending {
            assert!(sending.note.is_set(), "a send waits for a dead connection");
        }
        self.poll_sending();
        for (sender, _) in &self.lines {
            assert!(sender.is_closed(), "a sender of a dead connection is open");
        }
        reason
    }

    fn check_reason(&self, reason: &CloseReason) {
        let state = self.hold.state();
        let name = reason.name();
        let is_true = match reason {
            CloseReason::EndOfInput => self.has_ended_input && state.ends_of_input == 1,
            CloseReason::NoSenders => self.setting.client && self.lines.is_empty(),
            CloseReason::Disconnect => state.closed == Some(ReactorStatus::Disconnect),
            CloseReason::Handover => state.closed == Some(ReactorStatus::Handover),
            CloseReason::Drained => self.has_drained && state.drains == 1,
            CloseReason::Age => self.setting.ages && self.time_has_passed,
            CloseReason::Decode(error) => state.decode_errors == [error.name()],
            CloseReason::Encode(_)
            | CloseReason::SendBufferFull(_)
            | CloseReason::OutputFinished => {
                state.failed_reply == Some(name) || state.failed_delivery == Some(name)
            }
            // A connection that was ending for a fault keeps that reason.
            CloseReason::Io { .. } => {
                let was_at_fault = state.decode_errors.len() > state.ends_of_input;
                self.can_fail && !was_at_fault && state.failed_reply.is_none()
            }
            CloseReason::Deadline(_) => self.time_has_passed || self.has_drained,
            CloseReason::Aborted => self.has_aborted || state.closed == Some(ReactorStatus::Abort),
            _ => false,
        };
        assert!(is_true, "it did not end because of {name}: {reason}");
    }

    /// What the reactor was given is what a decoder makes of what was read.
    fn check_received(&self, reason: &CloseReason) {
        let state = self.hold.state();
        let shown = self.setting.unread + self.peer.bytes_read();
        let all = shown == self.script.len() && self.has_ended_input;
        let limit = self.setting.max_message_size;
        let mut decoder = Wire::new(limit);
        let made = trace(&mut decoder, [&self.script[..shown]], all, limit);
        assert!(
            made.messages.starts_with(&state.received),
            "{} messages were received, and {} sent",
            state.received.len(),
            made.messages.len()
        );
        let expected = match reason {
            CloseReason::EndOfInput => TraceEnd::Complete,
            CloseReason::Decode(error) => TraceEnd::Failed(error.name()),
            _ => return,
        };
        assert_eq!(made.end, expected);
        assert_eq!(made.messages.len(), state.received.len(), "received");
    }

    fn check_graceful(&self, reason: &CloseReason, stats: &ConnectionStats) {
        let state = self.hold.state();
        assert_eq!(
            self.peer.written_len(),
            state.expected.len(),
            "it ended in order before all was written"
        );
        // A reactor that takes no more leaves the rest to be counted.
        assert!(
            stats.unsent == 0 || !state.wanted || state.failed_delivery.is_some(),
            "{} messages were lost at an end in order ({})",
            stats.unsent,
            reason.name()
        );
        let is_shut_down = self.peer.saw(StreamEvent::Shutdown);
        match reason {
            CloseReason::Handover => {}
            _ => assert!(is_shut_down || self.shutdown_fails, "it was not shut down"),
        }
    }

    /// Bytes, then the flush, then the end of the output; and after that nothing.
    fn check_order(&self, reason: &CloseReason) {
        let log = self.peer.log();
        let Some(at) = log.iter().position(|event| *event == StreamEvent::Shutdown) else {
            return;
        };
        let before = log[..at].iter().rev();
        let mut before = before.filter(|event| **event != StreamEvent::Abort);
        assert_ne!(before.next(), Some(&StreamEvent::Write), "{log:?}");
        assert!(
            !log[at..].contains(&StreamEvent::Write),
            "written after the end ({}): {log:?}",
            reason.name()
        );
    }
}

/// What can be looked at when the connection is gone.
struct Remains<'a> {
    hold: &'a super::Hold,
    peer: &'a crate::StreamPeer,
}

impl Remains<'_> {
    /// The statistics say what the stream and the reactor saw.
    fn check_stats(&self, stats: &ConnectionStats) {
        let state = self.hold.state();
        let written = self.peer.written();
        assert!(state.expected.starts_with(&written), "other bytes written");
        let whole = state
            .boundaries
            .partition_point(|end| *end <= written.len());
        let sent = whole as u64 + state.empty;
        let queued: usize = state.accepted.iter().map(|line| line.len()).sum();
        assert_eq!(stats.bytes_in, self.peer.bytes_read() as u64, "bytes_in");
        assert_eq!(stats.bytes_out, written.len() as u64, "bytes_out");
        assert_eq!(
            stats.messages_in,
            state.received.len() as u64,
            "messages_in"
        );
        assert_eq!(stats.messages_out, sent, "messages_out");
        assert_eq!(
            stats.unsent,
            state.encoded - sent + state.undelivered + queued as u64,
            "unsent: {} encoded, {} undelivered, {queued} in the channel",
            state.encoded,
            state.undelivered
        );
        let unanswered = state.in_flight + state.queue.len();
        assert_eq!(stats.unanswered, unanswered as u64, "unanswered");
        assert_eq!(stats.refused, state.refused, "refused");
    }
}
