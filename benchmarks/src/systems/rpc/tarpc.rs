//! `tarpc`: its server and client over TCP with bincode, in their default configurations. A handler is
//! a task.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::StreamExt;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::super::{Server, serve_tasks};
use crate::drive::Client;

#[tarpc::service]
trait Echo {
    async fn echo(body: Bytes) -> Bytes;
}

#[derive(Clone)]
struct Handler;

impl Echo for Handler {
    async fn echo(self, _: context::Context, body: Bytes) -> Bytes {
        body
    }
}

pub(in super::super) fn start() -> io::Result<Server> {
    serve_tasks(serve)
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    let frames = Framed::new(stream, LengthDelimitedCodec::new());
    let transport = serde_transport::new(frames, Bincode::default());
    BaseChannel::with_defaults(transport)
        .execute(Handler.serve())
        .for_each(|call| async {
            tokio::spawn(call);
        })
        .await;
    Ok(())
}

/// The client that the macro has made.
#[derive(Clone)]
pub(in super::super) struct Calls(EchoClient);

impl Client for Calls {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let frames = Framed::new(stream, LengthDelimitedCodec::new());
        let transport = serde_transport::new(frames, Bincode::default());
        let client = EchoClient::new(client::Config::default(), transport);
        Ok(Self(client.spawn()))
    }

    async fn call(&self, body: Bytes) -> io::Result<Bytes> {
        let answer = self.0.echo(context::current(), body).await;
        answer.map_err(io::Error::other)
    }
}
