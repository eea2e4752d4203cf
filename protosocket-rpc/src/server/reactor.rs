use std::{
    convert::Infallible,
    fmt,
    ops::ControlFlow,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protosocket::{
    CloseReason, ConfigError, ConnectionStats, EncodeError, InputPolicy, MessageReactor,
    ReactorContext, ReactorStatus, SendError,
};
use tokio::task::{coop, yield_now};

use super::{
    ConnectionService, RpcStats,
    rpcs::{Rpcs, Turn},
};
use crate::{Message, ProtosocketControlCode, RpcServerConfig};

/// Turns of rpcs before the connection writes and reads, or lets other tasks run. A write costs as much
/// as a hundred small items of a stream: with 512 turns before it, one of 64 bytes took a fifth more time.
const TURNS: usize = 2048;

/// How long a slot may stay unused before its memory is given back: longer than the pauses of a client
/// that is called upon by people, and short beside the life of an idle connection.
const TRIM_AFTER: Duration = Duration::from_secs(10);

/// Serves the calls of one connection with a [`ConnectionService`].
///
/// Servers make it with an [`RpcConnector`](super::RpcConnector); it serves any other connection as
/// well. Nothing comes through its connection's channel.
pub struct RpcReactor<S: ConnectionService> {
    service: S,
    rpcs: Rpcs<S::UnaryFutureType, S::StreamType>,
    max_rpcs: usize,
    max_waiting_bytes: usize,
    /// How large the requests are that began to wait since there last were none.
    waiting_bytes: usize,
    /// A request beyond these limits, until it is known whether there will be a place for it. The messages
    /// before it are heard, those behind it wait.
    parked: Option<S::Request>,
    stats: RpcStats,
    /// Requests that were given up at the end.
    given_up: usize,
    /// When unused slots are given back.
    trim_at: Option<Instant>,
    /// How long nothing may be answered when the input has ended.
    patience: Option<Duration>,
    /// When that is over. There is none before the input has ended.
    give_up_at: Option<Instant>,
}

/// Why a connection ended whose client had finished sending, and whose calls had not.
#[derive(Debug, thiserror::Error)]
#[error(
    "the client has finished sending, and none of its {running} running calls was answered within \
     {patience:?} (end_of_input_timeout)"
)]
struct Unfinished {
    running: usize,
    patience: Duration,
}

/// What a reactor sends and encodes with.
type Answers<'a, S> = ReactorContext<'a, <S as ConnectionService>::Codec>;

