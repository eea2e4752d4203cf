//! Requests and responses as bytes, and back.

mod line;

mod request_decoder;
pub use request_decoder::{Refused, RequestDecoder};

mod request_encoder;
pub use request_encoder::RequestEncoder;

mod request_line;

mod response_decoder;
pub use response_decoder::ResponseDecoder;

mod response_encoder;
pub use response_encoder::ResponseEncoder;

/// What a server speaks.
pub type ServerCodec = (ResponseEncoder, RequestDecoder);

/// What a client speaks.
pub type ClientCodec = (RequestEncoder, ResponseDecoder);
