use std::{
    pin::Pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use crate::{Alarm, Clock, Deadline, Limits};

/// What a connection knows about time: when which deadline began, and its one alarm.
pub(super) struct Timing {
    opened: Instant,
    /// When the last thing happened that keeps the connection from being idle.
    active: Instant,
    /// It was not idle at the end of the last poll.
    busy: bool,
    heard: bool,
    /// When the unfinished message began, on the input's own time, and what had been read then.
    message: Option<(Instant, u64)>,
    /// What the input's own time is behind: the sum of the pauses in which we did not read.
    paused: Duration,
    paused_since: Option<Instant>,
    /// Since when the peer has not read enough, and what had been written then.
    stalled: Option<(Instant, u64)>,
    alarm: Option<SetAlarm>,
}

/// The one alarm of a connection.
struct SetAlarm {
    /// The instant that it is set for.
    at: Instant,
    /// Whom it wakes then; nobody before it is polled.
    wakes: Option<Waker>,
    alarm: Pin<Box<dyn Alarm>>,
}

/// The state of a connection at the end of a poll, as far as its deadlines depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    pub(super) now: Instant,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// The peer can send, and we would read it.
    pub(super) reading: bool,
    /// The peer can send, and we do not read.
    pub(super) paused: bool,
    /// A message has begun and is not complete.
    pub(super) partial: bool,
    /// Something waits to be written or flushed, or for the stream to shut down.
    pub(super) unsent: bool,
    /// Nothing is queued, in flight or half received.
    pub(super) idle: bool,
}

impl SetAlarm {
    fn set_for(&mut self, at: Instant) {
        self.at = at;
        self.wakes = None;
        self.alarm.as_mut().reset(at);
    }

    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        if self.alarm.as_mut().poll_due(cx).is_ready() {
            return true;
        }
        self.wakes = Some(cx.waker().clone());
        false
    }
}

impl Timing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            active: now,
            busy: false,
            heard: false,
            message: None,
            paused: Duration::ZERO,
            paused_since: None,
            stalled: None,
            alarm: None,
        }
    }

    /// Whole messages were received: the one that had begun is complete.
    pub(super) fn on_messages(&mut self) {
        self.heard = true;
        self.message = None;
    }

    /// The stream has taken all that there was to write: what comes next has its own time.
    pub(super) fn on_all_taken(&mut self) {
        self.stalled = None;
    }

    /// Something was received or sent.
    pub(super) fn on_activity(&mut self, now: Instant) {
        self.active = now;
    }

    /// Follow the state of the connection, and name the deadline that comes first.
    pub(super) fn next(
        &mut self,
        limits: &Limits,
        state: &Snapshot,
    ) -> Option<(Instant, Deadline)> {
        self.follow_pauses(state);
        self.follow_message(state);
        self.follow_writes(limits, state);
        if !state.idle {
            self.busy = true;
        } else if std::mem::take(&mut self.busy) {
            // It was busy until this poll, however long ago the last one was.
            self.active = state.now;
        }
        let mut next = None;
        let mut consider = |at: Option<Instant>, deadline| {
            if let Some(at) = at
                && next.is_none_or(|(earlier, _)| at < earlier)
            {
                next = Some((at, deadline));
            }
        };
        if state.reading {
            if !self.heard {
                let timeout = limits.first_message_timeout;
                let at = timeout.map(|timeout| self.opened + timeout + self.paused);
                consider(at, Deadline::FirstMessage);
            }
            if let (Some((begun, bytes)), Some(timeout)) = (self.message, limits.message_timeout) {
                let bought = (state.bytes_in - bytes) as f64 / f64::from(limits.min_receive_rate);
                let at = begun + timeout + self.paused + Duration::from_secs_f64(bought);
                consider(Some(at), Deadline::Message);
            }
        }
        if state.idle {
            let at = limits.idle_timeout.map(|timeout| self.active + timeout);
            consider(at, Deadline::Idle);
        }
        if let (Some((since, _)), Some(timeout)) = (self.stalled, limits.write_timeout) {
            consider(Some(since + timeout), Deadline::Write);
        }
        next
    }

    /// Have the task woken at `at`. Whether that instant has come already.
    ///
    /// The alarm is moved only to an earlier instant: one that is too early costs a wake at
    /// which it is set again, one wake per deadline instead of an adjustment per message.
    pub(super) fn arm(
        &mut self,
        clock: &dyn Clock,
        now: Instant,
        at: Instant,
        cx: &mut Context<'_>,
    ) -> bool {
        let set = self.alarm.get_or_insert_with(|| SetAlarm {
            at,
            wakes: None,
            alarm: clock.alarm(at),
        });
        if at < set.at {
            set.set_for(at);
        }
        // It is set and knows whom to wake: most polls end here.
        if now < set.at
            && set
                .wakes
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            return false;
        }
        if !set.is_due(cx) {
            return false;
        }
        if at <= clock.now() {
            return true;
        }
        set.set_for(at);
        set.is_due(cx)
    }

    /// The deadlines on the peer's input stand still while we do not read.
    fn follow_pauses(&mut self, state: &Snapshot) {
        match (state.paused, self.paused_since) {
            (true, None) => self.paused_since = Some(state.now),
            (false, Some(since)) => {
                self.paused += state.now - since;
                self.paused_since = None;
            }
            _ => {}
        }
    }

    fn follow_message(&mut self, state: &Snapshot) {
        if !state.partial {
            self.message = None;
        } else if self.message.is_none() {
            self.message = Some((state.now - self.paused, state.bytes_in));
        }
    }

    fn follow_writes(&mut self, limits: &Limits, state: &Snapshot) {
        let progress = limits.min_write_progress as u64;
        match self.stalled {
            _ if !state.unsent => self.stalled = None,
            Some((_, written)) if state.bytes_out - written < progress => {}
            _ => self.stalled = Some((state.now, state.bytes_out)),
        }
    }
}
