use std::{fmt, sync::Arc, time::Duration};

use super::{
    Configuration,
    completion::{StreamingCompletion, UnaryCompletion},
    table::{Kind, Table},
};
use crate::{Error, Message};

/// Begins calls on one connection, from any task or thread. Cheap to clone.
///
/// A request whose [`message_id`](Message::message_id) is 0 is given an id. Another id is the
/// caller's own choice, and must not be that of a call in flight.
///
/// The connection goes on for as long as there is a client, or a call in flight.
pub struct RpcClient<Request: Message, Response: Message> {
    handle: Arc<Handle<Request, Response>>,
    call_timeout: Option<Duration>,
    stream_timeout: Option<Duration>,
}

/// What all clones share; the last of them takes it along.
struct Handle<Request: Message, Response: Message>(Arc<Table<Request, Response>>);

impl<Request: Message, Response: Message> RpcClient<Request, Response> {
    pub(super) fn new(table: Arc<Table<Request, Response>>, configuration: &Configuration) -> Self {
        Self {
            handle: Arc::new(Handle(table)),
            call_timeout: configuration.call_timeout,
            stream_timeout: configuration.stream_timeout,
        }
    }

    /// Begin a call that has one response.
    ///
    /// # Errors
    /// At once, when the connection is gone or [draining](Error::Draining), when
    /// [too many](Error::TooManyCalls) calls are in flight, when the [id](Error::DuplicateId) is, or
    /// when this is [no request](Error::NotARequest). All of them are local, and the request was
    /// never sent.
    pub fn send_unary(
        &self,
        request: Request,
    ) -> Result<UnaryCompletion<Response, Request>, Error> {
        let table = self.table();
        let index = table.submit(Kind::Unary, request, self.call_timeout)?;
        Ok(UnaryCompletion::new(table.clone(), index))
    }

    /// Begin a call that has a stream of responses.
    ///
    /// It must be one to the server as well: a call that has one response there is over with it, and
    /// the server does not say so. This stream would give that one item and wait for its end until
    /// its timeout, of which there is none by default.
    ///
    /// # Errors
    /// As [`send_unary`](Self::send_unary).
    pub fn send_streaming(
        &self,
        request: Request,
    ) -> Result<StreamingCompletion<Response, Request>, Error> {
        let table = self.table();
        let index = table.submit(Kind::Streaming, request, self.stream_timeout)?;
        Ok(StreamingCompletion::new(table.clone(), index))
    }

    /// Wait until another call may begin, behind those that have waited for longer.
    ///
    /// # Errors
    /// The connection is gone, or draining.
    pub async fn reserve(&self) -> Result<CallPermit<Request, Response>, Error> {
        let index = self.table().reserve().await?;
        Ok(CallPermit {
            client: self.clone(),
            index: Some(index),
        })
    }

    /// A client whose calls may take so long, unary and streaming ones; `None` is for as long as the
    /// connection lasts. With no time at all, as what is left of a deadline may be, they end with
    /// [`Error::DeadlineExceeded`], and are not sent.
    #[must_use]
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into();
        Self {
            handle: self.handle.clone(),
            call_timeout: timeout,
            stream_timeout: timeout,
        }
    }

    /// Whether the connection takes calls. It may cease to at any time, so this is for whoever has
    /// to choose among connections.
    pub fn is_alive(&self) -> bool {
        self.table().is_alive()
    }

    /// How many calls are in flight, or have answers that were not taken, and how many places are
    /// [reserved](Self::reserve).
    pub fn in_flight(&self) -> usize {
        self.table().taken()
    }

    /// How many responses have come for calls that were not in flight: late ones, repeated ones, and
    /// those that a server made up. They are ignored.
    pub fn unmatched_responses(&self) -> u64 {
        self.table().unmatched()
    }

    fn table(&self) -> &Arc<Table<Request, Response>> {
        &self.handle.0
    }
}

impl<Request: Message, Response: Message> Clone for RpcClient<Request, Response> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            call_timeout: self.call_timeout,
            stream_timeout: self.stream_timeout,
        }
    }
}

impl<Request: Message, Response: Message> fmt::Debug for RpcClient<Request, Response> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcClient")
            .field("is_alive", &self.is_alive())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl<Request: Message, Response: Message> Drop for Handle<Request, Response> {
    fn drop(&mut self) {
        self.0.desert();
    }
}

/// A place for one call: what [`RpcClient::reserve`] waits for.
#[must_use = "a place that is not used is given back when it is dropped"]
pub struct CallPermit<Request: Message, Response: Message> {
    client: RpcClient<Request, Response>,
    /// Until a call has begun in it.
    index: Option<u32>,
}

impl<Request: Message, Response: Message> CallPermit<Request, Response> {
    /// As [`RpcClient::send_unary`].
    ///
    /// # Errors
    /// Those, but that there is a place.
    pub fn send_unary(
        mut self,
        request: Request,
    ) -> Result<UnaryCompletion<Response, Request>, Error> {
        let timeout = self.client.call_timeout;
        let index = self.submit(Kind::Unary, request, timeout)?;
        Ok(UnaryCompletion::new(self.client.table().clone(), index))
    }

    /// As [`RpcClient::send_streaming`].
    ///
    /// # Errors
    /// Those, but that there is a place.
    pub fn send_streaming(
        mut self,
        request: Request,
    ) -> Result<StreamingCompletion<Response, Request>, Error> {
        let timeout = self.client.stream_timeout;
        let index = self.submit(Kind::Streaming, request, timeout)?;
        Ok(StreamingCompletion::new(self.client.table().clone(), index))
    }

    fn submit(
        &mut self,
        kind: Kind,
        request: Request,
        timeout: Option<Duration>,
    ) -> Result<u32, Error> {
        let index = self.index.take().expect("a permit is used up by its call");
        self.client
            .table()
            .submit_reserved(index, kind, request, timeout)
    }
}

impl<Request: Message, Response: Message> Drop for CallPermit<Request, Response> {
    fn drop(&mut self) {
        if let Some(index) = self.index.take() {
            self.client.table().give_back(index);
        }
    }
}

impl<Request: Message, Response: Message> fmt::Debug for CallPermit<Request, Response> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallPermit").finish_non_exhaustive()
    }
}
