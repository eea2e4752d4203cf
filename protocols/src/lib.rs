//! The protocols of [protosocket](https://docs.rs/protosocket), each in a crate of its own, behind
//! one dependency.
//!
//! | module | data | client | server | and |
//! |---|---|---|---|---|
//! | `memcached` | `memcached-data` | `memcached-client` | `memcached-server` | |
//! | `messagepack` | `messagepack-data` | | | |
//! | `prost` | `prost-data` | | | |
//! | `resp` | `resp-data` | `resp-client` | `resp-server` | |
//! | `tls` | `tls-data` | `tls-client` | `tls-server` | `tls-ring`, `tls-aws-lc-rs`, `tls-web-roots` |
//!
//! Data is values and codecs, and needs no runtime. A role brings its data along. No feature is on by
//! default. What is `data` alone has no roles: calls are [protosocket-rpc](https://docs.rs/protosocket-rpc),
//! with any codec.
//!
//! This crate has no code of its own: `protosocket_protocols::resp` is `protosocket_resp`, and whoever
//! needs one protocol may depend on that.

#[cfg(feature = "memcached-data")]
pub use protosocket_memcached as memcached;

#[cfg(feature = "messagepack-data")]
pub use protosocket_messagepack as messagepack;

#[cfg(feature = "prost-data")]
pub use protosocket_prost as prost;

#[cfg(feature = "resp-data")]
pub use protosocket_resp as resp;

#[cfg(feature = "tls-data")]
pub use protosocket_tls as tls;

/// The decoder of the guide, which must compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/adding-a-protocol.md")]
pub struct AddingAProtocol;
