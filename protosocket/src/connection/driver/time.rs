//! Deadlines, and whoever else wants the connection to end.

use std::{
    task::Context,
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Drain, Driver, Output, Phase, Work};
use crate::{CloseReason, Deadline, MessageReactor, connection::timing::Snapshot};

/// When to try again after a stream said `WouldBlock` instead of registering a waker.
const RETRY: Duration = Duration::from_millis(10);

/// How late a deadline on the peer must come for the program to have stood still meanwhile:
/// suspended, stopped by a signal, or starved.
const LATE: Duration = Duration::from_secs(1);

/// How often it is looked again before such a deadline is acted on. The runtime learns of 1,024
/// sockets at a time, so this is enough for 16,384 connections that all have something to read.
const LOOKS: u8 = 16;

impl<S, R> Driver<S, R>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: MessageReactor,
{
    pub(super) fn obey_handle(&mut self, cx: &mut Context<'_>, work: &mut Work) {
        let Some(handle) = &self.handle else { return };
        // Registered before it is looked at, so that nothing is missed until the next poll.
        handle.register(cx.waker());
        if handle.is_aborted() {
            self.abort(CloseReason::Aborted);
            return;
        }
        if let Some(deadline) = handle.drain_deadline() {
            self.drain(work.now, deadline, false);
        }
    }

    fn drain(&mut self, now: Instant, deadline: Instant, by_age: bool) {
        match &mut self.drain {
            // A drain from outside is the better reason, and the earlier deadline counts.
            Some(drain) => {
                drain.deadline = drain.deadline.min(deadline);
                drain.by_age &= by_age;
            }
            None => {
                tracing::debug!("draining");
                self.drain = Some(Drain { deadline, by_age });
                if self.phase == Phase::Open {
                    self.call(now, |reactor, context| reactor.on_drain(context, deadline));
                }
            }
        }
    }

    /// Act on a deadline that has passed, or set the alarm for the next one. Whether the
    /// connection has to be looked at again at once.
    pub(super) fn pass_deadlines(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        let Some((at, what)) = self.next_deadline(work) else {
            self.looks = 0;
            return false;
        };
        if at > work.now && !self.timing.arm(self.config.clock(), work.now, at, cx) {
            self.looks = 0;
            return false;
        }
        // What the peer has done while the program stood still may not have been heard of yet.
        if what.is_the_peers() && work.now > at + LATE && self.looks < LOOKS {
            self.looks += 1;
            work.exhausted = true;
            return false;
        }
        work.now = work.now.max(at);
        // LIMIT: a reactor whose deadline is always near must not hold the thread.
        work.deadlines = work.deadlines.saturating_sub(1);
        if work.deadlines == 0 {
            work.exhausted = true;
            return false;
        }
        match what {
            Due::Retry => work.retry = false,
            Due::Reactor => {}
            Due::Age => {
                self.end_of_age = None;
                let deadline = work.now + self.config.limits().drain_timeout;
                self.drain(work.now, deadline, true);
            }
            Due::Linger => self.phase = Phase::Ended,
            Due::Deadline(deadline) => {
                tracing::debug!(%deadline, "a deadline passed");
                match (self.phase, deadline) {
                    // All bytes and the end have been written: only the wait is cut short.
                    (Phase::Lingering, _) => self.phase = Phase::Ended,
                    (Phase::Open, Deadline::Idle | Deadline::FirstMessage | Deadline::Message) => {
                        self.close(CloseReason::Deadline(deadline));
                    }
                    _ => self.abort(CloseReason::Deadline(deadline)),
                }
            }
        }
        true
    }

    fn next_deadline(&mut self, work: &Work) -> Option<(Instant, Due)> {
        let open = self.phase == Phase::Open;
        let lingering = self.phase == Phase::Lingering;
        // What the end of the input has cut off will never be complete: nothing is begun any more.
        let partial =
            open && !self.told_end_of_input && self.receive.has_partial(&work.scratch, &self.codec);
        let snapshot = Snapshot {
            now: work.now,
            bytes_in: self.stats.bytes_in,
            bytes_out: self.stats.bytes_out,
            // The peer is not late as long as there may be more that it has sent.
            reading: open && !self.input_ended && !work.paused && !work.exhausted,
            paused: open && !self.input_ended && work.paused,
            partial,
            unsent: !lingering && (!open || !self.is_flushed() || self.output == Output::Finishing),
            idle: open
                && !partial
                && self.is_flushed()
                && (self.outbound.is_empty() || self.output == Output::Finished)
                && self.reactor.in_flight() == 0,
        };
        let deadline = self.timing.next(self.config.limits(), &snapshot);
        let mut next = deadline.map(|(at, deadline)| (at, Due::Deadline(deadline)));
        let mut consider = |at: Option<Instant>, due| {
            if let Some(at) = at
                && next.is_none_or(|(earlier, _)| at < earlier)
            {
                next = Some((at, due));
            }
        };
        if let Some(drain) = self.drain {
            consider(Some(drain.deadline), Due::Deadline(Deadline::Drain));
        }
        if lingering {
            consider(self.lingers_until, Due::Linger);
        }
        if open {
            consider(self.end_of_age, Due::Age);
            // One that is past and was told in this poll need not be told again: what keeps the
            // reactor from acting on it (room, a future) will wake the task. But one may have been
            // set since, and be past already.
            let deadline = self.reactor.deadline();
            let untold = deadline.filter(|at| *at > work.now || work.told != Some(*at));
            consider(untold, Due::Reactor);
        }
        consider(work.retry.then_some(work.now + RETRY), Due::Retry);
        next
    }
}

/// What can come next in time.
#[derive(Debug, Clone, Copy)]
enum Due {
    Deadline(Deadline),
    /// The reactor's own.
    Reactor,
    Age,
    Linger,
    Retry,
}

impl Due {
    /// Whether the peer could have kept it.
    fn is_the_peers(self) -> bool {
        use Deadline::{FirstMessage, Idle, Message, Write};
        matches!(self, Self::Deadline(FirstMessage | Message | Idle | Write))
    }
}
