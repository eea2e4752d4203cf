//! `protosocket-rpc-2.0.2`: the published server and client with protosocket-prost, and the limits
//! that protosocket-server has as defaults.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::{Either, Pending, Ready, pending, ready};
use futures_util::stream::{self, Iter};
use futures_util::{Stream, StreamExt};
use protosocket_prost_v2::{ProstDecoder, ProstSerializer};
use protosocket_rpc_v2::client::{Configuration, RpcClient, TcpStreamConnector, connect};
use protosocket_rpc_v2::server::{ConnectionService, RpcKind, SocketRpcServer, SocketService};
use protosocket_rpc_v2::{Error, Message, ProtosocketControlCode};
use protosocket_v2::{PooledEncoder, StreamWithAddress, TcpSocketListener};
use tokio::net::TcpStream;

use super::super::Server;
use super::super::protosocket_v2::reserve_port;
use crate::call::{CANCEL, END, Items, Request, Response};
use crate::drive::{Client, StreamingClient};

/// The defaults of protosocket-server, which the constructor of this server does not have.
const MAX_BUFFER_LENGTH: usize = 32 << 20;
const BUFFER_ALLOCATION_INCREMENT: usize = 1 << 20;
const MAX_QUEUED_OUTBOUND_MESSAGES: usize = 128;
const LISTEN_BACKLOG: u32 = 65_536;

pub(in super::super) fn start() -> io::Result<Server> {
    let (_reserved, address) = reserve_port()?;
    let server = SocketRpcServer::new(
        TcpSocketListener::listen(address, LISTEN_BACKLOG, None)?,
        Service,
        MAX_BUFFER_LENGTH,
        BUFFER_ALLOCATION_INCREMENT,
        MAX_QUEUED_OUTBOUND_MESSAGES,
    )
    .map_err(io::Error::other)?;
    Ok(Server::here(address, server))
}

impl Message for Request {
    fn message_id(&self) -> u64 {
        self.id
    }

    fn control_code(&self) -> ProtosocketControlCode {
        ProtosocketControlCode::from_u8(self.code as u8)
    }

    fn set_message_id(&mut self, message_id: u64) {
        self.id = message_id;
    }

    fn cancelled(message_id: u64) -> Self {
        Self {
            id: message_id,
            code: CANCEL,
            ..Self::default()
        }
    }

    fn ended(message_id: u64) -> Self {
        Self {
            id: message_id,
            code: END,
            ..Self::default()
        }
    }
}

impl Message for Response {
    fn message_id(&self) -> u64 {
        self.id
    }

    fn control_code(&self) -> ProtosocketControlCode {
        ProtosocketControlCode::from_u8(self.code as u8)
    }

    fn set_message_id(&mut self, message_id: u64) {
        self.id = message_id;
    }

    fn cancelled(message_id: u64) -> Self {
        Self::control(message_id, CANCEL)
    }

    fn ended(message_id: u64) -> Self {
        Self::control(message_id, END)
    }
}

type Codec<Out, In> = (PooledEncoder<ProstSerializer<Out>>, ProstDecoder<In>);

struct Service;

impl SocketService for Service {
    type ConnectionService = Handlers;
    type SocketListener = TcpSocketListener;

    fn codec(&mut self) -> Codec<Response, Request> {
        Codec::default()
    }

    fn new_stream_service(&mut self, _: &StreamWithAddress<TcpStream>) -> Handlers {
        Handlers
    }
}

struct Handlers;

impl ConnectionService for Handlers {
    type Codec = Codec<Response, Request>;
    type Request = Request;
    type Response = Response;
    type UnaryFutureType = Either<Ready<Response>, Pending<Response>>;
    type StreamType = Iter<Items>;

    fn new_rpc(&mut self, request: Request) -> RpcKind<Self::UnaryFutureType, Self::StreamType> {
        if request.items > 0 {
            RpcKind::Streaming(stream::iter(request.into_items()))
        } else if request.never {
            RpcKind::Unary(Either::Right(pending()))
        } else {
            RpcKind::Unary(Either::Left(ready(request.into())))
        }
    }
}

/// The published client. Its users give the ids.
#[derive(Clone)]
pub(in super::super) struct Calls {
    client: RpcClient<Request, Response>,
    last_id: Arc<AtomicU64>,
}

impl Calls {
    fn numbered(&self, request: Request) -> Request {
        Request {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            ..request
        }
    }
}

impl Client for Calls {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let configuration = Configuration::new(TcpStreamConnector);
        let (client, connection) =
            connect::<Codec<Request, Response>, TcpStreamConnector>(address, &configuration)
                .await
                .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self {
            client,
            last_id: Arc::default(),
        })
    }

    async fn call(&self, body: Bytes) -> io::Result<Bytes> {
        let request = self.numbered(Request::unary(body));
        let completion = self.client.send_unary(request).map_err(io::Error::other)?;
        Ok(completion.await.map_err(io::Error::other)?.body)
    }
}

impl StreamingClient for Calls {
    fn stream(&self, body: Bytes, items: u32) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let request = self.numbered(Request::stream(body, items));
        match self.client.send_streaming(request) {
            Ok(stream) => Either::Left(stream.filter_map(|item| ready(item_of(item)))),
            Err(error) => Either::Right(stream::iter([Err(io::Error::other(error))])),
        }
    }
}

/// The end of a stream is an error here, and none to whoever counts items.
fn item_of(item: Result<Response, Error>) -> Option<io::Result<Bytes>> {
    match item {
        Ok(response) => Some(Ok(response.body)),
        Err(Error::Finished) => None,
        Err(error) => Some(Err(io::Error::other(error))),
    }
}
