//! A reactor that does what it is told, writes down what it is given, and objects to what a
//! connection must not do to it.

use std::{
    cell::{RefCell, RefMut},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use protosocket::{
    CloseReason, ConnectionStats, DecodeError, InputPolicy, MessageReactor, ReactorContext,
    ReactorStatus, Room, SendError,
};

use super::wire::{Outgoing, Shape, Wire};

/// Calls between two events, at most: more of them are a loop.
const MOST_CALLS: usize = 3_000_000;

/// What it has to say in all, in bytes; all further messages are small ones.
const MOST_OUTPUT: usize = 128 * 1024;

/// What a message that came through the channel asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logical {
    /// Which sender sent it.
    pub(super) line: usize,
    /// The first of the messages that it becomes.
    pub(super) first: Outgoing,
    /// How many it becomes.
    pub(super) copies: u32,
}

/// How each message is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) copies: u32,
    pub(super) shape: Shape,
    pub(super) control: bool,
    /// A reply that cannot be sent ends the connection.
    pub(super) strict: bool,
}

/// What the reactor does, and what was done to it.
pub(super) struct State {
    // What it does.
    pub(super) answer: Answer,
    /// Answered to a message once so many have come.
    pub(super) next_status: Option<(usize, ReactorStatus)>,
    pub(super) poll_status: ReactorStatus,
    pub(super) ready: bool,
    pub(super) wants_outbound: bool,
    /// Takes messages from the channel without room, into a queue of its own.
    pub(super) greedy: bool,
    pub(super) in_flight: usize,
    pub(super) policy: InputPolicy,
    pub(super) deadline: Option<Instant>,
    pub(super) produce: VecDeque<Shape>,
    pub(super) produces: bool,
    pub(super) rest: VecDeque<Shape>,
    pub(super) goodbye: Option<Shape>,
    pub(super) error_reply: Option<Shape>,
    pub(super) on_end_of_input: ReactorStatus,
    pub(super) on_drain: ReactorStatus,
    ready_waker: Option<Waker>,
    poll_waker: Option<Waker>,
    produce_waker: Option<Waker>,

