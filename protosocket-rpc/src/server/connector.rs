use std::{convert::Infallible, fmt};

use protosocket::{ConfigError, Sender, SocketListener};
use protosocket_server::{ProtosocketServer, ServerConnection, ServerConnector};

use super::{ConnectionService, RpcReactor, SocketService};
use crate::RpcServerConfig;

/// A connection of a server of calls, to be spawned.
pub type RpcConnection<S> = ServerConnection<RpcConnector<S>>;

/// A server of calls.
pub type SocketRpcServer<S> = ProtosocketServer<RpcConnector<S>>;

/// Makes a [`SocketService`] what a server binds.
///
/// Limits on connections, deadlines, handshakes, drain and socket options are those of
/// `protosocket_server::ProtosocketServerConfig`:
/// `config.bind_tcp(address, RpcConnector::new(service))`.
pub struct RpcConnector<S> {
    service: S,
    config: RpcServerConfig,
}

impl<S: SocketService> RpcConnector<S> {
    /// Connections of `service`, with the defaults of [`RpcServerConfig`].
    pub fn new(service: S) -> Self {
        Self {
            service,
            config: RpcServerConfig::default(),
        }
    }

    /// Connections of `service` that are configured.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn with_config(service: S, config: RpcServerConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { service, config })
    }
}

impl<S: SocketService> ServerConnector for RpcConnector<S> {
    type Codec = <S::ConnectionService as ConnectionService>::Codec;
    type Reactor = RpcReactor<S::ConnectionService>;
    type SocketListener = S::SocketListener;

    fn codec(&self) -> Self::Codec {
        self.service.codec()
    }

    fn new_reactor(
        &self,
        _outbound: Sender<Infallible>,
        stream: &<S::SocketListener as SocketListener>::Stream,
    ) -> Self::Reactor {
        RpcReactor::over(self.service.new_stream_service(stream), &self.config)
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        self.service.spawn_connection(connection);
    }
}

impl<S> fmt::Debug for RpcConnector<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcConnector")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
