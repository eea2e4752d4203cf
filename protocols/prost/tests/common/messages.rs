//! Messages with every kind of field that a decoder treats in its own way.

use std::collections::BTreeMap;

use bytes::Bytes;
use protosocket_prost::{ProstDecoder, ProstSerializer};

/// Speaks [`Call`]s both ways.
pub type Codec = (ProstSerializer<Call>, ProstDecoder<Call>);

#[derive(Clone, PartialEq, prost::Message)]
pub struct Call {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(sint32, tag = "2")]
    pub code: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
    #[prost(string, tag = "4")]
    pub name: String,
    #[prost(message, optional, boxed, tag = "5")]
    pub inner: Option<Box<Call>>,
    #[prost(message, repeated, tag = "6")]
    pub notes: Vec<Note>,
    #[prost(uint64, repeated, tag = "7")]
    pub numbers: Vec<u64>,
    #[prost(btree_map = "string, uint32", tag = "8")]
    pub counts: BTreeMap<String, u32>,
    #[prost(bytes = "vec", tag = "9")]
    pub vec: Vec<u8>,
    #[prost(fixed32, tag = "10")]
    pub fixed: u32,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub bodies: Vec<Bytes>,
}

/// Two bytes on the wire if it is empty.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Note {
    #[prost(uint32, tag = "1")]
    pub number: u32,
}
