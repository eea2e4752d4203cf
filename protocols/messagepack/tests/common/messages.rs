//! Messages with every kind of field that a decoder treats in its own way.

use std::collections::BTreeMap;

use bytes::Bytes;
use protosocket_messagepack::{MessagePackDecoder, MessagePackSerializer};
use serde::{Deserialize, Serialize};

/// Speaks [`Call`]s both ways.
pub type Codec = (MessagePackSerializer<Call>, MessagePackDecoder<Call>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub id: u64,
    pub code: i32,
    pub body: Bytes,
    pub name: String,
    pub tree: Tree,
    pub notes: Vec<Note>,
    pub numbers: Vec<u8>,
    pub counts: BTreeMap<String, u32>,
    pub inner: Option<Box<Call>>,
}

/// One byte on the wire if it is nil.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Note(pub Option<u32>);

/// Each of its nodes is a map of one entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Tree {
    #[default]
    Leaf,
    Node(Box<Tree>),
    Pair(Box<Tree>, Box<Tree>),
    Named {
        name: String,
    },
}
