use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use protosocket::{Reconnect, ReconnectError, SocketConnector};
use protosocket_pipeline::{PipelineClient, PipelineConfig};

use super::{Error, Memcached, Reply};
use crate::data::{
    Arithmetic, Expiration, Key, KeyError, Keys, Request, Response, Retrieve, Store, StoreMode,
    Value,
};

/// Asks a memcached, from any task or thread. Cheap to clone.
///
/// Calls of all clones share one connection and do not wait for each other: each is on its way with
/// the call, in the order of the calls, whether its future is awaited at once or beside others. A
/// connection that is lost is replaced; what was sent on it and not answered fails, and the error
/// says whether the server may have heard of it ([`Error::execution`]).
///
/// Keys are whatever can be a [`Key`]: a text, bytes, or a key. What cannot be one fails before
/// anything is sent.
#[derive(Debug, Clone)]
pub struct Client {
    pipeline: PipelineClient<Memcached>,
}

/// A value that is to be stored: bytes or text, with flags and an expiration if you like.
///
/// ```
/// use protosocket_memcached::{Expiration, client::NewValue};
///
/// let value = NewValue::new("text").flags(7).expiration(Expiration::PASSED);
/// let plain: NewValue = "text".into();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewValue {
    bytes: Bytes,
    flags: u32,
    expiration: Expiration,
}

/// What became of a value that was to be stored if nobody else changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Swapped {
    /// It was stored.
    Stored,
    /// Somebody has changed the item since it was retrieved.
    Changed,
    /// There is no such item any more.
    Missing,
}

impl Client {
    /// A client of the server that `reconnect` connects to, and its driver: a future to be spawned,
    /// without which nothing happens. It ends when the last client has been dropped and nothing is in
    /// flight.
    ///
    /// # Errors
    /// Those of the driver: no connection could be opened in as many attempts as `reconnect` allows.
    pub fn connect<C: SocketConnector>(
        reconnect: Reconnect<C>,
        config: &PipelineConfig,
    ) -> (
        Self,
        impl Future<Output = Result<(), Arc<ReconnectError>>> + use<C>,
    ) {
        let protocol = Memcached::default();
        let (pipeline, driver) = protosocket_pipeline::connect(reconnect, protocol, config);
        (Self::over(pipeline), driver)
    }

    /// A client whose pipeline was made otherwise: with another decoder, say.
    pub fn over(pipeline: PipelineClient<Memcached>) -> Self {
        Self { pipeline }
    }

