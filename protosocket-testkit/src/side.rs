//! Runs a machine and its host without a connection: no I/O, no task, and a clock that is a
//! variable.

use std::{
    io::IoSlice,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use protosocket::{
    DecodeError, Decoded, Decoder, Encoder, Host, HostContext, Input, Machine, Output,
    ReactorStatus, Rejected, Room, SendBuffer,
};

/// One end of an exchange.
pub struct MachineSide<M: Machine, H> {
    /// The machine under test.
    pub machine: M,
    /// What hears of its events.
    pub host: H,
    /// The time at this end.
    pub now: Instant,
    /// What the send buffer is said to take.
    pub room: Room,
    /// What the machine failed with.
    pub error: Option<M::Error>,
    codec: M::Codec,
    inbound: BytesMut,
    outbound: SendBuffer,
    /// The peer has finished sending, and the machine was told.
    ended: bool,
}

/// Deadlines in a row that a machine may have without any time passing.
const MANY_DEADLINES: usize = 10_000;

impl<M: Machine, H: Host<M>> MachineSide<M, H> {
    /// One end at the instant `now`, with room for 64 KiB and 64 messages.
    pub fn new(machine: M, host: H, codec: M::Codec, now: Instant) -> Self {
        let room = Room {
            bytes: 64 * 1024,
            messages: 64,
        };
        Self {
            machine,
            host,
            now,
            room,
            error: None,
            codec,
            inbound: BytesMut::new(),
            outbound: SendBuffer::new(),
            ended: false,
        }
    }

    /// Do something with the machine, and tell the host what came of it.
    pub fn with<T>(&mut self, act: impl FnOnce(&mut M, Instant) -> T) -> T {
        let outcome = act(&mut self.machine, self.now);
        self.settle();
        outcome
    }

    /// Give the machine a command, and tell the host what came of it.
    ///
    /// # Errors
    /// The machine refused it.
    pub fn command(&mut self, command: M::Command) -> Result<(), Rejected<M::Command>> {
        self.with(|machine, now| machine.handle_command(now, command))
    }

    /// The time passes, and the machine hears of its deadlines one by one.
    ///
    /// # Panics
    /// If the machine always has another deadline that has come.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut told = 0;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            told = if at > self.now { 0 } else { told + 1 };
            assert!(
                told < MANY_DEADLINES,
                "the deadline does not move on: {at:?}"
            );
            self.now = self.now.max(at);
            let handled = self.with(M::handle_timeout);
            if self.note(handled).is_err() {
                break;
            }
        }
        self.now = until;
    }

    /// Bytes arrive. What is not decoded, because the machine wants no input, is kept.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.inbound.extend_from_slice(bytes);
        self.resume();
    }

    /// Decode what has been kept, for as long as the machine wants input.
    pub fn resume(&mut self) {
        while self.error.is_none() && self.machine.wants_input() {
            self.machine.configure_codec(&mut self.codec);
            let decoded = self
                .codec
                .decode(&mut Input::from_buffer(&mut self.inbound));
            match decoded {
                Ok(Decoded::Message(message)) => {
                    let handled = self.with(|machine, now| machine.handle_inbound(now, message));
                    let _ = self.note(handled);
                }
                Ok(Decoded::Need(_)) => return,
                Ok(Decoded::Skip(_)) => panic!("these codecs skip nothing"),
                Err(error) => {
                    self.with(|machine, now| machine.handle_decode_error(now, &error));
                    return;
                }
            }
        }
    }

    /// Pull the next message, without encoding it.
    pub fn output(&mut self) -> Option<Output<<M::Codec as Encoder>::Message>> {
        let room = self.room;
        self.with(|machine, now| machine.poll_output(now, room))
    }

    /// Pull what the machine has, and take up to `most` bytes of it off the send buffer.
    pub fn send(&mut self, most: usize) -> Bytes {
        let taken = self.unsent(most);
        self.sent(taken.len());
        taken
    }

    /// Pull the machine's next message, encoded alone.
    pub fn send_datagram(&mut self) -> Option<Bytes> {
        let (Output::Bulk(message) | Output::Control(message)) = self.output()?;
        self.machine.configure_codec(&mut self.codec);
        Some(encoded(&mut self.codec, message))
    }

    /// One datagram arrives, which is one message. If it is less or more than that, the machine
    /// hears of a decode error.
    pub fn receive_datagram(&mut self, payload: &[u8]) {
        if self.error.is_some() {
            return;
        }
        self.machine.configure_codec(&mut self.codec);
        let mut input = Input::from_slice(payload).ended(true);
        let decoded = self.codec.decode(&mut input);
        let left = input.len();
        let error = match decoded {
            Ok(Decoded::Message(message)) if left == 0 => {
                let handled = self.with(|machine, now| machine.handle_inbound(now, message));
                let _ = self.note(handled);
                return;
            }
            Ok(Decoded::Message(_)) => DecodeError::malformed("bytes behind the message"),
            Ok(Decoded::Need(_) | Decoded::Skip(_)) => DecodeError::Truncated { left },
            Err(error) => error,
        };
        self.with(|machine, now| machine.handle_decode_error(now, &error));
    }

    /// The peer has finished sending. The machine is told once.
    pub fn end_input(&mut self) {
        if self.error.is_none() && !std::mem::replace(&mut self.ended, true) {
            let handled = self.with(M::handle_end_of_input);
            let _ = self.note(handled);
        }
    }

    /// When the machine wants to be called, unless it has failed.
    pub fn deadline(&self) -> Option<Instant> {
        self.machine.deadline().filter(|_| self.error.is_none())
    }

    /// Whether the machine takes more input.
    pub(crate) fn can_hear(&self) -> bool {
        !self.ended && self.error.is_none() && self.machine.wants_input()
    }

    /// Decode what was kept. Whether that was anything.
    pub(crate) fn hear_kept(&mut self) -> bool {
        let before = self.inbound.len();
        self.resume();
        self.inbound.len() != before
    }

    /// Pull what the machine has, and look at up to `most` bytes of it.
    pub(crate) fn unsent(&mut self, most: usize) -> Bytes {
        while self.outbound.unsent_bytes() < most {
            let Some(Output::Bulk(message) | Output::Control(message)) = self.output() else {
                break;
            };
            self.machine.configure_codec(&mut self.codec);
            (self.outbound)
                .encode(&mut self.codec, message)
                .expect("a machine's messages can be encoded");
        }
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = self.outbound.io_slices(&mut slices);
        let bytes = slices[..filled].iter().flat_map(|slice| slice.iter());
        bytes.copied().take(most).collect()
    }

    /// Take so many of those bytes off the send buffer.
    pub(crate) fn sent(&mut self, count: usize) {
        self.outbound.advance(count);
    }

    /// Whether the machine wants the connection to go on, and has not failed.
    pub fn is_open(&self) -> bool {
        self.error.is_none() && self.machine.status() == ReactorStatus::Continue
    }

    fn settle(&mut self) {
        loop {
            let mut context = HostContext::new(&mut self.machine, self.now);
            self.host
                .poll(&mut Context::from_waker(Waker::noop()), &mut context);
            if let Some(event) = self.machine.poll_event() {
                let mut context = HostContext::new(&mut self.machine, self.now);
                self.host.on_event(&mut context, event);
            } else if let Some((id, action)) = self.machine.poll_action() {
                let mut context = HostContext::new(&mut self.machine, self.now);
                self.host.on_action(&mut context, id, action);
            } else {
                return;
            }
        }
    }

    fn note(&mut self, handled: Result<(), M::Error>) -> Result<(), ()> {
        handled.map_err(|error| self.error = Some(error))
    }
}

/// Encode one message alone.
pub fn encoded<E: Encoder>(encoder: &mut E, message: E::Message) -> Bytes {
    let mut buffer = SendBuffer::new();
    buffer.encode(encoder, message).expect("it can be encoded");
    Bytes::from(buffer.contiguous().clone())
}
