use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{Error, PipelineConfig, Protocol, table::Table};

/// Asks a server, from any task or thread. Cheap to clone.
///
/// The connection goes on for as long as there is a client, or a request that is not answered.
pub struct PipelineClient<P: Protocol> {
    handle: Arc<Handle<P>>,
    timeout: Option<Duration>,
}

/// What all clones share; the last of them takes it along.
struct Handle<P: Protocol>(Arc<Table<P>>);

impl<P: Protocol> PipelineClient<P> {
    pub(crate) fn new(table: Arc<Table<P>>, config: &PipelineConfig) -> Self {
        Self {
            handle: Arc::new(Handle(table)),
            timeout: config.request_timeout,
        }
    }

    /// Ask. The request is on its way with this call, whether the response is awaited at once, later
    /// or beside others; requests are sent in the order of these calls.
    ///
    /// Dropping the response gives up: a request that was not sent is not, and the reply to one that
    /// was is swallowed.
    pub fn request(&self, request: P::Request) -> Response<P> {
        let table = &self.handle.0;
        Response::new(table, table.submit(request, self.timeout))
    }

    /// Wait until another request may be queued, behind those that have waited for longer.
    ///
    /// # Errors
    /// The client takes no more requests: it has given up or was closed.
    pub async fn reserve(&self) -> Result<RequestPermit<P>, Error> {
        let index = self.handle.0.reserve().await?;
        Ok(RequestPermit {
            client: self.clone(),
            index: Some(index),
        })
    }

    /// A client whose requests may take so long, to be connected and answered; `None` is for as long
    /// as the connection lasts. With no time at all they end with
    /// [`DeadlineExceeded`](Error::DeadlineExceeded), and are not sent.
    #[must_use]
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        Self {
            handle: self.handle.clone(),
            timeout: timeout.into(),
        }
    }

    /// Take no more requests, of any clone; finish those that were taken, and then end the
    /// connection in order, and the driver with it. What is not done `within` that time fails with
    /// [`Error::Closed`]. The first call counts.
    pub fn close(&self, within: Duration) {
        self.handle.0.close(within);
    }

    /// Whether requests are taken. They may cease to be at any time.
    pub fn is_open(&self) -> bool {
        self.handle.0.is_open()
    }

    /// How many requests wait to be sent, and how many places in their queue are
    /// [reserved](Self::reserve).
    pub fn queued(&self) -> usize {
        self.handle.0.queued()
    }

    /// How many requests are not answered, or have replies that were not taken, and how many places
    /// are [reserved](Self::reserve).
    pub fn in_flight(&self) -> usize {
        self.handle.0.taken()
    }
}

impl<P: Protocol> Clone for PipelineClient<P> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            timeout: self.timeout,
        }
    }
}

impl<P: Protocol> fmt::Debug for PipelineClient<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineClient")
            .field("is_open", &self.is_open())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl<P: Protocol> Drop for Handle<P> {
    fn drop(&mut self) {
        self.0.desert();
    }
}

/// A place for one request: what [`PipelineClient::reserve`] waits for.
#[must_use = "a place that is not used is given back when it is dropped"]
pub struct RequestPermit<P: Protocol> {
    client: PipelineClient<P>,
    /// Until a request was entered in it.
    index: Option<u32>,
}

impl<P: Protocol> RequestPermit<P> {
    /// As [`PipelineClient::request`]; there is a place for it.
    pub fn request(mut self, request: P::Request) -> Response<P> {
        let index = self
            .index
            .take()
            .expect("a permit is used up by its request");
        let table = &self.client.handle.0;
        Response::new(
            table,
            table.submit_reserved(index, request, self.client.timeout),
        )
    }
}

impl<P: Protocol> Drop for RequestPermit<P> {
    fn drop(&mut self) {
        if let Some(index) = self.index.take() {
            self.client.handle.0.give_back(index);
        }
    }
}

impl<P: Protocol> fmt::Debug for RequestPermit<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestPermit").finish_non_exhaustive()
    }
}

/// The reply to a request, to be awaited.
#[must_use = "a request whose response is dropped is given up"]
pub struct Response<P: Protocol> {
    table: Arc<Table<P>>,
    state: State,
}

enum State {
    Begun(u32),
    Polled(u32),
    Refused(Error),
    Done,
}

impl<P: Protocol> Response<P> {
    fn new(table: &Arc<Table<P>>, entered: Result<u32, Error>) -> Self {
        Self {
            table: table.clone(),
            state: match entered {
                Ok(index) => State::Begun(index),
                Err(error) => State::Refused(error),
            },
        }
    }
}

// Nothing in it is ever pinned.
impl<P: Protocol> Unpin for Response<P> {}

impl<P: Protocol> Future for Response<P> {
    type Output = Result<P::Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (index, is_first) = match std::mem::replace(&mut self.state, State::Done) {
            State::Begun(index) => (index, true),
            State::Polled(index) => (index, false),
            State::Refused(error) => return Poll::Ready(Err(error)),
            State::Done => panic!("polled after it was done"),
        };
        let polled = self.table.poll_reply(index, is_first, cx);
        if polled.is_pending() {
            self.state = State::Polled(index);
        }
        polled
    }
}

impl<P: Protocol> Drop for Response<P> {
    fn drop(&mut self) {
        if let State::Begun(index) | State::Polled(index) = self.state {
            self.table.abandon(index);
        }
    }
}

impl<P: Protocol> fmt::Debug for Response<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("is_done", &matches!(self.state, State::Done))
            .finish_non_exhaustive()
    }
}
