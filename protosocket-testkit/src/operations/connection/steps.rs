//! What can happen to a connection.

use std::{io, rc::Rc, sync::Arc, task::Poll, time::Duration};

use protosocket::{Clock, InputPolicy, ReactorStatus, Sender, TrySendError};

use super::{
    Logical, Sending, World,
    subject::Answer,
    wire::{Outgoing, Shape, kind, pattern},
};
use crate::operations::Choices;

/// Senders, and sends that wait, at a time.
const MOST: usize = 8;

/// What a peer has to say in all, in bytes: more of it only takes time.
const MOST_INPUT: usize = 200 * 1024;

/// What is left to be said byte by byte, in each direction, in bytes.
const MOST_SLOWLY: usize = 2000;

impl World {
    pub(super) fn step(&mut self, step: u8, choices: &mut Choices<'_>) {
        match step % 48 {
            0..=3 => self.say_messages(choices),
            4 | 5 => self.say_anything(choices),
            6 | 7 => self.say_special(choices),
            8 => self.hand_over_some(choices),
            9 => self.end_input(),
            10 => self.fail_read(choices),
            11 => self.set_max_read(choices),
            12 => self.peer.set_window(choices.one_of(&[0, 1, 100, 40_000])),
            13..=15 => self
                .peer
                .open_window(choices.one_of(&[usize::MAX, 1, 9, 500, 20_000])),
            16 => self.set_max_write(choices),
            17 => self.fail_write(choices),
            18 => self.gate_flush(choices),
            19 => self.gate_shutdown(choices),
            20 => self.peer.set_lingers(),
            21 | 22 => self.hold.set_ready(choices.flag()),
            23 => {
                let wants = choices.flag();
                self.hold.change(|state| state.wants_outbound = wants);
            }
            24 => {
                let requests = choices.one_of(&[0, 1, 5]);
                self.hold.change(|state| state.in_flight = requests);
            }
            25 => {
                self.hold.state().policy = match choices.flag() {
                    true => InputPolicy::Multiplexing,
                    false => InputPolicy::Answering,
                }
            }
            26 | 27 => self.produce(choices),
            28 => {
                let produces = choices.flag();
                self.hold.change_output(|state| state.produces = produces);
            }
            29 => {
                let status = status(choices);
                self.hold.change(|state| state.poll_status = status);
            }
            30 => self.set_deadline(choices),
            31 => self.set_last_words(choices),
            32 => {
                let (end, drain) = (status(choices), status(choices));
                let mut state = self.hold.state();
                (state.on_end_of_input, state.on_drain) = (end, drain);
            }
            33 => self.set_answer(choices),
            34 => {
                let at = self.hold.state().received.len() + choices.below(4);
                self.hold.state().next_status = Some((at, status(choices)));
            }
            35 | 36 => self.try_send(choices),
            37 => self.start_send(choices),
            38 => self.poll_sending(),
            39 => self.drop_sending(choices),
            40 => self.change_senders(choices),
            41 => self.weaken(choices),
            42 => self.drain(choices),
            43 if choices.byte() < 16 => self.abort(),
            43 => self.hold.change(|state| state.greedy ^= true),
            44 | 45 => self.pass_time(choices),
            46 => self.peer.set_not_vectored(),
            _ => self.driven_poll(),
        }
    }

    /// A poll that nobody asked for.
    fn driven_poll(&mut self) {
        if !self.driven.is_ended() {
            self.driven.poll_once();
            // It did not ask for this one.
            self.seen.polls += 1;
        }
    }

    // The peer.

    fn say(&mut self, bytes: &[u8]) {
        let most = match self.reads_slowly {
            true => MOST_INPUT.min(self.peer.bytes_read() + MOST_SLOWLY),
            false => MOST_INPUT,
        };
        if !self.has_ended_input && self.script.len() + bytes.len() <= most {
            self.script.extend_from_slice(bytes);
        }
    }

    /// Let the stream have what is left of the script, up to so many bytes.
    pub(super) fn hand_over(&mut self, count: usize) {
        let until = self.script.len().min(self.handed.saturating_add(count));
        self.peer.send(&self.script[self.handed..until]);
        self.handed = until;
    }

    fn say_messages(&mut self, choices: &mut Choices<'_>) {
        let kinds = [
            kind::PLAIN,
            kind::EATEN,
            kind::SEARCHED,
            kind::BUFFERED,
            kind::BODY,
            kind::BYTE,
        ];
        let kind = choices.one_of(&kinds);
        let count = 1 + choices.below(12) * choices.below(100);
        let size = choices.size();
        // Whoever searches looks at all of it for each read.
        let size = match kind {
            kind::SEARCHED => size.min(30_000),
            _ => size,
        };
        let mut message = header(kind, size as u32);
        message.extend_from_slice(&pattern(0, size));
        if kind == kind::BYTE {
            message.truncate(1);
        }
        for _ in 0..count {
            self.say(&message);
        }
        self.hand_over(usize::MAX);
    }

