use crate::{MessagePackDecoder, MessagePackSerializer};

/// What stands in front of a length: the length is a MessagePack number of 32 bits, however small.
pub(crate) const MARKER: u8 = 0xce;

/// The marker and the length, in bytes.
pub(crate) const PREFIX: usize = 5;

/// The codec of a client: it sends requests and receives responses.
pub type ClientCodec<Request, Response> =
    (MessagePackSerializer<Request>, MessagePackDecoder<Response>);

/// The codec of a server: it receives requests and sends responses.
pub type ServerCodec<Request, Response> =
    (MessagePackSerializer<Response>, MessagePackDecoder<Request>);
