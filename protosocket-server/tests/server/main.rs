//! The server against real sockets, scripted listeners and a clock that stands still.

mod accept_errors;
mod common;
mod drain;
mod file_descriptors;
mod handshakes;
mod limits;
mod logs;
mod observer;
mod panics;
mod per_core;
mod process;
mod proxy;
mod rates;
mod routes;
mod sniff;
mod sniffing;
mod socket_options;
#[cfg(unix)]
mod suspended;
mod transports;
