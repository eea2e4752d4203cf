//! What the driver knows of the requests: it goes from one connection to the next.

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    task::Context,
    time::{Duration, Instant},
};

use protosocket::{CloseReason, ConnectionStats, Decoder, EncodeError, Gather, SendBuffer};

use crate::{
    Error, Execution, Expect, PipelineConfig, Protocol, Received,
    error::Violation,
    panics::Panics,
    table::{Arrival, Submission, Table, What},
};

/// Replies that are brought to their callers together, under one lock.
const ARRIVALS: usize = 64;

pub(crate) struct Engine<P: Protocol> {
    protocol: P,
    table: Arc<Table<P>>,
    answer_timeout: Option<Duration>,
    /// Requests that were never sent, in order.
    waiting: VecDeque<Waiting<P::Request>>,
    /// How many of them nobody waits for: fewer than half, so that callers that gave up pay for
    /// having them looked up, each for two at most.
    stale: usize,
    /// Requests that were encoded for this connection and wait for their replies, in order.
    in_flight: VecDeque<Encoded<P, P::Expected>>,
    /// Those that wait only for being written, in order, and what their callers are told then.
    unreplied: VecDeque<Encoded<P, P::Reply>>,
    /// What is known of the request in each place of the table.
    calls: Vec<Call>,
    tickets: u64,
    submitted: VecDeque<Submission<P::Request>>,
    abandoned: Vec<u32>,
    arrivals: Vec<Arrival<P::Reply>>,
    /// How many callers were woken since requests were last entered: they may enter others.
    expected: usize,
    gather: Gather,
    /// No request has to end before this instant.
    next_deadline: Option<Instant>,
    is_deserted: bool,
    /// When a client that was closed is to be done.
    closing: Option<Instant>,
    stage: Stage<P>,
    /// Messages that were encoded for this connection.
    encoded: u64,
    /// Since when the server has answered nothing, while it is asked.
    quiet_since: Option<Instant>,
    /// It has, since the time was last noted.
    has_answered: bool,
    /// The server has finished sending, for which the connection is cut.
    input_ended: bool,
}

/// What a connection is good for.
enum Stage<P: Protocol> {
    /// It was opened, and nothing has been said.
    New,
    /// The reply to a request of the preamble is awaited.
    Preamble(P::Expected),
    /// Requests of callers are sent.
    Open,
    /// No request is sent any more, and replies are awaited.
    Draining,
}

/// What a deadline means for the connection.
pub(crate) enum Due {
    GoOn,
    /// All requests are over.
    End,
    GiveUp(Violation),
}

struct Waiting<Request> {
    index: u32,
    ticket: u64,
    deadline: Option<Instant>,
    request: Request,
}

/// A request that was encoded for a connection.
struct Encoded<P: Protocol, End> {
    /// Kept until its end: it goes to the next connection if no byte of it leaves on this.
    waiting: Waiting<P::Request>,
    /// As the how manieth message of the connection it was encoded.
    at: u64,
    /// What is to be known at its end.
    end: End,
}

/// The request in a place of the table, if somebody waits for it.
#[derive(Clone, Copy)]
struct Call {
    /// 0 if nobody does.
    ticket: u64,
    is_sent: bool,
}

impl Call {
    const NONE: Self = Self {
        ticket: 0,
        is_sent: false,
    };
}

impl<P: Protocol> Engine<P> {
    pub(crate) fn new(protocol: P, table: Arc<Table<P>>, config: &PipelineConfig) -> Self {
        Self {
            protocol,
            table,
            answer_timeout: config.answer_timeout,
            waiting: VecDeque::new(),
            stale: 0,
            in_flight: VecDeque::new(),
            unreplied: VecDeque::new(),
            calls: Vec::new(),
            tickets: 0,
            submitted: VecDeque::new(),
            abandoned: Vec::new(),
            arrivals: Vec::new(),
            expected: 0,
            gather: Gather::new(),
            next_deadline: None,
            is_deserted: false,
            closing: None,
            stage: Stage::New,
            encoded: 0,
            quiet_since: None,
            has_answered: false,
            input_ended: false,
        }
    }

    // Between callers and connections.

