use std::{collections::HashMap, io, time::Duration};

use protosocket::{Clock, SendLimits};
use protosocket_rpc::Message;
use protosocket_testkit::{Setup, operations::Choices};

use crate::served::*;

/// Do with a server what `bytes` say: let its client call, cancel, end, use ids again, say what nobody
/// knows, read as it likes, pause and go away; let rpcs be ready, wait, yield, stream, panic and answer
/// with what cannot be sent; and end the connection in any way. Expected is:
/// - What an rpc says goes out once, with the id of its call, and nothing but the codes 0, 1 and 2.
/// - Every message is heard at once, whether the client reads or not, except behind one call beyond
///   the limit, or when what has been sent uses up the reserve.
/// - With room, every rpc that can go on does: no wake is lost.
/// - Every request is counted once, every rpc is dropped, and what was not answered is known.
///
/// # Panics
/// If one of these does not hold.
pub(crate) fn server(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut run = Run::new(&mut choices);
    while !choices.is_empty() && !run.served.is_ended() {
        run.step(&mut choices);
        if choices.flag() {
            run.served.settle();
            run.look();
        }
    }
    run.finish();
}

/// Ids that a client uses: more than there may be calls at a time, and few enough to meet.
const IDS: u64 = 12;

/// The bytes of the longest message that the service sends.
const LONGEST: u64 = BARE as u64 + 12;

const REQUESTS: [&str; 14] = [
    "echo",
    "echo",
    "wait",
    "wait",
    "yield 2",
    "stream",
    "stream",
    "count 30",
    "codes 00",
    "code 9",
    "reject",
    "panic-poll later",
    "panic-drop",
    "panic-stream",
];

struct Run {
    served: Served,
    most: u64,
    bulk: u64,
    /// Messages that the client has sent.
    sent: u64,
    requests: u64,
    /// Requests and messages with unknown codes, by id: each is answered with one last word at most.
    asked: HashMap<u64, usize>,
    /// Last words that are not responses, by id.
    last_words: HashMap<u64, usize>,
    cancellations: u64,
    /// Whose each of the words is that can still be said.
    words: HashMap<String, u64>,
    spoken: usize,
    /// Bytes of what was written that have been looked at.
    listened: usize,
    /// Nothing more can be sent.
    is_mute: bool,
}