    // What was done to it.
    pub(super) calls: usize,
    pub(super) received: Vec<Bytes>,
    /// By sender, what was accepted and not delivered.
    pub(super) accepted: Vec<VecDeque<u32>>,
    pub(super) queue: VecDeque<Outgoing>,
    pub(super) next_number: u32,
    /// What the wire must carry, in this order.
    pub(super) expected: Vec<u8>,
    /// Where in that each message ends.
    pub(super) boundaries: Vec<usize>,
    pub(super) most_output: usize,
    pub(super) encoded: u64,
    pub(super) empty: u64,
    pub(super) largest: usize,
    pub(super) refused: u64,
    /// Messages of the channel that could not be delivered.
    pub(super) undelivered: u64,
    pub(super) ends_of_input: usize,
    pub(super) drains: usize,
    pub(super) decode_errors: Vec<&'static str>,
    pub(super) ends: Vec<(&'static str, ConnectionStats)>,
    /// It has answered what ends the input.
    pub(super) closed: Option<ReactorStatus>,
    /// A reply could not be sent, for this reason.
    pub(super) failed_reply: Option<&'static str>,
    /// A message of the channel could not be delivered, for this reason.
    pub(super) failed_delivery: Option<&'static str>,
    /// When it was asked last whether it wants messages of the channel, it said so.
    pub(super) wanted: bool,
    pub(super) is_closing: bool,
}

/// The hold on a [`Subject`] from outside.
#[derive(Clone)]
pub(super) struct Hold(Rc<RefCell<State>>);

impl Hold {
    pub(super) fn new() -> Self {
        Self(Rc::new(RefCell::new(State {
            answer: Answer {
                copies: 0,
                shape: Shape::Payload(0),
                control: false,
                strict: false,
            },
            next_status: None,
            poll_status: ReactorStatus::Continue,
            ready: true,
            wants_outbound: true,
            greedy: false,
            in_flight: 0,
            policy: InputPolicy::Answering,
            deadline: None,
            produce: VecDeque::new(),
            produces: false,
            rest: VecDeque::new(),
            goodbye: None,
            error_reply: None,
            on_end_of_input: ReactorStatus::Continue,
            on_drain: ReactorStatus::Continue,
            ready_waker: None,
            poll_waker: None,
            produce_waker: None,
            calls: 0,
            received: Vec::new(),
            accepted: Vec::new(),
            queue: VecDeque::new(),
            next_number: 0,
            expected: Vec::new(),
            boundaries: Vec::new(),
            most_output: MOST_OUTPUT,
            encoded: 0,
            empty: 0,
            largest: 0,
            refused: 0,
            undelivered: 0,
            ends_of_input: 0,
            drains: 0,
            decode_errors: Vec::new(),
            ends: Vec::new(),
            closed: None,
            failed_reply: None,
            failed_delivery: None,
            wanted: true,
            is_closing: false,
        })))
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    pub(super) fn subject(&self) -> Subject {
        Subject(self.0.clone())
    }

    /// Change what only the reactor's own futures depend on, and wake as they would.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let woken = state.poll_waker.take();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Change what it produces.
    pub(super) fn change_output(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let woken = state.produce_waker.take();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    pub(super) fn set_ready(&self, ready: bool) {
        let mut state = self.state();
        state.ready = ready;
        let woken = ready.then(|| state.ready_waker.take()).flatten();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

type Reacting<'a> = ReactorContext<'a, Wire>;

impl State {
    fn note_call(&mut self) {
        self.calls += 1;
        assert!(
            self.calls < MOST_CALLS,
            "the connection does not come to rest"
        );
        assert!(self.ends.is_empty(), "called after its end");
    }

    pub(super) fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }

    fn send(
        &mut self,
        context: &mut Reacting<'_>,
        mut message: Outgoing,
        control: bool,
    ) -> Result<(), SendError<Outgoing>> {
        if let Shape::Payload(size) = &mut message.shape
            && self.expected.len() > self.most_output
        {
            *size = (*size).min(4);
        }
        let sent = match control {
            true => context.send_control(message),
            false => context.send(message),
        };
        match &sent {
            Ok(()) => {
                self.encoded += 1;
                self.empty += u64::from(message.shape == Shape::Empty);
                self.largest = self.largest.max(message.size());
                if message.size() > 0 {
                    message.append_to(&mut self.expected);
                    self.boundaries.push(self.expected.len());
                }
            }
            Err(SendError::Full(_) | SendError::Finished(_)) => self.refused += 1,
            Err(SendError::Encode(_)) => {
                assert!(matches!(message.shape, Shape::Unencodable(_)));
            }
        }
        sent
    }

    /// Send what there must be room for.
    fn send_within_room(&mut self, context: &mut Reacting<'_>, shape: Shape) {
        assert!(!context.room().is_empty(), "called without room");
        let number = self.number();
        let sent = self.send(context, Outgoing { number, shape }, false);
        assert!(!matches!(sent, Err(SendError::Full(_))), "there was room");
    }

    fn answer(&mut self, context: &mut Reacting<'_>) -> ReactorStatus {
        let Answer {
            copies,
            shape,
            control,
            strict,
        } = self.answer;
        for copy in 0..copies {
            let number = self.number();
            let has_failed = context.refused() > 0;
            match self.send(context, Outgoing { number, shape }, control) {
                Err(SendError::Full(_))
                    if copy == 0 && self.policy == InputPolicy::Answering && !has_failed =>
                {
                    panic!("there is always room for one reply");
                }
                Err(error) if strict => {
                    self.failed_reply = Some(name_of(&error));
                    return context.fail(error);
                }
                _ => {}
            }
        }
        ReactorStatus::Continue
    }

    /// Take note of what it answers.
    fn says(&mut self, status: ReactorStatus) -> ReactorStatus {
        match status {
            ReactorStatus::Continue | ReactorStatus::Finish => {}
            _ => self.closed = self.closed.or(Some(status)),
        }
        status
    }

    fn send_queued(&mut self, context: &mut Reacting<'_>) -> bool {
        let mut sent = false;
        while !context.room().is_empty()
            && let Some(message) = self.queue.pop_front()
        {
            let outcome = self.send(context, message, false);
            assert!(
                !matches!(outcome, Err(SendError::Full(_))),
                "there was room"
            );
            sent = true;
        }
        sent
    }
}

fn name_of(error: &SendError<Outgoing>) -> &'static str {
    match error {
        SendError::Full(_) => "send_buffer_full",
        SendError::Finished(_) => "output_finished",
        SendError::Encode(_) => "encode",
    }
}

/// The reactor.
pub(super) struct Subject(Rc<RefCell<State>>);

impl MessageReactor for Subject {
    type Codec = Wire;
    type Inbound = Bytes;
    type Outbound = Outgoing;
    type LogicalOutbound = Logical;

    fn on_inbound_message(&mut self, context: &mut Reacting<'_>, message: Bytes) -> ReactorStatus {
        let mut state = self.0.borrow_mut();
        state.note_call();
        assert!(state.ready, "given a message while it is not ready");
        assert!(state.closed.is_none(), "given a message after it closed");
        assert_eq!(state.ends_of_input, 0, "given a message after the end");
        assert!(state.decode_errors.is_empty(), "a message after an error");
        state.received.push(message);
        let status = state.answer(context);
        if status != ReactorStatus::Continue {
            return state.says(status);
        }
        match state.next_status {
            Some((count, status)) if state.received.len() >= count => {
                state.next_status = None;
                state.says(status)
            }
            _ => ReactorStatus::Continue,
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut Reacting<'_>,
        message: Logical,
    ) -> Result<(), SendError<Outgoing>> {
        let mut state = self.0.borrow_mut();
        state.note_call();
        let expected = state.accepted[message.line].pop_front();
        assert_eq!(
            expected,
            Some(message.first.number),
            "out of order, or never accepted"
        );
        if state.greedy {
            state.queue.push_back(message.first);
            if let Some(waker) = state.produce_waker.take() {
                waker.wake();
            }
            return Ok(());
        }
        for copy in 0..message.copies {
            let mut wire = message.first;
            if copy > 0 {
                wire.number = state.number();
            }
            let sent = state.send(context, wire, copy > 0);
            if let Err(error) = sent
                && copy == 0
            {
                state.undelivered += 1;
                state.failed_delivery = Some(name_of(&error));
                return Err(error);
            }
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>, _context: &mut Reacting<'_>) -> ReactorStatus {
        let mut state = self.0.borrow_mut();
        state.note_call();
        state.poll_waker = Some(cx.waker().clone());
        let status = std::mem::replace(&mut state.poll_status, ReactorStatus::Continue);
        state.says(status)
    }

    fn poll_outbound_many(
        &mut self,
        cx: &mut Context<'_>,
        context: &mut Reacting<'_>,
    ) -> Poll<Option<()>> {
        let mut state = self.0.borrow_mut();
        state.note_call();
        assert!(!context.room().is_empty(), "called without room");
        let mut produced = state.send_queued(context);
        while !context.room().is_empty()
            && let Some(shape) = state.produce.pop_front()
        {
            state.send_within_room(context, shape);
            produced = true;
        }
        if produced {
            return Poll::Ready(Some(()));
        }
        state.produce_waker = Some(cx.waker().clone());
        match state.produces {
            true => Poll::Pending,
            false => Poll::Ready(None),
        }
    }

    fn send_rest(&mut self, context: &mut Reacting<'_>, _reason: &CloseReason) -> bool {
        let mut state = self.0.borrow_mut();
        state.note_call();
        state.is_closing = true;
        if state.send_queued(context) {
            return true;
        }
        let Some(shape) = state.rest.pop_front() else {
            return false;
        };
        state.send_within_room(context, shape);
        true
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        state.note_call();
        if state.ready {
            return Poll::Ready(());
        }
        state.ready_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn wants_outbound(&self, room: Room) -> bool {
        let mut state = self.0.borrow_mut();
        state.note_call();
        let wants = match state.greedy {
            true => state.queue.len() < 4,
            false => state.wants_outbound && !room.is_empty(),
        };
        state.wanted = wants;
        wants
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.borrow().deadline
    }

    fn on_deadline(&mut self, context: &mut Reacting<'_>) -> ReactorStatus {
        let mut state = self.0.borrow_mut();
        state.note_call();
        let deadline = state.deadline.take();
        assert!(deadline.is_some_and(|at| at <= context.now()), "too early");
        ReactorStatus::Continue
    }

    fn in_flight(&self) -> usize {
        let state = self.0.borrow();
        state.in_flight + state.queue.len()
    }

    fn input_policy(&self) -> InputPolicy {
        self.0.borrow().policy
    }

    fn on_end_of_input(&mut self, _context: &mut Reacting<'_>) -> ReactorStatus {
        let mut state = self.0.borrow_mut();
        state.note_call();
        state.ends_of_input += 1;
        assert_eq!(state.ends_of_input, 1, "it ended twice");
        let status = state.on_end_of_input;
        state.says(status)
    }

    fn on_decode_error(&mut self, context: &mut Reacting<'_>, error: &DecodeError) {
        let mut state = self.0.borrow_mut();
        state.note_call();
        state.decode_errors.push(error.name());
        assert_eq!(state.decode_errors.len(), 1, "told twice");
        if let Some(shape) = state.error_reply.take() {
            let number = state.number();
            let _ = state.send(context, Outgoing { number, shape }, true);
        }
    }

    fn on_drain(&mut self, context: &mut Reacting<'_>, _deadline: Instant) -> ReactorStatus {
        let mut state = self.0.borrow_mut();
        state.note_call();
        state.drains += 1;
        assert_eq!(state.drains, 1, "drained twice");
        if let Some(shape) = state.goodbye.take() {
            let number = state.number();
            let _ = state.send(context, Outgoing { number, shape }, true);
        }
        let status = state.on_drain;
        state.says(status)
    }

    fn on_end(&mut self, reason: &CloseReason, stats: &ConnectionStats) {
        self.0.borrow_mut().ends.push((reason.name(), *stats));
    }
}
