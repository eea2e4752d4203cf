//! A reactor that does what a test tells it to, and remembers what was done to it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Instant,
};

use protosocket::{
    CloseReason, Codec, ConnectionStats, DecodeError, Decoder, Encoder, InputPolicy,
    MessageReactor, ReactorContext, ReactorStatus, Room, SendError,
};

/// What a codec decodes.
pub type Inbound<C> = <C as Decoder>::Message;
/// What a codec encodes.
pub type Outbound<C> = <C as Encoder>::Message;

/// What is done with each message.
pub type Answer<C> = Box<dyn FnMut(&mut ReactorContext<'_, C>, Inbound<C>) -> ReactorStatus>;

/// The reactor.
pub struct Probe<C: Codec> {
    answer: Answer<C>,
    knobs: Knobs<C>,
}

/// The test's hold on a [`Probe`]. Every setter wakes as a good reactor would: whoever registered
/// for that very change, and nobody else.
pub struct Knobs<C: Codec>(Arc<Mutex<ProbeState<C>>>);

/// What a [`Probe`] does, and what was done to it.
pub struct ProbeState<C: Codec> {
    ready: bool,
    ready_waker: Option<Waker>,
    wants_outbound: bool,
    in_flight: usize,
    policy: InputPolicy,
    deadline: Option<Instant>,
    poll_waker: Option<Waker>,
    poll_status: ReactorStatus,
    produce: VecDeque<Outbound<C>>,
    /// The producer may still produce.
    produces: bool,
    produce_waker: Option<Waker>,

    /// What is sent when the connection ends in order.
    pub rest: VecDeque<Outbound<C>>,
    /// What is sent when the input cannot be decoded.
    pub error_reply: Option<Outbound<C>>,
    /// What is sent when the connection is drained.
    pub goodbye: Option<Outbound<C>>,
    /// The answer to the end of input.
    pub on_end_of_input: ReactorStatus,
    /// The answer to a drain.
    pub on_drain: ReactorStatus,

    /// Every message, in order.
    pub received: Vec<Inbound<C>>,
    /// How often the input ended.
    pub ends_of_input: usize,
    /// How often it was drained.
    pub drains: usize,
    /// How often its deadline came.
    pub deadlines: usize,
    /// Every error of the decoder.
    pub decode_errors: Vec<String>,
    /// The reason of each end that the reactor was told, and what was done until then.
    pub ends: Vec<(&'static str, ConnectionStats)>,
}

impl<C: Codec> Probe<C> {
    /// A reactor that answers as told, and the test's hold on it.
    pub fn new(answer: Answer<C>) -> (Self, Knobs<C>) {
        let knobs = Knobs(Arc::new(Mutex::new(ProbeState {
            ready: true,
            ready_waker: None,
            wants_outbound: true,
            in_flight: 0,
            policy: InputPolicy::Answering,
            deadline: None,
            poll_waker: None,
            poll_status: ReactorStatus::Continue,
            produce: VecDeque::new(),
            produces: false,
            produce_waker: None,
            rest: VecDeque::new(),
            error_reply: None,
            goodbye: None,
            on_end_of_input: ReactorStatus::Continue,
            on_drain: ReactorStatus::Continue,
            received: Vec::new(),
            ends_of_input: 0,
            drains: 0,
            deadlines: 0,
            decode_errors: Vec::new(),
            ends: Vec::new(),
        })));
        let probe = Self {
            answer,
            knobs: knobs.clone(),
        };
        (probe, knobs)
    }
}

impl<C: Codec> Clone for Knobs<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<C: Codec> Knobs<C> {
    /// Look at what it saw, or change what it does without waking anybody.
    pub fn lock(&self) -> MutexGuard<'_, ProbeState<C>> {
        self.0.lock().expect("no code that panics runs under it")
    }

    /// Take messages, or do not.
    pub fn set_ready(&self, ready: bool) {
        let mut state = self.lock();
        state.ready = ready;
        let waker = ready.then(|| state.ready_waker.take()).flatten();
        drop(state);
        wake(waker);
    }

    /// Take messages from the channel, or do not.
    pub fn set_wants_outbound(&self, wants: bool) {
        self.change(|state| state.wants_outbound = wants);
    }

    /// Requests that it claims to have in flight.
    pub fn set_in_flight(&self, requests: usize) {
        self.change(|state| state.in_flight = requests);
    }

    /// How outbound back-pressure acts on its input.
    pub fn set_policy(&self, policy: InputPolicy) {
        self.lock().policy = policy;
    }

    /// When it wants to be called.
    pub fn set_deadline(&self, at: Option<Instant>) {
        self.lock().deadline = at;
    }

    /// Answer this to the next poll.
    pub fn set_status(&self, status: ReactorStatus) {
        self.change(|state| state.poll_status = status);
    }

    /// Keep the connection open for what may still be produced.
    pub fn set_produces(&self, produces: bool) {
        let mut state = self.lock();
        state.produces = produces;
        let waker = state.produce_waker.take();
        drop(state);
        wake(waker);
    }

    /// Produce these by itself.
    pub fn produce(&self, messages: impl IntoIterator<Item = Outbound<C>>) {
        let mut state = self.lock();
        state.produce.extend(messages);
        let waker = state.produce_waker.take();
        drop(state);
        wake(waker);
    }

    /// What waits to be produced.
    pub fn unproduced(&self) -> usize {
        self.lock().produce.len()
    }

    /// How many messages it has received.
    pub fn received(&self) -> usize {
        self.lock().received.len()
    }

    /// Change what the reactor's own futures depend on.
    fn change(&self, change: impl FnOnce(&mut ProbeState<C>)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.poll_waker.take();
        drop(state);
        wake(waker);
    }
}

impl<C: Codec + 'static> MessageReactor for Probe<C>
where
    Inbound<C>: Clone,
{
    type Codec = C;
    type Inbound = Inbound<C>;
    type Outbound = Outbound<C>;
    type LogicalOutbound = Outbound<C>;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, C>,
        message: Inbound<C>,
    ) -> ReactorStatus {
        self.knobs.lock().received.push(message.clone());
        (self.answer)(context, message)
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, C>,
        message: Outbound<C>,
    ) -> Result<(), SendError<Outbound<C>>> {
        context.send(message)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _context: &mut ReactorContext<'_, C>,
    ) -> ReactorStatus {
        let mut state = self.knobs.lock();
        state.poll_waker = Some(cx.waker().clone());
        std::mem::replace(&mut state.poll_status, ReactorStatus::Continue)
    }

    fn poll_outbound_many(
        &mut self,
        cx: &mut Context<'_>,
        context: &mut ReactorContext<'_, C>,
    ) -> Poll<Option<()>> {
        let mut state = self.knobs.lock();
        let mut produced = false;
        while !context.room().is_empty()
            && let Some(message) = state.produce.pop_front()
        {
            assert!(context.send(message).is_ok(), "there was room");
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

    fn send_rest(&mut self, context: &mut ReactorContext<'_, C>, _reason: &CloseReason) -> bool {
        let Some(message) = self.knobs.lock().rest.pop_front() else {
            return false;
        };
        assert!(context.send(message).is_ok(), "there was room");
        true
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.knobs.lock();
        if state.ready {
            return Poll::Ready(());
        }
        state.ready_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn wants_outbound(&self, room: Room) -> bool {
        self.knobs.lock().wants_outbound && !room.is_empty()
    }

    fn deadline(&self) -> Option<Instant> {
        self.knobs.lock().deadline
    }

    fn on_deadline(&mut self, _context: &mut ReactorContext<'_, C>) -> ReactorStatus {
        let mut state = self.knobs.lock();
        state.deadlines += 1;
        state.deadline = None;
        ReactorStatus::Continue
    }

    fn in_flight(&self) -> usize {
        self.knobs.lock().in_flight
    }

    fn input_policy(&self) -> InputPolicy {
        self.knobs.lock().policy
    }

    fn on_end_of_input(&mut self, _context: &mut ReactorContext<'_, C>) -> ReactorStatus {
        let mut state = self.knobs.lock();
        state.ends_of_input += 1;
        state.on_end_of_input
    }

    fn on_decode_error(&mut self, context: &mut ReactorContext<'_, C>, error: &DecodeError) {
        let mut state = self.knobs.lock();
        state.decode_errors.push(error.to_string());
        if let Some(reply) = state.error_reply.take() {
            assert!(context.send_control(reply).is_ok(), "there is a reserve");
        }
    }

    fn on_drain(
        &mut self,
        context: &mut ReactorContext<'_, C>,
        _deadline: Instant,
    ) -> ReactorStatus {
        let mut state = self.knobs.lock();
        state.drains += 1;
        if let Some(goodbye) = state.goodbye.take() {
            assert!(context.send_control(goodbye).is_ok(), "there is a reserve");
        }
        state.on_drain
    }

    fn on_end(&mut self, reason: &CloseReason, stats: &ConnectionStats) {
        self.knobs.lock().ends.push((reason.name(), *stats));
    }
}
