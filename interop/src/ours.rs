//! The server and the client of this project.

use std::{marker::PhantomData, net::SocketAddr};

use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use protosocket::{Decoder, Encoder, StreamWithAddress, TcpConnector, TcpSocketListener};
use protosocket_rpc::{
    Error, RpcServerConfig,
    client::{Configuration, RpcClient, connect, over},
    server::{ConnectionService, RpcConnection, RpcConnector, RpcKind, SocketService},
};
use protosocket_server::ProtosocketServerConfig;
use tokio::net::TcpStream;

use crate::{Call, Client, End, Rpc, Seen, Server, begin};

/// Protobuf behind a varint.
pub type Prost = protosocket_prost::ServerCodec<Call, Call>;

/// MessagePack behind its length.
pub type MessagePack = protosocket_messagepack::ServerCodec<Call, Call>;

/// What a connection of calls can speak.
pub trait Codec:
    Encoder<Message = Call> + Decoder<Message = Call> + Default + Send + 'static
{
}

impl<C: Encoder<Message = Call> + Decoder<Message = Call> + Default + Send + 'static> Codec for C {}

/// A server that speaks `C`.
pub fn serve<C: Codec>() -> Server {
    serve_with::<C>(RpcServerConfig::default())
}

/// A server that speaks `C`, with a configuration of its own.
pub fn serve_with<C: Codec>(config: RpcServerConfig) -> Server {
    Server::start(|seen| {
        let connector = RpcConnector::with_config(Service::<C>(seen, PhantomData), config);
        let connector = connector.expect("the configuration is valid");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = ProtosocketServerConfig::default().bind_tcp(address, connector);
        let server = server.expect("a port can be bound");
        let listener = server.listener().expect("it listens");
        let address = listener.local_address().expect("it has an address");
        (address, server)
    })
}

struct Service<C>(Seen, PhantomData<fn() -> C>);

impl<C: Codec> SocketService for Service<C> {
    type ConnectionService = Calls<C>;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> C {
        C::default()
    }

    fn new_stream_service(&self, _stream: &StreamWithAddress<TcpStream>) -> Calls<C> {
        Calls(self.0.clone(), PhantomData)
    }

    fn spawn_connection(&self, connection: RpcConnection<Self>) {
        tokio::spawn(connection);
    }
}

struct Calls<C>(Seen, PhantomData<fn() -> C>);

impl<C: Codec> ConnectionService for Calls<C> {
    type Codec = C;
    type Request = Call;
    type Response = Call;
    type UnaryFutureType = BoxFuture<'static, Call>;
    type StreamType = BoxStream<'static, Call>;

    fn new_rpc(
        &mut self,
        request: Call,
    ) -> RpcKind<BoxFuture<'static, Call>, BoxStream<'static, Call>> {
        match begin(&self.0, request) {
            Rpc::Unary(future) => RpcKind::Unary(future),
            Rpc::Streaming(stream) => RpcKind::Streaming(stream),
            Rpc::Rejected => RpcKind::Cancelled,
        }
    }
}

/// A client of this project.
#[derive(Debug, Clone)]
pub struct OurClient(RpcClient<Call, Call>);

impl OurClient {
    /// One that speaks `C` on a connection of its own, which it spawns.
    pub async fn connect<C: Codec>(address: SocketAddr) -> Self {
        let (connector, configuration) = (TcpConnector::new(address), Configuration::new());
        let connected = connect(&connector, C::default(), &configuration).await;
        let (client, connection) = connected.expect("the server listens");
        tokio::spawn(connection);
        Self(client)
    }

    /// As [`connect`](Self::connect), and when its runtime ends, the connection is reset.
    pub async fn connect_to_be_lost<C: Codec>(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await;
        let stream = stream.expect("the server listens");
        stream.set_zero_linger().expect("it is TCP");
        let stream = StreamWithAddress::new(stream, address);
        let (client, connection) = over(stream, C::default(), &Configuration::new());
        tokio::spawn(connection);
        Self(client)
    }
}

impl Client for OurClient {
    const CANCELS_IN_ORDER: bool = true;

    async fn unary(&self, request: Call) -> Result<Call, End> {
        let permit = self.0.reserve().await?;
        Ok(permit.send_unary(request)?.await?)
    }

    async fn streaming(&self, request: Call) -> Result<BoxStream<'static, Result<Call, End>>, End> {
        let permit = self.0.reserve().await?;
        let items = permit.send_streaming(request)?;
        Ok(items.map(|item| Ok(item?)).boxed())
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error {
            Error::CancelledRemotely => Self::Cancelled,
            Error::ConnectionLost { .. } => Self::Lost(error.to_string()),
            error => panic!("a call ended in another way: {error}"),
        }
    }
}
