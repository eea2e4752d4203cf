//! The memcached text protocol on [`protosocket`] connections: data, client and server.
//!
//! - **Data**: [`Request`]s and [`Response`]s, and what they are made of: [`Key`]s that cannot become
//!   commands, [`Expiration`]s, and errors that say whose fault they are ([`ErrorReply`]).
//! - **[`codec`]**: both of them as bytes, either way, without a runtime.
//! - **`client`** (feature `client`): typed calls, pipelined on a connection that comes back.
//! - **`server`** (feature `server`): a `Cache` of the application's, and what
//!   makes it a server.
//!
//! ```
//! use protosocket::{Decoded, Decoder, Input};
//! use protosocket_memcached::{Request, RequestDecoder};
//!
//! let mut input = Input::from_slice(b"version\r\n");
//! let decoded = RequestDecoder::new().decode(&mut input)?;
//! assert_eq!(decoded, Decoded::Message(Ok(Request::Version)));
//! # Ok::<(), protosocket::DecodeError>(())
//! ```

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

/// The example of the README, so that it compiles.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
