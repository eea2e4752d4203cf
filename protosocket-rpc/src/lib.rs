//! Calls on one connection: a request and a response, or a request and a stream of responses.
//!
//! Any codec will do whose messages implement [`Message`]. What it encodes is what is on the wire:
//! calls add no framing of their own, so both ends talk to those of protosocket-rpc 2.0.2.

pub mod client;

mod config;
pub use config::RpcServerConfig;

mod error;
pub use error::{Error, Execution};

mod message;
pub use message::{Message, ProtosocketControlCode};

pub mod server;
