//! The life of a connection: what a poll does, in which phase, and how it ends.

mod input;
mod output;
mod time;

use std::{
    any::Any,
    fmt,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    ConnectionConfig, ConnectionEnd, ConnectionHandle, Handover, Hooks, memory,
    outbound::Outbound,
    receive::{ReceiveBuffer, Scratch},
    timing::Timing,
};
use crate::{
    CloseReason, ConnectionStats, DecodeError, MessageReactor, Operation, ReactorContext,
    ReactorStatus, Receiver, SendBuffer, SendLimits, reactor::Outcome,
};

/// Bytes that one poll reads before it lets other tasks run, each as often as it
/// [weighs](ReceiveBuffer::weight): 128 KiB of small messages, 256 KiB of large ones, and 1 MiB of
/// a huge one. The end of a large message may lie up to an eighth behind that.
const BYTES_PER_POLL: usize = 8 * memory::SCRATCH;

/// Bytes after which a poll that has written them lets other tasks run. What it answers is bounded by
/// what it reads; this bounds what is pulled.
const WRITTEN_PER_POLL: usize = 1024 * 1024;

/// Messages that are decoded, or pulled, before what they caused is written.
const MESSAGES_PER_WRITE: usize = 512;

/// Reads and writes of one poll.
const IO_PER_POLL: usize = 32;

/// Rounds of one poll, which bound what neither reads nor writes: messages of no bytes, after the
/// end of the input.
const ROUNDS_PER_POLL: usize = 64;

/// Deadlines that one poll acts on.
const DEADLINES_PER_POLL: usize = 16;

/// All of a connection. The future around it holds one until the end.
pub(super) struct Driver<S, R: MessageReactor> {
    stream: Hooks<S>,
    codec: R::Codec,
    reactor: R,
    outbound: Outbound<R::LogicalOutbound>,
    config: ConnectionConfig,
    handle: Option<ConnectionHandle>,
    receive: ReceiveBuffer,
    /// `None` while there is nothing to send: idle connections hold no buffer.
    send: Option<Box<SendBuffer>>,
    phase: Phase,
    output: Output,
    /// Why the connection is ending, from the moment at which that is decided.
    reason: Option<Box<CloseReason>>,
    drain: Option<Drain>,
    lingers_until: Option<Instant>,
    end_of_age: Option<Instant>,
    timing: Timing,
    /// How often it was looked again before a deadline that came late.
    looks: u8,
    stats: ConnectionStats,
    /// What the observer has been told.
    reported: Option<Box<ConnectionStats>>,
    /// The peer has finished sending.
    input_ended: bool,
    /// The reactor has been told that the input ended.
    told_end_of_input: bool,
    /// The input ended where it must not, inside a message as a rule: the reason for the end, once
    /// all is answered.
    truncated: Option<Box<DecodeError>>,
    /// The stream may hold bytes that were written and not flushed.
    unflushed: bool,
    /// `poll_outbound_many` has nothing to wait for.
    producer_done: bool,
    /// Which of channel and reactor is asked first, so that neither starves the other.
    producer_first: bool,
    /// Channel and reactor found no room when they were asked last.
    crowded_out: bool,
    /// `None` if nobody listens.
    span: Option<Box<tracing::Span>>,
}

/// The life of a connection. It only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Everything happens.
    Open,
    /// No message is decoded any more. What was accepted is sent.
    Closing,
    /// All is sent. The stream is being shut down.
    ShuttingDown,
    /// The peer has been told. It may finish reading, until `lingers_until`.
    Lingering,
    /// Nothing is left to do.
    Ended,
}

/// The direction to the peer, while the connection is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Open,
    /// The reactor has sent its last message. It is on its way, and the end of the stream behind it.
    Finishing,
    /// The peer has been told that nothing more comes.
    Finished,
}

#[derive(Debug, Clone, Copy)]
struct Drain {
    deadline: Instant,
    /// It was the connection's own age that began it.
    by_age: bool,
}

/// One poll: what it may still do, and what it has found out.
struct Work {
    now: Instant,
    scratch: Scratch,
    bytes: usize,
    /// Bytes that this poll may still write before it is done.
    unwritten: usize,
    io: usize,
    rounds: usize,
    /// Deadlines that this poll still acts on.
    deadlines: usize,
    /// There may be more to do than this poll may.
    exhausted: bool,
    /// A read has found nothing to read.
    dry: bool,
    /// Nothing is decoded, because the reactor or the send buffer takes no more.
    paused: bool,
    /// A stream said `WouldBlock`, so nobody will wake this task.
    retry: bool,
    /// The deadline of its own that the reactor was last told of in this poll.
    told: Option<Instant>,
}

