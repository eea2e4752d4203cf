//! `ours`: protosocket-rpc with protosocket-prost, both in their default configurations; handlers are
//! ready. `ours-pending`: handlers and items are pending once before they are ready.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::Either;
use futures_util::stream::{self, StreamExt};
use protosocket::{StreamWithAddress, TcpConnector, TcpSocketListener};
use protosocket_prost::{ClientCodec, ServerCodec};
use protosocket_rpc::client::{Configuration, RpcClient, connect};
use protosocket_rpc::messages;
use protosocket_rpc::server::{
    ConnectionService, RpcConnection, RpcConnector, RpcKind, SocketService,
};
use tokio::net::TcpStream;

use super::super::Server;
use super::super::ours::serve_tcp;
use crate::call::{Items, Request, Response};
use crate::drive::{Client, StreamingClient};

pub(in super::super) fn start() -> io::Result<Server> {
    serve(0)
}

pub(in super::super) fn start_pending() -> io::Result<Server> {
    serve(1)
}

fn serve(pending: u32) -> io::Result<Server> {
    serve_tcp(RpcConnector::new(Service { pending }))
}

messages! {
    Request { id, code }
    Response { id, code }
}

struct Service {
    /// How often a handler is pending before it is ready.
    pending: u32,
}

impl SocketService for Service {
    type ConnectionService = Handlers;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> ServerCodec<Request, Response> {
        ServerCodec::default()
    }

    fn new_stream_service(&self, _: &StreamWithAddress<TcpStream>) -> Handlers {
        Handlers {
            pending: self.pending,
        }
    }

    fn spawn_connection(&self, connection: RpcConnection<Self>) {
        tokio::spawn(connection);
    }
}

struct Handlers {
    pending: u32,
}

impl ConnectionService for Handlers {
    type Codec = ServerCodec<Request, Response>;
    type Request = Request;
    type Response = Response;
    type UnaryFutureType = Answer;
    type StreamType = ItemStream;

    fn new_rpc(&mut self, request: Request) -> RpcKind<Answer, ItemStream> {
        if request.items > 0 {
            return RpcKind::Streaming(ItemStream {
                items: request.into_items(),
                pending: self.pending,
                left: self.pending,
            });
        }
        RpcKind::Unary(Answer {
            pending: if request.never {
                u32::MAX
            } else {
                self.pending
            },
            response: Some(request.into()),
        })
    }
}

/// The answer to a unary call.
struct Answer {
    response: Option<Response>,
    /// How often it is pending before it is ready; forever if that is the largest number.
    pending: u32,
}

impl Future for Answer {
    type Output = Response;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        match self.pending {
            0 => Poll::Ready(
                self.response
                    .take()
                    .expect("it is polled until it is ready"),
            ),
            u32::MAX => Poll::Pending,
            _ => {
                self.pending -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// The items of a stream.
struct ItemStream {
    items: Items,
    /// How often each item is pending before it is ready.
    pending: u32,
    /// How often the next one still is.
    left: u32,
}

impl Stream for ItemStream {
    type Item = Response;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Response>> {
        if self.left > 0 {
            self.left -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.left = self.pending;
        Poll::Ready(self.items.next())
    }
}

/// The client of this project.
#[derive(Clone)]
pub(in super::super) struct Calls(RpcClient<Request, Response>);

impl Client for Calls {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let connector = TcpConnector::new(address);
        let codec = ClientCodec::default();
        let (client, connection) = connect(&connector, codec, &Configuration::default())
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self(client))
    }

    async fn call(&self, body: Bytes) -> io::Result<Bytes> {
        let completion = self.0.send_unary(Request::unary(body));
        let answer = completion.map_err(io::Error::other)?.await;
        Ok(answer.map_err(io::Error::other)?.body)
    }
}

impl StreamingClient for Calls {
    fn stream(&self, body: Bytes, items: u32) -> impl Stream<Item = io::Result<Bytes>> + Send {
        match self.0.send_streaming(Request::stream(body, items)) {
            Ok(stream) => Either::Left(
                stream.map(|item| item.map(|item| item.body).map_err(io::Error::other)),
            ),
            Err(error) => Either::Right(stream::iter([Err(io::Error::other(error))])),
        }
    }
}
