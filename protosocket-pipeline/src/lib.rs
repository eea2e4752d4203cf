//! A client for protocols whose replies come in the order of the requests: RESP, memcached, HTTP/1.1.
//!
//! Such a protocol implements [`Protocol`]: how a request is encoded, what a message is to the
//! request that waits longest, and what is said on a connection before anything else. [`connect`]
//! makes a [`PipelineClient`] of it, which is cloned and shared as you like, and a driver: one
//! future to be spawned, which opens a connection, sends what callers ask for without waiting for
//! the replies before, and opens another one when that is lost.
//!
//! # How requests end
//! With a reply, or with an [`Error`] that says whether the request may have been carried out:
//!
//! | what happens | a request that was never sent | a request whose reply has not come |
//! |---|---|---|
//! | the connection is lost | waits for the next one | fails at once: [`Error::ConnectionLost`] |
//! | its time is over | [`Error::DeadlineExceeded`] | the same; its late reply is swallowed |
//! | its future is dropped | is not sent | its reply is swallowed |
//! | the preamble fails | fails at once: [`Error::Preamble`] | there is none |
//! | the client gives up or is closed, or its driver is dropped | fails at once | fails at once |
//!
//! A request that has no reply ends when it has been written, which is all that can be known.
//!
//! Nothing is sent twice, because only the caller knows what may be. Whoever retries asks
//! [`Error::execution`].
//!
//! # How it works
//! Callers and driver share one table of requests behind one lock, held for some nanoseconds: a
//! caller enters its request and wakes the driver, which takes all that were entered at once, and
//! brings replies back many at a time. The driver keeps a request until its reply comes, so that one
//! that was encoded and not written when its connection was lost goes to the next.

mod client;
pub use client::{PipelineClient, RequestPermit, Response};

mod config;
pub use config::PipelineConfig;

mod driver;
pub use driver::connect;

mod engine;

mod error;
pub use error::{Error, Execution};

mod panics;

mod protocol;
pub use protocol::{Expect, Protocol, Received};

mod reactor;

mod table;
