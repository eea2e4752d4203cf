use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A request or a response: what both sides' RPC and all codecs take for a message.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub struct Call {
    /// The id of the call. 0 leaves it to clients that choose one.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The control code.
    #[prost(uint32, tag = "2")]
    pub code: u32,
    /// Of a request: what the server does with it.
    #[prost(enumeration = "Operation", tag = "3")]
    pub operation: i32,
    /// Of a request, how many items are wanted; of an item, which one it is.
    #[prost(uint64, tag = "4")]
    pub count: u64,
    /// What comes back, whichever the operation is: it says whose response this is.
    #[prost(bytes = "bytes", tag = "5")]
    pub body: Bytes,
}

/// What a server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
pub enum Operation {
    /// Answer at once.
    Echo = 0,
    /// Answer when polled a second time.
    Later = 1,
    /// Never answer.
    Forever = 2,
    /// Stream as many items as the request counts.
    Stream = 3,
    /// Stream as many items as the request counts, and then nothing, without an end.
    Endless = 4,
    /// Reject it.
    Reject = 5,
}

impl Call {
    /// A request without an id.
    pub fn request(operation: Operation, count: u64, body: impl Into<Bytes>) -> Self {
        Self {
            operation: operation.into(),
            count,
            body: body.into(),
            ..Self::default()
        }
    }

    /// An answer to it.
    pub fn answer(&self, count: u64) -> Self {
        Self {
            count,
            body: self.body.clone(),
            ..Self::default()
        }
    }

    fn control(id: u64, code: u32) -> Self {
        Self {
            id,
            code,
            ..Self::default()
        }
    }
}

/// The control code as both sides write it.
fn code(code: u32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

impl protosocket_rpc::Message for Call {
    fn message_id(&self) -> u64 {
        self.id
    }

    fn control_code(&self) -> protosocket_rpc::ProtosocketControlCode {
        protosocket_rpc::ProtosocketControlCode::from_u8(code(self.code))
    }

    fn set_message_id(&mut self, message_id: u64) {
        self.id = message_id;
    }

    fn cancelled(message_id: u64) -> Self {
        let code = protosocket_rpc::ProtosocketControlCode::Cancel;
        Self::control(message_id, code.as_u8().into())
    }

    fn ended(message_id: u64) -> Self {
        let code = protosocket_rpc::ProtosocketControlCode::End;
        Self::control(message_id, code.as_u8().into())
    }
}

impl protosocket_rpc_v2::Message for Call {
    fn message_id(&self) -> u64 {
        self.id
    }

    fn control_code(&self) -> protosocket_rpc_v2::ProtosocketControlCode {
        protosocket_rpc_v2::ProtosocketControlCode::from_u8(code(self.code))
    }

    fn set_message_id(&mut self, message_id: u64) {
        self.id = message_id;
    }

    fn cancelled(message_id: u64) -> Self {
        let code = protosocket_rpc_v2::ProtosocketControlCode::Cancel;
        Self::control(message_id, code.as_u8().into())
    }

    fn ended(message_id: u64) -> Self {
        let code = protosocket_rpc_v2::ProtosocketControlCode::End;
        Self::control(message_id, code.as_u8().into())
    }
}
