//! Many streams of bytes over one connection, each with a credit that its receiver grants.
//!
//! ```text
//!   opener                      acceptor
//!     │── Open(credit) ───────────▶│        a stream is there for both
//!     │◀─────────── Credit(amount)─│        each side sends no more than it was granted
//!     │── Data ───────────────────▶│
//!     │── Close ──────────────────▶│        one direction is done, the other goes on
//!     │◀──────────────────── Data ─│
//!     │◀─────────────────── Close ─│        both are done: the stream is forgotten
//! ```
//! Either side may say `Cancel(stream)` at any time, and `Goodbye(last)` once.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use protosocket::{DecodeError, Machine, Output, ReactorStatus, Rejected, Room};

use crate::frames::{Frame, Frames};

#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What each side may have unacknowledged per stream, in bytes.
    pub(crate) window: u32,
    /// What one stream sends before it is the next one's turn, in bytes.
    pub(crate) chunk: usize,
    /// LIMIT: bytes that all streams queue before no more commands are taken.
    pub(crate) queued: usize,
    /// LIMIT: streams at a time.
    pub(crate) streams: usize,
    /// How long the peer may say nothing while a stream is open before it is asked, and then
    /// before it is given up.
    pub(crate) silence: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: 64,
            chunk: 16,
            queued: 1024,
            streams: 8,
            silence: Duration::from_secs(10),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Open(u32),
    Send(u32, Bytes),
    /// No more is to be sent on this stream.
    Finish(u32),
    Cancel(u32),
    /// The application has consumed so many received bytes.
    Consumed(u32, usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Opened(u32),
    Data(u32, Bytes),
    /// So many bytes have left the queue.
    Sent(u32, usize),
    /// The peer has sent all.
    Finished(u32),
    Cancelled(u32),
    Goodbye,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MuxError {
    #[error("the peer sent more than stream {0} had credit for")]
    Credit(u32),
    #[error("the peer named stream {0}, which was never opened")]
    Unknown(u32),
    #[error("the peer opened stream {0}, which it may not")]
    Open(u32),
    #[error("the peer has been silent for too long")]
    Silent,
    #[error("the peer sent a frame that belongs to another protocol")]
    Foreign,
    #[error("the peer gave up: {0:?}")]
    Fault([u8; 8]),
}

#[derive(Debug)]
struct Stream {
    /// What the peer still takes.
    credit: usize,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// What the peer may still send.
    granted: usize,
    /// Consumed and not granted again yet.
    consumed: usize,
    output: Half,
    input: Half,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    /// To be closed when the queue is empty.
    Closing,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

#[derive(Debug)]
pub(crate) struct Mux {
    role: Role,
    config: Config,
    streams: BTreeMap<u32, Stream>,
    /// The highest stream that was ever opened.
    highest: u32,
    /// The stream whose turn it is.
    turn: u32,
    queued: usize,
    control: VecDeque<Frame>,
    events: VecDeque<Event>,
    /// Since when the peer has been silent, and whether it has been asked.
    heard: Option<Instant>,
    asked: bool,
    goodbye: bool,
    failed: bool,
}

impl Mux {
    pub(crate) fn new(role: Role, config: Config) -> Self {
        Self {
            role,
            config,
            streams: BTreeMap::new(),
            highest: 0,
            turn: 0,
            queued: 0,
            control: VecDeque::new(),
            events: VecDeque::new(),
            heard: None,
            asked: false,
            goodbye: false,
            failed: false,
        }
    }

    fn on_open(&mut self, stream: u32, credit: u32) -> Result<(), MuxError> {
        if self.role == Role::Client || stream <= self.highest {
            return Err(MuxError::Open(stream));
        }
        if self.goodbye || self.streams.len() >= self.config.streams {
            // What was refused is as good as cancelled; what the peer has sent on it is ignored.
            if !self.goodbye {
                self.highest = stream;
            }
            self.control.push_back(Frame::Cancel { stream });
            return Ok(());
        }
        self.insert(stream, credit);
        let amount = self.config.window;
        self.control.push_back(Frame::Credit { stream, amount });
        self.events.push_back(Event::Opened(stream));
        Ok(())
    }

    fn on_data(&mut self, stream: u32, payload: Bytes) -> Result<(), MuxError> {
        let Some(state) = self.stream(stream)? else {
            return Ok(());
        };
        if payload.len() > state.granted || state.input == Half::Closed {
            return Err(MuxError::Credit(stream));
        }
        state.granted -= payload.len();
        self.events.push_back(Event::Data(stream, payload));
        Ok(())
    }

    fn on_close(&mut self, stream: u32) -> Result<(), MuxError> {
        if let Some(state) = self.stream(stream)? {
            state.input = Half::Closed;
            self.events.push_back(Event::Finished(stream));
            self.forget_if_done(stream);
        }
        Ok(())
    }

    fn on_goodbye(&mut self, last: u32) {
        if !self.goodbye {
            self.goodbye = true;
            self.events.push_back(Event::Goodbye);
        }
        for stream in self.streams.split_off(&last.saturating_add(1)).into_iter() {
            self.queued -= stream.1.queued;
            self.events.push_back(Event::Cancelled(stream.0));
        }
    }

    /// The stream that a frame names; `None` if it has been forgotten, and the frame with it.
    fn stream(&mut self, stream: u32) -> Result<Option<&mut Stream>, MuxError> {
        // After a goodbye the peer may go on for a while with what it believes to be open.
        if stream > self.highest && !(self.goodbye && self.role == Role::Server) {
            return Err(MuxError::Unknown(stream));
        }
        Ok(self.streams.get_mut(&stream))
    }

    fn insert(&mut self, stream: u32, credit: u32) {
        self.highest = stream;
        let state = Stream {
            credit: credit as usize,
            queue: VecDeque::new(),
            queued: 0,
            granted: self.config.window as usize,
            consumed: 0,
            output: Half::Open,
            input: Half::Open,
        };
        self.streams.insert(stream, state);
    }

    fn forget_if_done(&mut self, stream: u32) {
        let done = self
            .streams
            .get(&stream)
            .is_some_and(|state| state.input == Half::Closed && state.output == Half::Closed);
        if done {
            self.streams.remove(&stream);
        }
    }

    fn forget(&mut self, stream: u32) -> bool {
        let state = self.streams.remove(&stream);
        self.queued -= state.as_ref().map_or(0, |state| state.queued);
        state.is_some()
    }

    fn fail(&mut self, error: MuxError, why: &'static str) -> MuxError {
        self.failed = true;
        self.control.push_back(Frame::fault(why));
        error
    }

    /// The next message of the stream whose turn it is.
    fn bulk(&mut self, room: Room) -> Option<Frame> {
        let may_send = |state: &Stream| match state.queued {
            0 => state.output == Half::Closing,
            _ => state.credit > 0,
        };
        let mut turns = (self.streams.range_mut(self.turn..))
            .filter(|(_, state)| may_send(state))
            .map(|(id, _)| *id);
        let first = turns.next();
        drop(turns);
        let id = first.or_else(|| {
            (self.streams.range(..self.turn))
                .find(|(_, state)| may_send(state))
                .map(|(id, _)| *id)
        })?;
        let state = self.streams.get_mut(&id)?;
        self.turn = id + 1;
        let Some(mut front) = state.queue.pop_front() else {
            state.output = Half::Closed;
            self.forget_if_done(id);
            return Some(Frame::Close { stream: id });
        };
        let size = (self.config.chunk).min(state.credit).min(room.bytes);
        let payload = front.split_to(size.min(front.len()));
        if !front.is_empty() {
            state.queue.push_front(front);
        }
        let sent = payload.len();
        state.credit -= sent;
        state.queued -= sent;
        self.queued -= sent;
        self.events.push_back(Event::Sent(id, sent));
        Some(Frame::data(id, payload))
    }
}

impl Machine for Mux {
    type Codec = Frames;
    type Command = Command;
    type Event = Event;
    type Action = ();
    type ActionResult = ();
    type Error = MuxError;

    fn handle_inbound(&mut self, now: Instant, frame: Frame) -> Result<(), MuxError> {
        self.heard = Some(now);
        self.asked = false;
        let handled = match frame {
            Frame::Open { stream, credit } => self.on_open(stream, credit),
            Frame::Data { stream, payload } => self.on_data(stream, payload),
            Frame::Credit { stream, amount } => self.stream(stream).map(|state| {
                if let Some(state) = state {
                    state.credit = state.credit.saturating_add(amount as usize);
                }
            }),
            Frame::Close { stream } => self.on_close(stream),
            Frame::Cancel { stream } => {
                if self.forget(stream) {
                    self.events.push_back(Event::Cancelled(stream));
                }
                Ok(())
            }
            Frame::Goodbye { last } => {
                self.on_goodbye(last);
                Ok(())
            }
            Frame::Ping => {
                self.control.push_back(Frame::Pong);
                Ok(())
            }
            Frame::Pong => Ok(()),
            Frame::Fault { why } => {
                let mut text = [b' '; 8];
                let len = why.len().min(8);
                text[..len].copy_from_slice(&why[..len]);
                return Err(MuxError::Fault(text));
            }
            Frame::Connect { .. } | Frame::Connected => Err(MuxError::Foreign),
        };
        handled.map_err(|error| self.fail(error, "protocol"))
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), MuxError> {
        if self.asked {
            return Err(self.fail(MuxError::Silent, "silence"));
        }
        self.asked = true;
        self.heard = Some(now);
        self.control.push_back(Frame::Ping);
        Ok(())
    }

    fn handle_decode_error(&mut self, _now: Instant, _error: &DecodeError) {
        self.failed = true;
        self.control.push_back(Frame::fault("decode"));
    }

    fn handle_drain(&mut self, _now: Instant) {
        if !self.goodbye {
            self.goodbye = true;
            let last = self.highest;
            self.control.push_back(Frame::Goodbye { last });
        }
    }

    fn handle_command(&mut self, now: Instant, command: Command) -> Result<(), Rejected<Command>> {
        let reject = |command, reason| Err(Rejected { command, reason });
        if let Command::Open(stream) = command {
            if self.role == Role::Server {
                return reject(command, "only clients open streams");
            }
            if self.goodbye {
                return reject(command, "goodbye has been said");
            }
            if stream <= self.highest || self.streams.len() >= self.config.streams {
                return reject(command, "no such stream can be opened");
            }
            if self.streams.is_empty() {
                self.heard = Some(now);
                self.asked = false;
            }
            self.insert(stream, 0);
            let credit = self.config.window;
            self.control.push_back(Frame::Open { stream, credit });
            return Ok(());
        }
        let (Command::Open(id)
        | Command::Send(id, _)
        | Command::Finish(id)
        | Command::Cancel(id)
        | Command::Consumed(id, _)) = command;
        let Some(state) = self.streams.get_mut(&id) else {
            return reject(command, "the stream is not open");
        };
        match command {
            Command::Send(..) | Command::Finish(_) if state.output != Half::Open => {
                return reject(command, "the stream has been finished");
            }
            Command::Send(_, payload) => {
                state.queued += payload.len();
                self.queued += payload.len();
                if !payload.is_empty() {
                    state.queue.push_back(payload);
                }
            }
            Command::Finish(_) => state.output = Half::Closing,
            Command::Consumed(_, amount) => {
                state.consumed += amount;
                // Half a window at a time: a credit for every message would be a message for
                // every message.
                if state.consumed * 2 >= self.config.window as usize {
                    let amount = std::mem::take(&mut state.consumed);
                    state.granted += amount;
                    let amount = amount as u32;
                    self.control.push_back(Frame::Credit { stream: id, amount });
                }
            }
            Command::Cancel(_) | Command::Open(_) => {
                self.forget(id);
                self.control.push_back(Frame::Cancel { stream: id });
            }
        }
        Ok(())
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_output(&mut self, _now: Instant, room: Room) -> Option<Output<Frame>> {
        if let Some(frame) = self.control.pop_front() {
            return Some(Output::Control(frame));
        }
        if self.failed || room.is_empty() {
            return None;
        }
        self.bulk(room).map(Output::Bulk)
    }

    fn deadline(&self) -> Option<Instant> {
        let waits = !self.streams.is_empty() && !self.failed;
        self.heard
            .filter(|_| waits)
            .map(|heard| heard + self.config.silence)
    }

    fn wants_commands(&self, _room: Room) -> bool {
        self.queued < self.config.queued
    }

    fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.control.is_empty()
    }

    fn status(&self) -> ReactorStatus {
        match self.goodbye && self.is_idle() {
            true => ReactorStatus::Disconnect,
            false => ReactorStatus::Continue,
        }
    }
}
