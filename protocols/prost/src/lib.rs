//! Length-delimited protobuf on [`protosocket`] connections: each message is a varint of its
//! length and then its bytes, as `protosocket-prost` 2.0.2 writes and reads them, and as
//! [`prost::Message::encode_length_delimited`] does.
//!
//! A connection speaks a pair of [`ProstSerializer`] and [`ProstDecoder`]: a [`ClientCodec`] or a
//! [`ServerCodec`], whose requests and responses are types of their own.
//!
//! ```
//! use protosocket::{Decoded, Decoder, Input, SendBuffer};
//! use protosocket_prost::{ClientCodec, ServerCodec};
//!
//! #[derive(Clone, PartialEq, prost::Message)]
//! struct Question {
//!     #[prost(string, tag = "1")]
//!     text: String,
//! }
//!
//! #[derive(Clone, PartialEq, prost::Message)]
//! struct Answer {
//!     #[prost(uint64, tag = "1")]
//!     number: u64,
//! }
//!
//! let mut client = ClientCodec::<Question, Answer>::default();
//! let mut server = ServerCodec::<Question, Answer>::default();
//!
//! let question = Question { text: "life?".into() };
//! let mut output = SendBuffer::new();
//! output.encode(&mut client, question.clone())?;
//! assert_eq!(output.contiguous(), b"\x07\x0a\x05life?");
//!
//! let mut input = Input::from_slice(output.contiguous());
//! assert_eq!(server.decode(&mut input)?, Decoded::Message(question));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a peer can make a decoder do is bounded: see [`ProstDecoder`].

mod decoder;
pub use decoder::ProstDecoder;

mod fields;

mod serializer;
pub use serializer::ProstSerializer;

mod codec;
pub use codec::{ClientCodec, ServerCodec};

/// The example of the README, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
