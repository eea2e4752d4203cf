//! A relay: it opens a socket to the address that its client names, and carries bytes both ways.
//!
//! ```text
//!   Waiting ──Connect──▶ Connecting ──opened──▶ Relaying ──both sides have ended──▶ Done
//!                             │        └─ as a tunnel: Connected, then the raw stream ─▶ Done
//!                             └─refused──▶ Fault ──▶ Done
//! ```

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes};
use protosocket::{ActionId, Host, HostContext, Machine, Output, ReactorStatus, Rejected, Room};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frames::{Frame, Frames};

/// LIMIT: bytes on their way to the client before no more are read from the other side.
pub(crate) const QUEUED: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// The other side has sent something.
    Data(Bytes),
    /// The other side has sent all.
    End,
    /// The other side is gone.
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// For the other side.
    Data(Bytes),
    /// The client has sent all.
    End,
}

/// Open a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open(pub(crate) String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the client sent a frame that is not expected while {0}")]
    Unexpected(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Connecting,
    Relaying,
    Tunnel,
    Done,
}

#[derive(Debug)]
pub(crate) struct Relay {
    /// Give the raw stream up once it is connected.
    tunnel: bool,
    state: State,
    outputs: VecDeque<Frame>,
    queued: usize,
    event: Option<Event>,
    action: Option<Open>,
    client_ended: bool,
    other_ended: bool,
}

impl Relay {
    pub(crate) fn new(tunnel: bool) -> Self {
        Self {
            tunnel,
            state: State::Waiting,
            outputs: VecDeque::new(),
            queued: 0,
            event: None,
            action: None,
            client_ended: false,
            other_ended: false,
        }
    }

    /// Whether more may be read from the other side.
    pub(crate) fn wants_data(&self) -> bool {
        self.state == State::Relaying && self.queued < QUEUED
    }

    fn end(&mut self) {
        if !self.client_ended {
            self.client_ended = true;
            self.event = Some(Event::End);
            self.finish_if_done();
        }
    }

    fn finish_if_done(&mut self) {
        if self.client_ended && self.other_ended {
            self.state = State::Done;
        }
    }

    fn fault(&mut self, why: &'static str) {
        self.state = State::Done;
        self.outputs.push_back(Frame::fault(why));
    }
}

impl Machine for Relay {
    type Codec = Frames;
    type Command = Command;
    type Event = Event;
    type Action = Open;
    type ActionResult = Result<(), &'static str>;
    type Error = RelayError;

    fn handle_inbound(&mut self, _now: Instant, frame: Frame) -> Result<(), RelayError> {
        match (self.state, frame) {
            (State::Waiting, Frame::Connect { address }) => {
                let address = String::from_utf8_lossy(&address).into_owned();
                self.action = Some(Open(address));
                self.state = State::Connecting;
            }
            (State::Relaying, Frame::Data { payload, .. }) if !self.client_ended => {
                self.event = Some(Event::Data(payload));
            }
            (State::Relaying, Frame::Close { .. }) => self.end(),
            (State::Done, _) => {}
            (State::Waiting, _) => {
                self.fault("connect first");
                return Err(RelayError::Unexpected("nothing is connected"));
            }
            _ => {
                self.fault("unexpected");
                return Err(RelayError::Unexpected("bytes are relayed"));
            }
        }
        Ok(())
    }

    fn handle_end_of_input(&mut self, _now: Instant) -> Result<(), RelayError> {
        if self.state == State::Relaying {
            self.end();
        }
        Ok(())
    }

    fn handle_command(&mut self, _: Instant, command: Command) -> Result<(), Rejected<Command>> {
        let ended = self.other_ended && command != Command::Fail;
        if self.state != State::Relaying || ended {
            let reason = "nothing is relayed";
            return Err(Rejected { command, reason });
        }
        match command {
            Command::Data(payload) => {
                self.queued += payload.len();
                self.outputs.push_back(Frame::data(0, payload));
            }
            Command::End => {
                self.other_ended = true;
                self.outputs.push_back(Frame::Close { stream: 0 });
                self.finish_if_done();
            }
            Command::Fail => self.fault("lost"),
        }
        Ok(())
    }

