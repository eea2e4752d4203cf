//! What a well-behaved client of the server says, and what it hears.

use bytes::Bytes;

/// A short conversation in the server's own protocol: what a client says, and by what it knows
/// that it was answered.
///
/// Probes hold it to see whether the server still serves others, and hostile peers begin it and
/// misbehave in it. It should change nothing on the server: it is held thousands of times.
///
/// ```
/// use protosocket_testkit::hostile::Conversation;
///
/// // Wait for a banner, then ask for a line and look for a part of the answer.
/// let conversation = Conversation::new()
///     .hear("ready")
///     .say("PING\r\n")
///     .hear("PONG");
/// # assert!(conversation.has_request());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    steps: Vec<Step>,
}

/// Something is said, and something is waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Empty where the server speaks first.
    pub(super) say: Bytes,
    /// Any byte will do if this is `None`.
    pub(super) hear: Option<Bytes>,
}

impl Conversation {
    /// Nothing is said: probes connect, and see whether they are thrown out.
    pub fn new() -> Self {
        Self::default()
    }

    /// Say this, and wait for an answer, however it begins.
    #[must_use]
    pub fn say(mut self, request: impl Into<Bytes>) -> Self {
        self.steps.push(Step {
            say: request.into(),
            hear: None,
        });
        self
    }

    /// The answer to what was said last must contain this. Before anything is said: wait until the
    /// server has said this by itself.
    #[must_use]
    pub fn hear(mut self, expected: impl Into<Bytes>) -> Self {
        let unheard = self.steps.last().is_some_and(|step| step.hear.is_none());
        if !unheard {
            self.steps.push(Step::default());
        }
        let last = self.steps.last_mut().expect("one was pushed if need be");
        last.hear = Some(expected.into());
        self
    }

    /// Whether anything is said at all.
    pub fn has_request(&self) -> bool {
        self.steps.iter().any(|step| !step.say.is_empty())
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What is said first; nothing if nothing is ever said.
    pub(super) fn first_said(&self) -> &[u8] {
        let mut said = self.steps.iter().map(|step| &step.say[..]);
        said.find(|say| !say.is_empty()).unwrap_or(&[])
    }

    /// All that is said, in one piece.
    pub(super) fn said(&self) -> Vec<u8> {
        let said: Vec<&[u8]> = self.steps.iter().map(|step| &step.say[..]).collect();
        said.concat()
    }

    /// What the answer to the last request must contain.
    pub(super) fn last_heard(&self) -> Option<&Bytes> {
        self.steps.last().and_then(|step| step.hear.as_ref())
    }
}

/// Looks for a pattern in what comes in pieces.
#[derive(Debug, Clone)]
pub(super) struct Search {
    pattern: Bytes,
    /// The end of what came, too short to contain the pattern.
    tail: Vec<u8>,
    found: u64,
}

impl Search {
    /// An empty pattern is found in the first byte, and only there.
    pub(super) fn new(pattern: Option<&Bytes>) -> Self {
        Self {
            pattern: pattern.cloned().unwrap_or_default(),
            tail: Vec::new(),
            found: 0,
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.pattern.is_empty() {
            self.found |= u64::from(!bytes.is_empty());
            return;
        }
        self.tail.extend_from_slice(bytes);
        let length = self.pattern.len();
        let mut at = 0;
        while let Some(window) = self.tail.get(at..at + length) {
            if window == self.pattern {
                self.found += 1;
                at += length;
            } else {
                at += 1;
            }
        }
        self.tail.drain(..at);
    }

    /// How often it has been found, without overlaps.
    pub(super) fn found(&self) -> u64 {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_belongs_to_what_was_said() {
        let conversation = Conversation::new().hear("220").say("A").say("B").hear("b");
        let step = |say: &'static str, hear: Option<&'static str>| Step {
            say: say.into(),
            hear: hear.map(Bytes::from),
        };
        let expected = [step("", Some("220")), step("A", None), step("B", Some("b"))];
        assert_eq!(conversation.steps(), expected);
        assert_eq!(conversation.said(), b"AB");
        assert!(!Conversation::new().hear("220").has_request());
    }

    #[test]
    fn a_pattern_is_found_wherever_it_is_cut() {
        let text = b"aaab..aab.aab";
        for cut in 0..=text.len() {
            let mut search = Search::new(Some(&Bytes::from("aab")));
            search.feed(&text[..cut]);
            search.feed(&text[cut..]);
            assert_eq!(search.found(), 3, "cut at {cut}");
        }
        let mut any = Search::new(None);
        any.feed(b"");
        assert_eq!(any.found(), 0);
        any.feed(b"xy");
        assert_eq!(any.found(), 1);
    }
}
