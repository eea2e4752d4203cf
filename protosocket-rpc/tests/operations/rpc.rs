use std::{collections::HashMap, io, task::Poll, time::Duration};

use protosocket::{Clock, SendLimits};
use protosocket_rpc::{
    Error, Execution,
    client::{Configuration, SlowConsumer, StreamingCompletion, UnaryCompletion},
};
use protosocket_testkit::{Setup, operations::Choices};

use crate::common::*;

/// Do with a client what `bytes` say: begin calls of both kinds, with ids of their own or without,
/// poll and drop them, let time pass; let the server read, answer, cancel, end, say what nobody
/// knows, and make things up; and end the connection in any way. Expected is:
/// - An answer belongs to the call that it is given to, and a stream's items to their stream, in
///   order. A stream ends without an error only if the server has ended it.
/// - A request that is said to have never been sent has not left, nor has any part of it.
/// - The server is told of each call once that nobody waits, and of none that was never sent.
/// - When the connection has ended, everybody is told, and nothing is in flight.
///
/// # Panics
/// If one of these does not hold.
pub(crate) fn rpc(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut run = Run::new(&mut choices);
    while !choices.is_empty() && !run.is_over {
        run.step(&mut choices);
        if choices.flag() {
            run.called.settle();
            run.listen();
        }
    }
    run.finish();
}

/// Callers choose ids below this, and 0 is none.
const CHOSEN: u64 = 8;

struct Run {
    called: Called,
    calls: Vec<Made>,
    next: usize,
    /// Bytes of what was written that have been looked at.
    listened: usize,
    /// What the server has heard, and how far it has answered.
    asked: Vec<Asked>,
    /// How often it was told that nobody waits for this id, since the last request with it.
    cancelled: HashMap<u64, usize>,
    is_over: bool,
}

/// A call, as its caller knows it.
struct Made {
    text: String,
    kind: Kind,
    /// Items that have been taken.
    taken: usize,
    is_over: bool,
}

enum Kind {
    Unary(Option<Caller<UnaryCompletion<Text, Text>>>),
    Streaming(Option<Caller<StreamingCompletion<Text, Text>>>),
}

/// A call, as the server knows it.
struct Asked {
    id: u64,
    text: String,
    items: usize,
    has_ended: bool,
    /// Another call has its id.
    is_past: bool,
}

impl Run {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut setup = Setup::client();
        setup.limits = setup.limits.send_limits(SendLimits {
            bulk_bytes: choices.one_of(&[1, 60, 100_000]),
            bulk_messages: choices.one_of(&[1, 3, 1000]),
            control_bytes: choices.one_of(&[1, 30, 100_000]),
        });
        let policy = [SlowConsumer::Pause, SlowConsumer::End];
        let configuration = Configuration::new()
            .max_concurrent_calls(choices.one_of(&[1, 3, 100]))
            .and_then(|it| it.max_buffered_items(choices.one_of(&[1, 2, 5])))
            .expect("these are valid")
            .slow_consumer(choices.one_of(&policy));
        Self {
            called: Called::with(setup, configuration),
            calls: Vec::new(),
            next: 0,
            listened: 0,
            asked: Vec::new(),
            cancelled: HashMap::new(),
            is_over: false,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 32 {
            0..8 => self.begin(choices),
            8..14 => self.poll(choices),
            14..16 => self.drop_one(choices),
            16..24 => self.answer(choices),
            24 => self
                .called
                .connection
                .peer
                .set_window(choices.one_of(&[0, 1, 13, 40])),
            25 | 26 => self
                .called
                .connection
                .peer
                .open_window(choices.one_of(&[1, 13, 40, 1000])),
            27 => self
                .called
                .connection
                .peer
                .set_max_write(choices.one_of(&[1, 7, 1000])),
            28 => {
                let millis = choices.one_of(&[1, 500, 5_000, 40_000]);
                self.called
                    .connection
                    .clock
                    .advance(Duration::from_millis(millis));
            }
            29 if self.called.connection.is_woken() => self.called.connection.poll_once(),
            30 => self.make_up(choices),
            // Once in a while it ends, in one way or another.
            _ if choices.byte().is_multiple_of(4) => self.end(choices),
            _ => {}
        }
        self.is_over |= self.called.connection.is_ended();
    }

    fn begin(&mut self, choices: &mut Choices<'_>) {
        let text = format!("{}", self.next);
        self.next += 1;
        let id = match choices.below(3) {
            0 => u64::from(choices.byte()) % CHOSEN,
            _ => 0,
        };
        let client = match choices.below(3) {
            0 => self.called.client().with_timeout(Duration::from_secs(1)),
            _ => self.called.client().clone(),
        };
        let request = Text::new(id, NORMAL, &*text);
        let begun = match choices.flag() {
            true => client
                .send_unary(request)
                .map(|it| Kind::Unary(Some(Caller::new(it)))),
            false => {
                let begun = client.send_streaming(request);
                begun.map(|it| Kind::Streaming(Some(Caller::new(it))))
            }
        };
        match begun {
            Ok(kind) => self.calls.push(Made {
                text,
                kind,
                taken: 0,
                is_over: false,
            }),
            Err(error) => assert_eq!(error.execution(), Execution::NeverSent, "{error}"),
        }
    }

    fn poll(&mut self, choices: &mut Choices<'_>) {
        if let Some(position) = choose(choices, self.calls.len()) {
            self.poll_one(position, 1 + choices.below(3));
        }
    }

