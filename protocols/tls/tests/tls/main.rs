//! Handshakes, streams and ends, between both sides without a network and over real ones.

mod certificates;
mod client_hello;
mod close;
mod handshake;
mod hello;
mod malformed;
mod pair;
mod pki;
mod records;
mod resumption;
mod rpc;
mod served;
mod trust;
