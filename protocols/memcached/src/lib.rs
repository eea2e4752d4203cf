//! The memcached text protocol on [`protosocket`] connections.

pub mod codec;
pub use codec::{
    ClientCodec, Refused, RequestDecoder, RequestEncoder, ResponseDecoder, ResponseEncoder,
    ServerCodec,
};

mod data;
pub use data::{
    Arithmetic, ErrorReply, Expiration, ExpirationError, Key, KeyError, Keys, KeysIter, Request,
    Response, Retrieve, Store, StoreMode, Value,
};

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub use client::Client;

#[cfg(feature = "server")]
pub mod server;
