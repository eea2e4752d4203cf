//! Servers of [`protosocket`] connections.
//!
//! Implement [`ServerConnector`], bind it with a [`ProtosocketServerConfig`], and spawn the
//! [`ProtosocketServer`] that comes out. The server accepts, and nothing ends that but a
//! [`ServerHandle`]: it survives the loss of file descriptors, the whims of the network, and
//! panics in the code that it calls. Connections are established in tasks of their own, with
//! deadlines and limits; [`ServerHandle::drain`] lets them finish and reports what became of them.

mod admission;
pub use admission::Admitted;

mod config;
pub use config::{ProtosocketServerConfig, ProtosocketSocketConfig};

mod connection;
pub use connection::ServerConnection;

mod connector;
pub use connector::ServerConnector;

mod drain;
pub use drain::DrainReport;

mod memory_gauge;
pub use memory_gauge::MemoryGauge;

mod rate;

mod registry;

mod routes;
pub use routes::{Route, Routed, RoutedConnection, Routes};

mod serve;
pub use serve::Serve;

mod server;
pub use server::{ProtosocketServer, ServerHandle};

mod sniff;
pub use sniff::{Protocol, Sniff, Sniffed, Sniffer, WrongProtocol};

/// The examples of the README, so that they compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The server of the migration guide, which must compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/migrating-from-protosocket.md")]
pub struct MigratingFromProtosocket;
