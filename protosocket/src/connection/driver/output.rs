//! What goes out: pulling, encoding, writing.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Driver, MESSAGES_PER_WRITE, Output, Phase, SEND, Transient, Work, transient};
use crate::{
    CloseReason, MessageReactor, Operation, ReactorContext, ReactorStatus, SendBuffer, SendError,
};

/// Segments of one `writev`.
const SEGMENTS: usize = 64;

impl<S, R> Driver<S, R>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: MessageReactor,
{
    /// Pull messages from the channel and the reactor while there is room for them.
    pub(super) fn pull(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        if self.output == Output::Finished {
            self.producer_done = true;
            return false;
        }
        if self.phase == Phase::Closing {
            return self.pull_channel(work) | self.pull_rest(work);
        }
        let send = self.send.as_ref().expect(SEND);
        self.crowded_out = !self.config.limits().send.has_room(send);
        let mut pulled = false;
        if self.producer_first {
            pulled |= self.pull_reactor(cx, work);
        }
        pulled |= self.pull_channel(work);
        if !self.producer_first {
            pulled |= self.pull_reactor(cx, work);
        }
        pulled
    }

    pub(super) fn wants_outbound(&self) -> bool {
        if self.output == Output::Finished {
            return false;
        }
        let send = self.send.as_ref().expect(SEND);
        let room = self.config.limits().send.room(send);
        self.reactor.wants_outbound(room)
    }

    fn pull_channel(&mut self, work: &mut Work) -> bool {
        let mut pulled = false;
        for _ in 0..MESSAGES_PER_WRITE {
            let limits = &self.config.limits().send;
            let send = self.send.as_mut().expect(SEND);
            if !self.reactor.wants_outbound(limits.room(send)) {
                break;
            }
            let Some(message) = self.outbound.try_next() else {
                break;
            };
            pulled = true;
            // Counted until it is delivered, so that it is not forgotten if the codec panics.
            self.stats.unsent += 1;
            let mut context = ReactorContext::new(&mut self.codec, send, limits, work.now);
            let sent = self.reactor.on_outbound_message(&mut context, message);
            self.stats.unsent -= u64::from(sent.is_ok());
            if sent.is_err() || context.has_outcome() {
                let outcome = context.into_outcome();
                self.obey(ReactorStatus::Continue, outcome);
                if let Err(error) = sent {
                    self.lose(error);
                    break;
                }
            }
        }
        if pulled {
            self.timing.on_activity(work.now);
            // What the reactor made of them may be for it to produce.
            self.producer_done = false;
        }
        pulled
    }

    /// An accepted message cannot be delivered: count it, and end.
    #[cold]
    fn lose(&mut self, error: SendError<R::Outbound>) {
        let unsent = self.send.as_ref().map_or(0, |send| send.unsent_bytes());
        let reason = error.into_close_reason(unsent);
        if self.phase == Phase::Open {
            self.close(reason);
        } else {
            tracing::debug!(%reason, "a message was lost while closing");
        }
    }

    /// While closing, the reactor produces only what must still be said.
    fn pull_rest(&mut self, work: &mut Work) -> bool {
        let mut more = false;
        if self
            .config
            .limits()
            .send
            .has_room(self.send.as_ref().expect(SEND))
        {
            let reason = self.reason.take();
            let why = reason.as_deref().unwrap_or(&CloseReason::Aborted);
            self.call(work.now, |reactor, context| {
                more = reactor.send_rest(context, why);
                ReactorStatus::Continue
            });
            self.reason = reason;
        }
        more
    }

    fn pull_reactor(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        let limits = &self.config.limits().send;
        let send = self.send.as_mut().expect(SEND);
        if !limits.has_room(send) {
            self.producer_done = false;
            return false;
        }
        let mut produced = Poll::Pending;
        self.call(work.now, |reactor, context| {
            produced = reactor.poll_outbound_many(cx, context);
            ReactorStatus::Continue
        });
        self.producer_done = matches!(produced, Poll::Ready(None));
        matches!(produced, Poll::Ready(Some(())))
    }

