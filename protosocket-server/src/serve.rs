use std::sync::Arc;

use protosocket::{ConfigError, ConnectionConfig, SocketListener};

use crate::{Admitted, ServerConnection, ServerConnector};

/// What a [`ProtosocketServer`](crate::ProtosocketServer) does with the connections that it
/// accepts.
///
/// A [`ServerConnector`] is the usual one: all connections speak the same.
/// [`Routes`](crate::Routes) is another, and gives each to one of several.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how connections are served",
    note = "implement `ServerConnector` for it"
)]
pub trait Serve: Sized + 'static {
    /// What connections come in through.
    type Listener: SocketListener;

    /// Hear, before the first connection, what all of them have in common.
    ///
    /// # Errors
    /// Settings that cannot work. The server is not built.
    fn configure(&mut self, _config: &ConnectionConfig) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Spawn a connection. Called in the accept loop, or in the task of the stage before: what
    /// takes time belongs into the task that is spawned.
    fn serve(this: &Arc<Self>, connection: Admitted<<Self::Listener as SocketListener>::Establish>);
}

impl<C: ServerConnector> Serve for C {
    type Listener = C::SocketListener;

    fn serve(
        this: &Arc<Self>,
        connection: Admitted<<Self::Listener as SocketListener>::Establish>,
    ) {
        this.spawn_connection(ServerConnection::new(connection, this.clone()));
    }
}
