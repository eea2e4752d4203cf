//! The side that connects.

mod builder;
pub use builder::ConnectorBuilder;

mod connector;
pub use connector::{Connect, Connector};

mod trust;
