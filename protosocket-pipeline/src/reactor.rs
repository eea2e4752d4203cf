use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Instant,
};

use protosocket::{
    CloseReason, ConnectionStats, DecodeError, Decoder, EncodeError, Encoder, InputPolicy,
    MessageReactor, ReactorContext, ReactorStatus, SendBuffer, SendError,
};

use crate::{
    Protocol,
    engine::{Due, Engine},
    error::Violation,
};

/// Requests that are encoded before something is written.
const REQUESTS_PER_WRITE: usize = 512;

/// How often deadlines are put off because something has been received meanwhile, by one read at a
/// time as a rule. It may be the replies, if this program stood still: up to 16 MiB of them.
const LOOKS: u16 = 1024;

/// Where the engine is while no connection has it.
pub(crate) type Slot<P> = Arc<Mutex<Option<Box<Engine<P>>>>>;

/// What one connection does with messages. The engine goes back into its slot at the end.
pub(crate) struct PipelineReactor<P: Protocol> {
    /// There until the reactor is dropped.
    engine: Option<Box<Engine<P>>>,
    slot: Slot<P>,
    max_in_flight: usize,
    /// Something was received in this round.
    has_heard: bool,
    looks: u16,
}

type Ctx<'a, P> = ReactorContext<'a, (Unused, <P as Protocol>::Decoder)>;

const ENGINE: &str = "a reactor has its engine until it is dropped";

impl<P: Protocol> PipelineReactor<P> {
    pub(crate) fn new(engine: Box<Engine<P>>, slot: Slot<P>, max_in_flight: usize) -> Self {
        Self {
            engine: Some(engine),
            slot,
            max_in_flight,
            has_heard: false,
            looks: 0,
        }
    }

    #[inline]
    fn engine(&mut self) -> &mut Engine<P> {
        self.engine.as_deref_mut().expect(ENGINE)
    }

    /// Say what is to be said first, as far as it needs no reply that has not come.
    #[cold]
    fn prepare(&mut self, context: &mut Ctx<'_, P>, mut reply: Option<P::Reply>) -> ReactorStatus {
        let now = context.now();
        let engine = self.engine();
        loop {
            let request = match engine.next_of_preamble(reply.take()) {
                Ok(Some(request)) => request,
                Ok(None) => return ReactorStatus::Continue,
                Err(violation) => return self.give_up(context, violation),
            };
            let sent = context.send_with(|output| engine.encode(&request, output));
            if let Err(error) = sent {
                let violation = engine.fail_preamble(Arc::new(error));
                return self.give_up(context, violation);
            }
            reply = engine.expect_preamble(&request, now);
            if reply.is_none() {
                return ReactorStatus::Continue;
            }
        }
    }

    /// What has not been written must not be: nobody could tell the reply to it.
    #[cold]
    fn give_up(&mut self, context: &mut Ctx<'_, P>, violation: Violation) -> ReactorStatus {
        tracing::debug!(%violation, "the connection is given up");
        let _ = context.fail_protocol(Arc::new(violation));
        ReactorStatus::Abort
    }

    fn send_requests(&mut self, context: &mut Ctx<'_, P>) -> bool {
        let (now, max_in_flight) = (context.now(), self.max_in_flight);
        let engine = self.engine();
        for sent in 0..REQUESTS_PER_WRITE {
            if context.room().is_empty() {
                return sent > 0;
            }
            let Some(outgoing) = engine.next_request(max_in_flight) else {
                return sent > 0;
            };
            match context.send_with(|output| engine.encode(outgoing.request(), output)) {
                Ok(()) => engine.sent(outgoing, now),
                Err(SendError::Encode(error)) => {
                    let is_fatal = matches!(error, EncodeError::Shrunk(_));
                    engine.refuse(outgoing, error.clone());
                    if is_fatal {
                        // Nothing in the send buffer can be trusted after this.
                        let _ = context.fail(SendError::<Infallible>::Encode(error));
                        return false;
                    }
                }
                Err(SendError::Full(()) | SendError::Finished(())) => {
                    unreachable!("there is room, and a client does not finish its output")
                }
            }
        }
        true
    }
}