    /// Write until nothing is left, or the stream takes no more.
    #[inline]
    pub(super) fn write(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        !self.is_flushed() && self.write_out(cx, work)
    }

    fn write_out(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        let mut written = 0;
        loop {
            let send = self.send.as_mut().expect(SEND);
            if send.is_empty() {
                break;
            }
            if work.io == 0 {
                work.exhausted = true;
                break;
            }
            work.io -= 1;
            match poll_write(&mut self.stream.stream, send, cx) {
                Poll::Ready(Ok(0)) => {
                    self.fail_io(Operation::Write, io::ErrorKind::WriteZero.into());
                    break;
                }
                Poll::Ready(Ok(count)) => {
                    send.advance(count);
                    written += count;
                }
                Poll::Ready(Err(error)) => match transient(&error) {
                    Some(Transient::Interrupted) => {}
                    Some(Transient::WouldBlock) => {
                        work.retry = true;
                        break;
                    }
                    None => {
                        self.fail_io(Operation::Write, error);
                        break;
                    }
                },
                Poll::Pending => break,
            }
        }
        if let Some(send) = &mut self.send {
            self.stats.messages_out += send.take_completed();
        }
        if written > 0 && self.send.as_ref().is_some_and(|send| send.is_empty()) {
            self.timing.on_all_taken();
        }
        if written > 0 {
            self.stats.bytes_out += written as u64;
            self.unflushed = true;
            self.timing.on_activity(work.now);
            // A producer that has always more and a peer that takes all of it have no other end.
            work.unwritten = work.unwritten.saturating_sub(written);
            work.exhausted |= work.unwritten == 0;
        }
        let flushed = self.unflushed && self.flush(cx, work);
        written > 0 || flushed
    }

    /// Flush what was written, once nothing is left to write. Whether that is done.
    fn flush(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        if !self.send.as_ref().expect(SEND).is_empty() || self.phase == Phase::Ended {
            return false;
        }
        match Pin::new(&mut self.stream.stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                true
            }
            Poll::Ready(Err(error)) => {
                match transient(&error) {
                    Some(_) => work.retry = true,
                    None => self.fail_io(Operation::Flush, error),
                }
                false
            }
            Poll::Pending => false,
        }
    }

    /// End the output behind the last message, when that is written. Whether it is done.
    pub(super) fn finish_output(&mut self, cx: &mut Context<'_>, work: &mut Work) -> bool {
        let drained = self.outbound.is_empty() || !self.wants_outbound();
        if !drained || !self.is_flushed() {
            return false;
        }
        match Pin::new(&mut self.stream.stream).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => {
                self.output = Output::Finished;
                true
            }
            Poll::Ready(Err(error)) => match transient(&error) {
                Some(Transient::Interrupted) => self.spend_io(work),
                Some(Transient::WouldBlock) => {
                    work.retry = true;
                    false
                }
                None => {
                    self.fail_io(Operation::Shutdown, error);
                    true
                }
            },
            Poll::Pending => false,
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        !self.unflushed && self.send.as_ref().is_none_or(|send| send.is_empty())
    }
}

/// Write the front of `send`: one piece as it is, several with `writev`.
fn poll_write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    send: &SendBuffer,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if let Some(bytes) = send.as_contiguous() {
        return Pin::new(stream).poll_write(cx, bytes);
    }
    let mut slices = [IoSlice::new(&[]); SEGMENTS];
    if stream.is_write_vectored() {
        let filled = send.io_slices(&mut slices);
        Pin::new(stream).poll_write_vectored(cx, &slices[..filled])
    } else {
        send.io_slices(&mut slices[..1]);
        Pin::new(stream).poll_write(cx, &slices[0])
    }
}
