//! What a program does with the messages of one connection.

use std::{
    error::Error,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use crate::{
    CloseReason, Codec, ConnectionStats, DecodeError, Decoder, EncodeError, Encoder, SendBuffer,
};

/// The part of a program that serves one connection.
///
/// A connection calls its reactor from its own task with `&mut self`: there is no lock, and a
/// reactor need not be `Send`. The reactor and its connection share their fate.
///
/// A reactor answers through the [`ReactorContext`], which encodes straight into the send
/// buffer. What other tasks produce reaches it through a [`Sender`](crate::Sender); a reactor
/// that keeps one of its own holds a [`WeakSender`](crate::WeakSender), because a strong one
/// says that messages are still to come.
pub trait MessageReactor: 'static {
    /// What the connection speaks.
    type Codec: Codec + Decoder<Message = Self::Inbound> + Encoder<Message = Self::Outbound>;
    /// What the codec decodes.
    type Inbound;
    /// What the codec encodes.
    type Outbound;
    /// What comes through the connection's [`Sender`](crate::Sender).
    type LogicalOutbound;

    /// A message arrived.
    ///
    /// Nothing else of this connection happens meanwhile, so return quickly: work that takes
    /// time goes into [`poll`](Self::poll) or into a task that answers through a `Sender`.
    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Self::Codec>,
        message: Self::Inbound,
    ) -> ReactorStatus;

    /// A message came through the channel: send it as none, one or several on the wire.
    ///
    /// Called while [`wants_outbound`](Self::wants_outbound), which by default is while the send
    /// buffer has room. Most reactors have `context.send(message)` here.
    ///
    /// # Errors
    /// An error says that this accepted message cannot be delivered. It is counted as unsent and
    /// the connection ends; a reactor that can go on without it answers `Ok`.
    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Self::Codec>,
        message: Self::LogicalOutbound,
    ) -> Result<(), SendError<Self::Outbound>>;

    /// Drive what belongs to this connection: futures, streams, counters.
    ///
    /// Called on every wake of the connection, whatever the peer does.
    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
        _context: &mut ReactorContext<'_, Self::Codec>,
    ) -> ReactorStatus {
        ReactorStatus::Continue
    }

    /// Produce outbound messages while there is room for them.
    ///
    /// Called only while the send buffer has room, and again when it has room again.
    /// `Ready(Some(()))` says that something was sent and there may be more, `Pending` that there
    /// is nothing now and a waker is registered, `Ready(None)` that there is nothing to wait for.
    fn poll_outbound_many(
        &mut self,
        _cx: &mut Context<'_>,
        _context: &mut ReactorContext<'_, Self::Codec>,
    ) -> Poll<Option<()>> {
        Poll::Ready(None)
    }

    /// The connection is ending in order, for `reason`: send what must still be said.
    ///
    /// Called while there is room, until it answers `false`, in place of
    /// [`poll_outbound_many`](Self::poll_outbound_many). A reactor that queues messages of its own
    /// sends them here; one whose protocol has words for a deadline (HTTP's 408) says them here.
    fn send_rest(
        &mut self,
        _context: &mut ReactorContext<'_, Self::Codec>,
        _reason: &CloseReason,
    ) -> bool {
        false
    }

    /// Whether the reactor can take another message.
    ///
    /// While it is `Pending`, for which it registers a waker, nothing is decoded, and the
    /// deadlines on the peer's input stand still. At most 16 KiB are read ahead, so that the end
    /// of the connection is noticed.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Whether another message can be taken from the channel. While it is false they wait there,
    /// and their senders with them. Asked before each of them.
    ///
    /// By default, while the send buffer has `room`. A reactor that does not send them at once but
    /// has bounded queues of its own takes them as those allow.
    fn wants_outbound(&self, room: Room) -> bool {
        !room.is_empty()
    }

    /// When [`on_deadline`](Self::on_deadline) is to be called. Asked after every wake.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The instant that [`deadline`](Self::deadline) named has come. Called on every wake for as
    /// long as the deadline lies in the past.
    fn on_deadline(&mut self, _context: &mut ReactorContext<'_, Self::Codec>) -> ReactorStatus {
        ReactorStatus::Continue
    }

    /// Requests that have been taken and not been answered, so that the connection is not idle
    /// and must not end yet. Messages that came through the channel and were queued by the reactor
    /// belong to them; what is left at the end is counted as unanswered.
    fn in_flight(&self) -> usize {
        0
    }

    /// How outbound back-pressure acts on this connection's input.
    fn input_policy(&self) -> InputPolicy {
        InputPolicy::Answering
    }

    /// The peer has finished sending. Its last message has been delivered.
    ///
    /// On `Continue` the connection ends when nothing is in flight, no strong `Sender` remains
    /// and everything is flushed.
    fn on_end_of_input(&mut self, _context: &mut ReactorContext<'_, Self::Codec>) -> ReactorStatus {
        ReactorStatus::Continue
    }

    /// The input cannot be decoded. The connection flushes what is sent here, and ends.
    fn on_decode_error(
        &mut self,
        _context: &mut ReactorContext<'_, Self::Codec>,
        _error: &DecodeError,
    ) {
    }

    /// The connection is to finish what it has begun and end; at `deadline` it is cut off.
    ///
    /// Say goodbye here as the protocol wants it. On `Continue` the connection goes on until the
    /// input has run dry, no message is half received, nothing is in flight, no strong `Sender`
    /// remains and everything is flushed.
    fn on_drain(
        &mut self,
        _context: &mut ReactorContext<'_, Self::Codec>,
        _deadline: Instant,
    ) -> ReactorStatus {
        ReactorStatus::Continue
    }

    /// The connection has ended. Called exactly once, last of all.
    fn on_end(&mut self, _reason: &CloseReason, _stats: &ConnectionStats) {}
}