impl<S, R> Driver<S, R>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: MessageReactor,
{
    pub(super) fn new(
        stream: Hooks<S>,
        codec: R::Codec,
        reactor: R,
        outbound: Receiver<R::LogicalOutbound>,
        config: ConnectionConfig,
    ) -> Self {
        let now = config.clock().now();
        if let Some(observer) = config.observer() {
            observer.opened(&stream.peer());
        }
        let span = tracing::debug_span!("connection", peer = %stream.peer());
        let span = (!span.is_disabled()).then(|| Box::new(span));
        let entered = span.as_ref().map(|span| span.enter());
        tracing::debug!("opened");
        drop(entered);
        Self {
            stream,
            codec,
            reactor,
            outbound: Outbound::new(outbound),
            handle: None,
            receive: ReceiveBuffer::default(),
            send: None,
            phase: Phase::Open,
            output: Output::Open,
            reason: None,
            drain: None,
            lingers_until: None,
            end_of_age: config.end_of_age(now),
            timing: Timing::new(now),
            looks: 0,
            stats: ConnectionStats::default(),
            reported: config.observer().map(|_| Box::default()),
            input_ended: false,
            told_end_of_input: false,
            truncated: None,
            unflushed: false,
            producer_done: false,
            producer_first: false,
            crowded_out: false,
            config,
            span,
        }
    }

    pub(super) fn set_unread(&mut self, unread: BytesMut) {
        self.receive = ReceiveBuffer::with_unread(unread);
    }

    pub(super) fn set_handle(&mut self, handle: ConnectionHandle) {
        self.handle = Some(handle);
    }

    pub(super) fn handle(&mut self) -> ConnectionHandle {
        self.handle
            .get_or_insert_with(ConnectionHandle::new)
            .clone()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let _entered = self.span.clone().map(|span| span.entered());
        let mut work = Work {
            now: self.config.clock().now(),
            scratch: Scratch::default(),
            bytes: BYTES_PER_POLL,
            unwritten: WRITTEN_PER_POLL,
            io: IO_PER_POLL,
            rounds: ROUNDS_PER_POLL,
            deadlines: DEADLINES_PER_POLL,
            exhausted: false,
            dry: false,
            paused: false,
            retry: false,
            told: None,
        };
        let bytes_before = self.stats.bytes_in;
        if self.send.is_none() {
            self.send = Some(memory::take_send_buffer());
        }
        // What the reactor sends into its own channel is pulled in this poll.
        self.outbound.disarm();
        self.outbound.give_up_if_unreachable();
        self.obey_handle(cx, &mut work);
        loop {
            let progress = match self.phase {
                Phase::Open => self.poll_open(cx, &mut work),
                Phase::Closing => self.poll_closing(cx, &mut work),
                Phase::ShuttingDown => self.poll_shutting_down(cx, &mut work),
                Phase::Lingering => self.poll_lingering(cx, &mut work),
                Phase::Ended => break,
            };
            work.rounds = work.rounds.saturating_sub(1);
            work.exhausted |= work.rounds == 0;
            if progress && !work.exhausted {
                continue;
            }
            if self.pass_deadlines(cx, &mut work) {
                continue;
            }
            if work.exhausted {
                yield_to_driver(cx);
                break;
            }
            if !self.park(cx, &work) {
                continue;
            }
            break;
        }
        let read = (self.stats.bytes_in - bytes_before) as usize;
        self.receive.rest(&mut work.scratch, read);
        if self.send.as_ref().is_some_and(|send| send.is_empty())
            && let Some(mut buffer) = self.send.take()
        {
            // Messages of no bytes are complete without having been written.
            self.stats.messages_out += buffer.take_completed();
            memory::give_send_buffer(buffer);
        }
        self.report_traffic();
        match self.phase {
            Phase::Ended => Poll::Ready(
                self.reason
                    .take()
                    .map_or(CloseReason::Aborted, |reason| *reason),
            ),
            _ => Poll::Pending,
        }
    }

    /// A codec or the reactor panicked. The peer sees a reset, the owner why.
    pub(super) fn fail_by_panic(&mut self, panic: &(dyn Any + Send)) -> CloseReason {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        (self.stream.abort)(&mut self.stream.stream);
        CloseReason::Panicked(message)
    }

