//! `loop`: what one writes by hand when nothing but answering these calls is asked for.
//!
//! It is the practical limit on tokio with prost: messages are decoded from one read buffer and encoded
//! into one contiguous out buffer, which is written when nothing is left to read. No call is kept but
//! for the streams, which take turns.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use super::super::{Server, serve_tasks};
use crate::call::{self, CANCEL, END, Items, Request, Response, Varint};
use crate::frame::{Inbox, Outbox};

// LIMIT: a peer that calls without reading is not read from while this much waits for it.
const OUT_LIMIT: usize = 256 << 10;

pub(in super::super) fn start() -> io::Result<Server> {
    serve_tasks(serve)
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    let mut connection = Connection {
        stream,
        inbox: Inbox::default(),
        outbox: Outbox::default(),
        streams: VecDeque::new(),
    };
    poll_fn(|cx| connection.poll(cx)).await
}

struct Connection {
    stream: TcpStream,
    inbox: Inbox<Varint>,
    outbox: Outbox,
    streams: VecDeque<Items>,
}

/// Why reading has stopped.
#[derive(PartialEq)]
enum Reading {
    Pending,
    OutFull,
    Closed,
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let reading = self.poll_calls(cx)?;
            self.stream_items();
            ready!(self.outbox.poll_write(&mut self.stream, cx))?;
            match reading {
                Reading::Pending if self.streams.is_empty() => return Poll::Pending,
                Reading::Closed if self.streams.is_empty() => return Poll::Ready(Ok(())),
                _ => {}
            }
        }
    }

    /// Answers into the out buffer until it is full or nothing is left to read.
    fn poll_calls(&mut self, cx: &mut Context<'_>) -> io::Result<Reading> {
        while self.outbox.len() < OUT_LIMIT {
            if let Some(frame) = self.inbox.next_payload()? {
                let request = call::decode(frame)?;
                self.answer(request);
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

    #[inline]
    fn answer(&mut self, request: Request) {
        if request.code == CANCEL {
            self.streams.retain(|items| items.id() != request.id);
        } else if request.items > 0 {
            self.streams.push_back(request.into_items());
        } else if !request.never {
            call::encode(&Response::from(request), self.outbox.end());
        }
    }

    /// Lets the streams take turns until the out buffer is full.
    fn stream_items(&mut self) {
        while self.outbox.len() < OUT_LIMIT
            && let Some(mut items) = self.streams.pop_front()
        {
            match items.next_ref() {
                Some(item) => {
                    call::encode(item, self.outbox.end());
                    self.streams.push_back(items);
                }
                None => call::encode(&Response::control(items.id(), END), self.outbox.end()),
            }
        }
    }
}