impl<P: Protocol> MessageReactor for PipelineReactor<P> {
    type Codec = (Unused, P::Decoder);
    type Inbound = <P::Decoder as Decoder>::Message;
    type Outbound = Infallible;
    type LogicalOutbound = Infallible;

    #[inline]
    fn on_inbound_message(
        &mut self,
        context: &mut Ctx<'_, P>,
        message: Self::Inbound,
    ) -> ReactorStatus {
        self.has_heard = true;
        match self.engine().receive(message) {
            Ok(None) => ReactorStatus::Continue,
            Ok(Some(reply)) => self.prepare(context, Some(reply)),
            Err(violation) => self.give_up(context, violation),
        }
    }

    fn on_outbound_message(
        &mut self,
        _: &mut Ctx<'_, P>,
        message: Infallible,
    ) -> Result<(), SendError<Infallible>> {
        match message {}
    }

    fn poll(&mut self, cx: &mut Context<'_>, context: &mut Ctx<'_, P>) -> ReactorStatus {
        let now = context.now();
        let has_heard = std::mem::take(&mut self.has_heard);
        let engine = self.engine();
        if has_heard {
            engine.hear(now);
        }
        engine.note_unsent(context.unsent_messages());
        engine.exchange(cx, now);
        match engine.is_new() {
            true => self.prepare(context, None),
            false => ReactorStatus::Continue,
        }
    }

    fn poll_outbound_many(
        &mut self,
        _: &mut Context<'_>,
        context: &mut Ctx<'_, P>,
    ) -> Poll<Option<()>> {
        let sent = self.send_requests(context);
        let engine = self.engine();
        // Those that cannot be encoded are told.
        engine.deliver();
        match sent {
            true => Poll::Ready(Some(())),
            false if engine.is_producing_no_more() => Poll::Ready(None),
            // The waker has been registered with the table.
            false => Poll::Pending,
        }
    }

    fn send_rest(&mut self, _: &mut Ctx<'_, P>, reason: &CloseReason) -> bool {
        // Nothing is decoded any more, and what has been encoded is still being sent.
        self.engine().lose_replies(reason);
        false
    }

    fn deadline(&self) -> Option<Instant> {
        self.engine.as_deref().expect(ENGINE).deadline()
    }

    fn on_deadline(&mut self, context: &mut Ctx<'_, P>) -> ReactorStatus {
        // LIMIT: a server that never stops sending does not put them off for ever.
        if self.has_heard && self.looks < LOOKS {
            self.looks += 1;
            return ReactorStatus::Continue;
        }
        self.looks = 0;
        match self.engine().on_deadline(context.now()) {
            Due::GoOn => ReactorStatus::Continue,
            Due::End => ReactorStatus::Abort,
            Due::GiveUp(violation) => self.give_up(context, violation),
        }
    }

    fn in_flight(&self) -> usize {
        self.engine.as_deref().expect(ENGINE).in_flight()
    }

    fn input_policy(&self) -> InputPolicy {
        InputPolicy::Multiplexing
    }

    fn on_end_of_input(&mut self, _: &mut Ctx<'_, P>) -> ReactorStatus {
        // Nothing will be answered any more: what has not been written goes to the next connection.
        match self.engine().end_input() {
            true => ReactorStatus::Disconnect,
            false => ReactorStatus::Abort,
        }
    }

    fn on_decode_error(&mut self, _: &mut Ctx<'_, P>, error: &DecodeError) {
        self.engine()
            .lose_replies(&CloseReason::Decode(error.clone()));
    }

    fn on_drain(&mut self, _: &mut Ctx<'_, P>, _: Instant) -> ReactorStatus {
        self.engine().drain();
        ReactorStatus::Continue
    }

    fn on_end(&mut self, reason: &CloseReason, stats: &ConnectionStats) {
        self.engine().end_connection(reason, stats);
    }
}

impl<P: Protocol> Drop for PipelineReactor<P> {
    fn drop(&mut self) {
        let mut slot = self.slot.lock().expect("no code that panics runs under it");
        *slot = self.engine.take();
    }
}

/// Requests write themselves: nothing is encoded by value.
pub(crate) struct Unused;

impl Encoder for Unused {
    type Message = Infallible;

    fn encode(&mut self, message: Infallible, _: &mut SendBuffer) -> Result<(), EncodeError> {
        match message {}
    }
}
