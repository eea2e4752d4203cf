//! What a case must come to.

use std::fmt;

use bytes::Bytes;
use protosocket::ConnectionStats;

use crate::Ending;

/// Every name of an end that a case may expect.
pub(super) const ENDS: &[&str] = &[
    "end_of_input",
    "no_senders",
    "disconnect",
    "handover",
    "drained",
    "age",
    "decode/malformed",
    "decode/too_large",
    "decode/truncated",
    "decode/no_progress",
    "decode/overrun",
    "decode/other",
    "protocol",
    "encode/too_large",
    "encode/invalid",
    "encode/shrunk",
    "encode/other",
    "send_buffer_full",
    "output_finished",
    "io",
    "connect_timeout",
    "handshake_timeout",
    "first_message_timeout",
    "message_timeout",
    "idle_timeout",
    "write_timeout",
    "drain_timeout",
    "aborted",
    "panicked",
    "dropped",
    "refused/handshake",
];

/// The messages that are decoded before the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Messages {
    /// These, in this order. Where messages cannot be looked at, their number.
    These(Vec<Bytes>),
    /// So many.
    Count(u64),
    /// However many: the network decides.
    Any,
}

/// How a connection must end.
#[derive(Debug, Clone)]
pub(super) struct Expect {
    pub(super) messages: Messages,
    /// One of these names, as [`end_name`](crate::end_name) gives them.
    pub(super) ends: Vec<String>,
    /// What the reason must say to people.
    pub(super) says: Option<String>,
}

impl Expect {
    /// Compare with what happened; `messages` are there if they could be looked at.
    pub(super) fn check(&self, ending: &Ending, messages: Option<&[Bytes]>) -> Result<(), String> {
        let text = &ending.text;
        if !self.ends.contains(&ending.end) {
            return Err(format!(
                "expected the end {}, it was {} ({text})",
                self.ends.join(" or "),
                ending.end,
            ));
        }
        if let Some(says) = &self.says
            && !text.contains(says)
        {
            return Err(format!(
                "expected a reason that says {says:?}, it says {text:?}"
            ));
        }
        if text.chars().any(char::is_control) {
            return Err(format!(
                "a reason is shown to people and logged, and must not carry a peer's control \
                 characters: {text:?}"
            ));
        }
        self.check_messages(&ending.stats, messages)
    }

    fn check_messages(
        &self,
        stats: &ConnectionStats,
        messages: Option<&[Bytes]>,
    ) -> Result<(), String> {
        let expected = match (&self.messages, messages) {
            (Messages::Any, _) => return Ok(()),
            (Messages::These(expected), Some(messages)) if expected != messages => {
                return Err(format!(
                    "expected the messages {}, they were {}",
                    Shown(expected),
                    Shown(messages)
                ));
            }
            (Messages::These(expected), _) => expected.len() as u64,
            (Messages::Count(expected), _) => *expected,
        };
        match stats.messages_in == expected {
            true => Ok(()),
            false => Err(format!(
                "expected {expected} messages, there were {}",
                stats.messages_in
            )),
        }
    }
}

/// Messages for people: escaped, and not all of a million.
struct Shown<'a>(&'a [Bytes]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 8;
        const LENGTH: usize = 40;
        f.write_str("[")?;
        for (index, message) in self.0.iter().take(MOST).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let start = &message[..message.len().min(LENGTH)];
            write!(f, "{comma}\"{}\"", start.escape_ascii())?;
            if message.len() > LENGTH {
                write!(f, "… of {} bytes", message.len())?;
            }
        }
        match self.0.len() {
            0..=MOST => f.write_str("]"),
            count => write!(f, ", … {count} in all]"),
        }
    }
}
