//! Unary calls: a server that echoes, and a client that asks it. The messages are protobuf, by
//! derive.
//!
//! `cargo run -p protosocket-rpc --example echo` makes some calls, drains the server and ends.

#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::{
    convert::Infallible,
    error::Error,
    future::{Ready, ready},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use protosocket::{StreamWithAddress, TcpConnector, TcpSocketListener};
use protosocket_prost::{ClientCodec, ServerCodec};
use protosocket_rpc::{
    client::{Configuration, connect},
    messages,
    server::{ConnectionService, RpcConnection, RpcConnector, RpcKind, SocketService},
};
use protosocket_server::ProtosocketServerConfig;
use tokio::net::TcpStream;

/// A request, or its response. The id and the control code are fields like any other.
#[derive(Clone, PartialEq, prost::Message)]
struct Echo {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    code: u32,
    #[prost(string, tag = "3")]
    text: String,
}

messages! {
    Echo { id, code }
}

/// Accepts connections, and makes a service for each.
struct Echoes;

impl SocketService for Echoes {
    type ConnectionService = EchoService;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> ServerCodec<Echo, Echo> {
        ServerCodec::default()
    }

    fn new_stream_service(&self, _stream: &StreamWithAddress<TcpStream>) -> EchoService {
        EchoService
    }

    fn spawn_connection(&self, connection: RpcConnection<Self>) {
        tokio::spawn(connection);
    }
}

/// Answers the calls of one connection.
struct EchoService;

impl ConnectionService for EchoService {
    type Codec = ServerCodec<Echo, Echo>;
    type Request = Echo;
    type Response = Echo;
    type UnaryFutureType = Ready<Echo>;
    type StreamType = NoStream;

    fn new_rpc(&mut self, request: Echo) -> RpcKind<Ready<Echo>, NoStream> {
        if request.text.is_empty() {
            return RpcKind::Cancelled;
        }
        RpcKind::Unary(ready(request))
    }
}

/// There is none here.
struct NoStream(Infallible);

impl Stream for NoStream {
    type Item = Echo;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Echo>> {
        match self.0 {}
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = ProtosocketServerConfig::default().bind_tcp(address, RpcConnector::new(Echoes))?;
    let listener = server.listener().ok_or("it has just been bound")?;
    let address = listener.local_address()?;
    let handle = server.handle();
    tokio::spawn(server);
    println!("the server listens on {address}");

    let (connector, codec) = (
        TcpConnector::new(address),
        ClientCodec::<Echo, Echo>::default(),
    );
    let (client, connection) = connect(&connector, codec, &Configuration::new()).await?;
    let connection = tokio::spawn(connection);
    for text in ["hello", "is anybody there?", ""] {
        let request = Echo {
            text: text.to_owned(),
            ..Echo::default()
        };
        match client.send_unary(request)?.await {
            Ok(response) => println!("{text:?} was answered with {:?}", response.text),
            Err(error) => println!("{text:?} was not answered: {error}"),
        }
    }

    drop(client);
    println!(
        "the connection of the client has ended: {}",
        connection.await?.reason
    );
    println!(
        "the server is drained: {}",
        handle.drain(Duration::from_secs(10)).await
    );
    Ok(())
}
