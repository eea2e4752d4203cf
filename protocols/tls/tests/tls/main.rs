//! Handshakes, streams and ends, between both sides without a network and over real ones.

mod certificates;
mod close;
mod handshake;
#[path = "../common/hello.rs"]
mod hello;
mod malformed;
mod pair;
mod pki;
mod records;
mod resumption;
mod rpc;
mod served;
mod trust;
