//! Servers: a [`SocketService`] makes a [`ConnectionService`] for each connection, which answers
//! each request with an rpc, a future or a stream that the connection drives.

mod connector;
pub use connector::{RpcConnection, RpcConnector, SocketRpcServer};

mod ids;

mod reactor;
pub use reactor::RpcReactor;

mod rpcs;

mod service;
pub use service::{ConnectionService, RpcKind, SocketService};

mod spawned;
pub use spawned::Spawned;

mod stats;
pub use stats::RpcStats;

mod wakes;