    /// Poll a call, up to so many times.
    fn poll_one(&mut self, position: usize, times: usize) {
        let call = &mut self.calls[position];
        for _ in 0..times {
            if call.is_over {
                return;
            }
            let next = match &mut call.kind {
                Kind::Unary(Some(caller)) => caller.poll().map(Some),
                Kind::Streaming(Some(caller)) => caller.poll_next(),
                Kind::Unary(None) | Kind::Streaming(None) => return,
            };
            let Poll::Ready(next) = next else { return };
            let asked = || self.asked.iter().find(|asked| asked.text == call.text);
            match next {
                Some(Ok(answer)) => {
                    assert_eq!(answer.text, format!("{} {}", call.text, call.taken));
                    call.taken += 1;
                    call.is_over = matches!(call.kind, Kind::Unary(_));
                }
                Some(Err(error)) => {
                    call.is_over = true;
                    let was_sent = asked().is_some();
                    let never_sent = error.execution() == Execution::NeverSent;
                    assert!(!(never_sent && was_sent), "{}: {error}", call.text);
                    let by_server = matches!(
                        error,
                        Error::CancelledRemotely | Error::NoResponse | Error::UnknownControlCode(_)
                    );
                    assert!(!by_server || was_sent, "{}: {error}", call.text);
                }
                None => {
                    call.is_over = true;
                    let ended = asked().expect("it was heard before it ended");
                    assert!(ended.has_ended && ended.items == call.taken);
                }
            }
        }
    }

    fn drop_one(&mut self, choices: &mut Choices<'_>) {
        if let Some(position) = choose(choices, self.calls.len()) {
            let call = &mut self.calls[position];
            call.is_over = true;
            match &mut call.kind {
                Kind::Unary(caller) => drop(caller.take()),
                Kind::Streaming(caller) => drop(caller.take()),
            }
        }
    }

    /// The server answers one of those that it has heard.
    fn answer(&mut self, choices: &mut Choices<'_>) {
        self.listen();
        let Some(position) = choose(choices, self.asked.len()) else {
            return;
        };
        let asked = &mut self.asked[position];
        // A second answer to an id that its caller may use again could not be told from the first.
        if asked.is_past || asked.has_ended && asked.id < CHOSEN {
            return;
        }
        let code = match choices.below(8) {
            0 => CANCEL,
            1 | 2 => END,
            3 => 3 + choices.byte() % 100,
            _ => NORMAL,
        };
        let text = format!("{} {}", asked.text, asked.items);
        // What comes after the end is another matter: nobody must hear of it.
        let text = match asked.has_ended {
            true => "late".to_owned(),
            false => text,
        };
        match code {
            NORMAL => asked.items += usize::from(!asked.has_ended),
            _ => asked.has_ended = true,
        }
        // One response is all that a unary call has.
        let made = self.calls.iter().find(|call| call.text == asked.text);
        asked.has_ended |= made.is_some_and(|call| matches!(call.kind, Kind::Unary(_)));
        let bytes = encoded([Text::new(asked.id, code, text)]);
        let (front, rest) = bytes.split_at(choices.below(bytes.len()));
        self.called.connection.peer.send(front);
        if choices.flag() {
            self.called.settle();
        }
        self.called.connection.peer.send(rest);
    }

    /// The server answers what it was not asked.
    fn make_up(&mut self, choices: &mut Choices<'_>) {
        let id = u64::MAX - u64::from(choices.byte());
        let made_up = Text::new(id, choices.byte() % 5, "made up");
        self.called.connection.peer.send(encoded([made_up]));
    }

    fn end(&mut self, choices: &mut Choices<'_>) {
        let connection = &mut self.called.connection;
        match choices.below(6) {
            0 => connection.peer.end(),
            1 => connection.peer.fail_read(io::ErrorKind::ConnectionReset),
            2 => connection.peer.fail_write(io::ErrorKind::BrokenPipe),
            3 => connection.handle.abort(),
            4 => connection.peer.send([0; 3]),
            _ => {
                let deadline = connection.clock.now() + Duration::from_secs(2);
                connection.handle.drain(deadline);
            }
        }
    }

    /// Hear what has been sent, as far as it is whole.
    fn listen(&mut self) {
        let written = self.called.connection.peer.written();
        let heard = decoded(&written[self.listened..]);
        self.listened += encoded(heard.clone()).len();
        for message in heard {
            if message.code == CANCEL {
                let asked = self.asked.iter().any(|asked| asked.id == message.id);
                assert!(asked, "{} was never asked", message.id);
                let times = self.cancelled.entry(message.id).or_default();
                *times += 1;
                assert_eq!(*times, 1, "{} was cancelled again", message.id);
                continue;
            }
            assert_eq!(message.code, NORMAL);
            self.cancelled.remove(&message.id);
            // Whoever had this id before has been answered.
            for asked in &mut self.asked {
                asked.is_past |= asked.id == message.id;
            }
            self.asked.push(Asked {
                is_past: false,
                id: message.id,
                text: message.text,
                items: 0,
                has_ended: false,
            });
        }
    }

    /// End the connection, and see that everybody is told.
    fn finish(mut self) {
        self.called.settle();
        self.listen();
        let client = self.called.client().clone();
        self.called.connection.handle.abort();
        self.called.settle();
        assert!(self.called.connection.is_ended());
        for position in 0..self.calls.len() {
            self.poll_one(position, usize::MAX);
            let call = &self.calls[position];
            assert!(call.is_over, "{} was not told", call.text);
        }
        assert_eq!(client.in_flight(), 0);
        assert!(!client.is_alive());
        assert!(client.send_unary(request("late")).is_err());
    }
}

fn choose(choices: &mut Choices<'_>, count: usize) -> Option<usize> {
    (count > 0).then(|| choices.below(256) % count)
}