impl<S: ConnectionService> RpcReactor<S> {
    /// Serve the calls of one connection with `service`.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(service: S, config: &RpcServerConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::over(service, config))
    }

    /// As [`new`](Self::new), with a configuration that is known to work.
    pub(super) fn over(service: S, config: &RpcServerConfig) -> Self {
        Self {
            service,
            rpcs: Rpcs::new(),
            max_rpcs: config.concurrent_rpcs(),
            max_waiting_bytes: config.waiting_bytes(),
            waiting_bytes: 0,
            parked: None,
            stats: RpcStats::default(),
            given_up: 0,
            trim_at: None,
            patience: config.patience(),
            give_up_at: None,
        }
    }

    /// Take a request: begin it, let it wait, or refuse it.
    #[inline]
    fn take(
        &mut self,
        context: &mut Answers<'_, S>,
        id: u64,
        request: S::Request,
    ) -> ReactorStatus {
        if self.rpcs.contains(id) {
            return self.collide(context, id);
        }
        if self.rpcs.len() < self.max_rpcs {
            return self.begin(context, id, request);
        }
        match self.park(request) {
            Some(_) => self.refuse(context, id),
            None => ReactorStatus::Continue,
        }
    }

    /// Let a request wait until those have had their turns that wait for room or for their turn, unless
    /// there are none.
    #[cold]
    fn park(&mut self, request: S::Request) -> Option<S::Request> {
        // LIMIT: they are given it before another call is taken or refused.
        self.rpcs.owe_turns();
        if !self.rpcs.owes_turns() {
            return Some(request);
        }
        self.parked = Some(request);
        None
    }

    /// Begin or refuse the request that waits, if it is known which of them.
    #[inline]
    fn take_parked(&mut self, context: &mut Answers<'_, S>) -> Option<ReactorStatus> {
        self.parked.as_ref()?;
        let has_place = self.rpcs.len() < self.max_rpcs;
        let may_wait = self.waiting_bytes < self.max_waiting_bytes;
        if !self.rpcs.owes_turns() {
            // Those that waited have had their turns.
            self.waiting_bytes = 0;
        } else if !has_place || !may_wait {
            return None;
        }
        let request = self.parked.take()?;
        let id = request.message_id();
        Some(match has_place {
            true => self.begin(context, id, request),
            false => self.refuse(context, id),
        })
    }

    /// Begin an rpc, and answer at once if it is ready.
    #[inline]
    fn begin(
        &mut self,
        context: &mut Answers<'_, S>,
        id: u64,
        request: S::Request,
    ) -> ReactorStatus {
        // Those that wait come first.
        if self.rpcs.have_turns() || context.room().is_empty() {
            return self.begin_later(context, id, request);
        }
        let service = &mut self.service;
        let turn = self.rpcs.start(id, true, || service.new_rpc(request));
        self.stats.started += 1;
        self.answer(context, id, turn)
    }

    /// Begin an rpc that waits for its turn, unless too much waits already.
    #[inline(never)]
    fn begin_later(
        &mut self,
        context: &mut Answers<'_, S>,
        id: u64,
        mut request: S::Request,
    ) -> ReactorStatus {
        if self.waiting_bytes >= self.max_waiting_bytes {
            match self.park(request) {
                Some(back) => request = back,
                None => return ReactorStatus::Continue,
            }
        }
        self.waiting_bytes = self.waiting_bytes.saturating_add(context.message_size());
        let service = &mut self.service;
        let turn = self.rpcs.start(id, false, || service.new_rpc(request));
        self.stats.started += 1;
        self.answer(context, id, turn)
    }

    #[cold]
    fn refuse(&mut self, context: &mut Answers<'_, S>, id: u64) -> ReactorStatus {
        self.stats.refused += 1;
        tracing::debug!(
            id,
            limit = self.max_rpcs,
            "refused a call: max_concurrent_rpcs are running"
        );
        self.cancel(context, id)
    }

    /// An id is used again whose call is running: nothing can be answered without guessing which of
    /// them it is for.
    #[cold]
    fn collide(&mut self, context: &mut Answers<'_, S>, id: u64) -> ReactorStatus {
        tracing::debug!(id, "cancelled a call, because another came with its id");
        self.rpcs.remove(id);
        self.stats.collided += 1;
        self.cancel(context, id)
    }

    /// Send what came of an rpc's turn.
    #[inline(always)]
    fn answer(
        &mut self,
        context: &mut Answers<'_, S>,
        id: u64,
        turn: Turn<S::Response>,
    ) -> ReactorStatus {
        let (sent, is_last) = match turn {
            Turn::Pending => return ReactorStatus::Continue,
            Turn::Item(mut item) => {
                item.set_message_id(id);
                (context.send(item), false)
            }
            Turn::Last(mut response) => {
                response.set_message_id(id);
                (context.send(response), true)
            }
            Turn::Ended => (context.send(S::Response::ended(id)), true),
            Turn::Unknown(code) => {
                self.stats.failed += 1;
                tracing::debug!(
                    id,
                    code,
                    "cancelled a call, because its response has an unknown control code"
                );
                return self.cancel(context, id);
            }
            Turn::Rejected => {
                self.stats.rejected += 1;
                return self.cancel(context, id);
            }
            Turn::Panicked => {
                self.stats.failed += 1;
                return self.cancel(context, id);
            }
        };
        match sent {
            Ok(()) => {
                self.stats.finished += u64::from(is_last);
                if self.give_up_at.is_some() {
                    self.be_patient(context.now());
                }
                ReactorStatus::Continue
            }
            Err(error) => self.on_unsent(context, id, error),
        }
    }

    /// A response was not sent.
    #[cold]
    fn on_unsent(
        &mut self,
        context: &mut Answers<'_, S>,
        id: u64,
        error: SendError<S::Response>,
    ) -> ReactorStatus {
        self.rpcs.remove(id);
        self.stats.failed += 1;
        match error {
            // This one cannot be said to the client. The others can.
            SendError::Encode(error) if !matches!(error, EncodeError::Shrunk(_)) => {
                tracing::debug!(id, %error, "cancelled a call, because its response cannot be encoded");
                self.cancel(context, id)
            }
            error => context.fail(error),
        }
    }

    /// Tell the client that nothing more comes for `id`.
    ///
    /// There is room: messages are taken only while there is some in the reserve, and nothing uses it
    /// while a request is parked.
    fn cancel(&mut self, context: &mut Answers<'_, S>, id: u64) -> ReactorStatus {
        match context.send_control(S::Response::cancelled(id)) {
            Ok(()) => ReactorStatus::Continue,
            Err(error) => context.fail(error),
        }
    }

    /// The input has ended: give the rpcs time from here on.
    #[cold]
    fn be_patient(&mut self, now: Instant) {
        // What is too far away to be named never comes.
        self.give_up_at = self.patience.and_then(|patience| now.checked_add(patience));
    }

    /// Drop what can no longer be answered.
    fn abandon(&mut self) {
        let running = self.rpcs.clear();
        let parked = usize::from(self.parked.take().is_some());
        self.stats.abandoned += running as u64;
        self.stats.refused += parked as u64;
        self.given_up += running + parked;
    }
}

