//! `tonic`: its server and channel with the codec for prost, in their default configurations. The
//! service is written by hand, as its code generator would.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{self, Iter};
use futures_util::{Stream, StreamExt, TryStreamExt};
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, ServerStreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request as Asked, Response as Answered, Status};
use tonic_prost::ProstCodec;

use super::super::Server;
use crate::call::{Items, Request, Response};
use crate::drive::{Client, StreamingClient};

const UNARY: &str = "/benchmarks.Echo/Unary";
const STREAM: &str = "/benchmarks.Echo/Stream";

pub(in super::super) fn start() -> io::Result<Server> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::here(address, async {
        let router = tonic::transport::Server::builder().add_service(Echo);
        router
            .serve_with_incoming(incoming)
            .await
            .map_err(io::Error::other)
    }))
}

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "benchmarks.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = ProstCodec::<Response, Request>::default();
            let mut grpc = tonic::server::Grpc::new(codec);
            Ok(match request.uri().path() {
                UNARY => grpc.unary(Handler, request).await,
                STREAM => grpc.server_streaming(Handler, request).await,
                path => Status::unimplemented(path).into_http(),
            })
        })
    }
}

struct Handler;

impl UnaryService<Request> for Handler {
    type Response = Response;
    type Future = Ready<Result<Answered<Response>, Status>>;

    fn call(&mut self, request: Asked<Request>) -> Self::Future {
        ready(Ok(Answered::new(request.into_inner().into())))
    }
}

impl ServerStreamingService<Request> for Handler {
    type Response = Response;
    type ResponseStream = Iter<std::iter::Map<Items, fn(Response) -> Result<Response, Status>>>;
    type Future = Ready<Result<Answered<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Asked<Request>) -> Self::Future {
        let items = request.into_inner().into_items();
        let item: fn(Response) -> Result<Response, Status> = Ok;
        ready(Ok(Answered::new(stream::iter(items.map(item)))))
    }
}

/// The client as the code generator would write it.
#[derive(Clone)]
pub(in super::super) struct Calls(tonic::client::Grpc<Channel>);

impl Calls {
    /// A client is cloned for each call, because a call has it for itself.
    async fn ready(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut client = self.0.clone();
        let ready = client.ready().await;
        ready.map_err(|error| Status::unknown(error.to_string()))?;
        Ok(client)
    }
}

impl Client for Calls {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let channel = endpoint.map_err(io::Error::other)?.connect().await;
        let channel = channel.map_err(io::Error::other)?;
        Ok(Self(tonic::client::Grpc::new(channel)))
    }

    async fn call(&self, body: Bytes) -> io::Result<Bytes> {
        let mut client = self.ready().await.map_err(io::Error::other)?;
        let request = Asked::new(Request::unary(body));
        let codec = ProstCodec::<Request, Response>::default();
        let answer = client.unary(request, PathAndQuery::from_static(UNARY), codec);
        let answer = answer.await.map_err(io::Error::other)?;
        Ok(answer.into_inner().body)
    }
}

impl StreamingClient for Calls {
    fn stream(&self, body: Bytes, items: u32) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let asked = async move {
            let mut client = self.ready().await?;
            let request = Asked::new(Request::stream(body, items));
            let codec = ProstCodec::<Request, Response>::default();
            let path = PathAndQuery::from_static(STREAM);
            let answer = client.server_streaming(request, path, codec).await?;
            Ok::<_, Status>(answer.into_inner())
        };
        stream::once(asked)
            .try_flatten()
            .map(|item| item.map(|item| item.body).map_err(io::Error::other))
    }
}
