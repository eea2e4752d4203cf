//! A reactor that does, at times that the seed decides, everything that a reactor may do.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protosocket::{
    CloseReason, ConnectionStats, DecodeError, InputPolicy, MessageReactor, ReactorContext,
    ReactorStatus, SendError, Sender, TrySendError, WeakSender,
};
use protosocket_testkit::{
    Random,
    simulation::{SimulationHandle, Sleep},
};

use crate::codec::{Kind, Message, Numbered, Origin, Panics, SharedLedger};

/// What a reactor does of its own accord.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    pub(crate) policy: InputPolicy,
    /// Of a thousand requests, so many are answered at once; of the others half through the
    /// channel and half out of the reactor's own queue.
    pub(crate) at_once: u32,
    /// How long a queued answer takes.
    pub(crate) delay: Duration,
    /// It takes no message while so many requests wait in its queue.
    pub(crate) max_pending: usize,
    /// Of a thousand notes, so many are acknowledged.
    pub(crate) acknowledges: u32,
    /// It takes no message for a while after so many.
    pub(crate) pause: Option<(u32, Duration)>,
    /// It is its own `poll` that ends a pause, and not the waker of the one who asked.
    pub(crate) resumes_in_poll: bool,
    /// Notes that it sends by itself, and how often.
    pub(crate) notes: (u32, Duration),
    /// What it answers to the n-th message, instead of `Continue`.
    pub(crate) status: Option<(u32, ReactorStatus)>,
    pub(crate) on_end_of_input: ReactorStatus,
    pub(crate) on_drain: ReactorStatus,
    pub(crate) goodbye: bool,
    /// Queued answers are sent when the connection ends in order.
    pub(crate) sends_rest: bool,
    /// Requests of its own that are not answered keep the connection.
    pub(crate) awaits: bool,
    pub(crate) max_size: usize,
}

/// What the test sees of a reactor.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Requests that were taken and wait in the reactor.
    pub(crate) pending: VecDeque<(Instant, Origin, u32)>,
    /// Requests that were sent and not answered.
    pub(crate) awaited: BTreeSet<(Origin, u32)>,
    pub(crate) requests: u64,
    /// Answers that were accepted.
    pub(crate) answers: u64,
    /// Requests that it gave up, because it can send no more.
    pub(crate) given_up: u64,
    pub(crate) refused: u64,
    pub(crate) end_of_input: bool,
    pub(crate) decode_errors: u32,
    pub(crate) drained: Option<Instant>,
    pub(crate) finished: bool,
    pub(crate) said: Option<ReactorStatus>,
    pub(crate) ends: Vec<(&'static str, ConnectionStats)>,
    pub(crate) ended_at: Option<Instant>,
    /// When it was given its last message.
    pub(crate) heard_at: Option<Instant>,
    /// When it last gave the connection a message to send.
    pub(crate) spoke_at: Option<Instant>,
    /// When it was told of the end of the input.
    pub(crate) input_ended_at: Option<Instant>,
    /// How it was when it was asked for last words: the connection has just decided to end.
    pub(crate) decided: Option<Decided>,
    /// Notes that it is still going to send.
    pub(crate) notes_left: u32,
    /// No pauses, no notes, no ends of its own: the network is whole, and so is the peer.
    pub(crate) calm: bool,
}

/// What was true of a reactor at the moment at which its connection decided to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decided {
    pub(crate) at: Instant,
    pub(crate) heard_at: Option<Instant>,
    pub(crate) spoke_at: Option<Instant>,
    pub(crate) in_flight: usize,
}

/// A way for a reactor into its own connection, if it keeps one.
pub(crate) type OwnSender = Rc<RefCell<Option<WeakSender<Message>>>>;

pub(crate) struct Peer {
    pub(crate) habits: Habits,
    pub(crate) simulation: SimulationHandle,
    pub(crate) random: Random,
    pub(crate) said: SharedLedger,
    pub(crate) heard: SharedLedger,
    pub(crate) seen: Rc<RefCell<Seen>>,
    pub(crate) panics: Rc<RefCell<Panics>>,
    pub(crate) own: OwnSender,
    received: u32,
    pause: Option<Sleep>,
    /// When the first answer in the queue, or the next note, is due.
    due: Option<(Instant, Sleep)>,
    next_note: Instant,
}

