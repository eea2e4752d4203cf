//! The side that asks.

mod calls;
pub use calls::{Call, Client, IntoKey, NewValue, Swapped};

mod error;
pub use error::Error;

mod protocol;
pub use protocol::{Expected, Memcached, Reply};

pub use protosocket_pipeline::{Error as ConnectionError, Execution, PipelineConfig};
