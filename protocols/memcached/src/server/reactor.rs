use std::{
    convert::Infallible,
    task::{Context, Poll, Waker},
    vec,
};

use protosocket::{DecodeError, MessageReactor, ReactorContext, ReactorStatus, SendError};

use super::{Cache, Stat, Stored};
use crate::{
    codec::{Refused, ServerCodec},
    data::{ErrorReply, Expiration, KeysIter, Request, Response, Retrieve, Value},
};

/// Answers the requests of one connection out of a [`Cache`], one after the other.
///
/// A request for many items is answered as the client reads: what waits to be sent is the send
/// buffer's bulk limit and one item at the most, and meanwhile nothing else is decoded.
#[derive(Debug)]
pub struct Server<C> {
    cache: C,
    /// What is left to be said to the request that was decoded last.
    rest: Option<Rest>,
    /// Whoever waits for that.
    waiting: Option<Waker>,
}

/// An answer of many lines.
#[derive(Debug)]
enum Rest {
    Items {
        keys: KeysIter,
        with_cas: bool,
        touch: Option<Expiration>,
    },
    Stats(vec::IntoIter<Stat>),
}

/// Items that are looked up before others have their turn, most of which may not be there: then
/// nothing that is sent bounds the work.
const LOOKUPS: usize = 512;

type Answer<'a> = ReactorContext<'a, ServerCodec>;

impl<C: Cache> Server<C> {
    /// A reactor for one connection.
    pub fn new(cache: C) -> Self {
        Self {
            cache,
            rest: None,
            waiting: None,
        }
    }

    fn on_request(&mut self, context: &mut Answer<'_>, request: Request) -> ReactorStatus {
        let noreply = request.is_noreply();
        let answer = match request {
            Request::Retrieve(Retrieve {
                keys,
                with_cas,
                touch,
            }) => {
                let keys = keys.into_iter();
                return self.begin(
                    context,
                    Rest::Items {
                        keys,
                        with_cas,
                        touch,
                    },
                );
            }
            Request::Stats { group } => match self.cache.stats(group.as_deref()) {
                Ok(Some(stats)) => return self.begin(context, Rest::Stats(stats.into_iter())),
                Ok(None) => Ok(Response::Reset),
                Err(error) => Err(error),
            },
            Request::Quit => return ReactorStatus::Disconnect,
            Request::Store(item) => self.cache.store(item).map(|stored| match stored {
                Stored::Stored => Response::Stored,
                Stored::NotStored => Response::NotStored,
                Stored::Exists => Response::Exists,
                Stored::NotFound => Response::NotFound,
            }),
            Request::Delete { key, .. } => {
                let deleted = self.cache.delete(&key);
                deleted.map(|there| if_there(there, Response::Deleted))
            }
            Request::Arithmetic {
                key,
                operation,
                delta,
                ..
            } => {
                let counted = self.cache.count(&key, operation, delta);
                counted.map(|number| number.map_or(Response::NotFound, Response::Number))
            }
            Request::Touch {
                key, expiration, ..
            } => {
                let touched = self.cache.touch(&key, expiration);
                touched.map(|there| if_there(there, Response::Touched))
            }
            Request::FlushAll { when, .. } => self.cache.flush(when).map(|()| Response::Ok),
            Request::Verbosity { level, .. } => self.cache.verbosity(level).map(|()| Response::Ok),
            Request::Version => Ok(Response::Version(self.cache.version())),
        };
        match noreply {
            true => ReactorStatus::Continue,
            false => context.reply(answer.unwrap_or_else(Response::Error)),
        }
    }

    /// Say the first of many lines, as a rule all of them.
    fn begin(&mut self, context: &mut Answer<'_>, rest: Rest) -> ReactorStatus {
        self.rest = Some(rest);
        match self.go_on(context) {
            Ok(_) => ReactorStatus::Continue,
            Err(error) => context.fail(error),
        }
    }

    /// Say more of many lines while there is room. Whether that is done, or waits for room: else there
    /// is more to do at once.
    fn go_on(&mut self, context: &mut Answer<'_>) -> Result<bool, SendError<Response>> {
        for _ in 0..LOOKUPS {
            if context.room().is_empty() {
                return Ok(true);
            }
            let Some(rest) = &mut self.rest else {
                return Ok(true);
            };
            let (line, is_last) = match rest.next(&mut self.cache) {
                Next::Line(line) => (line, false),
                Next::Nothing => continue,
                Next::Last(line) => (line, true),
            };
            if is_last {
                self.rest = None;
                if let Some(waiting) = self.waiting.take() {
                    waiting.wake();
                }
            }
            context.send(line)?;
        }
        Ok(self.rest.is_none())
    }
}

enum Next {
    Line(Response),
    /// An item that is not there.
    Nothing,
    Last(Response),
}

impl Rest {
    fn next(&mut self, cache: &mut impl Cache) -> Next {
        match self {
            Self::Items {
                keys,
                with_cas,
                touch,
            } => {
                let Some(key) = keys.next() else {
                    return Next::Last(Response::End);
                };
                match cache.retrieve(&key, *touch) {
                    Ok(Some(item)) => Next::Line(Response::Value(Value {
                        key,
                        flags: item.flags,
                        value: item.value,
                        cas: with_cas.then_some(item.cas),
                    })),
                    Ok(None) => Next::Nothing,
                    Err(error) => Next::Last(Response::Error(error)),
                }
            }
            Self::Stats(stats) => match stats.next() {
                Some((name, value)) => Next::Line(Response::Stat { name, value }),
                None => Next::Last(Response::End),
            },
        }
    }
}

fn if_there(is_there: bool, response: Response) -> Response {
    match is_there {
        true => response,
        false => Response::NotFound,
    }
}

impl<C: Cache> MessageReactor for Server<C> {
    type Codec = ServerCodec;
    type Inbound = Result<Request, Refused>;
    type Outbound = Response;
    type LogicalOutbound = Infallible;

    fn on_inbound_message(
        &mut self,
        context: &mut Answer<'_>,
        message: Self::Inbound,
    ) -> ReactorStatus {
        match message {
            Ok(request) => self.on_request(context, request),
            // The client would take an answer for that to its next request.
            Err(Refused { noreply: true, .. }) => ReactorStatus::Continue,
            Err(Refused { error, .. }) => context.reply(Response::Error(error)),
        }
    }

    fn on_outbound_message(
        &mut self,
        _context: &mut Answer<'_>,
        message: Infallible,
    ) -> Result<(), SendError<Response>> {
        match message {}
    }

    fn poll_outbound_many(
        &mut self,
        cx: &mut Context<'_>,
        context: &mut Answer<'_>,
    ) -> Poll<Option<()>> {
        if self.rest.is_none() {
            return Poll::Ready(None);
        }
        match self.go_on(context) {
            Ok(true) => Poll::Ready(Some(())),
            Ok(false) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => {
                // It becomes the reason of the connection's end, which the context keeps.
                let _ = context.fail(error);
                Poll::Ready(None)
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rest.is_none() {
            return Poll::Ready(());
        }
        self.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn in_flight(&self) -> usize {
        usize::from(self.rest.is_some())
    }

    fn on_decode_error(&mut self, context: &mut Answer<'_>, error: &DecodeError) {
        let reply = match error {
            DecodeError::Malformed(what) => ErrorReply::Client(what.clone()),
            DecodeError::TooLarge { .. } => ErrorReply::TOO_LARGE,
            // The client has gone in the middle of a request, or a decoder is at fault.
            _ => return,
        };
        // Said or not, this is the end.
        let _ = context.send_control(Response::Error(reply));
    }
}
