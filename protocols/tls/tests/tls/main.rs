//! Handshakes, streams and ends, between both sides without a network and over real ones.

mod close;
mod handshake;
mod pair;
mod pki;
mod records;
