//! Protocols as state machines without I/O, and the adapter that runs one on a connection.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use crate::{
    CloseReason, Codec, ConnectionStats, DecodeError, Decoder, Encoder, InputPolicy,
    MessageReactor, ReactorContext, ReactorStatus, Room, SendError, escaped::Escaped,
};

/// A protocol's behaviour: no socket, no clock, no randomness of its own.
///
/// What happens goes in through `handle_*`, with the time as an argument. Whoever drives a
/// machine drains, after every call, [`poll_event`](Self::poll_event) and
/// [`poll_action`](Self::poll_action), asks for the next [`deadline`](Self::deadline), and pulls
/// messages with [`poll_output`](Self::poll_output) as there is room for them. Everything else is
/// a command or a getter.
///
/// On a connection, [`MachineReactor`] does that, together with a [`Host`].
pub trait Machine: 'static {
    /// Bytes to messages and back.
    type Codec: Codec;
    /// What the application asks for.
    type Command;
    /// What the application is told.
    type Event;
    /// What the machine needs from outside: a socket to be opened, a connection to be made.
    type Action;
    /// How an action went.
    type ActionResult;
    /// Why the machine cannot go on.
    type Error: std::error::Error + Send + Sync + 'static;

    /// A message arrived.
    ///
    /// # Errors
    /// Fatal to the connection: what [`poll_output`](Self::poll_output) still has is sent, then
    /// it closes. What the protocol says to ignore never surfaces here.
    fn handle_inbound(
        &mut self,
        now: Instant,
        message: <Self::Codec as Decoder>::Message,
    ) -> Result<(), Self::Error>;

    /// The instant that [`deadline`](Self::deadline) named has come.
    ///
    /// # Errors
    /// As for [`handle_inbound`](Self::handle_inbound).
    fn handle_timeout(&mut self, _now: Instant) -> Result<(), Self::Error> {
        Ok(())
    }

    /// The peer has finished sending.
    ///
    /// # Errors
    /// As for [`handle_inbound`](Self::handle_inbound).
    fn handle_end_of_input(&mut self, _now: Instant) -> Result<(), Self::Error> {
        Ok(())
    }

    /// The inbound bytes break the protocol: say so to the peer, if the protocol has words for it.
    fn handle_decode_error(&mut self, _now: Instant, _error: &DecodeError) {}

    /// The connection is to end: say goodbye, take no new work, finish the old.
    fn handle_drain(&mut self, _now: Instant) {}

    /// The application asks for something.
    ///
    /// # Errors
    /// A call that cannot be served is given back to its caller. The connection lives on.
    fn handle_command(
        &mut self,
        now: Instant,
        command: Self::Command,
    ) -> Result<(), Rejected<Self::Command>>;

    /// An action that [`poll_action`](Self::poll_action) returned is done.
    fn handle_action(&mut self, _now: Instant, _id: ActionId, _result: Self::ActionResult) {}

    /// The next thing to tell the application.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// The next thing to be done outside.
    fn poll_action(&mut self) -> Option<(ActionId, Self::Action)> {
        None
    }

    /// The next message for the peer, if there is one that fits into `room`.
    ///
    /// Control messages do not wait for room: they are returned as [`Output::Control`] and asked
    /// for also while `room` is empty.
    fn poll_output(
        &mut self,
        now: Instant,
        room: Room,
    ) -> Option<Output<<Self::Codec as Encoder>::Message>>;

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Whether another message can be taken. While it is false nothing is decoded.
    fn wants_input(&self) -> bool {
        true
    }

    /// Whether another command can be taken. While it is false the connection's channel waits.
    ///
    /// By default, while there is room to send what comes of it. A machine that has queues of its
    /// own bounds those instead, and so hears of a cancel although its bulk takes all the room.
    fn wants_commands(&self, room: Room) -> bool {
        !room.is_empty()
    }

    /// Whether nothing is under way, so that the connection counts as idle and may end.
    fn is_idle(&self) -> bool;

    /// Whether the machine wants to go on. An `Abort` takes effect at once, everything else when
    /// what [`poll_output`](Self::poll_output) still has is sent.
    fn status(&self) -> ReactorStatus {
        ReactorStatus::Continue
    }

    /// How outbound back-pressure acts on the input.
    fn input_policy(&self) -> InputPolicy {
        InputPolicy::Multiplexing
    }

    /// Tell the codec what the next message depends on. Called after every change, before the
    /// next message is decoded or encoded.
    fn configure_codec(&self, _codec: &mut Self::Codec) {}
}

