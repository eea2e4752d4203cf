//! What comes in: reading, decoding, and handing over to the reactor.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    BYTES_PER_POLL, Driver, MESSAGES_PER_WRITE, Output, Phase, SEND, Transient, Work, transient,
};
use crate::{
    CloseReason, DecodeError, InputPolicy, MessageReactor, Operation, ReactorContext,
    ReactorStatus, SendBuffer, SendLimits,
    connection::{
        memory,
        receive::{ReadSizes, Step},
    },
};

/// What is read ahead, at most, while the reactor or the send buffer takes no message: enough to
/// see that the peer has gone, in bytes.
const READ_AHEAD: usize = 16 * 1024;

impl<S, R> Driver<S, R>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: MessageReactor,
{
    /// Decode what is there, read once if that is used up, and decode that.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        let before = (self.stats.messages_in, self.stats.bytes_in);
        let until = before.0 + MESSAGES_PER_WRITE as u64;
        let mut has_read = false;
        loop {
            let more = self.decode(cx, work, until);
            if !more || has_read || self.input_ended {
                break;
            }
            if !self.read(cx, work, usize::MAX) {
                break;
            }
            has_read = true;
        }
        if work.paused && self.phase == Phase::Open {
            has_read |= self.read_ahead(cx, work);
        }
        let received = self.stats.messages_in != before.0;
        // Also what the decoder passes over: a peer that sends such a thing is there, whether it
        // comes in one piece or in two.
        if received || self.stats.bytes_in != before.1 {
            self.timing.on_activity(work.now);
        }
        if received {
            self.timing.on_messages();
            if let Some(handle) = &self.handle {
                handle.set_received();
            }
        }
        received || has_read
    }

    /// Decode messages and hand them to the reactor, until so many have come in. Whether more input
    /// is what it takes to go on.
    fn decode(&mut self, cx: &mut Context<'_>, work: &mut Work, until: u64) -> bool {
        // An earlier look in this poll may have found what the reactor has remedied since.
        work.paused = false;
        if !self.input_ended && self.receive.len(&work.scratch) == 0 {
            work.paused = self.is_paused(cx);
            return !work.paused;
        }
        loop {
            if let Some(more) = self.decode_run(cx, work, until) {
                return more;
            }
        }
    }

    /// As [`decode`](Self::decode), or `None` when the reactor has said more than `Continue`.
    #[inline]
    fn decode_run(&mut self, cx: &mut Context<'_>, work: &mut Work, until: u64) -> Option<bool> {
        // The loop below is the hot path: it borrows what it needs once and leaves everything
        // that is not the next message to the code behind it.
        let limits = self.config.limits();
        let room = limits.send;
        let send = self.send.as_deref_mut().expect(SEND);
        let send_limits = match self.output {
            Output::Finished => &SendLimits::NOTHING,
            _ => &limits.send,
        };
        let ended = self.input_ended;
        let limit = limits.max_message_size;
        let mut context = ReactorContext::new(&mut self.codec, send, send_limits, work.now);
        let mut window = self.receive.open(&work.scratch);
        let stop = loop {
            if self.stats.messages_in >= until {
                break Stop::Enough;
            }
            let has_room = match self.reactor.input_policy() {
                InputPolicy::Answering => context.look_for_room(&room),
                InputPolicy::Multiplexing => room.has_control_room(context.send_buffer()),
            };
            if !has_room || self.reactor.poll_ready(cx).is_pending() {
                break Stop::Paused;
            }
            let codec = context.codec();
            let (message, size) = match self.receive.decode(codec, &mut window, ended, limit) {
                Step::Message(message, size) => (message, size),
                Step::Failed(error) => break Stop::Failed(error),
                Step::Starved if !ended || self.told_end_of_input => break Stop::Starved,
                Step::Starved => {
                    match self.receive.decode_end(codec, std::mem::take(&mut window)) {
                        Step::Message(message, size) => (message, size),
                        Step::Starved => break Stop::Starved,
                        Step::Failed(error) => {
                            // What came before it is answered all the same.
                            self.truncated = Some(error);
                            break Stop::Starved;
                        }
                    }
                }
            };
            self.stats.messages_in += 1;
            context.set_message_size(size);
            let status = self.reactor.on_inbound_message(&mut context, message);
            if status != ReactorStatus::Continue || context.has_outcome() {
                break Stop::Told(status);
            }
        };
        let unread = self.receive.close(window);
        work.scratch.leave(unread);
        let outcome = context.into_outcome();
        match stop {
            Stop::Enough => return Some(false),
            Stop::Paused => {
                work.paused = true;
                return Some(false);
            }
            Stop::Starved if !ended => return Some(true),
            Stop::Starved if self.told_end_of_input => {}
            Stop::Starved => self.end_input(work.now),
            Stop::Failed(error) => self.on_decode_error(work.now, *error),
            Stop::Told(status) => {
                self.obey(status, outcome);
                return match self.phase {
                    Phase::Open => None,
                    _ => Some(false),
                };
            }
        }
        Some(false)
    }

    /// Whether the reactor or the send buffer takes no more messages.
    pub(super) fn is_paused(&mut self, cx: &mut Context<'_>) -> bool {
        let limits = &self.config.limits().send;
        let send = self.send.as_deref().expect(SEND);
        let has_room = has_room_to_answer(self.reactor.input_policy(), limits, send);
        !has_room || self.reactor.poll_ready(cx).is_pending()
    }

    /// The last message has been delivered.
    fn end_input(&mut self, now: Instant) {
        tracing::debug!("the peer has finished sending");
        self.told_end_of_input = true;
        if let Some(error) = self.truncated.take() {
            self.tell_decode_error(now, &error);
            self.truncated = Some(error);
        }
        if self.phase == Phase::Open {
            self.call(now, R::on_end_of_input);
        }
    }

    fn tell_decode_error(&mut self, now: Instant, error: &DecodeError) {
        tracing::debug!(%error, "the input cannot be decoded");
        self.call(now, |reactor, context| {
            reactor.on_decode_error(context, error);
            ReactorStatus::Continue
        });
    }

    fn on_decode_error(&mut self, now: Instant, error: DecodeError) {
        self.tell_decode_error(now, &error);
        if self.phase == Phase::Open {
            self.close(CloseReason::Decode(error));
        }
    }

    /// While nothing is decoded, read a little, so that the end of the connection is noticed.
    fn read_ahead(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        let mut has_read = false;
        loop {
            let ahead = self.receive.len(&work.scratch);
            if ahead >= READ_AHEAD || self.input_ended {
                return has_read;
            }
            self.receive.keep(&mut work.scratch);
            if !self.read(cx, work, READ_AHEAD - ahead) {
                return has_read;
            }
            has_read = true;
        }
    }

    /// Read once. Whether anything came, the end of the input included.
    fn read(&mut self, cx: &mut Context<'_>, work: &mut Work, limit: usize) -> bool {
        let weight = self.receive.weight();
        let left = work.bytes / weight;
        // What is left of the share is too little for another large message: it would be read in two
        // pieces, of which the first would have to be moved.
        let is_rest = work.bytes < BYTES_PER_POLL && self.receive.begins_beyond(left);
        if limit == 0 || left == 0 || is_rest || !self.spend_io(work) {
            work.exhausted = true;
            return false;
        }
        let sizes = ReadSizes {
            limit,
            share: left,
            chunk: self.config.limits().receive_chunk,
        };
        let stream = &mut self.stream.stream;
        match self.receive.poll_read(stream, &mut work.scratch, sizes, cx) {
            Poll::Ready(Ok(0)) => {
                self.input_ended = true;
                true
            }
            Poll::Ready(Ok(count)) => {
                work.bytes = work.bytes.saturating_sub(weight * count);
                self.stats.bytes_in += count as u64;
                work.dry = false;
                true
            }
            Poll::Ready(Err(error)) => match transient(&error) {
                Some(Transient::Interrupted) => self.read(cx, work, limit),
                Some(Transient::WouldBlock) => {
                    work.dry = true;
                    work.retry = true;
                    false
                }
                None => {
                    self.fail_io(Operation::Read, error);
                    false
                }
            },
            Poll::Pending => {
                work.dry = true;
                false
            }
        }
    }

    /// Read and forget, so that the peer can finish writing and then read what it was sent.
    pub(super) fn discard_input(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        if self.input_ended {
            return false;
        }
        if !self.spend_io(work) || work.bytes == 0 {
            work.exhausted = true;
            return false;
        }
        let mut memory = memory::take_scratch();
        let mut buffer = ReadBuf::new(memory::writable(&mut memory));
        let read = Pin::new(&mut self.stream.stream).poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        memory::give_scratch(memory);
        match read {
            Poll::Ready(Ok(())) => {
                work.bytes -= count.min(work.bytes);
                self.stats.bytes_in += count as u64;
                self.input_ended = count == 0;
                true
            }
            Poll::Ready(Err(error)) => match transient(&error) {
                Some(Transient::Interrupted) => true,
                Some(Transient::WouldBlock) => {
                    work.retry = true;
                    false
                }
                // The peer is gone: nothing more will come. If there is something to write,
                // writing will tell.
                None => {
                    self.input_ended = true;
                    true
                }
            },
            Poll::Pending => false,
        }
    }
}

/// Why a run of messages is over.
enum Stop {
    /// As many as may be before something is written.
    Enough,
    /// The reactor or the send buffer takes no more.
    Paused,
    /// Nothing more is complete.
    Starved,
    Failed(Box<DecodeError>),
    /// The reactor has said more than `Continue`.
    Told(ReactorStatus),
}

/// Whether there is room for what comes of another message.
#[inline]
fn has_room_to_answer(policy: InputPolicy, limits: &SendLimits, send: &SendBuffer) -> bool {
    match policy {
        InputPolicy::Answering => limits.has_room(send),
        InputPolicy::Multiplexing => limits.has_control_room(send),
    }
}
