//! RESP2 and RESP3, the protocol of Redis, on [`protosocket`] connections.
//!
//! | | what | features |
//! |---|---|---|
//! | data | [`Value`], [`Command`], [`Request`], [`ErrorReply`], and how they are read and written: [`ValueDecoder`], [`RequestDecoder`], [`Reply`] | none |
//! | client | [`Client`]: pipelines, reconnects, says HELLO, AUTH and SELECT, takes [`Pushes`] | `client` |
//! | server | [`Server`] answers commands with a [`Handler`] of yours | `server` |
//!
//! Both are on by default.
//!
//! ```
//! use protosocket::{Decoded, Decoder, Input, SendBuffer};
//! use protosocket_resp::{Command, RequestDecoder, Value, ValueDecoder};
//!
//! let command = Command::new("SET").arg("key").arg("value");
//! let mut output = SendBuffer::new();
//! command.write_to(&mut output);
//! assert_eq!(output.contiguous(), b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n");
//!
//! let mut server = RequestDecoder::new();
//! let mut input = Input::from_slice(output.contiguous());
//! let Decoded::Message(request) = server.decode(&mut input)? else {
//!     panic!("all of it is there");
//! };
//! assert_eq!(request.args().collect::<Vec<_>>(), [&b"SET"[..], b"key", b"value"]);
//!
//! let mut client = ValueDecoder::new();
//! let value = client.decode(&mut Input::from_slice(b"%1\r\n+answer\r\n:42\r\n"))?;
//! assert_eq!(value, Decoded::Message(Value::Map(vec![("answer".into(), 42.into())])));
//! # Ok::<(), protosocket::DecodeError>(())
//! ```
//!
//! What a peer can make the decoders do is bounded: see [`RequestDecoder`] and [`ValueDecoder`].

mod data;
pub use data::{Args, Command, ErrorReply, Protocol, Request, Value};

mod codec;
pub use codec::{ClientCodec, MAX_DEPTH, Reply, RequestDecoder, ServerCodec, ValueDecoder};

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
pub use client::{
    Acknowledged, Client, ClientConfig, CommandError, Event, PreambleError, Pushes, RespProtocol,
    connect,
};

#[cfg(feature = "client")]
pub use protosocket_pipeline::{Error as ConnectionError, Execution, PipelineConfig};

#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
pub use server::{Handler, Server};

#[cfg(feature = "server")]
mod connector;
#[cfg(feature = "server")]
pub use connector::Connector;

/// The example of the README, so that it compiles.
#[cfg(all(doctest, feature = "client", feature = "server"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
