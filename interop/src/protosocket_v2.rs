//! The server and the client of protosocket-rpc 2.0.2.

use std::{
    marker::PhantomData,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::{
    StreamExt,
    future::{self, BoxFuture},
    stream::BoxStream,
};
use protosocket_rpc_v2::{
    Error,
    client::{Configuration, RpcClient, StreamConnector, TcpStreamConnector, connect},
    server::{ConnectionService, RpcKind, SocketRpcServer, SocketService},
};
use protosocket_v2::{Decoder, Encoder, PooledEncoder, SocketListener, SocketResult};
use tokio::net::{TcpListener, TcpStream};

use crate::{Call, Client, End, Rpc, Seen, Server, begin};

/// Protobuf behind a varint.
pub type Prost = (
    PooledEncoder<protosocket_prost_v2::ProstSerializer<Call>>,
    protosocket_prost_v2::ProstDecoder<Call>,
);

/// MessagePack behind its length.
pub type MessagePack = (
    PooledEncoder<protosocket_messagepack_v2::MessagePackSerializer<Call>>,
    protosocket_messagepack_v2::MessagePackDecoder<Call>,
);

/// What a connection of calls can speak.
pub trait Codec:
    protosocket_v2::Codec
    + Encoder<Message = Call, Serialized: Send>
    + Decoder<Message = Call>
    + Default
    + Send
    + 'static
{
}

impl<C> Codec for C where
    C: protosocket_v2::Codec
        + Encoder<Message = Call, Serialized: Send>
        + Decoder<Message = Call>
        + Default
        + Send
        + 'static
{
}

/// A server that speaks `C`, with the sizes that its own defaults have.
pub fn serve<C: Codec>() -> Server {
    Server::start(|seen| {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0));
        let listener = listener.expect("a port can be bound");
        let address = listener.local_addr().expect("it has an address");
        let nonblocking = listener.set_nonblocking(true);
        nonblocking.expect("a socket can be made nonblocking");
        let listener = TcpListener::from_std(listener).expect("there is a runtime");
        let service = Service::<C>(seen, PhantomData);
        let server =
            SocketRpcServer::new(Listener(listener), service, 16 * (2 << 20), 1 << 20, 128);
        (address, server.expect("its sizes are its own"))
    })
}

struct Listener(TcpListener);

impl SocketListener for Listener {
    type Stream = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<SocketResult<TcpStream>> {
        let (stream, _) = ready!(self.0.poll_accept(cx)).expect("a connection is accepted");
        stream.set_nodelay(true).expect("it is TCP");
        Poll::Ready(SocketResult::Stream(stream))
    }
}

struct Service<C>(Seen, PhantomData<fn() -> C>);

impl<C: Codec> SocketService for Service<C> {
    type ConnectionService = Calls<C>;
    type SocketListener = Listener;

    fn codec(&mut self) -> C {
        C::default()
    }

    fn new_stream_service(&mut self, _stream: &TcpStream) -> Calls<C> {
        Calls(self.0.clone(), PhantomData)
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

/// A client of protosocket-rpc 2.0.2, which leaves ids to its callers.
#[derive(Debug, Clone)]
pub struct ForeignClient {
    client: RpcClient<Call, Call>,
    next_id: Arc<AtomicU64>,
}

impl ForeignClient {
    /// One that speaks `C` on a connection of its own, which it spawns.
    pub async fn connect<C: Codec>(address: SocketAddr) -> Self {
        Self::connect_by::<C, _>(TcpStreamConnector, address).await
    }

    /// As [`connect`](Self::connect), and when its runtime ends, the connection is reset.
    pub async fn connect_to_be_lost<C: Codec>(address: SocketAddr) -> Self {
        Self::connect_by::<C, _>(Resetting, address).await
    }

    async fn connect_by<C: Codec, S: StreamConnector>(connector: S, address: SocketAddr) -> Self {
        let configuration = Configuration::new(connector);
        let connected = connect::<C, _>(address, &configuration).await;
        let (client, connection) = connected.expect("the server listens");
        tokio::spawn(connection);
        Self {
            client,
            next_id: Arc::new(AtomicU64::new(1)),
        }
    }

    fn with_id(&self, mut request: Call) -> Call {
        request.id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request
    }
}

/// Makes streams that are reset when they are dropped.
#[derive(Debug)]
struct Resetting;

impl StreamConnector for Resetting {
    type Stream = TcpStream;

    async fn connect_stream(&self, stream: TcpStream) -> std::io::Result<TcpStream> {
        stream.set_zero_linger()?;
        Ok(stream)
    }
}

impl Client for ForeignClient {
    const CANCELS_IN_ORDER: bool = false;

    async fn unary(&self, request: Call) -> Result<Call, End> {
        Ok(self.client.send_unary(self.with_id(request))?.await?)
    }

    async fn streaming(&self, request: Call) -> Result<BoxStream<'static, Result<Call, End>>, End> {
        let items = self.client.send_streaming(self.with_id(request))?;
        // It says that it is finished whatever the end was.
        let items = items.take_while(|item| {
            let is_finished = matches!(item, Err(Error::Finished));
            future::ready(!is_finished)
        });
        Ok(items.map(|item| Ok(item?)).boxed())
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error {
            Error::CancelledRemotely => Self::Cancelled,
            error => Self::Lost(error.to_string()),
        }
    }
}
