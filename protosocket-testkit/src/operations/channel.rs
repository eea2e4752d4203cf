//! The channel into a connection, against a model of it.

use std::{
    cell::Cell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use protosocket::{Closed, Receiver, Sender, TrySendError, WeakSender};

use super::Choices;

/// Senders, and sends that wait, at a time: more of them find nothing else.
const MOST: usize = 12;

/// Received messages give their places back in batches of this size at the latest.
const BATCH: usize = 32;

/// Do with a channel what `bytes` say, and compare it with a model after each step.
///
/// Sends of both kinds, futures that are polled, forgotten and dropped, clones, weak senders, every
/// way to receive, and the ways to end it, on one thread and with wakers that only take note.
/// Expected of the channel:
/// - What one sender sends arrives in that order, and what was accepted arrives or is counted.
/// - No more than its capacity is in it. Who waits for room is served in turn, and nobody is
///   refused while there is room.
/// - Who waits is woken when there is something for it, and `len`, `is_finished` and the others
///   agree with the model.
/// - After the end every send returns its message, and no message outlives the channel.
///
/// # Panics
/// If one of these does not hold.
pub fn channel(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let capacity = choices.one_of(&[1, 2, 3, 7, 40, 100]);
    let mut world = World::new(capacity);
    while !choices.is_empty() {
        world.step(&mut choices);
        world.check();
    }
    world.finish();
}

/// Notes that it was woken.
#[derive(Debug, Default)]
struct Note(AtomicBool);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Note {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Counts itself, so that none is forgotten anywhere.
struct Message {
    line: usize,
    number: u64,
    alive: Rc<Cell<usize>>,
}

impl Message {
    fn new(line: usize, number: u64, alive: &Rc<Cell<usize>>) -> Self {
        alive.set(alive.get() + 1);
        let alive = alive.clone();
        Self {
            line,
            number,
            alive,
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<(), Closed<Message>>>>>;

/// A send that was polled and waits.
struct Waiting {
    sending: Sending,
    note: Arc<Note>,
    line: usize,
    number: u64,
}

/// One sender, which keeps its own order.
struct Line {
    sender: Rc<Sender<Message>>,
    line: usize,
}

struct World {
    capacity: usize,
    alive: Rc<Cell<usize>>,
    next_number: u64,
    lines: Vec<Line>,
    weak: Vec<WeakSender<Message>>,
    /// In the order in which they joined the line.
    waiting: Vec<Waiting>,
    receiver: Option<Receiver<Message>>,
    receiver_note: Arc<Note>,
    /// The receiver was told that there is nothing, and waits to be woken.
    armed: bool,

    /// By line, the numbers of what was accepted and not received.
    accepted: Vec<VecDeque<u64>>,
    in_channel: usize,
    /// Received since places were surely given back.
    unreleased: usize,
    closed: bool,
}

impl World {
    fn new(capacity: usize) -> Self {
        let (sender, receiver) = protosocket::channel(capacity);
        Self {
            capacity,
            alive: Rc::default(),
            next_number: 0,
            lines: vec![Line {
                sender: Rc::new(sender),
                line: 0,
            }],
            weak: Vec::new(),
            waiting: Vec::new(),
            receiver: Some(receiver),
            receiver_note: Arc::default(),
            armed: false,
            accepted: vec![VecDeque::new()],
            in_channel: 0,
            unreleased: 0,
            closed: false,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 20 {
            0 | 1 => {
                let times = 1 + choices.below(8);
                for _ in 0..times {
                    self.try_send(choices);
                }
            }
            2 | 3 => self.start_send(choices),
            4 => self.poll_sends(false),
            5 => self.poll_sends(true),
            6 => self.poll_send(choices),
            7 => self.drop_send(choices),
            8 => self.clone_sender(choices),
            9 => self.drop_sender(choices),
            10 => self.downgrade(choices),
            11 => self.upgrade(choices),
            12 | 13 => {
                let times = 1 + choices.below(40);
                for _ in 0..times {
                    self.try_next();
                }
            }
            14 => self.poll_ready(),
            15 | 16 => self.poll_next(),
            17 => self.register(choices.flag()),
            18 => match choices.byte() {
                0..32 => self.close(),
                32..48 => self.close_and_drop(),
                48..64 => self.drop_receiver(),
                _ => self.poll_ready(),
            },
            _ => {
                self.weak.pop();
            }
        }
    }

    fn message(&mut self, line: usize) -> Message {
        self.next_number += 1;
        Message::new(line, self.next_number, &self.alive)
    }

    fn line(&self, choices: &mut Choices<'_>) -> Option<(Rc<Sender<Message>>, usize)> {
        if self.lines.is_empty() {
            return None;
        }
        let line = &self.lines[choices.below(self.lines.len())];
        Some((line.sender.clone(), line.line))
    }

    fn accept(&mut self, line: usize, number: u64) {
        self.accepted[line].push_back(number);
        self.in_channel += 1;
        assert!(self.in_channel <= self.capacity, "more than its capacity");
    }

    /// Places that are taken for sure, those of sends included that were woken to use theirs.
    fn taken(&self) -> usize {
        let granted = self.waiting.iter().filter(|w| w.note.is_set()).count();
        self.in_channel + granted
    }

    fn try_send(&mut self, choices: &mut Choices<'_>) {
        let Some((sender, line)) = self.line(choices) else {
            return;
        };
        let message = self.message(line);
        let number = message.number;
        match sender.try_send(message) {
            Ok(()) => {
                assert!(!self.closed, "a closed channel accepted a message");
                assert!(self.taken() < self.capacity, "it was full");
                assert!(
                    self.waiting.iter().all(|waiting| waiting.note.is_set()),
                    "a newcomer took the place of one who waits"
                );
                self.accept(line, number);
            }
            Err(TrySendError::Full(back)) => {
                assert_eq!(back.number, number);
                assert!(!self.closed, "closed, and it says that it is full");
                let waits = self.waiting.iter().any(|waiting| !waiting.note.is_set());
                assert!(
                    waits || self.taken() + self.unreleased >= self.capacity,
                    "refused, although {} of {} places are taken",
                    self.taken(),
                    self.capacity
                );
            }
            Err(TrySendError::Closed(back)) => {
                assert_eq!(back.number, number);
                assert!(self.closed, "an open channel refused a message as closed");
            }
        }
    }

    fn start_send(&mut self, choices: &mut Choices<'_>) {
        let Some((sender, line)) = self.line(choices) else {
            return;
        };
        if self.waiting.len() >= MOST {
            return;
        }
        let message = self.message(line);
        let number = message.number;
        let mut waiting = Waiting {
            sending: Box::pin(async move { sender.send(message).await }),
            note: Arc::default(),
            line,
            number,
        };
        let had_room = !self.closed
            && self.waiting.is_empty()
            && self.in_channel + self.unreleased < self.capacity;
        match self.poll_waiting(&mut waiting) {
            Poll::Ready(sent) => {
                let others_wait = self.waiting.iter().any(|other| !other.note.is_set());
                assert!(sent.is_err() || !others_wait, "it went past those in line");
                assert!(sent.is_err() || self.taken() < self.capacity, "it was full");
                self.sent(&waiting, sent);
            }
            Poll::Pending => {
                assert!(!self.closed, "it waits on a closed channel");
                assert!(!had_room, "it waits although there is room");
                self.waiting.push(waiting);
            }
        }
    }

    fn poll_waiting(&mut self, waiting: &mut Waiting) -> Poll<Result<(), Closed<Message>>> {
        let waker = Waker::from(waiting.note.clone());
        waiting
            .sending
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
    }

    fn sent(&mut self, waiting: &Waiting, sent: Result<(), Closed<Message>>) {
        match sent {
            Ok(()) => {
                assert!(!self.closed, "a closed channel accepted a message");
                self.accept(waiting.line, waiting.number);
            }
            Err(Closed(back)) => {
                assert_eq!(back.number, waiting.number);
                assert!(self.closed, "an open channel refused a message as closed");
            }
        }
    }

    /// Poll those that were woken, or all.
    fn poll_sends(&mut self, all: bool) {
        let mut index = 0;
        while index < self.waiting.len() {
            if (all || self.waiting[index].note.is_set()) && self.poll_at(index) {
                continue;
            }
            index += 1;
        }
    }

    fn poll_send(&mut self, choices: &mut Choices<'_>) {
        if !self.waiting.is_empty() {
            let index = choices.below(self.waiting.len());
            self.poll_at(index);
        }
    }

    /// Whether it was done.
    fn poll_at(&mut self, index: usize) -> bool {
        let mut waiting = self.waiting.remove(index);
        let was_woken = waiting.note.is_set();
        match self.poll_waiting(&mut waiting) {
            Poll::Ready(sent) => {
                assert!(was_woken, "it is done and was not woken");
                let earlier = &self.waiting[..index];
                assert!(
                    sent.is_err() || earlier.iter().all(|other| other.note.is_set()),
                    "it was served before those who came first"
                );
                self.sent(&waiting, sent);
                true
            }
            Poll::Pending => {
                assert!(!was_woken, "it was woken for nothing");
                self.waiting.insert(index, waiting);
                false
            }
        }
    }

    fn drop_send(&mut self, choices: &mut Choices<'_>) {
        if self.waiting.is_empty() {
            return;
        }
        let index = choices.below(self.waiting.len());
        let dropped = self.waiting.remove(index);
        let was_granted = dropped.note.is_set() && !self.closed;
        let next = self.waiting.iter().find(|other| !other.note.is_set());
        let next = next.map(|other| other.note.clone());
        drop(dropped);
        if let (true, Some(next)) = (was_granted, next) {
            assert!(next.is_set(), "a place that was given up served nobody");
        }
    }

    fn clone_sender(&mut self, choices: &mut Choices<'_>) {
        if self.lines.len() < MOST
            && let Some((sender, _)) = self.line(choices)
        {
            self.add_line((*sender).clone());
        }
    }

    fn add_line(&mut self, sender: Sender<Message>) {
        self.lines.push(Line {
            sender: Rc::new(sender),
            line: self.accepted.len(),
        });
        self.accepted.push(VecDeque::new());
    }

    fn drop_sender(&mut self, choices: &mut Choices<'_>) {
        if self.lines.is_empty() {
            return;
        }
        let index = choices.below(self.lines.len());
        self.lines.swap_remove(index);
        if self.lines.is_empty() && self.waiting.is_empty() && self.armed {
            assert!(self.receiver_note.is_set(), "nobody told it of the last");
        }
    }

    fn downgrade(&mut self, choices: &mut Choices<'_>) {
        if self.weak.len() < MOST
            && let Some((sender, _)) = self.line(choices)
        {
            self.weak.push(sender.downgrade());
        }
    }

    fn upgrade(&mut self, choices: &mut Choices<'_>) {
        if self.weak.is_empty() || self.lines.len() >= MOST {
            return;
        }
        let index = choices.below(self.weak.len());
        match self.weak[index].upgrade() {
            Some(sender) => {
                assert!(!self.closed, "a sender of a closed channel");
                self.add_line(sender);
            }
            None => assert!(self.closed, "no sender of an open channel"),
        }
    }

    // The receiver. When it finds nothing, what it took has been given back for sure.

    fn received(&mut self, message: Message) {
        let expected = self.accepted[message.line].pop_front();
        assert_eq!(expected, Some(message.number), "out of order or invented");
        self.in_channel -= 1;
        self.unreleased += 1;
        if self.unreleased == BATCH {
            self.unreleased = 0;
        }
    }

    fn found_nothing(&mut self) {
        assert_eq!(self.in_channel, 0, "an accepted message is not there");
        self.unreleased = 0;
    }

    fn try_next(&mut self) {
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        match receiver.try_next() {
            Some(message) => self.received(message),
            None => self.found_nothing(),
        }
    }

    fn poll_ready(&mut self) {
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        self.receiver_note.clear();
        let waker = Waker::from(self.receiver_note.clone());
        let polled = receiver.poll_ready(&mut Context::from_waker(&waker));
        self.unreleased = 0;
        assert_eq!(polled.is_ready(), self.in_channel > 0);
        // The last sender may have gone before, which is for the receiver to ask.
        self.armed = polled.is_pending() && !self.is_abandoned();
    }

    fn poll_next(&mut self) {
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        self.receiver_note.clear();
        let waker = Waker::from(self.receiver_note.clone());
        match receiver.poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(message)) => {
                // Whether it had to look twice for it is not seen from here.
                self.received(message);
                self.armed = false;
            }
            Poll::Ready(None) => {
                self.found_nothing();
                assert!(self.closed || self.is_abandoned(), "it ended too early");
                self.armed = false;
                self.closed = true;
            }
            Poll::Pending => {
                self.found_nothing();
                assert!(!self.closed && !self.is_abandoned(), "it should have ended");
                self.armed = true;
            }
        }
    }

    fn register(&mut self, disarm: bool) {
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        if disarm {
            receiver.disarm();
            self.armed = false;
            self.receiver_note.clear();
        } else if self.in_channel == 0 && !self.is_abandoned() {
            self.poll_ready();
            let receiver = self.receiver.as_mut().expect("it was there");
            let waker = Waker::from(self.receiver_note.clone());
            receiver.register(&mut Context::from_waker(&waker));
        }
    }

    fn close(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.close();
            self.closed = true;
        }
    }

    fn close_and_drop(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            let dropped = receiver.close_and_drop();
            assert_eq!(dropped, self.in_channel, "the count of what was dropped");
            self.after_drop();
        }
    }

    fn drop_receiver(&mut self) {
        if self.receiver.take().is_some() {
            self.after_drop();
            self.armed = false;
        }
    }

    fn after_drop(&mut self) {
        self.closed = true;
        self.in_channel = 0;
        self.unreleased = 0;
        self.accepted.iter_mut().for_each(VecDeque::clear);
        assert_eq!(
            self.alive.get(),
            self.waiting.len(),
            "what was dropped lives"
        );
    }

    /// Whether no strong sender is left. A send that waits holds its own.
    fn is_abandoned(&self) -> bool {
        self.lines.is_empty() && self.waiting.is_empty()
    }

    fn check(&self) {
        assert_eq!(
            self.alive.get(),
            self.in_channel + self.waiting.len(),
            "a message was kept or lost"
        );
        if let Some(line) = self.lines.first() {
            assert_eq!(line.sender.is_closed(), self.closed);
            assert_eq!(line.sender.capacity(), self.capacity);
        }
        if let Some(receiver) = &self.receiver {
            assert_eq!(receiver.len(), self.in_channel);
            assert_eq!(receiver.is_empty(), self.in_channel == 0);
            assert_eq!(receiver.is_abandoned(), self.is_abandoned());
            let finished = self.is_abandoned() && self.in_channel == 0;
            assert_eq!(receiver.is_finished(), finished);
        }
        if self.armed && (self.in_channel > 0 || self.is_abandoned()) {
            assert!(self.receiver_note.is_set(), "the receiver was not woken");
        }
        let asleep = self.waiting.iter().filter(|w| !w.note.is_set()).count();
        if self.closed {
            assert_eq!(asleep, 0, "it waits on a closed channel");
        }
        assert!(
            asleep == 0 || self.taken() + self.unreleased >= self.capacity,
            "{asleep} wait, although {} of {} places are taken",
            self.taken(),
            self.capacity
        );
    }

    /// Receive all that is there: the rest of what was accepted, in order, and nothing else.
    fn finish(mut self) {
        self.lines.clear();
        // Finding it empty gives places back, so that more may come.
        for _ in 0..2 * (1 + self.capacity + MOST) {
            self.poll_sends(false);
            self.poll_next();
            self.check();
        }
        self.poll_sends(false);
        assert!(self.waiting.is_empty(), "a send never ended");
        assert_eq!(self.in_channel, 0);
        drop(self.receiver);
        assert_eq!(self.alive.get(), 0, "a message was never dropped");
    }
}