/// A message that a machine wants to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output<M> {
    /// Counts against the bulk limit.
    Bulk(M),
    /// May use the control reserve: an acknowledgement, a credit, a reset, the last word.
    Control(M),
}

/// Names an action until its result comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(pub u64);

/// A command that a machine did not take, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected<C> {
    /// The command, unchanged.
    pub command: C,
    /// What stands in its way, for people.
    pub reason: &'static str,
}

impl<C> fmt::Display for Rejected<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command was rejected: {}", self.reason)
    }
}

impl<C: fmt::Debug> std::error::Error for Rejected<C> {}

/// The application's side of a machine: it hears events, does actions and issues commands.
///
/// Service futures, body streams and sockets live here, where there is a task to poll them in.
pub trait Host<M: Machine>: 'static {
    /// What comes through the connection's [`Sender`](crate::Sender).
    type Message;

    /// The machine has something to tell.
    fn on_event(&mut self, context: &mut HostContext<'_, M>, event: M::Event);

    /// The machine needs something done; the result goes back with [`HostContext::complete`].
    fn on_action(&mut self, context: &mut HostContext<'_, M>, id: ActionId, action: M::Action);

    /// A message came through the channel, while the machine wants commands.
    fn on_message(&mut self, context: &mut HostContext<'_, M>, message: Self::Message);

    /// Drive futures, streams and sockets, and issue commands for what they produced.
    fn poll(&mut self, _cx: &mut Context<'_>, _context: &mut HostContext<'_, M>) {}

    /// Whether the host can take the events of another message; registers a waker while not.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Work that the machine does not know of, such as a service future that is still running.
    fn in_flight(&self) -> usize {
        0
    }

    /// The connection has ended; `error` is the machine's own, if it failed.
    fn on_end(
        &mut self,
        _reason: &CloseReason,
        _stats: &ConnectionStats,
        _error: Option<&M::Error>,
    ) {
    }
}

/// A host's way to its machine.
#[derive(Debug)]
pub struct HostContext<'a, M: Machine> {
    machine: &'a mut M,
    now: Instant,
}

impl<'a, M: Machine> HostContext<'a, M> {
    /// A context over a machine, for testing a host.
    pub fn new(machine: &'a mut M, now: Instant) -> Self {
        Self { machine, now }
    }

    /// Ask the machine for something.
    ///
    /// # Errors
    /// As for [`Machine::handle_command`].
    pub fn command(&mut self, command: M::Command) -> Result<(), Rejected<M::Command>> {
        self.machine.handle_command(self.now, command)
    }

    /// Tell the machine how an action went.
    pub fn complete(&mut self, id: ActionId, result: M::ActionResult) {
        self.machine.handle_action(self.now, id, result);
    }

    /// The machine, for its getters.
    pub fn machine(&self) -> &M {
        self.machine
    }

    /// The time of this wake, on the connection's clock.
    pub fn now(&self) -> Instant {
        self.now
    }
}

/// How often a host that is told something in each of its polls is polled again before other
/// tasks have their turn.
const HOST_POLLS: usize = 16;

/// Runs a [`Machine`] and its [`Host`] as the reactor of a connection.
pub struct MachineReactor<M: Machine, H> {
    machine: M,
    host: H,
    /// Why the machine has failed. It is asked for its last words and for nothing else.
    error: Option<Arc<M::Error>>,
}

impl<M: Machine, H: Host<M>> MachineReactor<M, H> {
    /// Join `machine` and `host`.
    pub fn new(machine: M, host: H) -> Self {
        Self {
            machine,
            host,
            error: None,
        }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The host.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Take machine and host apart again, after a handover.
    pub fn into_parts(self) -> (M, H) {
        (self.machine, self.host)
    }

    /// Give the host what the machine has for it, and the peer what there is room for, until
    /// there is nothing left: what one of them is given may be what the other waits for.
    #[inline]
    fn settle(
        &mut self,
        context: &mut ReactorContext<'_, M::Codec>,
    ) -> Result<Settled, SendError<<M::Codec as Encoder>::Message>> {
        let now = context.now();
        let mut settled = Settled::default();
        loop {
            let mut told = false;
            while let Some(event) = self.machine.poll_event() {
                let mut context = HostContext::new(&mut self.machine, now);
                self.host.on_event(&mut context, event);
                told = true;
            }
            while let Some((id, action)) = self.machine.poll_action() {
                let mut context = HostContext::new(&mut self.machine, now);
                self.host.on_action(&mut context, id, action);
                told = true;
            }
            settled.told |= told;
            // What was pulled dry has no more to send, unless the host has been told something.
            if (settled.sent && !told) || !self.pull(context)? {
                break;
            }
            settled.sent = true;
        }
        // The next message, either way, may depend on what has changed.
        self.machine.configure_codec(context.codec());
        Ok(settled)
    }

    /// Send what the machine has and there is room for. Whether that was anything.
    #[inline]
    fn pull(
        &mut self,
        context: &mut ReactorContext<'_, M::Codec>,
    ) -> Result<bool, SendError<<M::Codec as Encoder>::Message>> {
        let mut sent = false;
        // A message that has left the machine cannot be put back, so none is asked for that
        // could not be sent. Bulk that a machine returns beyond the room that it has been told
        // goes out of the reserve.
        while context.has_control_room()
            && let Some(output) = self.machine.poll_output(context.now(), context.room())
        {
            self.machine.configure_codec(context.codec());
            let (Output::Bulk(message) | Output::Control(message)) = output;
            context.send_control(message)?;
            sent = true;
        }
        Ok(sent)
    }

    /// After a change of the machine: settle, and say how to go on.
    #[inline]
    fn advance(
        &mut self,
        context: &mut ReactorContext<'_, M::Codec>,
        handled: Result<(), M::Error>,
    ) -> ReactorStatus {
        if let Err(error) = handled {
            return self.fail(context, error);
        }
        match self.settle(context) {
            Ok(_) => self.machine.status(),
            Err(error) => context.fail(error),
        }
    }

    /// The machine cannot go on: what it has left to say is sent, now and while closing.
    #[cold]
    fn fail(
        &mut self,
        context: &mut ReactorContext<'_, M::Codec>,
        error: M::Error,
    ) -> ReactorStatus {
        let shown = Escaped(&error);
        tracing::debug!(error = %shown, "the protocol ended the connection");
        let error = self.error.insert(Arc::new(error)).clone();
        let status = context.fail_protocol(error);
        if let Err(error) = self.settle(context) {
            let _ = context.fail(error);
        }
        status
    }
}

/// What came of bringing a machine and its surroundings to rest.
#[derive(Debug, Clone, Copy, Default)]
struct Settled {
    /// The host has heard of something.
    told: bool,
    /// Something was put into the send buffer.
    sent: bool,
}

impl<M: Machine + fmt::Debug, H: fmt::Debug> fmt::Debug for MachineReactor<M, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineReactor")
            .field("machine", &self.machine)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl<M: Machine, H: Host<M>> MessageReactor for MachineReactor<M, H> {
    type Codec = M::Codec;
    type Inbound = <M::Codec as Decoder>::Message;
    type Outbound = <M::Codec as Encoder>::Message;
    type LogicalOutbound = H::Message;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Self::Codec>,
        message: Self::Inbound,
    ) -> ReactorStatus {
        let handled = self.machine.handle_inbound(context.now(), message);
        self.advance(context, handled)
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, Self::Codec>,
        message: Self::LogicalOutbound,
    ) -> Result<(), SendError<Self::Outbound>> {
        let mut host_context = HostContext::new(&mut self.machine, context.now());
        self.host.on_message(&mut host_context, message);
        self.settle(context).map(|_| ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        context: &mut ReactorContext<'_, Self::Codec>,
    ) -> ReactorStatus {
        for _ in 0..HOST_POLLS {
            let mut host_context = HostContext::new(&mut self.machine, context.now());
            self.host.poll(cx, &mut host_context);
            let told = match self.settle(context) {
                Ok(settled) => settled.told,
                Err(error) => return context.fail(error),
            };
            let status = self.machine.status();
            let goes_on = matches!(status, ReactorStatus::Continue | ReactorStatus::Finish);
            // What the host has heard since it was polled may have made something to be polled.
            if !told || !goes_on {
                return status;
            }
        }
        // LIMIT: a host and a machine that always have something for each other.
        cx.waker().wake_by_ref();
        self.machine.status()
    }

    fn poll_outbound_many(
        &mut self,
        _cx: &mut Context<'_>,
        context: &mut ReactorContext<'_, Self::Codec>,
    ) -> Poll<Option<()>> {
        match self.settle(context) {
            Ok(settled) if settled.sent || settled.told => Poll::Ready(Some(())),
            Ok(_) => Poll::Ready(None),
            Err(error) => {
                let _ = context.fail(error);
                Poll::Ready(None)
            }
        }
    }

    fn send_rest(
        &mut self,
        context: &mut ReactorContext<'_, Self::Codec>,
        _reason: &CloseReason,
    ) -> bool {
        match self.settle(context) {
            Ok(settled) => settled.sent,
            Err(error) => {
                let _ = context.fail(error);
                false
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What makes a machine want input again (a command, an action, room, time) passes through
        // this reactor, and the connection asks again in the same wake, so the host's waker is the
        // only one that is needed.
        let ready = self.host.poll_ready(cx);
        if self.machine.wants_input() {
            ready
        } else {
            Poll::Pending
        }
    }

    fn wants_outbound(&self, room: Room) -> bool {
        self.error.is_none() && self.machine.wants_commands(room)
    }

    fn deadline(&self) -> Option<Instant> {
        self.machine.deadline()
    }

    fn on_deadline(&mut self, context: &mut ReactorContext<'_, Self::Codec>) -> ReactorStatus {
        let handled = self.machine.handle_timeout(context.now());
        self.advance(context, handled)
    }

    fn in_flight(&self) -> usize {
        usize::from(!self.machine.is_idle()) + self.host.in_flight()
    }

    fn input_policy(&self) -> InputPolicy {
        self.machine.input_policy()
    }

    fn on_end_of_input(&mut self, context: &mut ReactorContext<'_, Self::Codec>) -> ReactorStatus {
        let handled = self.machine.handle_end_of_input(context.now());
        self.advance(context, handled)
    }

    fn on_decode_error(
        &mut self,
        context: &mut ReactorContext<'_, Self::Codec>,
        error: &DecodeError,
    ) {
        self.machine.handle_decode_error(context.now(), error);
        let _ = self.advance(context, Ok(()));
    }

    fn on_drain(
        &mut self,
        context: &mut ReactorContext<'_, Self::Codec>,
        _deadline: Instant,
    ) -> ReactorStatus {
        self.machine.handle_drain(context.now());
        self.advance(context, Ok(()))
    }

    fn on_end(&mut self, reason: &CloseReason, stats: &ConnectionStats) {
        self.host.on_end(reason, stats, self.error.as_deref());
    }
}
