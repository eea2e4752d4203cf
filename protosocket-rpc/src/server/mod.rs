//! Servers: a [`SocketService`] makes a [`ConnectionService`] for each connection, which answers
//! each request with an rpc, a future or a stream that the connection drives.
//!
//! ```no_run
//! # use protosocket::{DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer};
//! # #[derive(Debug, Default)]
//! # struct Greeting { id: u64, code: u8, text: String }
//! # protosocket_rpc::messages! { Greeting { id, code } }
//! # struct GreetingCodec;
//! # impl Decoder for GreetingCodec {
//! #     type Message = Greeting;
//! #     fn decode(&mut self, _: &mut Input<'_>) -> Result<Decoded<Greeting>, DecodeError> { Ok(Decoded::Need(1)) }
//! # }
//! # impl Encoder for GreetingCodec {
//! #     type Message = Greeting;
//! #     fn encode(&mut self, _: Greeting, _: &mut SendBuffer) -> Result<(), EncodeError> { Ok(()) }
//! # }
//! use std::{future::{Ready, ready}, pin::Pin};
//!
//! use futures_core::Stream;
//! use protosocket::{StreamWithAddress, TcpSocketListener};
//! use protosocket_rpc::server::{
//!     ConnectionService, RpcConnection, RpcConnector, RpcKind, SocketService,
//! };
//! use protosocket_server::ProtosocketServerConfig;
//! use tokio::net::TcpStream;
//!
//! /// `Greeting` implements `Message`, and `GreetingCodec` decodes and encodes it.
//! struct Greeter;
//!
//! impl ConnectionService for Greeter {
//!     type Codec = GreetingCodec;
//!     type Request = Greeting;
//!     type Response = Greeting;
//!     type UnaryFutureType = Ready<Greeting>;
//!     type StreamType = Pin<Box<dyn Stream<Item = Greeting> + Send>>;
//!
//!     fn new_rpc(&mut self, mut greeting: Greeting) -> RpcKind<Ready<Greeting>, Self::StreamType> {
//!         greeting.text.insert_str(0, "hello, ");
//!         RpcKind::Unary(ready(greeting))
//!     }
//! }
//!
//! struct Greeters;
//!
//! impl SocketService for Greeters {
//!     type ConnectionService = Greeter;
//!     type SocketListener = TcpSocketListener;
//!
//!     fn codec(&self) -> GreetingCodec {
//!         GreetingCodec
//!     }
//!
//!     fn new_stream_service(&self, _stream: &StreamWithAddress<TcpStream>) -> Greeter {
//!         Greeter
//!     }
//!
//!     fn spawn_connection(&self, connection: RpcConnection<Self>) {
//!         tokio::spawn(connection);
//!     }
//! }
//!
//! # async fn serve() -> std::io::Result<()> {
//! let address = ([127, 0, 0, 1], 9000).into();
//! let server = ProtosocketServerConfig::default().bind_tcp(address, RpcConnector::new(Greeters))?;
//! let handle = server.handle();
//! let serving = tokio::spawn(server);
//! // Later: let running rpcs finish, and force the rest after half a minute.
//! println!("{}", handle.drain(std::time::Duration::from_secs(30)).await);
//! # drop(serving);
//! # Ok(())
//! # }
//! ```

mod connector;
pub use connector::{RpcConnection, RpcConnector, SocketRpcServer};

mod ids;

mod reactor;
pub use reactor::RpcReactor;

mod rpcs;

mod service;
pub use service::{ConnectionService, RpcKind, SocketService};

mod spawned;
pub use spawned::Spawned;

mod stats;
pub use stats::RpcStats;

mod wakes;
