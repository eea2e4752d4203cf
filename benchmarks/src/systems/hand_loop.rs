//! `loop`: what one writes by hand when nothing but echoing messages is asked for.
//!
//! It is the practical limit on tokio, and therefore the reference: frames are borrowed from the
//! read buffer and copied into one contiguous out buffer, which is written when nothing is left to
//! read. Nothing is allocated per message.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Server, serve_tasks};
use crate::frame::{self, Inbox, Outbox};

// LIMIT: a peer that sends without reading is not read from while this much waits for it.
const OUT_LIMIT: usize = 256 << 10;

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
    let mut connection = Connection::new(stream);
    poll_fn(|cx| connection.poll(cx)).await?;
    Ok(connection.stream)
}

struct Connection<S> {
    stream: S,
    inbox: Inbox,
    outbox: Outbox,
}

/// Why reading has stopped.
enum Reading {
    Pending,
    OutFull,
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let reading = self.poll_echo(cx)?;
            ready!(self.outbox.poll_write(&mut self.stream, cx))?;
            // That of a socket does nothing. One with a buffer must not fall asleep over it.
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            match reading {
                Reading::Pending => return Poll::Pending,
                Reading::OutFull => {}
                Reading::Closed => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Echoes into the out buffer until it is full or nothing is left to read.
    fn poll_echo(&mut self, cx: &mut Context<'_>) -> io::Result<Reading> {
        while self.outbox.len() < OUT_LIMIT {
            if let Some(payload) = self.inbox.next_payload()? {
                if frame::wants_reply(payload) {
                    self.outbox.push(payload);
                }
                continue;
            }
            match self.inbox.poll_read(&mut self.stream, cx)? {
                Poll::Ready(0) => return Ok(Reading::Closed),
                Poll::Ready(_) => {}
                Poll::Pending => return Ok(Reading::Pending),
            }
        }
        Ok(Reading::OutFull)
    }
}