    fn say_anything(&mut self, choices: &mut Choices<'_>) {
        let count = choices.below(40);
        let bytes = choices.bytes(count);
        self.say(bytes);
        self.hand_over(usize::MAX);
    }

    /// Only a part of it, so that the rest can come later.
    fn say_special(&mut self, choices: &mut Choices<'_>) {
        let kind = choices.byte() % 20;
        let number = choices.size() as u32;
        self.say(&header(kind, number));
        self.hand_over(choices.below(8));
    }

    fn hand_over_some(&mut self, choices: &mut Choices<'_>) {
        let count = 1 + choices.size();
        self.hand_over(count);
    }

    pub(super) fn end_input(&mut self) {
        if !self.has_ended_input {
            self.hand_over(usize::MAX);
            self.peer.end();
            self.has_ended_input = true;
        }
    }

    fn set_max_read(&mut self, choices: &mut Choices<'_>) {
        let most = choices.one_of(&[usize::MAX, 1, 7, 300, 20_000]);
        let unread = self.script.len() - self.peer.bytes_read();
        self.reads_slowly = most < 100 && unread <= MOST_SLOWLY;
        if most >= 100 || self.reads_slowly {
            self.peer.set_max_read(most);
        }
    }

    fn set_max_write(&mut self, choices: &mut Choices<'_>) {
        let most = choices.one_of(&[usize::MAX, 1, 10, 4000]);
        let mut state = self.hold.state();
        if most < 100 {
            let unsent = state.expected.len() - self.peer.written_len();
            if unsent > MOST_SLOWLY {
                return;
            }
            state.most_output = state.most_output.min(state.expected.len() + MOST_SLOWLY);
        }
        self.peer.set_max_write(most);
    }

    fn fail_read(&mut self, choices: &mut Choices<'_>) {
        // What follows would never be read.
        if !self.has_ended_input {
            let kind = self.error(choices);
            self.peer.fail_read(kind);
        }
    }

    fn error(&mut self, choices: &mut Choices<'_>) -> io::ErrorKind {
        let kind = match choices.byte() {
            0..120 => io::ErrorKind::WouldBlock,
            120..240 => io::ErrorKind::Interrupted,
            _ => io::ErrorKind::ConnectionReset,
        };
        match kind {
            io::ErrorKind::ConnectionReset => self.can_fail = true,
            _ => self.transients += 1,
        }
        kind
    }

    fn fail_write(&mut self, choices: &mut Choices<'_>) {
        if choices.byte() == 255 {
            self.can_fail = true;
            self.peer.write_zero();
        } else {
            let kind = self.error(choices);
            self.peer.fail_write(kind);
        }
    }

    fn gate_flush(&mut self, choices: &mut Choices<'_>) {
        match choices.below(3) {
            0 => self.peer.hold_flush(),
            1 => self.peer.release_flush(),
            _ => {
                let kind = self.error(choices);
                self.peer.fail_flush(kind);
            }
        }
    }

    fn gate_shutdown(&mut self, choices: &mut Choices<'_>) {
        match choices.below(3) {
            0 => self.peer.hold_shutdown(),
            1 => self.peer.release_shutdown(),
            _ => {
                let kind = self.error(choices);
                self.shutdown_fails |= kind == io::ErrorKind::ConnectionReset;
                self.peer.fail_shutdown(kind);
            }
        }
    }

    // The reactor.

    fn produce(&mut self, choices: &mut Choices<'_>) {
        let shape = shape(choices);
        let count = 1 + choices.below(6) * choices.below(60);
        self.hold.change_output(|state| {
            if state.produce.len() < 1000 {
                state.produce.extend((0..count).map(|_| shape));
            }
        });
    }

    fn set_answer(&mut self, choices: &mut Choices<'_>) {
        let answer = Answer {
            copies: choices.one_of(&[1, 0, 2, 5]),
            shape: match shape(choices) {
                // One answer for each of thousands of messages.
                Shape::Payload(size) => Shape::Payload(size.min(2000)),
                shape => shape,
            },
            control: choices.flag(),
            strict: choices.flag(),
        };
        self.hold.state().answer = answer;
    }

    fn set_deadline(&mut self, choices: &mut Choices<'_>) {
        let seconds = choices.one_of(&[0, 1, 100]);
        let at = self.driven.clock.now() + Duration::from_secs(seconds);
        self.hold.change(|state| state.deadline = Some(at));
    }

    fn set_last_words(&mut self, choices: &mut Choices<'_>) {
        let shape = shape(choices);
        let mut state = self.hold.state();
        match choices.below(3) {
            0 => state.rest.push_back(shape),
            1 => state.goodbye = Some(shape),
            _ => state.error_reply = Some(shape),
        }
    }

    // The senders.

    fn message(&mut self, line: usize, choices: &mut Choices<'_>) -> Logical {
        let shape = shape(choices);
        let number = self.hold.state().number();
        Logical {
            line,
            first: Outgoing { number, shape },
            copies: choices.one_of(&[1, 0, 2]),
        }
    }

