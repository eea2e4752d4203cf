//! Requests and responses as values, without time and without input or output.

mod expiration;
pub use expiration::{Expiration, ExpirationError};

mod key;
pub(crate) use key::words;
pub use key::{Key, KeyError, Keys, KeysIter};

mod request;
pub use request::{Arithmetic, Request, Retrieve, Store, StoreMode};

mod response;
pub use response::{ErrorReply, Response, Value};
