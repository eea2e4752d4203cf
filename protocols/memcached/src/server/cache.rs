use bytes::Bytes;

use crate::data::{Arithmetic, ErrorReply, Expiration, Key, Store};

/// What a server does with the requests of one connection.
///
/// Each request is answered before the next is looked at, so none of these may wait: a cache is in
/// memory. Connections share one by a handle that each of them has, behind a lock or on one thread.
///
/// Every answer can be an error instead: [`ErrorReply::client`] if the client is to blame,
/// [`ErrorReply::server`] if the cache is, and [`ErrorReply::Unknown`] for what it does not have.
/// Nobody hears of it if the client wants no reply.
pub trait Cache: 'static {
    /// The item under this key, if there is one that has not expired. If it is to be `touched`, it
    /// expires then from now on.
    ///
    /// A request for many items calls this for one after the other, as the client reads them.
    ///
    /// # Errors
    /// The client is told behind the items that it has got.
    fn retrieve(
        &mut self,
        key: &Key,
        touched: Option<Expiration>,
    ) -> Result<Option<Item>, ErrorReply>;

    /// Store an item, if its condition holds.
    ///
    /// # Errors
    /// An item that is too large is [`ErrorReply::TOO_LARGE`]: appended to, it can become that.
    fn store(&mut self, item: Store) -> Result<Stored, ErrorReply>;

    /// Delete the item under this key, and say whether there was one.
    ///
    /// # Errors
    /// The client is told.
    fn delete(&mut self, key: &Key) -> Result<bool, ErrorReply>;

    /// Count the item under this key, and say what it is then, if there is one.
    ///
    /// # Errors
    /// An item that is no decimal number of 64 bits is [`ErrorReply::NOT_A_NUMBER`].
    fn count(
        &mut self,
        key: &Key,
        operation: Arithmetic,
        delta: u64,
    ) -> Result<Option<u64>, ErrorReply>;

    /// Change when the item under this key expires, and say whether there is one.
    ///
    /// # Errors
    /// The client is told.
    fn touch(&mut self, key: &Key, expiration: Expiration) -> Result<bool, ErrorReply>;

    /// Let all items expire that are there `when` this is over; `None` is at once.
    ///
    /// # Errors
    /// The client is told.
    fn flush(&mut self, when: Option<Expiration>) -> Result<(), ErrorReply>;

    /// What is counted, of the group that is named behind `stats`, or in general. `reset` is a group
    /// as well: `Ok(None)` says that the figures begin anew.
    ///
    /// # Errors
    /// A group that there is not is [`ErrorReply::Unknown`], as it is by default.
    fn stats(&mut self, _group: Option<&[u8]>) -> Result<Option<Vec<Stat>>, ErrorReply> {
        Err(ErrorReply::Unknown)
    }

    /// How much is logged. By default nothing changes, which is no error.
    ///
    /// # Errors
    /// The client is told.
    fn verbosity(&mut self, _level: u32) -> Result<(), ErrorReply> {
        Ok(())
    }

    /// What `version` answers. Clients conclude from its number what a server knows, so it begins with
    /// that of the memcached whose text protocol this is, by default 1.6.0.
    fn version(&self) -> Bytes {
        Bytes::from_static(concat!("1.6.0-protosocket-", env!("CARGO_PKG_VERSION")).as_bytes())
    }
}

/// An item of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What the client keeps beside it.
    pub flags: u32,
    /// What was stored: from 16 KiB on it is sent without a copy.
    pub value: Bytes,
    /// Another number whenever the item changes.
    pub cas: u64,
}

/// What became of an item that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stored {
    /// It was stored.
    Stored,
    /// The condition of `add`, `replace`, `append` or `prepend` did not hold.
    NotStored,
    /// The item of `cas` has been changed meanwhile.
    Exists,
    /// The item of `cas` is not there.
    NotFound,
}

/// A name without blanks, and what is to be told under it.
pub type Stat = (Bytes, Bytes);