impl<S: ConnectionService> MessageReactor for RpcReactor<S> {
    type Codec = S::Codec;
    type Inbound = S::Request;
    type Outbound = S::Response;
    type LogicalOutbound = Infallible;

    #[inline]
    fn on_inbound_message(
        &mut self,
        context: &mut Answers<'_, S>,
        message: S::Request,
    ) -> ReactorStatus {
        let id = message.message_id();
        match message.control_code() {
            ProtosocketControlCode::Normal => return self.take(context, id, message),
            ProtosocketControlCode::Cancel if self.rpcs.remove(id) => self.stats.cancelled += 1,
            // A cancellation may be late, and the end of a request has nothing to end.
            ProtosocketControlCode::Cancel | ProtosocketControlCode::End => self.stats.ignored += 1,
            ProtosocketControlCode::Unknown(code) => {
                self.stats.unknown_codes += 1;
                tracing::debug!(id, code, "a message with an unknown control code");
                if !self.rpcs.contains(id) {
                    // Whoever sent it may wait for an answer.
                    return self.cancel(context, id);
                }
            }
        }
        ReactorStatus::Continue
    }

    fn on_outbound_message(
        &mut self,
        _context: &mut Answers<'_, S>,
        message: Infallible,
    ) -> Result<(), SendError<S::Response>> {
        match message {}
    }

    fn poll(&mut self, cx: &mut Context<'_>, context: &mut Answers<'_, S>) -> ReactorStatus {
        if self.trim_at.is_none() && self.rpcs.has_spare_slots() {
            self.trim_at = Some(context.now() + TRIM_AFTER);
        }
        match self.service.poll(cx) {
            ControlFlow::Continue(()) => ReactorStatus::Continue,
            ControlFlow::Break(()) => ReactorStatus::Disconnect,
        }
    }

