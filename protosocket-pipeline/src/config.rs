use std::time::Duration;

use protosocket::{ConfigError, ConnectionConfig, Limits};

/// Limits and deadlines of a client and its connections.
///
/// | what | default | why |
/// |---|---|---|
/// | [`max_in_flight`](Self::max_in_flight) | 4,096 | what is sent ahead of the replies keeps a fast network busy, and is lost with its connection |
/// | [`max_queued`](Self::max_queued) | 4,096 | an outage of seconds is waited out, and does not become one of memory |
/// | [`request_timeout`](Self::request_timeout) | 30 s | nobody waits for longer, for a connection or for a reply |
/// | [`answer_timeout`](Self::answer_timeout) | 30 s | a server that answers nothing for so long while it is asked is gone |
/// | [`connection`](Self::connection) | [`Limits::client`], no lingering | a client that has all its replies has nothing to linger for |
#[derive(Debug, Clone)]
pub struct PipelineConfig {
    pub(crate) connection: ConnectionConfig,
    pub(crate) max_in_flight: usize,
    pub(crate) max_queued: usize,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) answer_timeout: Option<Duration>,
}

impl PipelineConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            connection: ConnectionConfig::client(Limits::client().linger_timeout(None))
                .expect("the defaults are valid, a test of the core says so"),
            max_in_flight: 4096,
            max_queued: 4096,
            request_timeout: Some(Duration::from_secs(30)),
            answer_timeout: Some(Duration::from_secs(30)),
        }
    }

    /// Limits, clock and observer of the connections. The driver is on its clock, too.
    ///
    /// # Errors
    /// One that is not for [clients](ConnectionConfig::client), as the default is: the connections
    /// would not end with the last handle.
    pub fn connection(mut self, connection: ConnectionConfig) -> Result<Self, ConfigError> {
        if !connection.is_client() {
            let problem = "is for servers, and would not end; see ConnectionConfig::client";
            return Err(ConfigError::new("connection", problem));
        }
        self.connection = connection;
        Ok(self)
    }

    /// How many requests may be sent and not answered, or not written if they have no reply. Others
    /// wait to be sent.
    ///
    /// # Errors
    /// Zero, or more than 2²⁰.
    pub fn max_in_flight(mut self, requests: usize) -> Result<Self, ConfigError> {
        self.max_in_flight = count("max_in_flight", requests)?;
        Ok(self)
    }

    /// How many requests may wait to be sent. One more is told
    /// [`QueueFull`](crate::Error::QueueFull) at once, or waits with
    /// [`reserve`](crate::PipelineClient::reserve).
    ///
    /// # Errors
    /// Zero, or more than 2²⁰.
    pub fn max_queued(mut self, requests: usize) -> Result<Self, ConfigError> {
        self.max_queued = count("max_queued", requests)?;
        Ok(self)
    }

    /// How long a request may take, from the moment at which the driver hears of it, whether it can
    /// be sent then or has to wait. [`with_timeout`](crate::PipelineClient::with_timeout) is for
    /// those that may take another time.
    ///
    /// # Errors
    /// Zero.
    pub fn request_timeout(
        mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Self, ConfigError> {
        self.request_timeout = valid("request_timeout", timeout.into())?;
        Ok(self)
    }

    /// How long the server may answer nothing while requests wait for their replies, before the
    /// connection is taken for dead and replaced. Pushes are no answers.
    ///
    /// # Errors
    /// Zero.
    pub fn answer_timeout(
        mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Self, ConfigError> {
        self.answer_timeout = valid("answer_timeout", timeout.into())?;
        Ok(self)
    }

    /// How many callers there may be at a time, those included that have not taken their replies.
    pub(crate) fn places(&self) -> usize {
        self.max_in_flight + self.max_queued
    }
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// The most that either count may be: places are numbered with 32 bits.
const MOST: usize = 1 << 20;

fn count(name: &'static str, count: usize) -> Result<usize, ConfigError> {
    match count {
        0 => Err(ConfigError::zero(name)),
        1..=MOST => Ok(count),
        _ => Err(ConfigError::new(name, "is above 1,048,576")),
    }
}

fn valid(name: &'static str, timeout: Option<Duration>) -> Result<Option<Duration>, ConfigError> {
    match timeout {
        Some(Duration::ZERO) => Err(ConfigError::zero(name)),
        timeout => Ok(timeout),
    }
}
