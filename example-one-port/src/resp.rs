//! RESP: PING and ECHO, and who asks.

use protosocket::{PeerAddress, ReactorStatus, SocketListener, Transport};
use protosocket_resp::{Connector, Handler, Reply, Request};
use protosocket_server::ServerConnector;

/// Makes handlers for connections through any listener.
pub(crate) fn connector<L>() -> impl ServerConnector<SocketListener = L> + Send + Sync
where
    L: SocketListener<Stream: Send, Establish: Send>,
{
    Connector::new(|_, stream: &L::Stream| Commands {
        peer: stream.peer_address(),
    })
}

struct Commands {
    peer: PeerAddress,
}

impl Handler for Commands {
    fn call(&mut self, request: &Request, reply: &mut Reply<'_>) -> ReactorStatus {
        let mut args = request.args();
        let name = args.next().unwrap_or_default().to_ascii_uppercase();
        match (name.as_slice(), args.next()) {
            (b"PING", None) => reply.simple("PONG"),
            (b"PING" | b"ECHO", Some(text)) => reply.bulk(text),
            (b"WHOAMI", None) => reply.bulk(self.peer.to_string().as_bytes()),
            _ => reply.error("ERR this server knows PING, ECHO and WHOAMI"),
        }
        ReactorStatus::Continue
    }
}