    fn try_send(&mut self, choices: &mut Choices<'_>) {
        let Some((sender, line)) = self.pick(choices) else {
            return;
        };
        for _ in 0..1 + choices.below(6) {
            let message = self.message(line, choices);
            match sender.try_send(message) {
                Ok(()) => self.accepted(line, message.first.number),
                Err(TrySendError::Full(_)) => {
                    assert!(!sender.is_closed(), "closed, and it says that it is full");
                }
                Err(TrySendError::Closed(_)) => assert!(sender.is_closed()),
            }
        }
    }

    fn accepted(&mut self, line: usize, number: u32) {
        assert!(!self.driven.is_ended(), "accepted after the end");
        self.hold.state().accepted[line].push_back(number);
    }

    fn pick(&mut self, choices: &mut Choices<'_>) -> Option<(Rc<Sender<Logical>>, usize)> {
        if self.lines.is_empty() {
            return None;
        }
        let at = choices.below(self.lines.len());
        Some(self.lines[at].clone())
    }

    fn start_send(&mut self, choices: &mut Choices<'_>) {
        if self.sending.len() >= MOST {
            return;
        }
        let Some((sender, line)) = self.pick(choices) else {
            return;
        };
        let message = self.message(line, choices);
        let mut sending = Sending {
            future: Box::pin(async move { sender.send(message).await }),
            note: Arc::default(),
            line,
            number: message.first.number,
        };
        match sending.poll() {
            Poll::Ready(Ok(())) => self.accepted(line, sending.number),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.sending.push(sending),
        }
    }

    /// Poll those sends that were woken.
    pub(super) fn poll_sending(&mut self) {
        let mut sending = std::mem::take(&mut self.sending);
        sending.retain_mut(|sending| {
            if !sending.note.is_set() {
                return true;
            }
            match sending.poll() {
                Poll::Ready(Ok(())) => self.accepted(sending.line, sending.number),
                Poll::Ready(Err(_)) => {}
                Poll::Pending => panic!("a send was woken for nothing"),
            }
            false
        });
        self.sending = sending;
    }

    fn drop_sending(&mut self, choices: &mut Choices<'_>) {
        if !self.sending.is_empty() {
            let at = choices.below(self.sending.len());
            self.sending.remove(at);
        }
    }

    fn change_senders(&mut self, choices: &mut Choices<'_>) {
        let Some((sender, line)) = self.pick(choices) else {
            return;
        };
        if choices.flag() {
            self.lines.retain(|(_, other)| *other != line);
        } else {
            self.add_line((*sender).clone());
        }
    }

    fn add_line(&mut self, sender: Sender<Logical>) {
        if self.lines.len() < MOST {
            let mut state = self.hold.state();
            self.lines.push((Rc::new(sender), state.accepted.len()));
            state.accepted.push(Default::default());
        }
    }

    fn weaken(&mut self, choices: &mut Choices<'_>) {
        match choices.below(3) {
            0 if self.weak.len() < MOST => {
                if let Some((sender, _)) = self.pick(choices) {
                    self.weak.push(sender.downgrade());
                }
            }
            1 => {
                if let Some(sender) = self.weak.last().and_then(|weak| weak.upgrade()) {
                    self.add_line(sender);
                }
            }
            _ => {
                self.weak.pop();
            }
        }
    }

    // Whoever else has a say.

    fn drain(&mut self, choices: &mut Choices<'_>) {
        let seconds = choices.one_of(&[30, 1, 0]);
        let deadline = self.driven.clock.now() + Duration::from_secs(seconds);
        self.driven.handle.drain(deadline);
        self.has_drained = true;
    }

    pub(super) fn abort(&mut self) {
        self.driven.handle.abort();
        self.has_aborted = true;
    }

    fn pass_time(&mut self, choices: &mut Choices<'_>) {
        let milliseconds = choices.one_of(&[10, 1, 1000, 29_000, 31_000, 130_000, 700_000]);
        self.time_has_passed = true;
        self.driven
            .clock
            .advance(Duration::from_millis(milliseconds));
    }
}

fn header(kind: u8, number: u32) -> Vec<u8> {
    let [_, high, middle, low] = number.to_be_bytes();
    vec![kind, high, middle, low]
}

fn shape(choices: &mut Choices<'_>) -> Shape {
    match choices.byte() {
        200..230 => Shape::Empty,
        230.. => Shape::Unencodable(choices.size()),
        _ => Shape::Payload(choices.size()),
    }
}

/// What a reactor answers: most of the time, to go on.
fn status(choices: &mut Choices<'_>) -> ReactorStatus {
    match choices.byte() {
        0..=159 => ReactorStatus::Continue,
        160..=189 => ReactorStatus::Finish,
        190..=219 => ReactorStatus::Disconnect,
        220..=245 => ReactorStatus::Handover,
        _ => ReactorStatus::Abort,
    }
}
