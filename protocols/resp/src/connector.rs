use std::{fmt, marker::PhantomData};

use protosocket::{Sender, SocketListener};
use protosocket_server::{ServerConnection, ServerConnector};

use crate::{Handler, RequestDecoder, Server, ServerCodec, Value};

/// Makes a [`Handler`] for each connection what a server binds.
///
/// Limits on connections, deadlines, handshakes, drain and socket options are those of
/// `protosocket_server::ProtosocketServerConfig`:
/// `config.bind_tcp(address, Connector::new(|_, _| MyHandler::new()))`.
///
/// Connections are spawned on the tokio runtime, so handlers are `Send`. Whoever wants them to stay
/// on a thread writes a connector of their own, of [`ServerCodec`] and [`Server`].
pub struct Connector<H, L, F> {
    make: F,
    decoder: RequestDecoder,
    of: PhantomData<fn(L) -> H>,
}

impl<H, L, F> Connector<H, L, F>
where
    H: Handler + Send,
    L: SocketListener,
    F: Fn(Sender<Value>, &L::Stream) -> H + Send + Sync + 'static,
{
    /// Connections whose handlers `make` makes. It is given a way to push values to the client: who
    /// keeps it keeps a [`WeakSender`](protosocket::WeakSender), or the connection waits for it when
    /// the client is done.
    pub fn new(make: F) -> Self {
        Self {
            make,
            decoder: RequestDecoder::new(),
            of: PhantomData,
        }
    }

    /// Read commands with `decoder`, whose limits may differ from the default.
    #[must_use]
    pub fn decoder(mut self, decoder: RequestDecoder) -> Self {
        self.decoder = decoder;
        self
    }
}

impl<H, L, F> ServerConnector for Connector<H, L, F>
where
    H: Handler + Send,
    L: SocketListener,
    L::Stream: Send,
    L::Establish: Send,
    F: Fn(Sender<Value>, &L::Stream) -> H + Send + Sync + 'static,
{
    type Codec = ServerCodec;
    type Reactor = Server<H>;
    type SocketListener = L;

    fn codec(&self) -> ServerCodec {
        ServerCodec::new(self.decoder.clone())
    }

    fn new_reactor(&self, outbound: Sender<Value>, stream: &L::Stream) -> Server<H> {
        Server::new((self.make)(outbound, stream))
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

impl<H, L, F> fmt::Debug for Connector<H, L, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("decoder", &self.decoder)
            .finish_non_exhaustive()
    }
}