    /// Count what is lost, tell everybody, and take the connection apart.
    pub(super) fn end(mut self, reason: CloseReason) -> ConnectionEnd<S, R> {
        let _entered = self.span.clone().map(|span| span.entered());
        if let Some(mut send) = self.send.take() {
            self.stats.messages_out += send.take_completed();
            self.stats.unsent += send.unsent_messages() as u64;
            self.stats.cut = u64::from(send.is_cut());
        }
        self.stats.unsent += self.outbound.close_and_drop() as u64;
        self.stats.unanswered = self.unanswered();
        if matches!(reason, CloseReason::Dropped) && (self.stats.unsent > 0 || self.unflushed) {
            // The peer must not take what it has got for everything. What was not flushed may be
            // gone with the stream, such as a TLS record that was never written.
            (self.stream.abort)(&mut self.stream.stream);
        }
        if let Some(handle) = &self.handle {
            handle.mark_ended();
        }
        self.report_traffic();
        let stats = self.stats;
        match &reason {
            CloseReason::Panicked(_) => tracing::error!(%reason, "a bug of this program"),
            reason => tracing::debug!(%reason, ?stats, "closed"),
        }
        let reactor = &mut self.reactor;
        let told = catch_unwind(AssertUnwindSafe(|| reactor.on_end(&reason, &stats)));
        if told.is_err() {
            tracing::error!("the reactor panicked in on_end");
        }
        if let Some(observer) = self.config.observer() {
            observer.closed(&self.stream.peer(), &reason, &stats);
        }
        let handover = matches!(reason, CloseReason::Handover).then(|| Handover {
            stream: self.stream.stream,
            unread: self.receive.into_unread(),
            codec: self.codec,
            reactor: self.reactor,
        });
        ConnectionEnd {
            reason,
            stats,
            handover,
        }
    }

    /// What it has done so far; messages that are still to be sent count as unsent.
    pub(super) fn stats(&self) -> ConnectionStats {
        let encoded = self.send.as_ref().map_or(0, |send| send.unsent_messages());
        ConnectionStats {
            unsent: self.stats.unsent + (encoded + self.outbound.len()) as u64,
            unanswered: self.unanswered(),
            ..self.stats
        }
    }

    /// What the reactor has not answered. Asked at the end as well, where the reactor may be what
    /// has panicked, and where a second panic would end the program.
    fn unanswered(&self) -> u64 {
        let asked = catch_unwind(AssertUnwindSafe(|| self.reactor.in_flight()));
        asked.unwrap_or_default() as u64
    }

    pub(super) fn describe(&self, debug: &mut fmt::DebugStruct<'_, '_>) {
        debug
            .field("peer", &self.stream.peer())
            .field("phase", &self.phase)
            .field("stats", &self.stats);
    }

    // The phases. Each returns whether it has done anything that may let something else happen.

    fn poll_open(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        self.producer_first = !self.producer_first;
        // Answers may take all the room that there is: then whoever found none comes first.
        let mut progress = self.crowded_out && self.pull(cx, work);
        progress |= self.phase == Phase::Open && self.receive(cx, work);
        if self.phase == Phase::Open {
            self.react(cx, work);
        }
        if self.phase == Phase::Open {
            progress |= self.pull(cx, work);
        }
        if self.phase != Phase::Ended {
            progress |= self.write(cx, work);
        }
        if self.phase == Phase::Open && self.output == Output::Finishing && !progress {
            progress = self.finish_output(cx, work);
        }
        if self.phase == Phase::Open {
            self.finish_if_done(work);
        }
        // What the reactor has done since may let it take input again, and then nobody else would
        // tell: the waker that it was given belongs to this very poll.
        if work.paused && !progress && self.phase == Phase::Open {
            progress = !self.is_paused(cx);
        }
        // A change of phase is progress: the next phase has not been polled.
        progress || self.phase != Phase::Open
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        let mut progress = self.pull(cx, work);
        progress |= self.write(cx, work);
        if self.phase != Phase::Closing {
            return true;
        }
        let hands_over = matches!(self.reason.as_deref(), Some(CloseReason::Handover));
        if !hands_over {
            progress |= self.discard_input(cx, work);
        }
        // Accepted messages may still be on their way into the channel; a reactor that takes no
        // more of them leaves them to be counted.
        let drained = self.outbound.is_empty() || !self.wants_outbound();
        if self.phase == Phase::Closing && !progress && drained && self.is_flushed() {
            self.phase = match hands_over {
                true => Phase::Ended,
                false => Phase::ShuttingDown,
            };
        }
        progress || self.phase != Phase::Closing
    }

