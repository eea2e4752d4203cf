//! `framed`: a task per connection around `tokio_util::codec::Framed` with its
//! `LengthDelimitedCodec`, both as they come.
//!
//! It answers everything that has been read before it flushes, as whoever knows `Framed` writes it:
//! `send` after each message would be a system call per message.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{Server, serve_tasks};
use crate::frame;

pub(super) fn start() -> io::Result<Server> {
    serve_tasks(serve)
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    let mut frames = Framed::new(stream, LengthDelimitedCodec::new());
    while let Some(message) = frames.next().await {
        answer(&mut frames, message?).await?;
        // What has been read already is answered by the same flush.
        while let Some(Some(message)) = frames.next().now_or_never() {
            answer(&mut frames, message?).await?;
        }
        SinkExt::<Bytes>::flush(&mut frames).await?;
    }
    Ok(())
}

async fn answer(
    frames: &mut Framed<TcpStream, LengthDelimitedCodec>,
    message: BytesMut,
) -> io::Result<()> {
    if frame::wants_reply(&message) {
        frames.feed(message.freeze()).await?;
    }
    Ok(())
}