/// What the connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a reactor's answer decides whether the connection goes on"]
pub enum ReactorStatus {
    /// Go on.
    Continue,
    /// Send everything that has been accepted, then end the output, and go on reading: the request
    /// is complete, the answer is still to come. The connection ends when the input has ended too.
    /// What is sent after this is refused.
    Finish,
    /// Read no more; send everything that has been accepted, and end in order.
    Disconnect,
    /// Read no more; send everything that has been accepted, then give up the stream, the bytes
    /// that were read and not decoded, the codec and the reactor.
    Handover,
    /// End at once and let the peer see a reset. What is unsent is counted and lost.
    ///
    /// The reason is [`CloseReason::Aborted`], or what the same call has given to
    /// [`fail`](ReactorContext::fail) or [`fail_protocol`](ReactorContext::fail_protocol) before.
    Abort,
}

/// How outbound back-pressure acts on the input of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputPolicy {
    /// While the send buffer is at its bulk limit nothing is decoded: a peer that does not read
    /// its answers cannot ask for more.
    Answering,
    /// Decoding goes on, because cancels, credits and acknowledgements must be heard. Replies to
    /// them go out with [`ReactorContext::send_control`]; once that reserve is used up, decoding
    /// pauses.
    Multiplexing,
}

/// How much may wait in the send buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendLimits {
    /// Bulk limit, in bytes: above it nothing is pulled from the channel or the reactor.
    pub bulk_bytes: usize,
    /// Bulk limit, in messages.
    pub bulk_messages: usize,
    /// What [`ReactorContext::send_control`] may use beyond the bulk limit, and beyond the message
    /// that exceeded it, in bytes.
    pub control_bytes: usize,
}

impl SendLimits {
    /// 1 MiB, which keeps a fast network busy; 4,096 messages, so that a queue of tiny ones stays
    /// in the cache; 64 KiB for control.
    pub const DEFAULT: Self = Self {
        bulk_bytes: 1024 * 1024,
        bulk_messages: 4096,
        control_bytes: 64 * 1024,
    };

    /// What may be sent once the output has been finished.
    #[cfg(feature = "tokio")]
    pub(crate) const NOTHING: Self = Self {
        bulk_bytes: 0,
        bulk_messages: 0,
        control_bytes: 0,
    };

    #[inline]
    pub(crate) fn has_room(&self, buffer: &SendBuffer) -> bool {
        buffer.unsent_bytes() < self.bulk_bytes && buffer.unsent_messages() < self.bulk_messages
    }

    #[inline]
    pub(crate) fn room(&self, buffer: &SendBuffer) -> Room {
        Room {
            bytes: self.bulk_bytes.saturating_sub(buffer.unsent_bytes()),
            messages: self.bulk_messages.saturating_sub(buffer.unsent_messages()),
        }
    }

    #[inline]
    pub(crate) fn has_control_room(&self, buffer: &SendBuffer) -> bool {
        // The message that went over the bulk limit uses nothing of the reserve, however large it
        // is: two peers that send each other large messages must go on hearing each other.
        buffer.unsent_bytes() < self.bulk_bytes || buffer.reserve_used() < self.control_bytes
    }
}

