//! The side that is asked.

mod cache;
pub use cache::{Cache, Item, Stat, Stored};

mod connector;
pub use connector::Connector;

mod reactor;
pub use reactor::Server;
