use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protosocket::{
    CloseReason, Codec, ConnectionStats, DecodeError, Decoder, EncodeError, Encoder, Gather,
    InputPolicy, MessageReactor, ReactorContext, ReactorStatus, SendError,
};

use super::{
    Configuration, RpcClient, SlowConsumer,
    panics::Panics,
    table::{Arrival, Kind, Submission, Table, What},
};
use crate::{Error, Execution, Message, ProtosocketControlCode};

/// Answers that are brought to their callers together, under one lock.
const ARRIVALS: usize = 64;

/// Requests that are encoded before something is written.
const REQUESTS_PER_WRITE: usize = 512;

/// How often deadlines are put off because something has been received meanwhile, by one read at a
/// time as a rule. It may be the answers, if this program stood still: up to 16 MiB of them.
const LOOKS: u16 = 1024;

/// What a client's connection does with messages: it sends requests, and brings responses to whoever
/// waits for them.
pub struct RpcCompletionReactor<C: Codec + 'static>
where
    <C as Encoder>::Message: Message,
    <C as Decoder>::Message: Message,
{
    table: Arc<Table<<C as Encoder>::Message, <C as Decoder>::Message>>,
    /// How long a stream may be full before it is ended, if that is the policy.
    grace: Option<Duration>,
    max_buffered_items: usize,
    max_buffered_bytes: usize,
    /// An item weighs one more than its size without so many bits: as many of any size fill a stream as
    /// `max_buffered_items` and `max_buffered_bytes` want.
    item_bits: u32,
    /// The calls that are in flight, by their place in the table.
    calls: Vec<Tracked>,
    in_flight: usize,
    /// Requests that wait for room, in order.
    requests: VecDeque<Submission<<C as Encoder>::Message>>,
    /// How many of them are of calls that are over: fewer than half, so that the callers that gave
    /// up pay for looking them up, each for two requests at most.
    stale: usize,
    /// Ids of calls of which the server is to be told that nobody waits.
    ///
    /// LIMIT: as many as calls have been sent and not been answered. Those are sent before requests
    /// are, so that nothing is added to them while there is no room.
    cancels: VecDeque<u64>,
    arrivals: Vec<Arrival<<C as Decoder>::Message>>,
    /// How many callers were woken since calls were last begun: they may begin others.
    expected: usize,
    gather: Gather,
    /// Ids to which a late response may come.
    given_up: Vec<(u64, Kind)>,
    abandoned: Vec<u32>,
    tickets: u64,
    /// Messages that have been encoded, requests and cancels.
    encoded: u64,
    /// No call has to end before this instant.
    next_deadline: Option<Instant>,
    /// Something was received in this round.
    has_heard: bool,
    /// How often deadlines were put off for that.
    looks: u16,
    /// The stream that may have no room for another item. Nothing is decoded before that is known.
    full: Option<u32>,
    /// Since when it has had none.
    paused_since: Option<Instant>,
    /// When the connection polled last.
    now: Option<Instant>,
    /// Responses for calls that are not in flight.
    unmatched: u64,
    has_chosen_ids: bool,
    /// A cancel could not be sent.
    has_warned: bool,
    /// No call will begin any more.
    is_closing: bool,
    /// All calls have been told how they ended.
    is_over: bool,
}

/// What the connection knows of the call in a place of the table.
#[derive(Clone, Copy)]
struct Tracked {
    /// 0 if none is in flight.
    id: u64,
    ticket: u64,
    kind: Kind,
    deadline: Option<Instant>,
    /// As the how manieth message of the connection the request was encoded; 0 if it was not.
    encoded: u64,
    /// For what weight of items of a stream there certainly is room.
    credit: usize,
}

impl Tracked {
    const NONE: Self = Self {
        id: 0,
        ticket: 0,
        kind: Kind::Unary,
        deadline: None,
        encoded: 0,
        credit: 0,
    };

    fn execution(&self) -> Execution {
        match self.encoded {
            0 => Execution::NeverSent,
            _ => Execution::MaybeExecuted,
        }
    }
}

