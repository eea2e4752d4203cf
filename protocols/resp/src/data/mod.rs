//! What is said, without a connection: values, commands, and the numbers between them.

mod command;
pub use command::Command;

mod number;
pub(crate) use number::{Header, header, write_header, write_integer};

mod request;
pub use request::{Args, Request};

mod value;
pub use value::{ErrorReply, Protocol, Value};
