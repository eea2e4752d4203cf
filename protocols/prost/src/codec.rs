use crate::{ProstDecoder, ProstSerializer};

/// What protobuf itself takes for a message, in bytes: lengths are signed 32-bit numbers in most of
/// its implementations.
pub(crate) const MAX_LENGTH: usize = i32::MAX as usize;

/// The codec of a client: it sends requests and receives responses.
pub type ClientCodec<Request, Response> = (ProstSerializer<Request>, ProstDecoder<Response>);

/// The codec of a server: it receives requests and sends responses.
pub type ServerCodec<Request, Response> = (ProstSerializer<Response>, ProstDecoder<Request>);