impl Peer {
    pub(crate) fn new(
        habits: Habits,
        simulation: SimulationHandle,
        random: Random,
        ledgers: (SharedLedger, SharedLedger),
        panics: Rc<RefCell<Panics>>,
    ) -> Self {
        let (said, heard) = ledgers;
        let notes = habits.notes.0;
        Self {
            next_note: simulation.now() + habits.notes.1,
            habits,
            simulation,
            random,
            said,
            heard,
            seen: Rc::new(RefCell::new(Seen {
                pending: VecDeque::new(),
                awaited: BTreeSet::new(),
                requests: 0,
                answers: 0,
                given_up: 0,
                refused: 0,
                end_of_input: false,
                decode_errors: 0,
                drained: None,
                finished: false,
                said: None,
                ends: Vec::new(),
                ended_at: None,
                heard_at: None,
                spoke_at: None,
                input_ended_at: None,
                decided: None,
                notes_left: notes,
                calm: false,
            })),
            panics,
            own: Rc::default(),
            received: 0,
            pause: None,
            due: None,
        }
    }

    fn upgrade(&self) -> Option<Sender<Message>> {
        self.own.borrow().as_ref().and_then(WeakSender::upgrade)
    }

    fn message(&mut self, origin: Origin, kind: Kind) -> Message {
        // The reserve is for acknowledgements, which are small.
        let most = match kind {
            Kind::Acknowledgement => 1,
            _ => *self.random.one_of(&[1, 2, 100, self.habits.max_size + 1]),
        };
        Message {
            origin,
            number: self.said.borrow().next(origin),
            kind,
            size: self.random.below(most),
        }
    }

    /// Send something of the reactor's own. Whether it was accepted.
    fn send(
        &mut self,
        context: &mut ReactorContext<'_, Numbered>,
        origin: Origin,
        kind: Kind,
        control: bool,
    ) -> Result<(), SendError<Message>> {
        let message = self.message(origin, kind);
        self.seen.borrow_mut().spoke_at = Some(context.now());
        let sent = match control {
            true => context.send_control(message),
            false => context.send(message),
        };
        match &sent {
            Ok(()) => self.said.borrow_mut().accept(origin),
            Err(SendError::Full(_) | SendError::Finished(_)) => self.seen.borrow_mut().refused += 1,
            Err(SendError::Encode(_)) => {}
        }
        sent
    }