    /// Take note of the requests that were entered, and of those that were given up, unless others that
    /// are expected have not had their turn.
    pub(crate) fn exchange(&mut self, cx: &mut Context<'_>, now: Instant) {
        self.deliver();
        if self.gather.is_on() {
            return;
        }
        let (submitted, abandoned) = (&mut self.submitted, &mut self.abandoned);
        let errands = (self.table).exchange(submitted, abandoned, self.expected, cx);
        if errands.is_early {
            self.expected -= self.submitted.len();
            self.gather.begin(cx);
        } else if !self.submitted.is_empty() || !self.waiting.is_empty() {
            // Nobody has followed, or all have.
            self.expected = 0;
        }
        self.is_deserted |= errands.is_deserted;
        if self.closing.is_none()
            && let Some(within) = errands.closing
        {
            let at = now.checked_add(within);
            self.closing = at;
            self.note_deadline(at);
            self.is_deserted = true;
        }
        while let Some(submission) = self.submitted.pop_front() {
            self.tickets += 1;
            let index = submission.index as usize;
            if self.calls.len() <= index {
                self.calls.resize(index + 1, Call::NONE);
            }
            self.calls[index] = Call {
                ticket: self.tickets,
                is_sent: false,
            };
            let deadline = submission.timeout.and_then(|time| now.checked_add(time));
            self.note_deadline(deadline);
            self.waiting.push_back(Waiting {
                index: submission.index,
                ticket: self.tickets,
                deadline,
                request: submission.request,
            });
        }
        if !self.abandoned.is_empty() {
            self.bury();
        }
    }

    fn note_deadline(&mut self, deadline: Option<Instant>) {
        self.next_deadline = self.next_deadline.into_iter().chain(deadline).min();
    }

    /// Forget the requests that were given up.
    #[cold]
    fn bury(&mut self) {
        for &index in &self.abandoned {
            let call = mem::replace(&mut self.calls[index as usize], Call::NONE);
            if call.ticket != 0 && !call.is_sent {
                self.stale += 1;
                self.table.dequeue(1);
            }
        }
        self.take_back();
        // What has arrived for them meanwhile goes with them.
        self.deliver();
        self.table.release(&mut self.abandoned);
    }

    /// Drop the requests that nobody waits for, if they are half of those that were not sent.
    fn take_back(&mut self) {
        if self.stale > 0 && self.stale >= self.waiting.len() / 2 {
            self.stale = 0;
            let calls = &self.calls;
            (self.waiting).retain(|it| calls[it.index as usize].ticket == it.ticket);
        }
    }

    /// The request in this place is over. Its caller is told with the next delivery.
    fn finish(&mut self, index: u32, end: Result<P::Reply, Error>) {
        let call = mem::replace(&mut self.calls[index as usize], Call::NONE);
        if !call.is_sent {
            self.table.dequeue(1);
        }
        let what = What::End(end);
        self.arrivals.push(Arrival { index, what });
    }

    /// Bring what has arrived to its callers.
    pub(crate) fn deliver(&mut self) {
        let mut panics = Panics::default();
        self.deliver_despite(&mut panics);
        panics.resume();
    }

    fn deliver_despite(&mut self, panics: &mut Panics) {
        if !self.arrivals.is_empty() {
            self.table.deliver(&mut self.arrivals);
            // Without the lock: what nobody wanted is dropped here, and tasks may be woken on the spot.
            panics.contain(self.arrivals.drain(..), |arrival| {
                if let What::Wake(Some(waker)) = arrival.what {
                    self.expected += 1;
                    waker.wake();
                }
            });
        }
        panics.contain([&self.table], |table| table.offer_room());
    }

    /// Whether nothing is to be done any more, by a client that nobody asks any more.
    pub(crate) fn is_done(&self) -> bool {
        let has_encoded = !self.in_flight.is_empty() || !self.unreplied.is_empty();
        self.is_deserted && self.waiting.len() == self.stale && !has_encoded
    }

    // Time.

