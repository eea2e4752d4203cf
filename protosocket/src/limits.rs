//! The deadlines and limits of a connection's life, in one place.

use std::time::Duration;

use crate::SendLimits;

/// Deadlines and limits, for every transport and protocol.
///
/// All deadlines but the age are on by default. [`Limits::server`] is the default; a connection
/// that this program opens uses [`Limits::client`]. Zero and nonsense are refused when a
/// connection, server or connector is configured with them ([`Limits::validate`]).
///
/// | what | server | client | why |
/// |---|---|---|---|
/// | [`connect_timeout`](Self::connect_timeout) | 10 s | 10 s | three SYN retransmissions |
/// | [`handshake_timeout`](Self::handshake_timeout) | 10 s | 10 s | TLS over a slow path takes 3 s |
/// | [`first_message_timeout`](Self::first_message_timeout) | 120 s | off | a person at a telnet prompt; a pool connects early |
/// | [`message_timeout`](Self::message_timeout) | 120 s | 120 s | a line that a person types |
/// | [`min_receive_rate`](Self::min_receive_rate) | 4 KiB/s | 4 KiB/s | a large message may take longer, if it arrives |
/// | [`idle_timeout`](Self::idle_timeout) | 10 min | off | a server sheds the forgotten; a client keeps its pool |
/// | [`write_timeout`](Self::write_timeout) | 30 s | 30 s | a peer that does not read for that long is gone |
/// | [`min_write_progress`](Self::min_write_progress) | 1 KiB | 1 KiB | a window of one byte is no progress |
/// | [`drain_timeout`](Self::drain_timeout) | 30 s | 30 s | what orchestrators grant between their signals |
/// | [`linger_timeout`](Self::linger_timeout) | 2 s | 2 s | a few round trips to read the last reply |
/// | [`max_age`](Self::max_age) | off | off | for load balancing, with 10 % of jitter |
/// | [`max_message_size`](Self::max_message_size) | 32 MiB | 32 MiB | nothing is reserved; memory grows with what arrives |
/// | [`receive_chunk`](Self::receive_chunk) | 256 KiB | 256 KiB | what one read takes while messages are large |
/// | [`max_queued_messages`](Self::max_queued_messages) | 1,024 | 1,024 | the channel's bound |
/// | [`send_limits`](Self::send_limits) | 1 MiB, 4,096 | 1 MiB, 4,096 | see [`SendLimits::DEFAULT`] |
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) handshake_timeout: Option<Duration>,
    pub(crate) first_message_timeout: Option<Duration>,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) min_receive_rate: u32,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) min_write_progress: usize,
    pub(crate) drain_timeout: Duration,
    pub(crate) linger_timeout: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_message_size: usize,
    pub(crate) receive_chunk: usize,
    pub(crate) max_queued_messages: usize,
    pub(crate) send: SendLimits,
}

