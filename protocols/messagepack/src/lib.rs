//! MessagePack on [`protosocket`] connections: whatever `serde` can serialize, as
//! `protosocket-messagepack` 2.0.2 writes and reads it.
//!
//! ```text
//! ┌──────┬────────────────────┬──────────────────────────────┐
//! │ 0xce │ length, big-endian │ one MessagePack value        │
//! └──────┴────────────────────┴──────────────────────────────┘
//!  1 byte  4 bytes              as many bytes as the length says
//! ```
//!
//! Structs are arrays of their fields. A field that holds bytes is best of a type that serializes as
//! such (`bytes::Bytes` with its feature `serde`, `serde_bytes`): a `Vec<u8>` is a list of numbers,
//! which takes up to twice the size and much more time.
//!
//! A connection speaks a pair of [`MessagePackSerializer`] and [`MessagePackDecoder`]: a
//! [`ClientCodec`] or a [`ServerCodec`], whose requests and responses are types of their own.
//!
//! ```
//! use protosocket::{Decoded, Decoder, Input, SendBuffer};
//! use protosocket_messagepack::{ClientCodec, ServerCodec};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Debug, PartialEq)]
//! struct Question(String);
//!
//! #[derive(Serialize, Deserialize, Debug, PartialEq)]
//! struct Answer {
//!     number: u64,
//! }
//!
//! let mut client = ClientCodec::<Question, Answer>::default();
//! let mut server = ServerCodec::<Question, Answer>::default();
//!
//! let mut output = SendBuffer::new();
//! output.encode(&mut client, Question("life?".into()))?;
//! assert_eq!(output.contiguous(), b"\xce\0\0\0\x06\xa5life?");
//!
//! let mut input = Input::from_slice(output.contiguous());
//! assert_eq!(server.decode(&mut input)?, Decoded::Message(Question("life?".into())));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a peer can make a decoder do is bounded: see [`MessagePackDecoder`].

mod decoder;
pub use decoder::MessagePackDecoder;

mod shape;

mod serializer;
pub use serializer::MessagePackSerializer;

mod codec;
pub use codec::{ClientCodec, ServerCodec};

/// The example of the README, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
