use std::time::Duration;

use protosocket::{ConfigError, ConnectionConfig, Limits};

/// What clients have in common: limits and deadlines of their calls and of their connection.
///
/// | what | default | why |
/// |---|---|---|
/// | [`max_concurrent_calls`](Self::max_concurrent_calls) | 4,096 | as many as a server of this crate carries out at a time |
/// | [`call_timeout`](Self::call_timeout) | 30 s | nobody waits for longer, and a lost answer is never forever |
/// | [`stream_timeout`](Self::stream_timeout) | off | a subscription goes on for as long as it is wanted |
/// | [`max_buffered_items`](Self::max_buffered_items) | 1,024 | what one read brings of small ones, so that a consumer that keeps up is never waited for |
/// | [`max_buffered_bytes`](Self::max_buffered_bytes) | 8 MiB | as many items of 8 KiB |
/// | [`slow_consumer`](Self::slow_consumer) | [`Pause`](SlowConsumer::Pause) | nothing is lost |
/// | [`slow_consumer_grace`](Self::slow_consumer_grace) | 1 s | a task that can run does so within milliseconds, and other calls can wait for so long |
/// | [`connection`](Self::connection) | [`Limits::client`] | |
#[derive(Debug, Clone)]
pub struct Configuration {
    pub(super) connection: ConnectionConfig,
    pub(super) max_concurrent_calls: usize,
    pub(super) call_timeout: Option<Duration>,
    pub(super) stream_timeout: Option<Duration>,
    pub(super) max_buffered_items: usize,
    pub(super) max_buffered_bytes: usize,
    pub(super) slow_consumer: SlowConsumer,
    pub(super) slow_consumer_grace: Duration,
}

/// What becomes of a stream whose items are not taken, when as many of them wait as may
/// ([`max_buffered_items`](Configuration::max_buffered_items),
/// [`max_buffered_bytes`](Configuration::max_buffered_bytes)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SlowConsumer {
    /// The connection reads no more until some are taken. Nothing is lost, but all calls of this
    /// connection wait for the slowest of its consumers: whoever has to await another call before it
    /// goes on reading needs a connection of its own for that, or [`End`](Self::End).
    ///
    /// A long pause costs more than time. The timeouts of the calls behind it go on, and their
    /// answers may lie unread when they end. And a server that can send nothing for as long as its
    /// write timeout ends the connection, with all calls of it.
    #[default]
    Pause,
    /// The connection reads no more until some are taken, as with [`Pause`](Self::Pause), but for no
    /// longer than [`slow_consumer_grace`](Configuration::slow_consumer_grace) at a time. If all of
    /// them wait even then, the stream ends behind them with
    /// [`Error::SlowConsumer`](crate::Error::SlowConsumer), and the server is told to stop.
    End,
}

/// The id of a call names its place in the table with 20 bits at most.
const MOST_CALLS: usize = 1 << 20;

impl Configuration {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            connection: ConnectionConfig::client(Limits::client())
                .expect("the defaults are valid, a test of the core says so"),
            max_concurrent_calls: 4096,
            call_timeout: Some(Duration::from_secs(30)),
            stream_timeout: None,
            max_buffered_items: 1024,
            max_buffered_bytes: 8 * 1024 * 1024,
            slow_consumer: SlowConsumer::Pause,
            slow_consumer_grace: Duration::from_secs(1),
        }
    }

    /// Limits, clock and observer of the connection.
    ///
    /// # Errors
    /// One that is not for [clients](ConnectionConfig::client), as the default is: the connection
    /// would not end with its last handle.
    pub fn connection(mut self, connection: ConnectionConfig) -> Result<Self, ConfigError> {
        if !connection.is_client() {
            let problem = "is for servers, and would not end; see ConnectionConfig::client";
            return Err(ConfigError::new("connection", problem));
        }
        self.connection = connection;
        Ok(self)
    }

    /// How many calls may be in flight, those included whose answers have come and were not taken.
    /// A call costs a client some hundred bytes, and its answer.
    ///
    /// # Errors
    /// Zero, or more than 2²⁰.
    pub fn max_concurrent_calls(mut self, calls: usize) -> Result<Self, ConfigError> {
        const NAME: &str = "max_concurrent_calls";
        match calls {
            0 => return Err(ConfigError::zero(NAME)),
            1..=MOST_CALLS => self.max_concurrent_calls = calls,
            _ => return Err(ConfigError::new(NAME, "is above 1,048,576")),
        }
        Ok(self)
    }

    /// How long a unary call may take, from the moment at which the connection hears of it, whether
    /// it can be sent then or has to wait.
    ///
    /// # Errors
    /// Zero.
    pub fn call_timeout(
        mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Self, ConfigError> {
        self.call_timeout = valid("call_timeout", timeout.into())?;
        Ok(self)
    }

    /// How long a streaming call may take, to its end.
    ///
    /// # Errors
    /// Zero.
    pub fn stream_timeout(
        mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Self, ConfigError> {
        self.stream_timeout = valid("stream_timeout", timeout.into())?;
        Ok(self)
    }

    /// How many items of a stream may wait to be taken: with so many, the connection reads no more.
    ///
    /// An item waits from when it is decoded until its stream gives it. A stream fetches half of so
    /// many at a time, and those count, but for the first, until it has given the last of them.
    ///
    /// # Errors
    /// Zero.
    pub fn max_buffered_items(mut self, items: usize) -> Result<Self, ConfigError> {
        if items == 0 {
            return Err(ConfigError::zero("max_buffered_items"));
        }
        self.max_buffered_items = items;
        Ok(self)
    }

    /// How large the items of a stream may be that wait to be taken, in bytes on the wire: with so
    /// many, the connection reads no more. Sizes are rounded up for this, so that less may fit, though
    /// not less than a third; and the last item may exceed it, so that any item passes.
    ///
    /// # Errors
    /// Zero.
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Result<Self, ConfigError> {
        if bytes == 0 {
            return Err(ConfigError::zero("max_buffered_bytes"));
        }
        self.max_buffered_bytes = bytes;
        Ok(self)
    }

    /// What becomes of a stream whose items are not taken as fast as they come.
    #[must_use]
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.slow_consumer = policy;
        self
    }

    /// How long a stream may hold up its connection before it is ended, if
    /// [`slow_consumer`](Self::slow_consumer) is [`End`](SlowConsumer::End), by the connection's
    /// clock. Other calls wait for it at most so long at a time.
    ///
    /// It begins when as many items wait as may, and is over when some of them are taken. One read brings hundreds of items before the task that awaits them can run,
    /// so there has to be some time.
    ///
    /// # Errors
    /// Zero.
    pub fn slow_consumer_grace(mut self, grace: Duration) -> Result<Self, ConfigError> {
        if grace.is_zero() {
            return Err(ConfigError::zero("slow_consumer_grace"));
        }
        self.slow_consumer_grace = grace;
        Ok(self)
    }
}

impl Default for Configuration {
    fn default() -> Self {
        Self::new()
    }
}

fn valid(name: &'static str, timeout: Option<Duration>) -> Result<Option<Duration>, ConfigError> {
    match timeout {
        Some(Duration::ZERO) => Err(ConfigError::zero(name)),
        timeout => Ok(timeout),
    }
}
