//! The PROXY protocol: headers, and streams with them.

mod acceptor;
mod header;
mod network;
