use std::{convert::Infallible, fmt, marker::PhantomData};

use protosocket::{Sender, SocketListener, TcpSocketListener};
use protosocket_server::{ServerConnection, ServerConnector};

use super::{Cache, Server};
use crate::codec::{RequestDecoder, ResponseEncoder, ServerCodec};

/// Makes a [`Cache`] for each connection what a server binds:
/// `ProtosocketServerConfig::default().bind_tcp(address, Connector::new(move |_| cache.clone()))`.
///
/// Connections are tasks that any thread may run. For a cache that stays on its thread, implement
/// [`ServerConnector`] with [`Server`] and `tokio::task::spawn_local`.
pub struct Connector<F, L = TcpSocketListener> {
    new_cache: F,
    decoder: RequestDecoder,
    listener: PhantomData<fn(L)>,
}

impl<F, L: SocketListener> Connector<F, L> {
    /// Serve each connection with what `new_cache` makes for it.
    pub fn new<C: Cache>(new_cache: F) -> Self
    where
        F: Fn(&L::Stream) -> C,
    {
        Self {
            new_cache,
            decoder: RequestDecoder::new(),
            listener: PhantomData,
        }
    }

    /// Decode requests within the limits of `decoder`.
    #[must_use]
    pub fn decoder(mut self, decoder: RequestDecoder) -> Self {
        self.decoder = decoder;
        self
    }
}

impl<F, C, L> ServerConnector for Connector<F, L>
where
    F: Fn(&L::Stream) -> C + Send + Sync + 'static,
    C: Cache + Send,
    L: SocketListener<Stream: Send, Establish: Send>,
{
    type Codec = ServerCodec;
    type Reactor = Server<C>;
    type SocketListener = L;

    fn codec(&self) -> ServerCodec {
        (ResponseEncoder, self.decoder.clone())
    }

    fn new_reactor(&self, _outbound: Sender<Infallible>, stream: &L::Stream) -> Server<C> {
        Server::new((self.new_cache)(stream))
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

impl<F, L> fmt::Debug for Connector<F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("decoder", &self.decoder)
            .finish_non_exhaustive()
    }
}
