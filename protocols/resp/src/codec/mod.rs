//! Bytes to values and commands, and back.

mod inline;

mod pairs;
pub use pairs::{ClientCodec, ServerCodec};

mod reply;
pub use reply::Reply;

mod requests;
pub use requests::RequestDecoder;

mod values;
pub use values::{MAX_DEPTH, ValueDecoder};
