use std::fmt;

use protosocket_pipeline::PipelineConfig;

use crate::{Protocol, ValueDecoder};

/// What is said on each connection before commands are, and what is kept of pushes.
///
/// | what | default | why |
/// |---|---|---|
/// | [`protocol`](Self::protocol) | RESP3, and RESP2 if the server knows no other | pushes, and replies that need no guessing |
/// | [`max_pushes`](Self::max_pushes) | 1,024 | a burst, and the consumer's task gets to run |
/// | [`pipeline`](Self::pipeline) | [`PipelineConfig`] | |
/// | [`decoder`](Self::decoder) | [`ValueDecoder`] | |
#[derive(Clone)]
pub struct ClientConfig {
    pub(super) protocol: Protocol,
    pub(super) credentials: Option<(String, String)>,
    pub(super) database: u32,
    pub(super) name: Option<String>,
    pub(super) max_pushes: usize,
    pub(super) decoder: ValueDecoder,
    pub(super) pipeline: PipelineConfig,
}

impl ClientConfig {
    /// The defaults: no password, database 0, no name.
    pub fn new() -> Self {
        Self {
            protocol: Protocol::Resp3,
            credentials: None,
            database: 0,
            name: None,
            max_pushes: 1024,
            decoder: ValueDecoder::new(),
            pipeline: PipelineConfig::new(),
        }
    }

    /// The version to ask for. A server that refuses RESP3 is spoken to in RESP2, in which pushes
    /// cannot be told from replies: such a connection must not subscribe.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Who to be. The user of `requirepass` is `default`.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Which database to select.
    #[must_use]
    pub fn database(mut self, number: u32) -> Self {
        self.database = number;
        self
    }

    /// The name of the connections, for whoever looks at the server.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many events wait for [`Pushes`](crate::Pushes) at most. What comes on top is dropped, counted, and told
    /// as [`Event::Lost`](crate::Event::Lost) where it is missing.
    #[must_use]
    pub fn max_pushes(mut self, count: usize) -> Self {
        self.max_pushes = count.max(1);
        self
    }

    /// Read replies with `decoder`, whose limits may differ from the default.
    #[must_use]
    pub fn decoder(mut self, decoder: ValueDecoder) -> Self {
        self.decoder = decoder;
        self
    }

    /// Limits and deadlines of requests and connections.
    #[must_use]
    pub fn pipeline(mut self, pipeline: PipelineConfig) -> Self {
        self.pipeline = pipeline;
        self
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("protocol", &self.protocol)
            .field("user", &self.credentials.as_ref().map(|it| &it.0))
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}
