//! The side that asks.

mod calls;
pub use calls::{Client, connect};

mod config;
pub use config::ClientConfig;

mod error;
pub use error::CommandError;

mod protocol;
pub use protocol::{Acknowledged, PreambleError, RespProtocol};

mod pushes;
pub use pushes::{Event, Pushes};