/// What connecting may take by default: as long as three retransmissions of a SYN take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a handshake may take by default.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl Limits {
    /// For connections that others open to this program.
    pub fn server() -> Self {
        Self {
            connect_timeout: Some(CONNECT_TIMEOUT),
            handshake_timeout: Some(HANDSHAKE_TIMEOUT),
            first_message_timeout: Some(Duration::from_secs(120)),
            message_timeout: Some(Duration::from_secs(120)),
            min_receive_rate: 4 * 1024,
            idle_timeout: Some(Duration::from_secs(600)),
            write_timeout: Some(Duration::from_secs(30)),
            min_write_progress: 1024,
            drain_timeout: Duration::from_secs(30),
            linger_timeout: Some(Duration::from_secs(2)),
            max_age: None,
            max_message_size: 32 * 1024 * 1024,
            receive_chunk: 256 * 1024,
            max_queued_messages: 1024,
            send: SendLimits::DEFAULT,
        }
    }

    /// For connections that this program opens.
    pub fn client() -> Self {
        Self {
            first_message_timeout: None,
            idle_timeout: None,
            ..Self::server()
        }
    }

    /// How long opening a connection may take; connectors take it with their `limits`.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connect_timeout = timeout.into();
        self
    }

    /// How long TLS, a proxy header or protocol detection may take, before the first message.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handshake_timeout = timeout.into();
        self
    }

    /// How long a new peer may take to send its first whole message.
    #[must_use]
    pub fn first_message_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.first_message_timeout = timeout.into();
        self
    }

    /// How long a message may take from its first byte to its last, however steadily it drips;
    /// prolonged by [`min_receive_rate`](Self::min_receive_rate).
    #[must_use]
    pub fn message_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.message_timeout = timeout.into();
        self
    }

    /// Bytes of a message that buy it another second, so that a large one can take its time.
    #[must_use]
    pub fn min_receive_rate(mut self, bytes_per_second: u32) -> Self {
        self.min_receive_rate = bytes_per_second;
        self
    }

    /// How long a connection may do nothing: no message either way, none begun, none queued, and
    /// nothing in flight.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// How long the peer may fail to read what it is sent.
    #[must_use]
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.write_timeout = timeout.into();
        self
    }

    /// Bytes that the peer must read within [`write_timeout`](Self::write_timeout), unless less
    /// is waiting for it.
    #[must_use]
    pub fn min_write_progress(mut self, bytes: usize) -> Self {
        self.min_write_progress = bytes;
        self
    }

    /// How long a connection that has reached its age may take to finish.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// How long a connection that has said all waits for the peer to do the same, reading and
    /// discarding, so that the peer's kernel does not throw the last reply away.
    #[must_use]
    pub fn linger_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.linger_timeout = timeout.into();
        self
    }

    /// After this time a connection finishes what it has begun and ends. Each connection adds up
    /// to 10 % of it, so that those opened together do not end together.
    #[must_use]
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_age = age.into();
        self
    }

    /// The largest message that a decoder may ask to be buffered, framing included, in bytes.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// How much a connection whose messages are larger than 16 KiB reads at once, in bytes, and up
    /// to an eighth more to the end of a message. It begins with 16 KiB and doubles up to this
    /// while reads fill it. Connections of small messages, and idle ones, hold no such buffer.
    #[must_use]
    pub fn receive_chunk(mut self, bytes: usize) -> Self {
        self.receive_chunk = bytes;
        self
    }

    /// How many messages the channel into a connection holds; see [`channel`](crate::channel).
    #[must_use]
    pub fn max_queued_messages(mut self, messages: usize) -> Self {
        self.max_queued_messages = messages;
        self
    }

    /// How much may wait in the send buffer.
    #[must_use]
    pub fn send_limits(mut self, limits: SendLimits) -> Self {
        self.send = limits;
        self
    }

    /// The channel's bound, for whoever makes the channel.
    pub fn queued_messages(&self) -> usize {
        self.max_queued_messages
    }

    /// The largest message, for whoever checks a decoder against it.
    pub fn message_size(&self) -> usize {
        self.max_message_size
    }

    /// Refuse what cannot work.
    ///
    /// # Errors
    /// The caller is to blame: a limit of zero, or a deadline that will never be seen to pass.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let timeouts = [
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("first_message_timeout", self.first_message_timeout),
            ("message_timeout", self.message_timeout),
            ("idle_timeout", self.idle_timeout),
            ("write_timeout", self.write_timeout),
            ("drain_timeout", Some(self.drain_timeout)),
            ("linger_timeout", self.linger_timeout),
            ("max_age", self.max_age),
        ];
        for (name, timeout) in timeouts {
            match timeout {
                Some(Duration::ZERO) => return Err(ConfigError::zero(name)),
                Some(long) if long > Self::MAX_TIMEOUT => {
                    return Err(ConfigError::new(
                        name,
                        "is above ten years; switch it off with None instead",
                    ));
                }
                _ => {}
            }
        }
        let counts = [
            ("min_receive_rate", self.min_receive_rate as usize),
            ("min_write_progress", self.min_write_progress),
            ("max_message_size", self.max_message_size),
            ("receive_chunk", self.receive_chunk),
            ("max_queued_messages", self.max_queued_messages),
            ("send_limits.bulk_bytes", self.send.bulk_bytes),
            ("send_limits.bulk_messages", self.send.bulk_messages),
            ("send_limits.control_bytes", self.send.control_bytes),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((name, _)) => Err(ConfigError::zero(name)),
            None => Ok(()),
        }
    }

    /// Instants further away than this cannot be added up without care.
    pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
}

impl Default for Limits {
    fn default() -> Self {
        Self::server()
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: &'static str,
}

impl ConfigError {
    /// The setting `name` and what is wrong with its value.
    pub fn new(name: &'static str, problem: &'static str) -> Self {
        Self { name, problem }
    }

    /// The setting `name` is zero.
    pub fn zero(name: &'static str) -> Self {
        Self::new(
            name,
            "must not be zero; where it can be switched off, use None",
        )
    }
}

impl From<ConfigError> for std::io::Error {
    fn from(error: ConfigError) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Limits::server().validate(), Ok(()));
        assert_eq!(Limits::client().validate(), Ok(()));
    }

    #[test]
    fn d11b_zero_and_nonsense_are_refused_by_name() {
        let broken = [
            (
                "idle_timeout",
                Limits::server().idle_timeout(Duration::ZERO),
            ),
            ("max_message_size", Limits::server().max_message_size(0)),
            (
                "max_queued_messages",
                Limits::server().max_queued_messages(0),
            ),
            (
                "write_timeout",
                Limits::server().write_timeout(Duration::MAX),
            ),
            ("min_receive_rate", Limits::server().min_receive_rate(0)),
            (
                "send_limits.bulk_bytes",
                Limits::server().send_limits(SendLimits {
                    bulk_bytes: 0,
                    ..SendLimits::DEFAULT
                }),
            ),
        ];
        for (name, limits) in broken {
            let error = limits.validate().unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