/// Why a message was not put into the send buffer.
#[derive(Debug, thiserror::Error)]
pub enum SendError<M> {
    /// The send buffer is at its limit. Here is the message.
    #[error("the send buffer is full: the peer does not read as fast as it is sent to")]
    Full(M),
    /// The reactor has answered [`Finish`](ReactorStatus::Finish) before. Here is the message.
    #[error("the output has been finished: nothing can be sent after that")]
    Finished(M),
    /// The message cannot be encoded. No byte of it was kept.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl<M> SendError<M> {
    pub(crate) fn into_close_reason(self, unsent_bytes: usize) -> CloseReason {
        match self {
            Self::Full(_) => CloseReason::SendBufferFull(unsent_bytes),
            Self::Finished(_) => CloseReason::OutputFinished,
            Self::Encode(error) => CloseReason::Encode(error),
        }
    }
}

/// A reactor's way to its connection: answer, look at the room that is left, change the codec.
#[derive(Debug)]
pub struct ReactorContext<'a, C: Codec> {
    codec: &'a mut C,
    send_buffer: &'a mut SendBuffer,
    limits: &'a SendLimits,
    now: Instant,
    /// Of the message that is being handed over, in bytes.
    message_size: usize,
    /// There was room for a message, and nothing has been sent since.
    has_room: bool,
    /// There is more to know than the reactor's answer: one of the two below.
    has_outcome: bool,
    refused: u64,
    failure: Option<Box<CloseReason>>,
}

impl<'a, C: Codec> ReactorContext<'a, C> {
    /// A context over its parts. Connections make their own; this is for testing a reactor.
    #[inline]
    pub fn new(
        codec: &'a mut C,
        send_buffer: &'a mut SendBuffer,
        limits: &'a SendLimits,
        now: Instant,
    ) -> Self {
        Self {
            codec,
            send_buffer,
            limits,
            now,
            message_size: 0,
            has_room: false,
            has_outcome: false,
            refused: 0,
            failure: None,
        }
    }

    /// Encode `message` into the send buffer now, behind what is there.
    ///
    /// # Errors
    /// [`SendError::Full`] returns the message if the buffer is at its bulk limit. In
    /// [`on_inbound_message`](MessageReactor::on_inbound_message) of an answering reactor there
    /// is always room for one reply.
    #[inline(always)]
    pub fn send(
        &mut self,
        message: <C as Encoder>::Message,
    ) -> Result<(), SendError<<C as Encoder>::Message>> {
        // A finished output has a limit of its own.
        let is_open = self.limits.bulk_messages > 0;
        if (std::mem::take(&mut self.has_room) && is_open) || self.limits.has_room(self.send_buffer)
        {
            Ok(self.send_buffer.encode(self.codec, message)?)
        } else {
            Err(self.refuse(message))
        }
    }

    /// As [`send`](Self::send), of what `write` appends to the send buffer: one message, for
    /// reactors whose messages are best written as they are made, from what they borrow.
    ///
    /// # Errors
    /// [`SendError::Full`] if the buffer is at its bulk limit: `write` was not called then.
    #[inline(always)]
    pub fn send_with(
        &mut self,
        write: impl FnOnce(&mut SendBuffer) -> Result<(), EncodeError>,
    ) -> Result<(), SendError<()>> {
        let is_open = self.limits.bulk_messages > 0;
        if (std::mem::take(&mut self.has_room) && is_open) || self.limits.has_room(self.send_buffer)
        {
            Ok(self.send_buffer.encode(&mut Written(PhantomData), write)?)
        } else {
            Err(self.refuse(()))
        }
    }

    #[cold]
    fn refuse<M>(&mut self, message: M) -> SendError<M> {
        self.has_outcome = true;
        self.refused += 1;
        match self.limits.bulk_messages {
            0 => SendError::Finished(message),
            _ => SendError::Full(message),
        }
    }

    /// Send `message`, or end the connection if it cannot be sent: the last line of a reactor
    /// that has one reply to each message.
    ///
    /// On failure the answer is [`ReactorStatus::Disconnect`], and the connection's
    /// [`CloseReason`] says what failed.
    #[inline(always)]
    pub fn reply(&mut self, message: <C as Encoder>::Message) -> ReactorStatus {
        match self.send(message) {
            Ok(()) => ReactorStatus::Continue,
            Err(error) => self.fail(error),
        }
    }

    /// Make `error` the reason for which the connection ends: a reactor returns the answer.
    #[cold]
    pub fn fail<M>(&mut self, error: SendError<M>) -> ReactorStatus {
        let reason = error.into_close_reason(self.send_buffer.unsent_bytes());
        self.has_outcome = true;
        self.failure.get_or_insert(Box::new(reason));
        ReactorStatus::Disconnect
    }