    /// When [`on_deadline`](Self::on_deadline) has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let answer = match self.in_flight() {
            0 => None,
            _ => self.answer_deadline(),
        };
        self.next_deadline.into_iter().chain(answer).min()
    }

    fn answer_deadline(&self) -> Option<Instant> {
        self.quiet_since?.checked_add(self.answer_timeout?)
    }

    /// Tell the requests whose time is over.
    pub(crate) fn on_deadline(&mut self, now: Instant) -> Due {
        if self.closing.is_some_and(|at| at <= now) {
            let mut panics = Panics::default();
            self.fail_all(|execution| Error::Closed { execution }, &mut panics);
            panics.resume();
            return Due::End;
        }
        if let Some(after) = self.answer_timeout
            && self.in_flight() > 0
            && self.answer_deadline().is_some_and(|at| at <= now)
        {
            return Due::GiveUp(Violation::NoAnswer(after));
        }
        if self.next_deadline.is_some_and(|at| at <= now) {
            self.expire(now);
        }
        Due::GoOn
    }

    fn expire(&mut self, now: Instant) {
        self.next_deadline = self.closing;
        let in_flight = self.in_flight.iter().map(|it| &it.waiting);
        let unreplied = self.unreplied.iter().map(|it| &it.waiting);
        let mut over = Vec::new();
        let mut next = None;
        for it in self.waiting.iter().chain(in_flight).chain(unreplied) {
            if self.calls[it.index as usize].ticket != it.ticket {
                continue;
            }
            match it.deadline {
                Some(at) if at <= now => over.push(it.index),
                at => next = next.into_iter().chain(at).min(),
            }
        }
        self.note_deadline(next);
        for index in over {
            let is_sent = self.calls[index as usize].is_sent;
            self.stale += usize::from(!is_sent);
            let execution = match is_sent {
                true => Execution::MaybeExecuted,
                false => Execution::NeverSent,
            };
            self.finish(index, Err(Error::DeadlineExceeded { execution }));
        }
        self.take_back();
        self.deliver();
    }

    // A connection.

    /// A connection is opened: the decoder for it.
    pub(crate) fn open(&mut self) -> P::Decoder {
        self.stage = Stage::New;
        self.encoded = 0;
        self.quiet_since = None;
        self.has_answered = false;
        self.input_ended = false;
        self.protocol.decoder()
    }

    /// Whether something is to be said before requests are.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self.stage, Stage::New)
    }

    /// Replies that are awaited.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len() + usize::from(matches!(self.stage, Stage::Preamble(_)))
    }

    /// Whether the connection has proved to be one.
    pub(crate) fn is_proved(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Draining)
    }

    /// Send no more requests on this connection.
    pub(crate) fn drain(&mut self) {
        if matches!(self.stage, Stage::Open) {
            self.stage = Stage::Draining;
        }
    }

    /// The server has sent something. What it pushes is no answer: whoever waits for one could wait
    /// for ever beside that.
    #[inline]
    pub(crate) fn hear(&mut self, now: Instant) {
        if std::mem::take(&mut self.has_answered) {
            self.quiet_since = Some(now);
        }
    }

    /// A message has come. `false` if it must not.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        message: <P::Decoder as Decoder>::Message,
    ) -> Result<Option<P::Reply>, Violation> {
        if !matches!(self.stage, Stage::Open | Stage::Draining) {
            return self.receive_preamble(message);
        }
        let front = self.in_flight.front_mut();
        let has_front = front.is_some();
        let expected = front.map(|it| &mut it.end);
        let received = self.protocol.receive(expected, message);
        self.has_answered |= matches!(received, Received::Reply(_) | Received::Part);
        match received {
            Received::Reply(reply) => {
                let Some(Encoded { waiting, .. }) = self.in_flight.pop_front() else {
                    return Err(Violation::Unasked);
                };
                if self.is_awaited(&waiting) {
                    self.finish(waiting.index, Ok(reply));
                    if self.arrivals.len() >= ARRIVALS {
                        self.deliver();
                    }
                }
            }
            Received::Part if !has_front => return Err(Violation::Unasked),
            Received::Part | Received::Aside => {}
            Received::Unexpected(error) => return Err(Violation::Unexpected(error)),
        }
        Ok(None)
    }

    fn receive_preamble(
        &mut self,
        message: <P::Decoder as Decoder>::Message,
    ) -> Result<Option<P::Reply>, Violation> {
        let expected = match &mut self.stage {
            Stage::Preamble(expected) => Some(expected),
            _ => None,
        };
        let is_asked = expected.is_some();
        match self.protocol.receive(expected, message) {
            Received::Reply(reply) if is_asked => Ok(Some(reply)),
            Received::Reply(_) => Err(Violation::Unasked),
            Received::Part if !is_asked => Err(Violation::Unasked),
            Received::Part | Received::Aside => Ok(None),
            Received::Unexpected(error) => Err(Violation::Unexpected(error)),
        }
    }

    /// Go on with the preamble: what is to be said next, if it is not done.
    pub(crate) fn next_of_preamble(
        &mut self,
        mut reply: Option<P::Reply>,
    ) -> Result<Option<P::Request>, Violation> {
        self.stage = Stage::New;
        match self.protocol.preamble(reply.take()) {
            Ok(Some(request)) => Ok(Some(request)),
            Ok(None) => {
                self.stage = Stage::Open;
                Ok(None)
            }
            Err(error) => Err(self.fail_preamble(Arc::from(error))),
        }
    }

    /// A request of the preamble is being sent. What it is answered, if that is nothing.
    pub(crate) fn expect_preamble(
        &mut self,
        request: &P::Request,
        now: Instant,
    ) -> Option<P::Reply> {
        self.encoded += 1;
        match self.protocol.expect(request) {
            Expect::Reply(expected) => {
                self.stage = Stage::Preamble(expected);
                self.quiet_since = Some(now);
                None
            }
            Expect::Nothing(reply) => Some(reply),
        }
    }

    pub(crate) fn encode(
        &mut self,
        request: &P::Request,
        output: &mut SendBuffer,
    ) -> Result<(), EncodeError> {
        let before = output.unsent_bytes();
        self.protocol.encode(request, output)?;
        match output.unsent_bytes() > before {
            true => Ok(()),
            // What is on the wire is counted by messages, and this would be none.
            false => Err(EncodeError::invalid("a request has at least one byte")),
        }
    }

    /// Everybody who waits is told that the server refused the preamble.
    pub(crate) fn fail_preamble(
        &mut self,
        error: Arc<dyn std::error::Error + Send + Sync>,
    ) -> Violation {
        tracing::warn!(%error, "the preamble of a connection failed");
        let mut panics = Panics::default();
        self.fail_all(|_| Error::Preamble(error.clone()), &mut panics);
        panics.resume();
        Violation::Preamble(error)
    }

    /// The next request to be sent, if one may be.
    pub(crate) fn next_request(&mut self, max_in_flight: usize) -> Option<Outgoing<P>> {
        let encoded = self.in_flight.len() + self.unreplied.len();
        let may_send = matches!(self.stage, Stage::Open) && !self.gather.is_on();
        if !may_send || encoded >= max_in_flight {
            return None;
        }
        loop {
            let waiting = self.waiting.pop_front()?;
            if self.is_awaited(&waiting) {
                return Some(Outgoing(waiting));
            }
            self.stale -= 1;
        }
    }

    /// It was encoded.
    pub(crate) fn sent(&mut self, Outgoing(waiting): Outgoing<P>, now: Instant) {
        self.encoded += 1;
        self.table.dequeue(1);
        self.calls[waiting.index as usize].is_sent = true;
        let at = self.encoded;
        match self.protocol.expect(&waiting.request) {
            Expect::Reply(end) => {
                if self.in_flight.is_empty() {
                    self.quiet_since = Some(now);
                }
                (self.in_flight).push_back(Encoded { waiting, at, end });
            }
            Expect::Nothing(end) => (self.unreplied).push_back(Encoded { waiting, at, end }),
        }
    }

    /// All messages of the connection have been written but for the last so many: callers whose
    /// requests have no reply are told with the next delivery.
    #[inline]
    pub(crate) fn note_unsent(&mut self, unsent: usize) {
        if !self.unreplied.is_empty() {
            self.note_written(self.encoded - unsent as u64);
        }
    }

    fn note_written(&mut self, written: u64) {
        while let Some(said) = self.unreplied.pop_front_if(|it| it.at <= written) {
            if self.is_awaited(&said.waiting) {
                self.finish(said.waiting.index, Ok(said.end));
            }
        }
    }

    /// It cannot be encoded.
    pub(crate) fn refuse(&mut self, Outgoing(refused): Outgoing<P>, error: EncodeError) {
        self.finish(refused.index, Err(Error::Encode(error)));
    }

    /// Whether no request will be sent on this connection any more.
    pub(crate) fn is_producing_no_more(&self) -> bool {
        match self.stage {
            Stage::Draining => true,
            _ => self.is_deserted && self.waiting.len() == self.stale,
        }
    }

    /// The server has finished sending: nothing will be answered any more. Whether nothing was to be,
    /// nor to be written.
    pub(crate) fn end_input(&mut self) -> bool {
        self.input_ended = true;
        self.in_flight() == 0 && self.unreplied.is_empty()
    }

    /// No reply comes any more: those who wait for one are told. What has not been written yet may
    /// still be.
    pub(crate) fn lose_replies(&mut self, reason: &CloseReason) {
        self.lose(reason, u64::MAX);
        self.deliver();
    }

    /// The connection has ended. What was encoded and not written goes to the next one.
    pub(crate) fn end_connection(&mut self, reason: &CloseReason, stats: &ConnectionStats) {
        let reason = match reason {
            CloseReason::Aborted if self.input_ended => &CloseReason::EndOfInput,
            reason => reason,
        };
        tracing::debug!(%reason, in_flight = self.in_flight.len(), "a connection has ended");
        self.note_written(stats.messages_out);
        let left = stats.messages_out + stats.cut;
        self.lose(reason, left);
        if let Some(cut) = self.unreplied.pop_front_if(|it| it.at <= left) {
            self.lose_one(cut.waiting, &Arc::new(reason.clone()));
        }
        let mut again = 0;
        while let Some(waiting) = self.pop_last_encoded() {
            if self.is_awaited(&waiting) {
                self.calls[waiting.index as usize].is_sent = false;
                again += 1;
                self.waiting.push_front(waiting);
            }
        }
        self.table.enqueue(again);
        self.deliver();
    }

    fn pop_last_encoded(&mut self) -> Option<Waiting<P::Request>> {
        let in_flight = self.in_flight.back().map(|it| it.at);
        match in_flight < self.unreplied.back().map(|it| it.at) {
            true => self.unreplied.pop_back().map(|it| it.waiting),
            false => self.in_flight.pop_back().map(|it| it.waiting),
        }
    }

    /// Fail the requests with replies among the first so many messages of the connection.
    fn lose(&mut self, reason: &CloseReason, written: u64) {
        let reason = Arc::new(reason.clone());
        while let Some(lost) = self.in_flight.pop_front_if(|it| it.at <= written) {
            self.lose_one(lost.waiting, &reason);
        }
    }

    fn lose_one(&mut self, lost: Waiting<P::Request>, reason: &Arc<CloseReason>) {
        if self.is_awaited(&lost) {
            let error = Error::ConnectionLost {
                execution: Execution::MaybeExecuted,
                reason: reason.clone(),
            };
            self.finish(lost.index, Err(error));
        }
    }

    /// Whether somebody waits for the end of this request.
    #[inline]
    fn is_awaited(&self, request: &Waiting<P::Request>) -> bool {
        self.calls[request.index as usize].ticket == request.ticket
    }

    /// All requests fail.
    fn fail_all(&mut self, error: impl Fn(Execution) -> Error, panics: &mut Panics) {
        while let Some(it) = self.pop_last_encoded() {
            if self.is_awaited(&it) {
                self.finish(it.index, Err(error(Execution::MaybeExecuted)));
            }
        }
        while let Some(it) = self.waiting.pop_front() {
            if self.is_awaited(&it) {
                self.finish(it.index, Err(error(Execution::NeverSent)));
            }
        }
        self.stale = 0;
        self.deliver_despite(panics);
    }

    /// The driver ends: everybody is told.
    pub(crate) fn end(&mut self, error: impl Fn(Execution) -> Error) {
        let mut panics = Panics::default();
        self.fail_all(&error, &mut panics);
        self.table.end(error(Execution::NeverSent), &mut panics);
        panics.resume();
    }
}

/// A request on its way to the connection.
pub(crate) struct Outgoing<P: Protocol>(Waiting<P::Request>);

impl<P: Protocol> Outgoing<P> {
    pub(crate) fn request(&self) -> &P::Request {
        &self.0.request
    }
}
