//! The side that calls.
//!
//! [`connect`] gives a [`RpcClient`], which is cloned and shared as you like, and the connection: a
//! future that you spawn, and that tells how it ended. Each call is a completion: await it, or read
//! it as a stream; drop it, and the server is told that nobody waits any more.
//!
//! ```no_run
//! use protosocket::{Codec, Decoder, Encoder, TcpConnector};
//! use protosocket_rpc::{
//!     Message,
//!     client::{Configuration, connect},
//! };
//!
//! async fn ask<C, M>(codec: C, question: M) -> Result<M, Box<dyn std::error::Error>>
//! where
//!     C: Codec + Encoder<Message = M> + Decoder<Message = M> + Send + 'static,
//!     M: Message,
//! {
//!     let connector = TcpConnector::new("127.0.0.1:9000".parse()?);
//!     let (client, connection) = connect(&connector, codec, &Configuration::new()).await?;
//!     tokio::spawn(async move { println!("{}", connection.await.reason) });
//!     Ok(client.send_unary(question)?.await?)
//! }
//! ```
//!
//! # How calls end
//! A unary call ends with its response, and a stream with the `None` that says that it is complete.
//! Every other end is an [`Error`](crate::Error), which says who is to blame, and whether the call
//! may have had an effect ([`Execution`](crate::Execution)). When the connection ends, in whatever
//! way, all calls are told in the same poll of it; those that begin later are told at once.
//!
//! # How it works
//! Callers and connection share one table of calls behind one lock, held for some nanoseconds: a
//! caller enters its call and wakes the connection, which takes all that were entered at once, and
//! brings answers back many at a time. The id of a call says where in the table it stands, and in
//! which use of that place, so that an answer finds its call without a search, and a late answer
//! finds nobody. When many callers were answered at once and the first of them has begun another call,
//! the connection waits until the others have had their turn, so that what they begin is written
//! together: a runtime of many threads would otherwise run the connection after each of them.

mod completion;
pub use completion::{StreamingCompletion, UnaryCompletion};

mod configuration;
pub use configuration::{Configuration, SlowConsumer};

mod connect;
pub use connect::{connect, over};

mod ids;

mod panics;

mod reactor;
pub use reactor::RpcCompletionReactor;

mod rpc_client;
pub use rpc_client::{CallPermit, RpcClient};

mod table;