    fn poll_outbound_many(
        &mut self,
        cx: &mut Context<'_>,
        context: &mut Answers<'_, S>,
    ) -> Poll<Option<()>> {
        self.rpcs.disarm();
        let mut has_sent = false;
        for _ in 0..TURNS {
            match self.take_parked(context) {
                // The input goes on, or what failed is known to the context.
                Some(ReactorStatus::Continue) => has_sent = true,
                Some(_) => return Poll::Ready(Some(())),
                None => {}
            }
            if context.room().is_empty() {
                return Poll::Ready(Some(()));
            }
            let Some((id, turn)) = self.rpcs.take_turn() else {
                self.waiting_bytes = 0;
                if has_sent {
                    return Poll::Ready(Some(()));
                }
                if self.rpcs.is_empty() {
                    return Poll::Ready(None);
                }
                if self.rpcs.arm(cx) {
                    return Poll::Pending;
                }
                continue;
            };
            let is_pending = matches!(turn, Turn::Pending);
            has_sent |= !is_pending;
            if self.answer(context, id, turn) != ReactorStatus::Continue {
                // What failed is known to the context.
                return Poll::Ready(Some(()));
            }
            // Without budget whatever is of tokio is pending and wakes at once: the others keep their
            // turns until the task is polled again.
            if is_pending && !coop::has_budget_remaining() {
                break;
            }
        }
        if !has_sent {
            // LIMIT: rpcs that wake each other, or themselves, and get nowhere must not hold the
            // thread. Waking the task at once would keep the runtime from looking for I/O.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        Poll::Ready(Some(()))
    }

    /// The connection is ending: what still runs has nobody left to answer to.
    fn send_rest(&mut self, _context: &mut Answers<'_, S>, _reason: &CloseReason) -> bool {
        self.abandon();
        false
    }

    #[inline]
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        // No waker is needed: a request is parked only while rpcs have turns that they were not given
        // yet. With room they are given them in this very poll of the connection, which then asks
        // again; without room, what has been sent makes itself heard when it is written.
        match self.parked {
            None => Poll::Ready(()),
            Some(_) => Poll::Pending,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match (self.trim_at, self.give_up_at) {
            (Some(trim), Some(give_up)) => Some(trim.min(give_up)),
            (trim, give_up) => trim.or(give_up),
        }
    }

    fn on_deadline(&mut self, context: &mut Answers<'_, S>) -> ReactorStatus {
        let now = context.now();
        if self.trim_at.is_some_and(|at| at <= now) {
            self.rpcs.trim();
            self.trim_at = None;
        }
        if self.give_up_at.is_none_or(|at| at > now) {
            return ReactorStatus::Continue;
        }
        self.give_up_at = None;
        if self.rpcs.is_empty() {
            // All are answered, and what was sent has the write deadline.
            return ReactorStatus::Continue;
        }
        if context.room().is_empty() {
            // It is the client that is waited for.
            self.be_patient(now);
            return ReactorStatus::Continue;
        }
        context.fail_protocol(Arc::new(Unfinished {
            running: self.rpcs.len(),
            patience: self.patience.unwrap_or_default(),
        }))
    }

    fn on_end_of_input(&mut self, context: &mut Answers<'_, S>) -> ReactorStatus {
        self.be_patient(context.now());
        ReactorStatus::Continue
    }

    fn in_flight(&self) -> usize {
        // What was given up at the end was not answered either.
        self.rpcs.len() + usize::from(self.parked.is_some()) + self.given_up
    }

    fn input_policy(&self) -> InputPolicy {
        InputPolicy::Multiplexing
    }

    fn on_drain(&mut self, _context: &mut Answers<'_, S>, deadline: Instant) -> ReactorStatus {
        self.service.on_drain(deadline);
        ReactorStatus::Continue
    }

    fn on_end(&mut self, reason: &CloseReason, _stats: &ConnectionStats) {
        self.abandon();
        let stats = &self.stats;
        let panics = self.rpcs.panics();
        tracing::debug!(?stats, panics, "what the calls of a connection came to");
        self.service.on_end(reason, stats);
    }
}

impl<S: ConnectionService> fmt::Debug for RpcReactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcReactor")
            .field("running", &self.rpcs.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
