//! Hosts of five protocols, sketched: that they compile and run is the evidence that the contracts
//! of codec, machine, host and connection carry them.
//!
//! They are small on purpose. Their protocols are stand-ins with the shape of the real ones.

#[path = "../machines/frames.rs"]
mod frames;
#[path = "../machines/mux.rs"]
mod mux;

mod service;

mod http1;
mod http2;
mod quic;
mod rpc;
mod turn;