    /// A client whose calls may take so long; `None` is for as long as the connection lasts.
    #[must_use]
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        Self::over(self.pipeline.with_timeout(timeout))
    }

    /// Take no more calls, of any clone, and end the connection when those that were taken are done,
    /// or after this time.
    pub fn close(&self, within: Duration) {
        self.pipeline.close(within);
    }

    /// The item under this key, if there is one.
    ///
    /// # Errors
    /// See [`Error`], which says who is to blame; so do all of these calls.
    pub fn get(&self, key: impl IntoKey) -> Call<Option<Value>> {
        self.retrieve_one(key, false, None)
    }

    /// As [`get`](Self::get), with the number that [`cas`](Self::cas) compares.
    pub fn gets(&self, key: impl IntoKey) -> Call<Option<Value>> {
        self.retrieve_one(key, true, None)
    }

    /// The item under this key, which expires then from now on.
    pub fn gat(&self, key: impl IntoKey, expiration: Expiration) -> Call<Option<Value>> {
        self.retrieve_one(key, false, Some(expiration))
    }

    /// As [`gat`](Self::gat), with the number that [`cas`](Self::cas) compares.
    pub fn gats(&self, key: impl IntoKey, expiration: Expiration) -> Call<Option<Value>> {
        self.retrieve_one(key, true, Some(expiration))
    }

    /// Those items that are there, in the order of the keys, and with the numbers that
    /// [`cas`](Self::cas) compares. Without keys nothing is asked.
    ///
    /// It is one request and one answer, so both are bounded: keys of 1 MiB together with a blank
    /// each, and items of [`Memcached::max_answer`].
    pub fn get_many<K: IntoKey>(&self, keys: impl IntoIterator<Item = K>) -> Call<Vec<Value>> {
        let keys: Result<Vec<Key>, KeyError> = keys.into_iter().map(K::into_key).collect();
        match keys {
            Ok(keys) if keys.is_empty() => Call::ended(Ok(Reply::Items(Vec::new())), items),
            keys => self.retrieve(keys.map(|keys| Keys::new(&keys)), true, None, items),
        }
    }

    /// Store a value in any case.
    pub fn set(&self, key: impl IntoKey, value: impl Into<NewValue>) -> Call<()> {
        self.store(StoreMode::Set, key, value.into(), drop)
    }

    /// Store a value if there is none under this key, and say whether it was.
    pub fn add(&self, key: impl IntoKey, value: impl Into<NewValue>) -> Call<bool> {
        self.store(StoreMode::Add, key, value.into(), is_stored)
    }

    /// Store a value if there is one under this key, and say whether it was.
    pub fn replace(&self, key: impl IntoKey, value: impl Into<NewValue>) -> Call<bool> {
        self.store(StoreMode::Replace, key, value.into(), is_stored)
    }

    /// Put bytes behind the value that is under this key, and say whether there was one.
    pub fn append(&self, key: impl IntoKey, bytes: impl Into<Bytes>) -> Call<bool> {
        self.store(StoreMode::Append, key, NewValue::new(bytes), is_stored)
    }

    /// Put bytes in front of the value that is under this key, and say whether there was one.
    pub fn prepend(&self, key: impl IntoKey, bytes: impl Into<Bytes>) -> Call<bool> {
        self.store(StoreMode::Prepend, key, NewValue::new(bytes), is_stored)
    }

    /// Store a value if the item is as it was when it was [retrieved](Self::gets) with this number.
    pub fn cas(&self, key: impl IntoKey, value: impl Into<NewValue>, unique: u64) -> Call<Swapped> {
        self.store(
            StoreMode::Cas(unique),
            key,
            value.into(),
            |reply| match reply {
                Reply::Line(Response::Stored) => Swapped::Stored,
                Reply::Line(Response::NotFound) => Swapped::Missing,
                _ => Swapped::Changed,
            },
        )
    }

    /// Delete an item, and say whether there was one.
    pub fn delete(&self, key: impl IntoKey) -> Call<bool> {
        let request = key.into_key().map(|key| Request::Delete {
            key,
            noreply: false,
        });
        self.call(request, |reply| reply == Reply::Line(Response::Deleted))
    }

    /// Count up an item that is a decimal number, and say what it is then, if there is one. Beyond the
    /// largest number of 64 bits it goes on from 0.
    pub fn incr(&self, key: impl IntoKey, delta: u64) -> Call<Option<u64>> {
        self.count(key, Arithmetic::Increment, delta)
    }

    /// Count down an item that is a decimal number, to 0 at the least, and say what it is then, if
    /// there is one.
    pub fn decr(&self, key: impl IntoKey, delta: u64) -> Call<Option<u64>> {
        self.count(key, Arithmetic::Decrement, delta)
    }

    /// Change when an item expires, and say whether there is one.
    pub fn touch(&self, key: impl IntoKey, expiration: Expiration) -> Call<bool> {
        let request = key.into_key().map(|key| Request::Touch {
            key,
            expiration,
            noreply: false,
        });
        self.call(request, |reply| reply == Reply::Line(Response::Touched))
    }

    /// Let all items expire that are there `when` this is over; `None` is at once.
    pub fn flush_all(&self, when: impl Into<Option<Expiration>>) -> Call<()> {
        let request = Request::FlushAll {
            when: when.into(),
            noreply: false,
        };
        self.call(Ok(request), drop)
    }

    /// Which server it is.
    pub fn version(&self) -> Call<Bytes> {
        self.call(Ok(Request::Version), |reply| match reply {
            Reply::Line(Response::Version(version)) => version,
            reply => unreachable!("{MATCHED}: {reply}"),
        })
    }

    /// What the server counts, in general or of a group: `items`, `slabs`, `settings` …
    pub fn stats(&self, group: Option<&str>) -> Call<Vec<(Bytes, Bytes)>> {
        let request = Request::Stats {
            group: group.map(|group| Bytes::copy_from_slice(group.as_bytes())),
        };
        self.call(Ok(request), |reply| match reply {
            Reply::Stats(stats) => stats,
            reply => unreachable!("{MATCHED}: {reply}"),
        })
    }

    /// Any request, such as one that wants no reply: that is answered with [`Reply::Nothing`] as soon
    /// as it has been handed to a connection.
    pub fn request(&self, request: Request) -> Call<Reply> {
        self.call(Ok(request), |reply| reply)
    }

    fn retrieve_one(
        &self,
        key: impl IntoKey,
        with_cas: bool,
        touch: Option<Expiration>,
    ) -> Call<Option<Value>> {
        let key = key.into_key().map(Keys::from);
        self.retrieve(key, with_cas, touch, |reply| items(reply).pop())
    }

    fn retrieve<T>(
        &self,
        keys: Result<Keys, KeyError>,
        with_cas: bool,
        touch: Option<Expiration>,
        convert: fn(Reply) -> T,
    ) -> Call<T> {
        let request = keys.map(|keys| {
            Request::Retrieve(Retrieve {
                keys,
                with_cas,
                touch,
            })
        });
        self.call(request, convert)
    }

    fn store<T>(
        &self,
        mode: StoreMode,
        key: impl IntoKey,
        value: NewValue,
        convert: fn(Reply) -> T,
    ) -> Call<T> {
        let request = key.into_key().map(|key| {
            Request::Store(Store {
                mode,
                key,
                flags: value.flags,
                expiration: value.expiration,
                value: value.bytes,
                noreply: false,
            })
        });
        self.call(request, convert)
    }

    fn count(&self, key: impl IntoKey, operation: Arithmetic, delta: u64) -> Call<Option<u64>> {
        let request = key.into_key().map(|key| Request::Arithmetic {
            key,
            operation,
            delta,
            noreply: false,
        });
        self.call(request, |reply| match reply {
            Reply::Line(Response::Number(number)) => Some(number),
            _ => None,
        })
    }

    fn call<T>(&self, request: Result<Request, KeyError>, convert: fn(Reply) -> T) -> Call<T> {
        match request {
            Ok(request) => Call {
                state: State::Begun(self.pipeline.request(request)),
                convert,
            },
            Err(error) => Call::ended(Err(error.into()), convert),
        }
    }
}