    /// The protocol cannot go on: `error` becomes the reason for which the connection ends
    /// ([`CloseReason::Protocol`]). A reactor returns the answer, after it has sent its last word; or
    /// [`ReactorStatus::Abort`], if nothing that it has sent may leave any more.
    #[cold]
    pub fn fail_protocol(&mut self, error: Arc<dyn Error + Send + Sync>) -> ReactorStatus {
        self.has_outcome = true;
        self.failure
            .get_or_insert_with(|| Box::new(CloseReason::Protocol(error)));
        ReactorStatus::Disconnect
    }

    /// As [`send`](Self::send), and beyond the bulk limit out of the control reserve: for
    /// acknowledgements, credits, resets, and for the last word of a connection.
    ///
    /// # Errors
    /// [`SendError::Full`] returns the message if the reserve is used up too.
    #[inline]
    pub fn send_control(
        &mut self,
        message: <C as Encoder>::Message,
    ) -> Result<(), SendError<<C as Encoder>::Message>> {
        if self.limits.has_control_room(self.send_buffer) {
            self.has_room = false;
            let unsent = self.send_buffer.unsent_bytes();
            self.send_buffer.encode(self.codec, message)?;
            if unsent >= self.limits.bulk_bytes {
                self.send_buffer.use_reserve(unsent);
            }
            Ok(())
        } else {
            Err(self.refuse(message))
        }
    }

    /// What [`send`](Self::send) still takes. The last message may exceed it.
    #[inline]
    pub fn room(&self) -> Room {
        self.limits.room(self.send_buffer)
    }

    /// Messages that were sent and have not been written to their end. By how many have been, a
    /// reactor that counts what it sends knows which those are.
    #[inline]
    pub fn unsent_messages(&self) -> usize {
        self.send_buffer.unsent_messages()
    }

    /// Whether [`send_control`](Self::send_control) takes another message.
    #[inline]
    pub fn has_control_room(&self) -> bool {
        self.limits.has_control_room(self.send_buffer)
    }

    /// The codec. A change takes effect with the next message, either way.
    #[inline]
    pub fn codec(&mut self) -> &mut C {
        self.codec
    }

    /// The time of this wake, on the connection's clock.
    #[inline]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How large the inbound message at hand was on the wire, in bytes, framing included, as far as
    /// its decoder consumed it at once; 0 outside of
    /// [`on_inbound_message`](MessageReactor::on_inbound_message).
    ///
    /// A reactor that keeps messages bounds by it what they may hold.
    #[inline]
    pub fn message_size(&self) -> usize {
        self.message_size
    }

    /// Tell of what size the next message is; for testing a reactor.
    #[inline(always)]
    pub fn set_message_size(&mut self, bytes: usize) {
        self.message_size = bytes;
    }

    /// How many messages this context has refused.
    #[inline]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether `limits` leave room for a message. If so, the next [`send`](Self::send) need not look
    /// again.
    #[cfg(feature = "tokio")]
    #[inline(always)]
    pub(crate) fn look_for_room(&mut self, limits: &SendLimits) -> bool {
        self.has_room = limits.has_room(self.send_buffer);
        self.has_room
    }

    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn send_buffer(&self) -> &SendBuffer {
        self.send_buffer
    }

    /// Whether there is more to know than the reactor's answer.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn has_outcome(&self) -> bool {
        self.has_outcome
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn into_outcome(self) -> Outcome {
        Outcome {
            refused: self.refused,
            failure: self.failure,
        }
    }
}

/// An encoder of messages that write themselves.
struct Written<F>(PhantomData<F>);

impl<F: FnOnce(&mut SendBuffer) -> Result<(), EncodeError>> Encoder for Written<F> {
    type Message = F;

    #[inline(always)]
    fn encode(&mut self, write: F, output: &mut SendBuffer) -> Result<(), EncodeError> {
        write(output)
    }
}

/// What a call of the reactor left behind beside its answer.
#[cfg(feature = "tokio")]
pub(crate) struct Outcome {
    /// Messages that were refused.
    pub(crate) refused: u64,
    /// What a failed [`reply`](ReactorContext::reply) makes the reason of the connection's end.
    pub(crate) failure: Option<Box<CloseReason>>,
}

/// Room in the send buffer, below its bulk limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In bytes.
    pub bytes: usize,
    /// In messages.
    pub messages: usize,
}

impl Room {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0 || self.messages == 0
    }
}
