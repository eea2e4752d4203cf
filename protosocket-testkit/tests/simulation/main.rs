//! Connections, servers and reconnecting clients in a simulated network: each seed is a life, with
//! faults first, and then a network that is whole and in which everything must come to its end.

mod application;
mod codec;
mod connection;
mod datagrams;
mod deadlines;
mod drain;
mod network;
mod peer;
mod reconnect;
mod vanished;