    fn poll_shutting_down(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        let shut_down = match self.output {
            Output::Finished => Poll::Ready(Ok(())),
            _ => Pin::new(&mut self.stream.stream).poll_shutdown(cx),
        };
        match shut_down {
            Poll::Ready(Ok(())) => {
                let linger = match self.stream.lingers && !self.input_ended {
                    true => self.config.limits().linger_timeout,
                    false => None,
                };
                self.lingers_until = linger.map(|time| work.now + time);
                self.phase = match linger {
                    Some(_) => Phase::Lingering,
                    None => Phase::Ended,
                };
                true
            }
            Poll::Ready(Err(error)) => match transient(&error) {
                Some(Transient::Interrupted) => self.spend_io(work),
                Some(Transient::WouldBlock) => {
                    work.retry = true;
                    false
                }
                // The peer has reset the connection after everything was written: it is gone,
                // and there is nobody left to tell.
                None => {
                    tracing::debug!(%error, "the peer was gone at shutdown");
                    self.phase = Phase::Ended;
                    true
                }
            },
            Poll::Pending => self.discard_input(cx, work),
        }
    }

    fn poll_lingering(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        let progress = self.discard_input(cx, work);
        let over = self.lingers_until.is_none_or(|until| work.now >= until);
        if self.input_ended || over {
            self.phase = Phase::Ended;
            return true;
        }
        progress
    }

    // The reactor.

    /// Let the reactor drive what is its own, and tell it of its deadline.
    fn react(&mut self, cx: &mut Context<'_>, work: &mut Work) {
        if let Some(at) = self.reactor.deadline().filter(|at| *at <= work.now) {
            work.told = Some(at);
            self.call(work.now, R::on_deadline);
        }
        if self.phase == Phase::Open {
            self.call(work.now, |reactor, context| reactor.poll(cx, context));
        }
    }