    fn on_request(
        &mut self,
        context: &mut ReactorContext<'_, Numbered>,
        origin: Origin,
        number: u32,
    ) {
        self.seen.borrow_mut().requests += 1;
        let response = Kind::Response(origin, number);
        if self.seen.borrow().finished {
            self.seen.borrow_mut().given_up += 1;
            return;
        }
        if self.random.per_mille(self.habits.at_once) {
            match self.send(context, Origin::Context, response, false) {
                Ok(()) => {
                    self.seen.borrow_mut().answers += 1;
                    return;
                }
                Err(error) if self.habits.policy == InputPolicy::Answering => {
                    let mut said = self.said.borrow_mut();
                    said.accuse(format!("there was no room for one answer: {error}"));
                }
                Err(_) => {}
            }
        } else if self.random.per_mille(500)
            && let Some(sender) = self.upgrade()
        {
            let message = self.message(Origin::Reply, response);
            match sender.try_send(message) {
                Ok(()) => {
                    self.said.borrow_mut().accept(Origin::Reply);
                    self.seen.borrow_mut().answers += 1;
                    return;
                }
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {}
            }
        }
        let at = context.now() + self.habits.delay;
        let mut seen = self.seen.borrow_mut();
        seen.pending.push_back((at, origin, number));
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            if Pin::new(pause).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn on_note(&mut self, context: &mut ReactorContext<'_, Numbered>) {
        if self.seen.borrow().finished || !self.random.per_mille(self.habits.acknowledges) {
            return;
        }
        if let Err(error) = self.send(context, Origin::Control, Kind::Acknowledgement, true) {
            let mut said = self.said.borrow_mut();
            said.accuse(format!(
                "there was no room for one acknowledgement: {error}"
            ));
        }
    }

    /// The output is at its end: what waits will never be answered.
    fn finish(&mut self) {
        let mut seen = self.seen.borrow_mut();
        seen.finished = true;
        seen.given_up += seen.pending.len() as u64;
        seen.pending.clear();
        seen.notes_left = 0;
    }

    /// Keep how everything is, unless that was done.
    fn decide(&mut self, now: Instant) {
        let in_flight = self.in_flight();
        let mut seen = self.seen.borrow_mut();
        if seen.decided.is_none() {
            seen.decided = Some(Decided {
                at: now,
                heard_at: seen.heard_at,
                spoke_at: seen.spoke_at,
                in_flight,
            });
        }
    }

    /// Send the first answer in the queue. Whether there was one that could be sent.
    fn send_pending(&mut self, context: &mut ReactorContext<'_, Numbered>) -> bool {
        let first = self.seen.borrow().pending.front().copied();
        let Some((_, origin, number)) = first else {
            return false;
        };
        let response = Kind::Response(origin, number);
        if self.send(context, Origin::Queue, response, false).is_err() {
            self.said
                .borrow_mut()
                .accuse("there was room, and it was refused");
            return false;
        }
        let mut seen = self.seen.borrow_mut();
        seen.pending.pop_front();
        seen.answers += 1;
        true
    }
}

impl MessageReactor for Peer {
    type Codec = Numbered;
    type Inbound = Message;
    type Outbound = Message;
    type LogicalOutbound = Message;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Numbered>,
        message: Message,
    ) -> ReactorStatus {
        self.received += 1;
        self.seen.borrow_mut().heard_at = Some(context.now());
        let calm = self.seen.borrow().calm;
        if !calm {
            self.panics
                .borrow_mut()
                .count_down(|panics| &mut panics.in_reactor);
            if let Some((every, time)) = self.habits.pause
                && self.received.is_multiple_of(every)
            {
                self.pause = Some(self.simulation.sleep(time));
            }
        }
        match message.kind {
            Kind::Request => self.on_request(context, message.origin, message.number),
            Kind::Response(origin, number) => {
                let was = self.seen.borrow_mut().awaited.remove(&(origin, number));
                if !was {
                    let mut heard = self.heard.borrow_mut();
                    heard.accuse(format!("{message:?} answers what was not asked, or twice"));
                }
            }
            Kind::Note => self.on_note(context),
            _ => {}
        }
        match self.habits.status {
            Some((at, status)) if at == self.received && !calm => {
                if self.random.per_mille(300) && !self.seen.borrow().finished {
                    // A message that is complete without a byte, as the last of all.
                    let _ = self.send(context, Origin::Context, Kind::Silent, true);
                }
                self.seen.borrow_mut().said = Some(status);
                if status == ReactorStatus::Finish {
                    self.finish();
                }
                status
            }
            _ => ReactorStatus::Continue,
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Numbered>,
        message: Message,
    ) -> Result<(), SendError<Message>> {
        let (origin, number, kind) = (message.origin, message.number, message.kind);
        self.seen.borrow_mut().spoke_at = Some(context.now());
        context.send(message)?;
        if kind == Kind::Request {
            let mut seen = self.seen.borrow_mut();
            if !seen.end_of_input {
                seen.awaited.insert((origin, number));
            }
        }
        Ok(())
    }

    fn poll_outbound_many(
        &mut self,
        cx: &mut Context<'_>,
        context: &mut ReactorContext<'_, Numbered>,
    ) -> Poll<Option<()>> {
        let now = context.now();
        let mut sent = false;
        loop {
            let first = self.seen.borrow().pending.front().map(|pending| pending.0);
            let note = (self.seen.borrow().notes_left > 0).then_some(self.next_note);
            let Some(at) = [first, note].into_iter().flatten().min() else {
                break;
            };
            if at > now {
                if self.due.as_ref().is_none_or(|due| due.0 != at) {
                    self.due = Some((at, self.simulation.sleep_until(at)));
                }
                let due = self.due.as_mut().expect("it was set above");
                if Pin::new(&mut due.1).poll(cx).is_pending() {
                    break;
                }
                continue;
            }
            if context.room().is_empty() {
                break;
            }
            if first == Some(at) {
                sent |= self.send_pending(context);
            } else {
                let sending = self.send(context, Origin::Queue, Kind::Note, false);
                sent |= sending.is_ok();
                self.seen.borrow_mut().notes_left -= 1;
                self.next_note = now + self.habits.notes.1;
            }
        }
        let seen = self.seen.borrow();
        let more = seen.notes_left > 0 || !seen.pending.is_empty();
        match (sent, more) {
            (true, _) => Poll::Ready(Some(())),
            (false, true) => Poll::Pending,
            (false, false) => Poll::Ready(None),
        }
    }

    fn send_rest(
        &mut self,
        context: &mut ReactorContext<'_, Numbered>,
        _reason: &CloseReason,
    ) -> bool {
        self.decide(context.now());
        self.habits.sends_rest && self.send_pending(context)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _context: &mut ReactorContext<'_, Numbered>,
    ) -> ReactorStatus {
        if self.habits.resumes_in_poll {
            let _ = self.poll_pause(cx);
        }
        ReactorStatus::Continue
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let paused = match self.habits.resumes_in_poll {
            true => self.pause.is_some(),
            false => self.poll_pause(cx).is_pending(),
        };
        if paused {
            return Poll::Pending;
        }
        // What makes it ready again is its own queue, which is looked at in the same poll.
        match self.seen.borrow().pending.len() < self.habits.max_pending {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn in_flight(&self) -> usize {
        let seen = self.seen.borrow();
        let awaited = if self.habits.awaits {
            seen.awaited.len()
        } else {
            0
        };
        seen.pending.len() + awaited
    }

    fn input_policy(&self) -> InputPolicy {
        self.habits.policy
    }

    fn on_end_of_input(&mut self, context: &mut ReactorContext<'_, Numbered>) -> ReactorStatus {
        let mut seen = self.seen.borrow_mut();
        seen.input_ended_at = Some(context.now());
        if std::mem::replace(&mut seen.end_of_input, true) {
            self.heard.borrow_mut().accuse("the input ended twice");
        }
        // Nobody will answer them.
        seen.awaited.clear();
        if self.habits.on_end_of_input != ReactorStatus::Continue {
            seen.said = Some(self.habits.on_end_of_input);
        }
        self.habits.on_end_of_input
    }

    fn on_decode_error(&mut self, _: &mut ReactorContext<'_, Numbered>, error: &DecodeError) {
        self.seen.borrow_mut().decode_errors += 1;
        let violation = format!("it could not be decoded: {error}");
        self.heard.borrow_mut().accuse(violation);
    }

    fn on_drain(
        &mut self,
        context: &mut ReactorContext<'_, Numbered>,
        deadline: Instant,
    ) -> ReactorStatus {
        if self.seen.borrow_mut().drained.replace(deadline).is_some() {
            self.said.borrow_mut().accuse("it was drained twice");
        }
        self.seen.borrow_mut().notes_left = 0;
        if self.habits.goodbye && !self.seen.borrow().finished && context.has_control_room() {
            let sent = self.send(context, Origin::Control, Kind::Note, true);
            if let Err(error) = sent {
                let violation = format!("there was room for a goodbye, and {error}");
                self.said.borrow_mut().accuse(violation);
            }
        }
        if self.habits.on_drain != ReactorStatus::Continue {
            self.seen.borrow_mut().said = Some(self.habits.on_drain);
        }
        self.habits.on_drain
    }

    fn on_end(&mut self, reason: &CloseReason, stats: &ConnectionStats) {
        // Whoever is not asked for last words ends at once.
        self.decide(self.simulation.now());
        let mut seen = self.seen.borrow_mut();
        seen.ends.push((reason.name(), *stats));
        seen.ended_at = Some(self.simulation.now());
    }
}