impl Run {
    fn new(choices: &mut Choices<'_>) -> Self {
        let most = choices.one_of(&[1, 3, 8]);
        let bulk = choices.one_of(&[20, 200, 100_000]);
        let mut setup = Setup::default();
        setup.limits = setup.limits.send_limits(SendLimits {
            bulk_bytes: bulk,
            bulk_messages: choices.one_of(&[1, 3, 1000]),
            control_bytes: choices.one_of(&[1, 30, 100_000]),
        });
        if choices.flag() {
            setup.limits = setup.limits.write_timeout(None).idle_timeout(None);
        }
        let timeouts = [None, Some(Duration::from_secs(30)), Some(Duration::MAX)];
        let config = limit(most).end_of_input_timeout(choices.one_of(&timeouts));
        Self {
            served: Served::with(setup, config),
            most: most as u64,
            bulk: bulk as u64,
            sent: 0,
            requests: 0,
            asked: HashMap::new(),
            last_words: HashMap::new(),
            cancellations: 0,
            words: HashMap::new(),
            spoken: 0,
            listened: 0,
            is_mute: false,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let id = u64::from(choices.byte()) % IDS;
        match choices.byte() % 32 {
            0..10 => self.call(id, choices.one_of(&REQUESTS)),
            10 | 11 => self.send(Text::cancelled(id)),
            12 => self.send(Text::ended(id)),
            13 => self.send(Text::new(id, 3 + choices.byte() % 100, "what")),
            14..17 => self.give(id),
            17 => self.served.stage.give(id, UNSPEAKABLE),
            18 => self.served.stage.end(id),
            19 | 20 => self.served.peer.set_window(choices.one_of(&[0, 1, 13, 40])),
            21..24 => self
                .served
                .peer
                .open_window(choices.one_of(&[1, 13, 40, 1000])),
            24 => self
                .served
                .peer
                .set_max_write(choices.one_of(&[1, 7, 1000])),
            25 => {
                let millis = choices.one_of(&[1, 500, 5_000, 40_000]);
                self.served.pass(Duration::from_millis(millis));
            }
            // The client gives up what it has begun, and pauses.
            26 | 27 => {
                (0..IDS).for_each(|id| self.send(Text::cancelled(id)));
                self.served.pass(Duration::from_secs(25));
            }
            28 | 29 if self.served.is_woken() => self.served.poll_once(),
            // Once in a while it ends, in one way or another.
            30 if choices.byte().is_multiple_of(8) => self.end(choices),
            _ => {}
        }
    }

    fn call(&mut self, id: u64, what: &str) {
        let text = match what {
            "echo" => format!("echo {}", self.word(id)),
            what => what.to_owned(),
        };
        self.send(Text::new(id, NORMAL, text));
    }

    fn give(&mut self, id: u64) {
        let word = self.word(id);
        self.served.stage.give(id, &word);
    }

    /// A word that only an rpc with this id says, and only once.
    fn word(&mut self, id: u64) -> String {
        self.spoken += 1;
        let word = format!("w{}", self.spoken);
        self.words.insert(word.clone(), id);
        word
    }

    fn send(&mut self, message: Text) {
        if self.is_mute {
            return;
        }
        self.sent += 1;
        self.requests += u64::from(message.code == NORMAL);
        if !matches!(message.code, CANCEL | END) {
            *self.asked.entry(message.id).or_default() += 1;
        }
        self.served.peer.send(encoded([message]));
    }

    fn end(&mut self, choices: &mut Choices<'_>) {
        let served = &mut self.served;
        match choices.below(7) {
            0 => served.peer.end(),
            1 => served.peer.fail_read(io::ErrorKind::ConnectionReset),
            2 => served.peer.fail_write(io::ErrorKind::BrokenPipe),
            3 => served.handle.abort(),
            4 if !self.is_mute => served.peer.send([0; 3]),
            5 => served.stage.lock().disconnect = true,
            _ => {
                let deadline = served.clock.now() + Duration::from_secs(2);
                served.handle.drain(deadline);
            }
        }
        self.is_mute = true;
    }

    /// See what it has come to.
    fn look(&mut self) {
        self.listen();
        if self.served.is_ended() {
            return;
        }
        let stats = self.served.connection().stats();
        let running = stats.unanswered;
        assert!(running <= self.most + 1, "{stats:?}");
        // One more waits, or there may be no room to answer to what else comes.
        let hears = running <= self.most && stats.unsent * LONGEST < self.bulk;
        if hears && !self.is_mute {
            assert_eq!(stats.messages_in, self.sent, "{stats:?}");
        }
    }

    /// Hear what has been said, as far as it is whole.
    fn listen(&mut self) {
        let written = self.served.peer.written();
        let heard = decoded(&written[self.listened..]);
        self.listened += encoded(heard.clone()).len();
        for Text { id, code, text } in heard {
            assert!(code <= END, "{id} {code}");
            let asked = self.asked.get(&id).copied().unwrap_or(0);
            assert!(asked > 0, "{id} was never asked");
            if code != NORMAL {
                let last_words = self.last_words.entry(id).or_default();
                *last_words += 1;
                assert!(*last_words <= asked, "{id} was ended again");
            } else if text.starts_with('w') {
                assert_eq!(self.words.remove(&text), Some(id), "{text}");
            }
            self.cancellations += u64::from(code == CANCEL);
        }
    }

    /// Let everything that runs come to its end, then the connection, and see that all is counted.
    fn finish(mut self) {
        self.served.peer.set_max_write(usize::MAX);
        self.served.peer.set_window(usize::MAX / 2);
        self.served.peer.open_window(0);
        self.served.settle();
        (0..IDS).for_each(|id| self.give(id));
        self.served.settle();
        (0..IDS).for_each(|id| self.served.stage.end(id));
        self.served.settle();
        self.look();
        if !self.served.is_ended() {
            assert_eq!(self.served.in_flight(), 0, "a wake was lost");
        }
        self.served.peer.end();
        let end = self.served.finish();
        self.listen();
        let stats = self.served.stats();
        let dropped = self.served.stage.dropped().len() as u64;
        assert_eq!(dropped, stats.started, "{stats:?}");
        let counted = stats.started + stats.refused + stats.collided;
        assert!(counted <= self.requests, "{stats:?}");
        let unanswered = end.stats.unanswered;
        assert!(unanswered >= stats.abandoned, "{stats:?}");
        assert!(unanswered <= stats.abandoned + 1, "{stats:?}");
        let refusals = stats.rejected + stats.failed + stats.refused + stats.collided;
        assert!(
            self.cancellations <= refusals + stats.unknown_codes,
            "{stats:?}"
        );
        if end.reason.name() == "end_of_input" {
            assert_eq!(counted, self.requests, "{stats:?}");
            assert!(self.cancellations >= refusals, "{stats:?}");
        }
    }
}
