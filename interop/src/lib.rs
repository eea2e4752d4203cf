//! What tests with foreign implementations share. The tests are in `tests/`, one file for each
//! protocol and peer.
//!
//! Foreign servers and ours run in threads and runtimes of their own, on ports of 127.0.0.1 that the
//! system chooses. What is compared with protosocket 2.0.2 needs nothing installed; other peers are
//! programs ([`programs`]), whose tests say so and are skipped where those are missing.

mod call;
pub use call::{Call, Operation};

mod service;
pub use service::{Rpc, Seen, SeenNow, begin};

mod side;
pub use side::{Client, End, Server};

pub mod ours;
pub mod programs;
pub mod protosocket_v2;
