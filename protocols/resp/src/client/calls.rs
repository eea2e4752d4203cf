use std::{future::Future, sync::Arc, time::Duration};

use protosocket::{Reconnect, ReconnectError, SocketConnector};
use protosocket_pipeline::PipelineClient;

use super::{ClientConfig, CommandError, Pushes, RespProtocol, pushes::pushes};
use crate::{Command, Value};

/// A client of the server that `reconnect` connects to, what the server pushes, and the driver: a
/// future to be spawned. See [`protosocket_pipeline::connect`].
pub fn connect<C: SocketConnector>(
    reconnect: Reconnect<C>,
    config: &ClientConfig,
) -> (
    Client,
    Pushes,
    impl Future<Output = Result<(), Arc<ReconnectError>>> + use<C>,
) {
    let (publisher, pushes) = pushes(config.max_pushes);
    let protocol = RespProtocol::new(config.clone(), publisher);
    let (client, driver) = protosocket_pipeline::connect(reconnect, protocol, &config.pipeline);
    (Client(client), pushes, driver)
}

/// Sends commands, from any task or thread, without waiting for the replies before. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(PipelineClient<RespProtocol>);

impl Client {
    /// The reply to `command`. It is on its way with this call; await it at once, later or beside
    /// others.
    ///
    /// Servers confirm subscriptions with pushes: SUBSCRIBE and its like are answered with null when
    /// those have come, which [`Pushes`] tell as well. They need RESP3. Commands that turn the
    /// connection into something else, such as MONITOR and SYNC, are refused.
    ///
    /// # Errors
    /// What the server answered, if it is an error, or what became of the command otherwise.
    pub fn call(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Value, CommandError>> + Send + use<> {
        let response = self.0.request(command);
        async {
            match response.await? {
                Value::Error(error) => Err(CommandError::Refused(error)),
                value => Ok(value),
            }
        }
    }

    /// A client whose calls may take so long; `None` is for as long as the connection lasts.
    #[must_use]
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        Self(self.0.with_timeout(timeout))
    }

    /// Take no more calls, of any clone, and end the connection when those that were taken are done,
    /// or after this time.
    pub fn close(&self, within: Duration) {
        self.0.close(within);
    }

    /// The pipeline below, for its counts and its end.
    pub fn pipeline(&self) -> &PipelineClient<RespProtocol> {
        &self.0
    }
}

impl From<PipelineClient<RespProtocol>> for Client {
    /// A client whose pipeline has been given another timeout.
    fn from(pipeline: PipelineClient<RespProtocol>) -> Self {
        Self(pipeline)
    }
}
