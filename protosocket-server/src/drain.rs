use std::{fmt, iter::Sum, time::Duration};

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

/// The report of several servers, such as one per core, that were drained at the same time.
impl Sum for DrainReport {
    fn sum<I: Iterator<Item = Self>>(reports: I) -> Self {
        reports.fold(Self::default(), |sum, report| Self {
            finished: sum.finished + report.finished,
            forced: sum.forced + report.forced,
            failed: sum.failed + report.failed,
            dropped: sum.dropped + report.dropped,
            stuck: sum.stuck + report.stuck,
            unsent: sum.unsent + report.unsent,
            unanswered: sum.unanswered + report.unanswered,
            elapsed: sum.elapsed.max(report.elapsed),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_several_servers_add_up_to_one() {
        let report = |factor: usize, elapsed| DrainReport {
            finished: factor,
            forced: 2 * factor,
            failed: 3 * factor,
            dropped: 4 * factor,
            stuck: 5 * factor,
            unsent: 6 * factor as u64,
            unanswered: 7 * factor as u64,
            elapsed: Duration::from_secs(elapsed),
        };
        let sum: DrainReport = [report(1, 3), report(10, 9), report(100, 1)]
            .into_iter()
            .sum();
        assert_eq!(sum, report(111, 9));
        assert_eq!([].into_iter().sum::<DrainReport>(), DrainReport::default());
    }
}
