//! A machine on a connection, against the same machine alone.

mod toy;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use protosocket::{
    Clock, Decoded, Decoder, Host, HostContext, Input, Limits, MachineReactor, Room, SendLimits,
    Sender, channel,
};

use super::Choices;
use crate::{Driven, MachineSide, Setup, StreamPeer, frame, framed};
use toy::{Toy, ToyHost, class};

/// Longer than any deadline of the machine.
const ALL_DEADLINES: Duration = Duration::from_secs(60);

/// Do with a machine what `bytes` say, twice: alone, and through
/// [`MachineReactor`] on a connection.
///
/// Its messages ask it to send at once, much, and beside the queue, to tell its host, to have it do
/// things at once and later, to wait for a deadline, to fail and to close; commands come through the
/// channel, and time passes. Expected of the adapter:
/// - The machine is given no message that it does not want, and no deadline that has not come.
/// - While there is room for everything, machine and host say and hear the same after each step.
/// - Where there is little room and the peer reads little, they do so in the end: bulk and control in
///   the order of each, nothing lost at a close or a failure.
///
/// # Panics
/// If one of these does not hold.
pub fn machine(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let crowded = choices.flag();
    let mut twins = Twins::new(crowded, &mut choices);
    while !choices.is_empty() && twins.alone.is_open() {
        twins.step(&mut choices);
        twins.driven.settle();
        if !crowded {
            twins.compare_and_forget();
        }
    }
    twins.finish();
}

/// The same machine twice.
struct Twins {
    crowded: bool,
    alone: MachineSide<Toy, ToyHost>,
    /// What it has said.
    said: Vec<u8>,
    told_alone: toy::Told,

    driven: Driven<MachineReactor<Toy, ToyHost>>,
    peer: StreamPeer,
    sender: Option<Sender<u8>>,
    told_connected: toy::Told,
}

impl Twins {
    fn new(crowded: bool, choices: &mut Choices<'_>) -> Self {
        let send = match crowded {
            true => SendLimits {
                bulk_bytes: choices.one_of(&[1, 10, 300]),
                bulk_messages: choices.one_of(&[1, 3, 100]),
                control_bytes: choices.one_of(&[1, 10, 300]),
            },
            false => SendLimits::DEFAULT,
        };
        // The machine's deadlines, and no others: those of the connection are not the machine's.
        let limits = Limits::client().message_timeout(None).write_timeout(None);
        let setup = Setup::limits(limits.send_limits(send));
        let peer = setup.peer.clone();
        let (host, connected_host) = (ToyHost::default(), ToyHost::default());
        let (told_alone, told_connected) = (host.told.clone(), connected_host.told.clone());
        let mut alone = MachineSide::new(Toy::new(), host, framed(), setup.clock.now());
        alone.room = Room {
            bytes: SendLimits::DEFAULT.bulk_bytes,
            messages: SendLimits::DEFAULT.bulk_messages,
        };
        let (sender, receiver) = channel(1000);
        let reactor = MachineReactor::new(Toy::new(), connected_host);
        Self {
            crowded,
            alone,
            said: Vec::new(),
            told_alone,
            driven: setup.drive(framed(), reactor, receiver),
            peer,
            sender: Some(sender),
            told_connected,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 10 {
            0..=6 => self.say(choices),
            // On a connection that is behind, these come at another time than alone.
            7 if !self.crowded => self.command(choices.byte()),
            8 if !self.crowded => self.pass(Duration::from_millis(100 * choices.size() as u64)),
            _ if self.crowded => match choices.flag() {
                true => self.peer.set_window(choices.one_of(&[0, 1, 50])),
                false => self.peer.open_window(choices.one_of(&[1, 30, 1000])),
            },
            _ => {}
        }
    }

    fn say(&mut self, choices: &mut Choices<'_>) {
        let length = 1 + choices.below(6);
        let message = frame(choices.bytes(length));
        let (front, rest) = message.split_at(choices.below(message.len() + 1));
        self.peer.send(front);
        if choices.flag() {
            self.driven.settle();
        }
        self.peer.send(rest);
        self.alone.receive(&message);
        self.let_it_speak();
    }

    /// Take all that the one alone has to say, which lets it take input again.
    fn let_it_speak(&mut self) {
        loop {
            let said = self.alone.send(usize::MAX);
            if said.is_empty() {
                return;
            }
            self.said.extend_from_slice(&said);
            if self.alone.is_open() {
                self.alone.resume();
            }
        }
    }

    fn command(&mut self, command: u8) {
        if let Some(sender) = &self.sender {
            assert!(sender.try_send(command).is_ok(), "there is room");
            let MachineSide {
                machine, host, now, ..
            } = &mut self.alone;
            host.on_message(&mut HostContext::new(machine, *now), command);
            self.let_it_speak();
        }
    }

    fn pass(&mut self, time: Duration) {
        if self.alone.is_open() {
            self.alone.pass(time);
        }
        self.let_it_speak();
        self.driven.clock.advance(time);
        self.driven.settle();
    }

    fn compare_and_forget(&mut self) {
        let written = self.peer.written();
        assert!(
            written == self.said,
            "on a connection it said {} bytes, alone {}",
            written.len(),
            self.said.len()
        );
        assert_eq!(*self.told_connected.borrow(), *self.told_alone.borrow());
        self.peer.forget_written();
        self.said.clear();
        self.told_connected.borrow_mut().clear();
        self.told_alone.borrow_mut().clear();
    }

    fn finish(mut self) {
        self.peer.open_window(usize::MAX);
        self.driven.settle();
        let expected = match (&self.alone.error, self.alone.is_open()) {
            (Some(_), _) => "protocol",
            (None, false) => "disconnect",
            (None, true) => "end_of_input",
        };
        self.sender = None;
        self.peer.end();
        self.driven.settle();
        self.pass(ALL_DEADLINES);
        assert_eq!(self.driven.reason(), expected);
        let written = self.peer.written();
        for class in [class::BULK, class::CONTROL, class::TIMER] {
            // Deadlines that had not come at an early end never do.
            if class != class::TIMER || expected == "end_of_input" {
                assert_eq!(of_class(&written, class), of_class(&self.said, class));
            }
        }
        assert_eq!(*self.told_connected.borrow(), *self.told_alone.borrow());
        assert!(self.crowded || written == self.said, "in another order");
    }
}

/// The messages of this class, in order.
fn of_class(bytes: &[u8], class: u8) -> Vec<Bytes> {
    let mut bytes = BytesMut::from(bytes);
    let mut messages = Vec::new();
    while let Ok(Decoded::Message(message)) = framed().decode(&mut Input::from_buffer(&mut bytes)) {
        if message.first() == Some(&class) {
            messages.push(message);
        }
    }
    assert!(bytes.is_empty(), "a message was cut off");
    messages
}