    fn handle_action(&mut self, _: Instant, _: ActionId, result: Result<(), &'static str>) {
        match result {
            Ok(()) => {
                self.outputs.push_back(Frame::Connected);
                self.state = match self.tunnel {
                    true => State::Tunnel,
                    false => State::Relaying,
                };
            }
            Err(why) => self.fault(why),
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    fn poll_action(&mut self) -> Option<(ActionId, Open)> {
        let action = self.action.take()?;
        Some((ActionId(0), action))
    }

    fn poll_output(&mut self, _now: Instant, room: Room) -> Option<Output<Frame>> {
        if room.is_empty() {
            return None;
        }
        let frame = self.outputs.pop_front()?;
        if let Frame::Data { payload, .. } = &frame {
            self.queued -= payload.len();
        }
        Some(Output::Bulk(frame))
    }

    fn wants_input(&self) -> bool {
        // What follows the request may be raw.
        self.state != State::Connecting
    }

    fn is_idle(&self) -> bool {
        matches!(self.state, State::Waiting | State::Done)
    }

    fn status(&self) -> ReactorStatus {
        match self.state {
            State::Tunnel => ReactorStatus::Handover,
            State::Done => ReactorStatus::Disconnect,
            _ => ReactorStatus::Continue,
        }
    }
}

/// What a relay connects to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Opens sockets, or what a test uses for them.
pub(crate) type Opener = Box<dyn FnMut(String) -> Opening + Send>;

/// Opens the socket, and carries bytes between it and the machine.
pub(crate) struct Dialer {
    opener: Opener,
    opening: Option<(ActionId, Opening)>,
    other: Option<Box<dyn Stream>>,
    /// For the other side. While it is not empty, no more is taken from the client.
    pending: Bytes,
    /// The output to the other side is to be ended, when nothing is pending.
    ending: bool,
    /// The other side has sent all.
    ended: bool,
}

impl Dialer {
    pub(crate) fn new<F, S>(mut opener: impl FnMut(String) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: Stream + 'static,
    {
        Self {
            opener: Box::new(move |address| {
                let opening = opener(address);
                Box::pin(async move { Ok(Box::new(opening.await?) as Box<dyn Stream>) })
            }),
            opening: None,
            other: None,
            pending: Bytes::new(),
            ending: false,
            ended: false,
        }
    }

    /// The socket, to go on with after a handover.
    pub(crate) fn into_other(self) -> Option<Box<dyn Stream>> {
        self.other
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, context: &mut HostContext<'_, Relay>) {
        let Some((id, opening)) = &mut self.opening else {
            return;
        };
        if let Poll::Ready(opened) = opening.as_mut().poll(cx) {
            let id = *id;
            self.opening = None;
            context.complete(
                id,
                match opened {
                    Ok(stream) => {
                        self.other = Some(stream);
                        Ok(())
                    }
                    Err(_) => Err("refused"),
                },
            );
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(other) = &mut self.other else {
            return Poll::Ready(Ok(()));
        };
        while !self.pending.is_empty() {
            let count = ready!(pin!(&mut *other).poll_write(cx, &self.pending))?;
            self.pending.advance(count);
        }
        if self.ending {
            ready!(pin!(&mut *other).poll_shutdown(cx))?;
            self.ending = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        context: &mut HostContext<'_, Relay>,
    ) -> Poll<io::Result<()>> {
        let Some(other) = &mut self.other else {
            return Poll::Pending;
        };
        while !self.ended && context.machine().wants_data() {
            let mut memory = [0; 1024];
            let mut buffer = ReadBuf::new(&mut memory);
            ready!(pin!(&mut *other).poll_read(cx, &mut buffer))?;
            let payload = Bytes::copy_from_slice(buffer.filled());
            self.ended = payload.is_empty();
            let command = match self.ended {
                true => Command::End,
                false => Command::Data(payload),
            };
            context
                .command(command)
                .expect("data is taken when it is wanted");
        }
        Poll::Pending
    }
}

impl Host<Relay> for Dialer {
    type Message = Command;

    fn on_event(&mut self, _: &mut HostContext<'_, Relay>, event: Event) {
        match event {
            Event::Data(payload) => {
                assert!(self.pending.is_empty(), "the host was not ready for more");
                self.pending = payload;
            }
            Event::End => self.ending = true,
        }
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Relay>, id: ActionId, Open(address): Open) {
        self.opening = Some((id, (self.opener)(address)));
    }

    fn on_message(&mut self, _: &mut HostContext<'_, Relay>, _: Command) {}

    fn poll(&mut self, cx: &mut Context<'_>, context: &mut HostContext<'_, Relay>) {
        self.poll_open(cx, context);
        let written = self.poll_write(cx);
        let read = self.poll_read(cx, context);
        if matches!(written, Poll::Ready(Err(_))) || matches!(read, Poll::Ready(Err(_))) {
            self.other = None;
            self.pending = Bytes::new();
            // Both ways may have ended already; then there is nobody left to tell.
            let _ = context.command(Command::Fail);
        }
    }

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        // The write that is pending has registered the waker.
        match self.pending.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn in_flight(&self) -> usize {
        usize::from(!self.pending.is_empty() || self.ending)
    }
}
