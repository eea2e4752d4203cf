use std::{fmt, time::Duration};

use protosocket::{CloseReason, ConnectionStats, Deadline};

/// What became of a server's connections while it was drained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Connections that finished: all bytes and the end of the stream were written.
    pub finished: usize,
    /// Connections that were cut off at the deadline.
    pub forced: usize,
    /// Connections that ended for a reason of their own, such as a peer that vanished.
    pub failed: usize,
    /// Connections whose futures their owner dropped, and those that were never established.
    pub dropped: usize,
    /// Connections that had not ended a second after the deadline: nobody polls them.
    pub stuck: usize,
    /// Messages that were accepted and not sent, over all these connections.
    pub unsent: u64,
    /// Messages that were received and not answered, over all these connections.
    pub unanswered: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl DrainReport {
    /// Whether every connection finished and no message was lost.
    pub fn is_clean(&self) -> bool {
        let Self {
            forced,
            failed,
            dropped,
            stuck,
            unsent,
            unanswered,
            ..
        } = *self;
        forced + failed + dropped + stuck == 0 && unsent + unanswered == 0
    }

    pub(crate) fn count(&mut self, reason: &CloseReason, stats: &ConnectionStats) {
        self.unsent += stats.unsent;
        self.unanswered += stats.unanswered;
        match reason {
            CloseReason::Deadline(Deadline::Drain) => self.forced += 1,
            CloseReason::Dropped => self.dropped += 1,
            reason if reason.is_graceful() => self.finished += 1,
            _ => self.failed += 1,
        }
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} finished, {} forced, {} failed, {} dropped, {} stuck, \
             {} messages unsent, {} unanswered, in {:.1?}",
            self.finished,
            self.forced,
            self.failed,
            self.dropped,
            self.stuck,
            self.unsent,
            self.unanswered,
            self.elapsed,
        )
    }
}