impl<C: Codec + 'static> RpcCompletionReactor<C>
where
    <C as Encoder>::Message: Message,
    <C as Decoder>::Message: Message,
{
    /// A reactor for one connection, and its client. [`over`](super::over) makes the connection too.
    pub fn new(
        configuration: &Configuration,
    ) -> (
        RpcClient<<C as Encoder>::Message, <C as Decoder>::Message>,
        Self,
    ) {
        let table = Arc::new(Table::new(
            configuration.max_concurrent_calls,
            configuration.max_buffered_items,
        ));
        let unit = configuration.max_buffered_bytes / configuration.max_buffered_items;
        let reactor = Self {
            table: table.clone(),
            grace: match configuration.slow_consumer {
                SlowConsumer::Pause => None,
                SlowConsumer::End => Some(configuration.slow_consumer_grace),
            },
            max_buffered_items: configuration.max_buffered_items,
            max_buffered_bytes: configuration.max_buffered_bytes,
            item_bits: unit.max(1).ilog2(),
            calls: Vec::new(),
            in_flight: 0,
            requests: VecDeque::new(),
            stale: 0,
            cancels: VecDeque::new(),
            arrivals: Vec::new(),
            expected: 0,
            gather: Gather::new(),
            given_up: Vec::new(),
            abandoned: Vec::new(),
            tickets: 0,
            encoded: 0,
            next_deadline: None,
            has_heard: false,
            looks: 0,
            full: None,
            paused_since: None,
            now: None,
            unmatched: 0,
            has_chosen_ids: false,
            has_warned: false,
            is_closing: false,
            is_over: false,
        };
        (RpcClient::new(table, configuration), reactor)
    }

    // Answers, on their way to their callers.

    /// The call in flight with this id, if its request has been sent.
    #[inline]
    fn find(&self, id: u64) -> Option<u32> {
        let is_it = |index: usize| {
            let call = self.calls.get(index);
            call.is_some_and(|call| call.id == id && call.encoded != 0)
        };
        let index = self.table.place_of(id);
        if is_it(index) {
            return Some(index as u32);
        }
        if !self.has_chosen_ids {
            return None;
        }
        let index = self.table.find_chosen(id);
        index.filter(|index| is_it(*index as usize))
    }

    /// A message has come for an id that no call has. If it is the last for a call that was given
    /// up, the id may be chosen again.
    #[cold]
    fn hear_of_nobody(&mut self, id: u64, code: ProtosocketControlCode) {
        // Of some it may not be known yet that they were.
        if !self.given_up.is_empty() {
            self.deliver();
        }
        self.table.hear(id, |kind| match code {
            ProtosocketControlCode::Normal => kind == Kind::Unary,
            ProtosocketControlCode::Cancel | ProtosocketControlCode::End => true,
            ProtosocketControlCode::Unknown(_) => false,
        });
    }

    /// The call at `index` goes on with this.
    #[inline(always)]
    fn bring(&mut self, index: u32, weight: u32, what: What<<C as Decoder>::Message>) {
        self.arrivals.push(Arrival {
            index,
            weight,
            what,
        });
        if self.arrivals.len() >= ARRIVALS {
            self.deliver();
        }
    }

    /// The call at `index` ends with this.
    #[inline(always)]
    fn finish(&mut self, index: u32, what: What<<C as Decoder>::Message>) {
        self.forget(index);
        self.bring(index, 0, what);
    }

    /// The call at `index` ends with `error`, before the server has ended it. It is told.
    fn give_up(&mut self, index: u32, error: Error) {
        self.cancel(index);
        self.finish(index, What::Failure(error));
    }

    /// Have the server told that nobody waits for the call at `index`, if it has heard of it.
    fn cancel(&mut self, index: u32) {
        let call = &self.calls[index as usize];
        if call.encoded != 0 {
            self.cancels.push_back(call.id);
            self.given_up.push((call.id, call.kind));
        }
    }

    #[inline]
    fn forget(&mut self, index: u32) {
        self.calls[index as usize] = Tracked::NONE;
        self.in_flight -= 1;
        if self.full == Some(index) {
            self.full = None;
            self.paused_since = None;
        }
    }

    /// An item of so many bytes has come for the stream at `index`.
    #[inline]
    fn on_item(&mut self, index: u32, size: usize, item: <C as Decoder>::Message) {
        let weight = u32::try_from(1 + (size >> self.item_bits)).unwrap_or(u32::MAX);
        let call = &mut self.calls[index as usize];
        debug_assert!(call.credit > 0, "nothing is decoded while a stream is full");
        call.credit = call.credit.saturating_sub(weight as usize);
        if call.credit == 0 {
            self.full = Some(index);
        }
        self.bring(index, weight, What::Response(item));
    }

    /// Wait until the stream at `index` has room for an item.
    #[cold]
    fn poll_room(&mut self, index: u32, cx: &mut Context<'_>) -> Poll<()> {
        self.deliver();
        match self.table.poll_room(index, cx) {
            Poll::Ready(room) => {
                self.calls[index as usize].credit = room;
                self.full = None;
                self.paused_since = None;
                Poll::Ready(())
            }
            Poll::Pending => {
                // Whoever reads the stream may have had no chance yet: one read brings hundreds of
                // items, and this task has to end its poll before that one runs.
                self.paused_since = self.paused_since.or(self.now);
                Poll::Pending
            }
        }
    }

    /// When the stream that is full has been so for too long.
    fn end_of_grace(&self) -> Option<Instant> {
        self.paused_since?.checked_add(self.grace?)
    }

    /// End the stream that has been full for too long, if it still is.
    #[cold]
    fn end_slow_consumer(&mut self) {
        if let Some(index) = self.full
            && self.table.room(index) == 0
        {
            let error = Error::SlowConsumer {
                max_items: self.max_buffered_items,
                max_bytes: self.max_buffered_bytes,
            };
            self.give_up(index, error);
        }
        self.paused_since = None;
    }

    /// Bring what has arrived to its callers.
    fn deliver(&mut self) {
        let mut panics = Panics::default();
        self.deliver_despite(&mut panics);
        panics.resume();
    }

    fn deliver_despite(&mut self, panics: &mut Panics) {
        if self.arrivals.is_empty() {
            return;
        }
        self.table.deliver(&mut self.arrivals, &mut self.given_up);
        // Without the lock: what nobody wanted is dropped here, and tasks may be woken on the spot.
        panics.contain(self.arrivals.drain(..), |arrival| {
            if let What::Wake(Some(waker)) = arrival.what {
                self.expected += 1;
                waker.wake();
            }
        });
    }

    // Calls, on their way to the server.

    /// Take note of the calls that have begun, and of those that were given up.
    fn exchange(&mut self, cx: &mut Context<'_>, now: Instant) {
        let known = self.requests.len();
        let (requests, abandoned) = (&mut self.requests, &mut self.abandoned);
        let errands = (self.table).exchange(requests, abandoned, self.unmatched, self.expected, cx);
        let begun = self.requests.len() - known;
        if errands.is_early {
            self.expected -= begun;
            self.gather.begin(cx);
        } else if !self.requests.is_empty() {
            // Nobody has followed, or all have.
            self.expected = 0;
        }
        self.is_closing |= errands.is_deserted;
        self.has_chosen_ids = errands.has_chosen_ids;
        for submission in self.requests.iter_mut().skip(known) {
            self.tickets += 1;
            submission.ticket = self.tickets;
            let deadline = submission.timeout.and_then(|time| now.checked_add(time));
            if let Some(at) = deadline
                && self.next_deadline.is_none_or(|next| at < next)
            {
                self.next_deadline = Some(at);
            }
            let index = submission.index as usize;
            if self.calls.len() <= index {
                self.calls.resize(index + 1, Tracked::NONE);
            }
            self.calls[index] = Tracked {
                id: submission.id,
                ticket: self.tickets,
                kind: submission.kind,
                deadline,
                encoded: 0,
                credit: self.table.capacity(),
            };
            self.in_flight += 1;
        }
        if !self.abandoned.is_empty() {
            self.bury();
        }
    }

    /// Forget the calls that were abandoned.
    #[cold]
    fn bury(&mut self) {
        for position in 0..self.abandoned.len() {
            let index = self.abandoned[position];
            let call = &self.calls[index as usize];
            // The answer may have come before the connection heard that nobody wants it.
            if call.id != 0 {
                self.stale += usize::from(call.encoded == 0);
                self.cancel(index);
                self.forget(index);
            }
        }
        self.take_back();
        // What has arrived for them meanwhile goes with them.
        self.deliver();
        (self.table).release_abandoned(&mut self.abandoned, &mut self.given_up);
    }

    /// Drop the requests of calls that ended before they were sent, if they are half of all.
    fn take_back(&mut self) {
        if self.stale > 0 && self.stale >= self.requests.len() / 2 {
            self.stale = 0;
            let calls = &self.calls;
            (self.requests).retain(|it| calls[it.index as usize].ticket == it.ticket);
        }
    }

    /// The next request of a call that is not over.
    #[inline]
    fn next_request(&mut self) -> Option<Submission<<C as Encoder>::Message>> {
        loop {
            let request = self.requests.pop_front()?;
            if self.stale == 0 || self.calls[request.index as usize].ticket == request.ticket {
                return Some(request);
            }
            self.stale -= 1;
        }
    }

    /// Whether some were sent. `None` if the connection ends for it.
    fn send_cancels(&mut self, context: &mut ReactorContext<'_, C>) -> Option<bool> {
        let before = self.encoded;
        while let Some(id) = self.cancels.front()
            && context.has_control_room()
        {
            let cancelled = <<C as Encoder>::Message as Message>::cancelled(*id);
            match context.send_control(cancelled) {
                Ok(()) => self.encoded += 1,
                // Nothing in the send buffer can be trusted after this.
                Err(SendError::Encode(error @ EncodeError::Shrunk(_))) => {
                    let _ = context.fail(SendError::<Infallible>::Encode(error));
                    return None;
                }
                // A codec that cannot say "cancelled" leaves the server at work, no more. It says so
                // once: there may be as many of them as there are calls.
                Err(error) if mem::replace(&mut self.has_warned, true) => {
                    tracing::debug!(%error, "another cancel cannot be sent");
                }
                Err(error) => tracing::warn!(%error, "a cancel cannot be sent"),
            }
            self.cancels.pop_front();
        }
        Some(self.encoded != before)
    }

    fn send_requests(&mut self, context: &mut ReactorContext<'_, C>) -> bool {
        for sent in 0..REQUESTS_PER_WRITE {
            if context.room().is_empty() {
                return sent > 0;
            }
            let Some(mut submission) = self.next_request() else {
                return sent > 0;
            };
            submission.request.set_message_id(submission.id);
            match context.send(submission.request) {
                Ok(()) => {
                    self.encoded += 1;
                    self.calls[submission.index as usize].encoded = self.encoded;
                }
                // Nothing in the send buffer can be trusted after this.
                Err(SendError::Encode(error @ EncodeError::Shrunk(_))) => {
                    let _ = context.fail(SendError::<Infallible>::Encode(error));
                    return false;
                }
                Err(SendError::Encode(error)) => {
                    self.finish(submission.index, What::Failure(Error::Encode(error)));
                }
                Err(SendError::Full(_) | SendError::Finished(_)) => {
                    unreachable!("there is room, and a client does not finish its output")
                }
            }
        }
        true
    }

    // Ends.

    /// No call goes on: tell each how it ended. If `written` is known, only the requests among the
    /// first so many messages have left, in part at least.
    fn end(&mut self, reason: &CloseReason, written: Option<u64>) {
        if mem::replace(&mut self.is_over, true) {
            return;
        }
        let mut panics = Panics::default();
        self.deliver_despite(&mut panics);
        let reason = Arc::new(reason.clone());
        let calls = mem::take(&mut self.calls);
        let lost = |execution| Error::ConnectionLost {
            execution,
            reason: reason.clone(),
        };
        let failure = |index| {
            let encoded = calls.get(index as usize).map_or(0, |call| call.encoded);
            lost(
                match encoded != 0 && written.is_none_or(|most| encoded <= most) {
                    true => Execution::MaybeExecuted,
                    false => Execution::NeverSent,
                },
            )
        };
        (self.table).end(lost(Execution::NeverSent), failure, &mut panics);
        self.in_flight = 0;
        panics.contain(self.requests.drain(..), drop);
        self.stale = 0;
        self.cancels.clear();
        self.full = None;
        self.paused_since = None;
        self.next_deadline = None;
        panics.resume();
    }
}

