//! A machine and a host that do everything that machines and hosts do, as they are asked to.

use std::{
    cell::RefCell, collections::VecDeque, rc::Rc, task::Context, time::Duration, time::Instant,
};

use bytes::{Bytes, BytesMut};
use protosocket::{ActionId, Host, HostContext, Machine, Output, ReactorStatus, Rejected, Room};

use crate::Framed;

/// Messages that wait to be sent, before it takes no more input.
const MOST_WAITING: usize = 8;

/// What a message of the machine is, in its first byte.
pub(super) mod class {
    /// It waits for room.
    pub(crate) const BULK: u8 = 0;
    /// It does not.
    pub(crate) const CONTROL: u8 = 1;
    /// It was sent because time has passed, and does not wait either.
    pub(crate) const TIMER: u8 = 2;
}

/// The machine was asked to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it was asked to fail")
    }
}

impl std::error::Error for Failed {}

/// The machine. The first byte of a message says what to do, the second how much.
#[derive(Debug)]
pub(super) struct Toy {
    bulk: VecDeque<Bytes>,
    control: VecDeque<Bytes>,
    events: VecDeque<u8>,
    actions: VecDeque<(ActionId, u8)>,
    unfinished: usize,
    deadlines: Vec<Instant>,
    status: ReactorStatus,
    next: u64,
}

impl Toy {
    pub(super) fn new() -> Self {
        Self {
            bulk: VecDeque::new(),
            control: VecDeque::new(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
            unfinished: 0,
            deadlines: Vec::new(),
            status: ReactorStatus::Continue,
            next: 0,
        }
    }

    /// A message that is told from all others by its number.
    fn send_bulk(&mut self, size: usize) {
        self.next += 1;
        let mut message = BytesMut::from(&[class::BULK][..]);
        message.extend_from_slice(&(self.next as u32).to_be_bytes());
        message.resize(message.len() + size, self.next as u8);
        self.bulk.push_back(message.freeze());
    }

    fn act(&mut self, action: u8) {
        self.next += 1;
        self.actions.push_back((ActionId(self.next), action));
        self.unfinished += 1;
    }

    fn send_control(&mut self, class: u8, value: u8) {
        self.control.push_back(Bytes::from(vec![class, value]));
    }
}

impl Machine for Toy {
    type Codec = Framed;
    type Command = u8;
    type Event = u8;
    type Action = u8;
    type ActionResult = u8;
    type Error = Failed;

    fn handle_inbound(&mut self, now: Instant, message: Bytes) -> Result<(), Failed> {
        assert!(self.wants_input(), "given a message that it did not want");
        let byte = |at: usize| message.get(at).copied().unwrap_or_default();
        let (what, amount) = (byte(0), byte(1));
        match what % 9 {
            0 => self.send_bulk(message.len()),
            1 => (0..amount % 20).for_each(|_| self.send_bulk(usize::from(byte(2)))),
            2 => self.send_control(class::CONTROL, amount),
            3 => self.events.push_back(amount),
            4 => self.act(amount),
            5 => {
                let time = Duration::from_millis(100 * (1 + u64::from(amount)));
                self.deadlines.push(now + time);
            }
            6 => {
                self.send_bulk(usize::from(amount));
                self.send_control(class::CONTROL, amount);
                self.events.push_back(amount);
            }
            7 if amount > 200 => {
                self.send_control(class::CONTROL, amount);
                self.send_bulk(1);
                return Err(Failed);
            }
            8 if amount > 200 => {
                self.send_bulk(1);
                self.status = ReactorStatus::Disconnect;
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Failed> {
        let before = self.deadlines.len();
        self.deadlines.retain(|at| *at > now);
        let due = before - self.deadlines.len();
        assert!(due > 0, "told of a deadline that has not come");
        (0..due).for_each(|_| self.send_control(class::TIMER, 0));
        Ok(())
    }

    fn handle_command(&mut self, _now: Instant, command: u8) -> Result<(), Rejected<u8>> {
        if self.status != ReactorStatus::Continue {
            let reason = "it is closing";
            return Err(Rejected { command, reason });
        }
        self.send_bulk(usize::from(command));
        Ok(())
    }

    fn handle_action(&mut self, _now: Instant, id: ActionId, result: u8) {
        self.unfinished -= 1;
        // Of some nothing is written, which would make the connection look again.
        if result % 4 != 3 {
            self.send_bulk(id.0 as usize % 50 + usize::from(result));
        }
        // One action may lead to the next, and its host must be polled for that as well.
        if result > 20 {
            self.act(result / 2);
        }
    }

    fn poll_event(&mut self) -> Option<u8> {
        self.events.pop_front()
    }

    fn poll_action(&mut self) -> Option<(ActionId, u8)> {
        self.actions.pop_front()
    }

    fn poll_output(&mut self, _now: Instant, room: Room) -> Option<Output<Bytes>> {
        if let Some(message) = self.control.pop_front() {
            return Some(Output::Control(message));
        }
        match room.is_empty() {
            true => None,
            false => self.bulk.pop_front().map(Output::Bulk),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadlines.iter().min().copied()
    }

    fn wants_input(&self) -> bool {
        self.bulk.len() < MOST_WAITING
            && self.unfinished == 0
            && self.status == ReactorStatus::Continue
    }

    fn is_idle(&self) -> bool {
        self.bulk.is_empty()
            && self.control.is_empty()
            && self.unfinished == 0
            && self.deadlines.is_empty()
    }

    fn status(&self) -> ReactorStatus {
        self.status
    }
}

/// What a host was told, for whoever does not own it.
pub(super) type Told = Rc<RefCell<Vec<(&'static str, u8)>>>;

/// The host: it answers some events with a command, and does some actions later.
#[derive(Debug, Default)]
pub(super) struct ToyHost {
    pub(super) told: Told,
    later: Vec<(ActionId, u8)>,
}

impl Host<Toy> for ToyHost {
    type Message = u8;

    fn on_event(&mut self, context: &mut HostContext<'_, Toy>, event: u8) {
        self.told.borrow_mut().push(("event", event));
        if event.is_multiple_of(3) {
            let taken = context.command(event);
            self.told.borrow_mut().push(("taken", taken.is_ok().into()));
        }
    }

    fn on_action(&mut self, context: &mut HostContext<'_, Toy>, id: ActionId, action: u8) {
        self.told.borrow_mut().push(("action", action));
        match action % 2 {
            0 => context.complete(id, action),
            _ => self.later.push((id, action)),
        }
    }

    fn on_message(&mut self, context: &mut HostContext<'_, Toy>, message: u8) {
        self.told.borrow_mut().push(("message", message));
        let _ = context.command(message);
    }

    fn poll(&mut self, _cx: &mut Context<'_>, context: &mut HostContext<'_, Toy>) {
        for (id, action) in self.later.drain(..) {
            context.complete(id, action);
        }
    }
}
