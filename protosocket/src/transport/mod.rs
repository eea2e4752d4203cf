//! Streams of bytes, and how they are listened for and connected to.

mod backoff;
pub use backoff::Backoff;

mod establish;
use establish::within;
pub use establish::{Accepted, ConnectError, SocketConnector, SocketListener};

mod establisher;
pub use establisher::{Establisher, Layered, LayeredEstablish, Plain};

mod memory;
pub use memory::{MemoryConnector, MemoryListener, memory_listener};

mod options;
pub use options::{Keepalive, TcpOptions};

mod prefixed;
pub use prefixed::Prefixed;

mod reconnect;
pub use reconnect::{Reconnect, ReconnectError};

mod stream;
pub use stream::{PeerAddress, StreamWithAddress, Transport};

mod tcp;
pub use tcp::{TcpConnector, TcpSocketListener};

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::{UnixConnector, UnixSocketListener};