impl<C: Codec + 'static> MessageReactor for RpcCompletionReactor<C>
where
    <C as Encoder>::Message: Message,
    <C as Decoder>::Message: Message,
{
    type Codec = C;
    type Inbound = <C as Decoder>::Message;
    type Outbound = <C as Encoder>::Message;
    type LogicalOutbound = Infallible;

    #[inline]
    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, C>,
        message: Self::Inbound,
    ) -> ReactorStatus {
        self.has_heard = true;
        let Some(index) = self.find(message.message_id()) else {
            // Late, repeated, or for nobody.
            self.unmatched += 1;
            if self.has_chosen_ids {
                self.hear_of_nobody(message.message_id(), message.control_code());
            }
            return ReactorStatus::Continue;
        };
        let kind = self.calls[index as usize].kind;
        match (message.control_code(), kind) {
            (ProtosocketControlCode::Normal, Kind::Unary) => {
                self.finish(index, What::Response(message));
            }
            (ProtosocketControlCode::Normal, Kind::Streaming) => {
                self.on_item(index, context.message_size(), message);
            }
            (ProtosocketControlCode::End, _) => self.finish(index, What::End),
            (ProtosocketControlCode::Cancel, _) => {
                self.finish(index, What::Failure(Error::CancelledRemotely));
            }
            (ProtosocketControlCode::Unknown(code), _) => {
                self.give_up(index, Error::UnknownControlCode(code));
            }
        }
        ReactorStatus::Continue
    }

    fn on_outbound_message(
        &mut self,
        _: &mut ReactorContext<'_, C>,
        message: Infallible,
    ) -> Result<(), SendError<Self::Outbound>> {
        match message {}
    }

    fn poll(&mut self, cx: &mut Context<'_>, context: &mut ReactorContext<'_, C>) -> ReactorStatus {
        self.has_heard = false;
        self.now = Some(context.now());
        // When all is over nobody has anything to tell, and the waker would be kept for as long as
        // there are clients.
        if !self.is_over {
            self.deliver();
            if !self.gather.is_on() {
                self.exchange(cx, context.now());
            }
            self.send_cancels(context);
        }
        ReactorStatus::Continue
    }

    fn poll_outbound_many(
        &mut self,
        _: &mut Context<'_>,
        context: &mut ReactorContext<'_, C>,
    ) -> Poll<Option<()>> {
        let Some(cancelled) = self.send_cancels(context) else {
            return Poll::Pending;
        };
        let sent = cancelled | (!self.gather.is_on() && self.send_requests(context));
        // Those that cannot be encoded are told.
        self.deliver();
        let is_done = self.requests.is_empty() && self.cancels.is_empty();
        match sent {
            true => Poll::Ready(Some(())),
            false if is_done && (self.is_closing || self.is_over) => Poll::Ready(None),
            // The waker has been registered with the table.
            false => Poll::Pending,
        }
    }

    fn send_rest(&mut self, _: &mut ReactorContext<'_, C>, reason: &CloseReason) -> bool {
        // Nothing is decoded any more, and what has been encoded is still being sent.
        self.end(reason, None);
        false
    }

    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.full {
            None => Poll::Ready(()),
            Some(index) => self.poll_room(index, cx),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.in_flight == 0 {
            return None;
        }
        self.next_deadline
            .into_iter()
            .chain(self.end_of_grace())
            .min()
    }

    fn on_deadline(&mut self, context: &mut ReactorContext<'_, C>) -> ReactorStatus {
        // LIMIT: a server that never stops sending does not put them off for ever.
        if self.has_heard && self.looks < LOOKS {
            self.looks += 1;
            return ReactorStatus::Continue;
        }
        self.looks = 0;
        let input_paused = self.paused_since.is_some();
        if self.end_of_grace().is_some_and(|at| at <= context.now()) {
            self.end_slow_consumer();
        }
        self.next_deadline = None;
        for index in 0..self.calls.len() {
            let call = self.calls[index];
            let Some(at) = call.deadline else { continue };
            if at <= context.now() {
                self.stale += usize::from(call.encoded == 0);
                let error = Error::DeadlineExceeded {
                    execution: call.execution(),
                    input_paused,
                };
                self.give_up(index as u32, error);
            } else if self.next_deadline.is_none_or(|next| at < next) {
                self.next_deadline = Some(at);
            }
        }
        self.take_back();
        self.send_cancels(context);
        self.deliver();
        ReactorStatus::Continue
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn input_policy(&self) -> InputPolicy {
        InputPolicy::Multiplexing
    }

    fn on_end_of_input(&mut self, _: &mut ReactorContext<'_, C>) -> ReactorStatus {
        // Nothing will be answered any more, even if the server still reads.
        self.end(&CloseReason::EndOfInput, None);
        ReactorStatus::Continue
    }

    fn on_decode_error(&mut self, _: &mut ReactorContext<'_, C>, error: &DecodeError) {
        self.end(&CloseReason::Decode(error.clone()), None);
    }

    fn on_drain(&mut self, _: &mut ReactorContext<'_, C>, _: Instant) -> ReactorStatus {
        self.table.refuse(Error::Draining);
        self.is_closing = true;
        ReactorStatus::Continue
    }

    fn on_end(&mut self, reason: &CloseReason, stats: &ConnectionStats) {
        self.end(reason, Some(stats.messages_out + stats.cut));
        tracing::debug!(unmatched = self.unmatched, "responses without a call");
    }
}

impl<C: Codec + 'static> Drop for RpcCompletionReactor<C>
where
    <C as Encoder>::Message: Message,
    <C as Decoder>::Message: Message,
{
    fn drop(&mut self) {
        // It may never have been given to a connection, which would have told it of its end.
        self.end(&CloseReason::Dropped, None);
    }
}

impl<C: Codec + 'static> fmt::Debug for RpcCompletionReactor<C>
where
    <C as Encoder>::Message: Message,
    <C as Decoder>::Message: Message,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcCompletionReactor")
            .field("in_flight", &self.in_flight)
            .field("unmatched", &self.unmatched)
            .finish_non_exhaustive()
    }
}
