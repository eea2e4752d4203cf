use std::time::Duration;

use protosocket::ConfigError;

/// Configures the calls of a server's connections.
///
/// | setting | default | why |
/// |---|---|---|
/// | [`max_concurrent_rpcs`](Self::max_concurrent_rpcs) | 4,096 | as many as there may be answers in a send buffer ([`SendLimits::DEFAULT`](protosocket::SendLimits::DEFAULT)) |
/// | [`max_waiting_bytes`](Self::max_waiting_bytes) | 1 MiB | as many bytes as of answers may be in a send buffer |
/// | [`end_of_input_timeout`](Self::end_of_input_timeout) | 30 s | as long as a client waits for an answer by default |
///
/// Zero and nonsense are refused when a server or a reactor is configured with them
/// ([`validate`](Self::validate)). Sizes, deadlines and the number of connections are those of the server that they come in
/// through, such as `ProtosocketServerConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcServerConfig {
    max_concurrent_rpcs: usize,
    max_waiting_bytes: usize,
    end_of_input_timeout: Option<Duration>,
}

impl RpcServerConfig {
    /// How many rpcs of one connection may be under way at a time.
    ///
    /// At the limit, while rpcs wait for room to send or for their turn, the next call waits until one
    /// of them has ended, or each of them has had its turn, and the input pauses behind it;
    /// cancellations before it are heard. If all of them are really running, it is refused: its
    /// client is sent a cancellation.
    ///
    /// It bounds memory together with `max_message_size`: each rpc may hold a request of that size
    /// while it runs. Those that wait to be polled are bounded by
    /// [`max_waiting_bytes`](Self::max_waiting_bytes).
    #[must_use]
    pub fn max_concurrent_rpcs(mut self, rpcs: usize) -> Self {
        self.max_concurrent_rpcs = rpcs;
        self
    }

    /// How large the requests of one connection may be that wait to be polled for the first time, in
    /// bytes on the wire.
    ///
    /// They wait while the client does not read the answers to earlier ones, or while other rpcs have
    /// their turns. Beyond that the next call waits until each of them has had its turn, and the input
    /// pauses behind it. The last one may exceed it, so that a request of any size is carried out.
    #[must_use]
    pub fn max_waiting_bytes(mut self, bytes: usize) -> Self {
        self.max_waiting_bytes = bytes;
        self
    }

    /// How long nothing may be answered once the client has finished sending; with `None`, for as
    /// long as the connection lasts.
    ///
    /// A client that has gone says no more than that, as does one that still waits for its answers;
    /// and an rpc that has nothing to send would never find out which of them it is. Each response
    /// begins the time again, and while there is no room for one, it is up to the client, whom
    /// `write_timeout` bounds.
    #[must_use]
    pub fn end_of_input_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.end_of_input_timeout = timeout.into();
        self
    }

    /// The limit on rpcs of one connection.
    pub fn concurrent_rpcs(&self) -> usize {
        self.max_concurrent_rpcs
    }

    /// The limit on the bytes of requests that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.max_waiting_bytes
    }

    /// How long nothing may be answered after the end of the input.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.end_of_input_timeout
    }

    /// Refuse what cannot work.
    ///
    /// # Errors
    /// The caller is to blame: a limit or a timeout of zero, or a limit that slots cannot be numbered up to.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self.max_concurrent_rpcs {
            0 => Err(ConfigError::zero("max_concurrent_rpcs")),
            rpcs if u32::try_from(rpcs).is_err() => Err(ConfigError::new(
                "max_concurrent_rpcs",
                "is above 4,294,967,295, which no memory has room for",
            )),
            _ if self.max_waiting_bytes == 0 => Err(ConfigError::zero("max_waiting_bytes")),
            _ if self.end_of_input_timeout == Some(Duration::ZERO) => {
                Err(ConfigError::zero("end_of_input_timeout"))
            }
            _ => Ok(()),
        }
    }
}

impl Default for RpcServerConfig {
    fn default() -> Self {
        Self {
            max_concurrent_rpcs: 4096,
            max_waiting_bytes: 1024 * 1024,
            end_of_input_timeout: Some(Duration::from_secs(30)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_by_name() {
        assert_eq!(RpcServerConfig::default().validate(), Ok(()));
        for rpcs in [0, usize::MAX] {
            let config = RpcServerConfig::default().max_concurrent_rpcs(rpcs);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with("max_concurrent_rpcs"), "{error}");
        }
        let config = RpcServerConfig::default().max_waiting_bytes(0);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with("max_waiting_bytes"), "{error}");
        let config = RpcServerConfig::default().end_of_input_timeout(Duration::ZERO);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with("end_of_input_timeout"), "{error}");
    }
}
