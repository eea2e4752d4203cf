//! `framed`: a task per connection around `tokio_util::codec::Framed` with its
//! `LengthDelimitedCodec`, both as they come.
//!
//! It answers everything that has been read before it flushes, as whoever knows `Framed` writes it:
//! `send` after each message would be a system call per message.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{Server, serve_tasks};
use crate::frame;

pub(super) fn start() -> io::Result<Server> {
    serve_tasks(serve)
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    echo(stream).await?;
    Ok(())
}

/// Echoes until the client has finished, and gives the stream back.
pub(super) async fn echo<S>(stream: S) -> io::Result<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = Framed::new(stream, LengthDelimitedCodec::new());
    while let Some(message) = frames.next().await {
        answer(&mut frames, message?).await?;
        // What has been read already is answered by the same flush.
        while let Some(Some(message)) = frames.next().now_or_never() {
            answer(&mut frames, message?).await?;
        }
        SinkExt::<Bytes>::flush(&mut frames).await?;
    }
    Ok(frames.into_inner())
}

async fn answer<S>(
    frames: &mut Framed<S, LengthDelimitedCodec>,
    message: BytesMut,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if frame::wants_reply(&message) {
        frames.feed(message.freeze()).await?;
    }
    Ok(())
}
