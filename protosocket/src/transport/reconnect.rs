use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Backoff, ConnectError, SocketConnector};
use crate::{Clock, ConfigError, TokioClock};

/// Connects, again and again, and waits before each attempt but the first.
///
/// It opens one connection at a time for whoever wants to have one; pools of connections have one
/// of these for each place. What was sent on a connection that is lost is no business of it: that
/// connection's [`ConnectionStats`](crate::ConnectionStats) say what was never sent, and only the
/// protocol knows what may be sent twice.
///
/// A connection counts as a success, which takes the delays back to the first, when the caller says
/// so ([`succeeded`](Self::succeeded)), or when [`connect`](Self::connect) is next called after the
/// longest delay or later. One that is opened and lost at once is a failure like one that was
/// refused: a server that is overloaded often accepts and then closes.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use protosocket::{Backoff, Reconnect, memory_listener};
///
/// let (_listener, connector) = memory_listener(64 * 1024);
/// let mut reconnect = Reconnect::new(connector, Backoff::new())?;
/// let stream = reconnect.connect().await?;
/// // A connection over the stream has had its first answer:
/// reconnect.succeeded();
/// # drop(stream);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Reconnect<C> {
    connector: C,
    backoff: Backoff,
    max_attempts: Option<NonZeroU32>,
    clock: Arc<dyn Clock>,
    /// Something was tried before.
    tried: bool,
    /// When the connection was opened that is not known to have failed.
    opened: Option<Instant>,
}

impl<C: SocketConnector> Reconnect<C> {
    /// Connect with `connector`, for as long as it takes, on the clock of the tokio runtime.
    ///
    /// # Errors
    /// A backoff that cannot work, as [`Backoff::validate`] says.
    pub fn new(connector: C, backoff: Backoff) -> Result<Self, ConfigError> {
        backoff.validate()?;
        Ok(Self {
            connector,
            backoff,
            max_attempts: None,
            clock: Arc::new(TokioClock),
            tried: false,
            opened: None,
        })
    }

    /// Give up after so many attempts of one [`connect`](Self::connect) have failed. Off by
    /// default: a client whose server is down has nothing better to do.
    #[must_use]
    pub fn max_attempts(mut self, attempts: impl Into<Option<NonZeroU32>>) -> Self {
        self.max_attempts = attempts.into();
        self
    }

    /// Take the time from `clock`. The connector keeps its own deadline on its own clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Open the next connection. The first attempt of all is made at once; each one after it, that
    /// after a connection was lost included, waits for the backoff.
    ///
    /// Dropping the future gives up the attempt that is under way; the next one waits all the same.
    ///
    /// # Errors
    /// [`ReconnectError`] when as many attempts have failed as may.
    pub async fn connect(&mut self) -> Result<C::Stream, ReconnectError> {
        if let Some(opened) = self.opened.take()
            && self.clock.now() >= opened + self.backoff.proof()
        {
            self.backoff.reset();
        }
        let mut attempts = 0;
        loop {
            if std::mem::replace(&mut self.tried, true) {
                let delay = self.backoff.next_delay();
                tracing::debug!(?delay, failures = self.backoff.failures(), "reconnecting");
                self.wait(delay).await;
            }
            let error = match self.connector.connect().await {
                Ok(stream) => {
                    self.opened = Some(self.clock.now());
                    return Ok(stream);
                }
                Err(error) => error,
            };
            tracing::debug!(%error, "an attempt to connect failed");
            attempts += 1;
            if self.max_attempts.is_some_and(|most| attempts >= most.get()) {
                return Err(ReconnectError {
                    attempts,
                    source: error,
                });
            }
        }
    }

    /// The connection that was opened last has proved to be one: a handshake was answered, or a
    /// request. The next one that is lost is the first failure.
    pub fn succeeded(&mut self) {
        self.backoff.reset();
    }

    /// The connector.
    pub fn connector(&self) -> &C {
        &self.connector
    }

    /// The backoff, for its state.
    pub fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    async fn wait(&self, delay: Duration) {
        let mut alarm = self.clock.alarm(self.clock.now() + delay);
        std::future::poll_fn(|cx| alarm.as_mut().poll_due(cx)).await;
    }
}

/// No connection could be opened in as many attempts as were allowed. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("gave up after {attempts} attempts (max_attempts), the last of which failed: {source}")]
pub struct ReconnectError {
    /// How many attempts failed.
    pub attempts: u32,
    /// How the last of them failed.
    pub source: ConnectError,
}
