//! A machine and a host of lines of text that do whatever a test tells them to, so that each rule
//! of the contract can be looked at alone.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::Context,
    time::Instant,
};

use protosocket::{
    ActionId, CloseReason, ConnectionStats, DecodeError, EncodeError, Encoder, Host, HostContext,
    Input, LinesCodec, Machine, Output, ReactorStatus, Rejected, Room, SendBuffer,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the toy is broken")]
pub(crate) struct Broken;

/// What a test wants done to the toy.
pub(crate) type Act = Box<dyn FnOnce(&mut Toy) + Send>;
type OnInbound = Box<dyn FnMut(&mut Toy, &str) -> Result<(), Broken> + Send>;

pub(crate) struct Toy {
    pub(crate) outputs: VecDeque<Output<String>>,
    pub(crate) events: VecDeque<&'static str>,
    pub(crate) wants_input: bool,
    pub(crate) wants_commands: bool,
    pub(crate) is_idle: bool,
    pub(crate) status: ReactorStatus,
    pub(crate) deadline: Option<Instant>,
    /// What every output is followed by, as an event.
    pub(crate) event_after_output: Option<&'static str>,
    /// Changes with every call that changes anything: what the codec must have been told.
    pub(crate) version: u64,
    pub(crate) on_inbound: Option<OnInbound>,
}

impl Toy {
    pub(crate) fn new() -> Self {
        Self {
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            wants_input: true,
            wants_commands: true,
            is_idle: true,
            status: ReactorStatus::Continue,
            deadline: None,
            event_after_output: None,
            version: 0,
            on_inbound: None,
        }
    }

    pub(crate) fn on_inbound(
        mut self,
        act: impl FnMut(&mut Toy, &str) -> Result<(), Broken> + Send + 'static,
    ) -> Self {
        self.on_inbound = Some(Box::new(act));
        self
    }

    pub(crate) fn control(&mut self, line: impl Into<String>) {
        self.outputs.push_back(Output::Control(line.into()));
    }
}

impl Machine for Toy {
    type Codec = Versioned;
    type Command = Act;
    type Event = &'static str;
    type Action = ();
    type ActionResult = ();
    type Error = Broken;

    fn handle_inbound(&mut self, _now: Instant, line: String) -> Result<(), Broken> {
        self.version += 1;
        let Some(mut act) = self.on_inbound.take() else {
            return Ok(());
        };
        let handled = act(self, &line);
        self.on_inbound = Some(act);
        handled
    }

    fn handle_timeout(&mut self, _now: Instant) -> Result<(), Broken> {
        self.version += 1;
        self.deadline = None;
        self.events.push_back("timeout");
        Ok(())
    }

    fn handle_command(&mut self, _now: Instant, act: Act) -> Result<(), Rejected<Act>> {
        self.version += 1;
        act(self);
        Ok(())
    }

    fn poll_event(&mut self) -> Option<&'static str> {
        self.events.pop_front()
    }

    fn poll_output(&mut self, _now: Instant, room: Room) -> Option<Output<String>> {
        if room.is_empty() && matches!(self.outputs.front(), Some(Output::Bulk(_))) {
            return None;
        }
        let output = self.outputs.pop_front()?;
        self.version += 1;
        self.events.extend(self.event_after_output);
        Some(output)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn wants_input(&self) -> bool {
        self.wants_input
    }

    fn wants_commands(&self, _room: Room) -> bool {
        self.wants_commands
    }

    fn is_idle(&self) -> bool {
        self.is_idle
    }

    fn status(&self) -> ReactorStatus {
        self.status
    }

    fn configure_codec(&self, codec: &mut Versioned) {
        codec.version = self.version;
    }
}

/// Lines, each sent behind the version that the machine had when it gave it out.
#[derive(Default)]
pub(crate) struct Versioned {
    lines: LinesCodec,
    version: u64,
    /// Write the version, for the one test that looks at it.
    shows: bool,
}

impl Versioned {
    pub(crate) fn showing() -> Self {
        Self {
            shows: true,
            ..Self::default()
        }
    }
}

impl protosocket::Decoder for Versioned {
    type Message = String;

    fn decode(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<protosocket::Decoded<String>, DecodeError> {
        self.lines.decode(input)
    }
}

impl Encoder for Versioned {
    type Message = String;

    fn encode(&mut self, line: String, output: &mut SendBuffer) -> Result<(), EncodeError> {
        match self.shows {
            true => self
                .lines
                .encode(format!("{} {line}", self.version), output),
            false => self.lines.encode(line, output),
        }
    }
}

type OnPoll = Box<dyn FnMut(&mut ToyHost, &mut Context<'_>, &mut HostContext<'_, Toy>) + Send>;

/// Notes what it hears.
pub(crate) struct ToyHost {
    pub(crate) notes: Notes,
    pub(crate) on_poll: Option<OnPoll>,
    /// Something that an event has left to be polled.
    pub(crate) to_poll: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub(crate) fn add(&self, note: impl Into<String>) {
        self.0
            .lock()
            .expect("nothing panics under it")
            .push(note.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("nothing panics under it").clone()
    }
}

impl ToyHost {
    pub(crate) fn new() -> Self {
        Self {
            notes: Notes::default(),
            on_poll: None,
            to_poll: false,
        }
    }

    pub(crate) fn on_poll(
        mut self,
        act: impl FnMut(&mut ToyHost, &mut Context<'_>, &mut HostContext<'_, Toy>) + Send + 'static,
    ) -> Self {
        self.on_poll = Some(Box::new(act));
        self
    }
}

impl Host<Toy> for ToyHost {
    type Message = Act;

    fn on_event(&mut self, _: &mut HostContext<'_, Toy>, event: &'static str) {
        self.notes.add(event);
        self.to_poll |= event == "start";
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Toy>, _: ActionId, (): ()) {}

    fn on_message(&mut self, context: &mut HostContext<'_, Toy>, act: Act) {
        self.notes.add("message");
        assert!(context.command(act).is_ok(), "the toy takes everything");
    }

    fn poll(&mut self, cx: &mut Context<'_>, context: &mut HostContext<'_, Toy>) {
        if std::mem::take(&mut self.to_poll) {
            self.notes.add("polled");
        }
        if let Some(mut act) = self.on_poll.take() {
            act(self, cx, context);
            self.on_poll = Some(act);
        }
    }

    fn on_end(&mut self, _: &CloseReason, _: &ConnectionStats, error: Option<&Broken>) {
        let error = error.map(|error| error.to_string());
        self.notes.add(error.unwrap_or_else(|| "end".to_owned()));
    }
}
