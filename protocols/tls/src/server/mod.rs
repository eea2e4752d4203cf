//! The side that is connected to.

mod acceptor;
pub use acceptor::{Accept, Acceptor};

mod builder;
pub use builder::{AcceptorBuilder, AlpnPolicy, SessionPolicy};

mod certificates;
pub use certificates::Certificates;

mod names;
