//! The PROXY protocol: who is behind a proxy.
//!
//! A proxy that passes a stream on says in a header before it who its client is. A server reads the
//! header with a [`ProxyAcceptor`], and its streams then have the client's address; a proxy, or a
//! test, sends it with a [`ProxySender`]. Both are [`Establisher`](crate::Establisher)s, for a
//! [`Layered`](crate::Layered) listener or connector.
//!
//! Versions 1 and 2 are those of haproxy's `proxy-protocol.txt`, to whose sections comments refer.

mod acceptor;
pub use acceptor::{Proxied, ProxyAcceptor, ReadHeader};

mod crc32c;

mod error;
pub use error::ProxyError;

mod header;
pub use header::{Addresses, ProxyHeader, UnixAddress};

mod network;
pub use network::{Network, NetworkError};

mod sender;
pub use sender::{ProxySender, WriteHeader};

mod tlv;
pub use tlv::{Ssl, SslClient, Tlv, TlvType};

mod v1;

mod v2;
