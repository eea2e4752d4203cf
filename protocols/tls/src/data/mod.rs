//! What can be told from bytes alone, without a handshake.

mod alert;
pub use alert::Alert;

mod client_hello;
pub use client_hello::{ClientHello, ClientHelloError, MAX_CLIENT_HELLO, Parsed};

mod speech;
pub use speech::Speech;

mod version;
pub use version::ProtocolVersion;
