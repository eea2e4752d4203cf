//! What a stream speaks, by its first bytes.

mod protocol;
pub use protocol::Protocol;

mod sniffer;
pub use sniffer::{Sniffer, WrongProtocol};

mod establish;
pub use establish::{Sniff, Sniffed};
