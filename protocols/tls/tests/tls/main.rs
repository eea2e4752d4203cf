//! Handshakes, streams and ends, between both sides without a network and over real ones.

mod any_bytes;
mod certificates;
mod client_hello;
mod close;
mod corpus;
mod established;
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