    /// Call the reactor, and do as it says.
    #[inline]
    fn call(
        &mut self,
        now: Instant,
        call: impl FnOnce(&mut R, &mut ReactorContext<'_, R::Codec>) -> ReactorStatus,
    ) {
        let limits = match self.output {
            Output::Finished => &SendLimits::NOTHING,
            _ => &self.config.limits().send,
        };
        let send = self.send.as_mut().expect(SEND);
        let mut context = ReactorContext::new(&mut self.codec, send, limits, now);
        let status = call(&mut self.reactor, &mut context);
        if status != ReactorStatus::Continue || context.has_outcome() {
            let outcome = context.into_outcome();
            self.obey(status, outcome);
        }
    }

    #[cold]
    fn obey(&mut self, status: ReactorStatus, outcome: Outcome) {
        self.stats.refused += outcome.refused;
        if self.phase != Phase::Open {
            return;
        }
        match (outcome.failure, status) {
            (failure, ReactorStatus::Abort) => {
                self.abort(failure.map_or(CloseReason::Aborted, |failure| *failure));
            }
            (Some(failure), _) => self.close(*failure),
            (None, ReactorStatus::Disconnect) => self.close(CloseReason::Disconnect),
            (None, ReactorStatus::Finish) if self.output == Output::Open => {
                tracing::debug!("finishing the output");
                self.outbound.close();
                self.output = Output::Finishing;
            }
            (None, ReactorStatus::Finish) => {}
            (None, ReactorStatus::Handover) => self.close(CloseReason::Handover),
            (None, ReactorStatus::Continue) => {}
        }
    }

    // The end.

    /// Whether everything that was begun is done, as far as this side knows.
    fn is_quiet(&self) -> bool {
        self.is_flushed()
            && self.producer_done
            && self.reactor.in_flight() == 0
            && (self.outbound.is_finished() || self.output == Output::Finished)
    }

    /// Whether no sender is left, nor a message that could still be sent.
    fn is_without_senders(&self) -> bool {
        match self.output {
            // What is left in the channel stays there, to be counted.
            Output::Finished => self.outbound.is_abandoned(),
            Output::Open | Output::Finishing => self.outbound.is_finished(),
        }
    }

    #[inline]
    fn finish_if_done(&mut self, work: &Work) {
        let is_client = self.config.is_client();
        if self.told_end_of_input || self.drain.is_some() || is_client {
            self.finish_if_quiet(work);
        }
    }

    fn finish_if_quiet(&mut self, work: &Work) {
        let by_end_of_input = self.told_end_of_input;
        let by_drain = self.drain.is_some()
            && (work.dry || self.input_ended)
            && !self.receive.has_partial(&work.scratch, &self.codec);
        let by_senders = self.config.is_client() && self.is_without_senders();
        if !(by_end_of_input || by_drain || by_senders) || !self.is_quiet() {
            return;
        }
        let reason = match (self.truncated.take(), self.drain) {
            (Some(error), _) => CloseReason::Decode(*error),
            (None, Some(Drain { by_age: true, .. })) => CloseReason::Age,
            (None, Some(_)) => CloseReason::Drained,
            (None, None) if by_end_of_input => CloseReason::EndOfInput,
            (None, None) => CloseReason::NoSenders,
        };
        self.close(reason);
    }

    /// End in order: send what was accepted, flush, shut down, linger.
    fn close(&mut self, reason: CloseReason) {
        tracing::debug!(%reason, "closing");
        self.outbound.close();
        self.reason = Some(Box::new(reason));
        self.phase = Phase::Closing;
    }

    /// End now, and let the peer see a reset.
    fn abort(&mut self, reason: CloseReason) {
        (self.stream.abort)(&mut self.stream.stream);
        self.reason = Some(Box::new(reason));
        self.phase = Phase::Ended;
    }

    fn fail_io(&mut self, operation: Operation, source: io::Error) {
        // A connection that was ending for a fault keeps that reason.
        if self
            .reason
            .as_ref()
            .is_none_or(|reason| reason.is_graceful())
        {
            let source = Arc::new(source);
            self.reason = Some(Box::new(CloseReason::Io { operation, source }));
        }
        self.phase = Phase::Ended;
    }

    /// Register for what may come from other tasks. Whether nothing has come meanwhile.
    fn park(&mut self, cx: &mut Context<'_>, work: &Work) -> bool {
        let pulls = self.phase == Phase::Open || self.phase == Phase::Closing;
        if pulls {
            let send = self.send.as_ref().expect(SEND);
            let has_room = self.config.limits().send.has_room(send);
            if self.wants_outbound() {
                if self.outbound.poll_ready(cx).is_ready() {
                    return false;
                }
            } else {
                // The places of what was taken are free, although nothing more is taken.
                self.outbound.release();
                if has_room {
                    // Without room there is something to write, and that wakes.
                    self.outbound.register(cx);
                }
            }
        }
        if self.phase == Phase::Open {
            // The last sender may have gone before the waker was there.
            self.finish_if_done(work);
            return self.phase == Phase::Open;
        }
        true
    }

    /// Count an I/O call. Whether there was one left.
    fn spend_io(&self, work: &mut Work) -> bool {
        match work.io.checked_sub(1) {
            Some(left) => {
                work.io = left;
                true
            }
            None => {
                work.exhausted = true;
                false
            }
        }
    }

    fn report_traffic(&mut self) {
        let Some(reported) = &mut self.reported else {
            return;
        };
        let new = self.stats;
        let old = std::mem::replace(&mut **reported, new);
        if let Some(observer) = self.config.observer()
            && new != old
        {
            observer.traffic(&ConnectionStats {
                bytes_in: new.bytes_in - old.bytes_in,
                bytes_out: new.bytes_out - old.bytes_out,
                messages_in: new.messages_in - old.messages_in,
                messages_out: new.messages_out - old.messages_out,
                unsent: new.unsent - old.unsent,
                cut: new.cut - old.cut,
                unanswered: new.unanswered - old.unanswered,
                refused: new.refused - old.refused,
            });
        }
    }
}

/// Why the send buffer can be expected to be there.
const SEND: &str = "a poll takes a send buffer first of all and gives it back last";

/// Errors that are none.
enum Transient {
    Interrupted,
    WouldBlock,
}

fn transient(error: &io::Error) -> Option<Transient> {
    match error.kind() {
        io::ErrorKind::Interrupted => Some(Transient::Interrupted),
        io::ErrorKind::WouldBlock => Some(Transient::WouldBlock),
        _ => None,
    }
}

/// Have this task polled again after the I/O driver and the other tasks have had their turn.
///
/// Waking the task at once would keep the run queue full, and the runtime looks for I/O only
/// every few dozen polls then: other connections would wait 20 ms beside a busy one.
fn yield_to_driver(cx: &mut Context<'_>) {
    // INVARIANT: it is pending the first time that it is polled, and has arranged for the wake.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}