const MATCHED: &str = "an answer is matched with its request when it is received";

fn items(reply: Reply) -> Vec<Value> {
    match reply {
        Reply::Items(items) => items,
        reply => unreachable!("{MATCHED}: {reply}"),
    }
}

fn is_stored(reply: Reply) -> bool {
    reply == Reply::Line(Response::Stored)
}

/// A call that is on its way, to be awaited.
#[must_use = "a call that is dropped is given up"]
#[derive(Debug)]
pub struct Call<T> {
    state: State,
    /// What the caller makes of an answer that is no error.
    convert: fn(Reply) -> T,
}

#[derive(Debug)]
enum State {
    Begun(protosocket_pipeline::Response<Memcached>),
    Ended(Option<Result<Reply, Error>>),
}

impl<T> Call<T> {
    fn ended(result: Result<Reply, Error>, convert: fn(Reply) -> T) -> Self {
        let state = State::Ended(Some(result));
        Self { state, convert }
    }
}

impl<T> Future for Call<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.state {
            State::Begun(response) => ready!(Pin::new(response).poll(cx)).map_err(Error::from),
            State::Ended(result) => result.take().expect("it is not polled after it was done"),
        };
        Poll::Ready(match result? {
            Reply::Refused(error) => Err(error.into()),
            Reply::TooLarge(limit) => Err(Error::TooLarge { limit }),
            reply => Ok((self.convert)(reply)),
        })
    }
}

/// Whatever can be a [`Key`]: texts, bytes, and keys.
pub trait IntoKey {
    /// The key.
    ///
    /// # Errors
    /// The caller is to blame: it cannot be one.
    fn into_key(self) -> Result<Key, KeyError>;
}

impl<K: TryInto<Key, Error: Into<KeyError>>> IntoKey for K {
    fn into_key(self) -> Result<Key, KeyError> {
        self.try_into().map_err(Into::into)
    }
}

impl NewValue {
    /// Bytes without flags that are kept until they are deleted or evicted.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            flags: 0,
            expiration: Expiration::NEVER,
        }
    }

    /// What is kept beside the value, and means nothing to the server.
    #[must_use]
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// When it expires.
    #[must_use]
    pub fn expiration(mut self, expiration: Expiration) -> Self {
        self.expiration = expiration;
        self
    }
}

impl<B: Into<Bytes>> From<B> for NewValue {
    fn from(bytes: B) -> Self {
        Self::new(bytes)
    }
}
