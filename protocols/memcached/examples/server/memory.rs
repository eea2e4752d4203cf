//! A cache in memory: bounded in bytes, the item that was used longest ago goes first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use protosocket_memcached::{
    Arithmetic, ErrorReply, Expiration, Key, Store, StoreMode,
    server::{Cache, Item, Stat, Stored},
};

/// The largest value, in bytes: as large as the decoder lets in.
const MAX_VALUE: usize = 1024 * 1024;

/// What an item takes beside its value and its key, which three tables have, in bytes: about what
/// their nodes take.
const OVERHEAD: usize = 256;

/// Items that have expired which one request removes at the most.
const SWEPT: usize = 16;

/// Values up to this size are copied out of the buffer that they arrived in, which holds others too and
/// would be kept by each of them, in bytes.
const COPIED: usize = 128 * 1024;

/// A handle of a cache, one for each connection.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Mutex<Items>>);

struct Items {
    by_key: HashMap<Key, Entry>,
    /// Which was used when, by a count of uses.
    by_use: BTreeMap<u64, Key>,
    /// Which expires when.
    by_expiration: BTreeSet<(SystemTime, Key)>,
    bytes: usize,
    max_bytes: usize,
    uses: u64,
    changes: u64,
    flushed_at: Option<SystemTime>,
    counters: Counters,
    clock: Box<dyn Fn() -> SystemTime + Send>,
    started: SystemTime,
}

struct Entry {
    flags: u32,
    value: Bytes,
    cas: u64,
    used: u64,
    expires: Option<SystemTime>,
}

#[derive(Default)]
struct Counters {
    gets: u64,
    hits: u64,
    sets: u64,
    touches: u64,
    flushes: u64,
    evictions: u64,
    expired: u64,
    stored: u64,
}

impl Memory {
    /// A cache of at most `max_bytes`, which takes the time from `clock`.
    pub(crate) fn new(max_bytes: usize, clock: impl Fn() -> SystemTime + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Items {
            by_key: HashMap::new(),
            by_use: BTreeMap::new(),
            by_expiration: BTreeSet::new(),
            bytes: 0,
            max_bytes,
            uses: 0,
            changes: 0,
            flushed_at: None,
            counters: Counters::default(),
            started: clock(),
            clock: Box::new(clock),
        })))
    }

    /// The items, as they are at this time.
    fn lock(&self) -> (MutexGuard<'_, Items>, SystemTime) {
        let mut items = self.0.lock().expect("nothing panics under the lock");
        let now = (items.clock)();
        items.expire(now);
        (items, now)
    }
}

impl Items {
    /// Remove some of what has expired, and everything if it was flushed.
    fn expire(&mut self, now: SystemTime) {
        if self.flushed_at.is_some_and(|at| at <= now) {
            self.flushed_at = None;
            self.by_key.clear();
            self.by_use.clear();
            self.by_expiration.clear();
            self.bytes = 0;
        }
        for _ in 0..SWEPT {
            match self.by_expiration.first() {
                Some((at, key)) if *at <= now => {
                    let key = key.clone();
                    self.remove(&key);
                    self.counters.expired += 1;
                }
                _ => break,
            }
        }
    }

    /// The item, if it has not expired. It becomes the one that was used last.
    fn get(&mut self, key: &Key, now: SystemTime) -> Option<&mut Entry> {
        if self.by_key.get(key)?.expires.is_some_and(|at| at <= now) {
            self.remove(key);
            self.counters.expired += 1;
            return None;
        }
        let entry = self.by_key.get_mut(key)?;
        self.uses += 1;
        let key = self.by_use.remove(&entry.used)?;
        entry.used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(entry)
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.by_key.remove(key)?;
        self.by_use.remove(&entry.used);
        if let Some(at) = entry.expires {
            self.by_expiration.remove(&(at, key.clone()));
        }
        self.bytes -= cost(key, &entry.value);
        Some(entry)
    }

    fn insert(
        &mut self,
        key: Key,
        flags: u32,
        value: Bytes,
        expires: Option<SystemTime>,
    ) -> Result<(), ErrorReply> {
        let cost = cost(&key, &value);
        if cost > self.max_bytes {
            return Err(ErrorReply::server("out of memory storing object"));
        }
        self.remove(&key);
        while self.bytes + cost > self.max_bytes
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
            self.counters.evictions += 1;
        }
        self.uses += 1;
        self.changes += 1;
        self.bytes += cost;
        self.counters.stored += 1;
        self.by_use.insert(self.uses, key.clone());
        if let Some(at) = expires {
            self.by_expiration.insert((at, key.clone()));
        }
        let entry = Entry {
            flags,
            value,
            cas: self.changes,
            used: self.uses,
            expires,
        };
        self.by_key.insert(key, entry);
        Ok(())
    }

    /// Change when an item expires.
    fn touch(&mut self, key: &Key, expires: Option<SystemTime>) {
        let Some(entry) = self.by_key.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut entry.expires, expires);
        if let Some(at) = before {
            self.by_expiration.remove(&(at, key.clone()));
        }
        if let Some(at) = expires {
            self.by_expiration.insert((at, key.clone()));
        }
    }
}

fn cost(key: &Key, value: &Bytes) -> usize {
    OVERHEAD + key.as_slice().len() + value.len()
}

/// The instant at which an item expires.
fn instant(expiration: Expiration, now: SystemTime) -> Option<SystemTime> {
    // What lies beyond the end of time never comes.
    expiration
        .remaining(now)
        .and_then(|time| now.checked_add(time))
}

impl Cache for Memory {
    fn retrieve(
        &mut self,
        key: &Key,
        touched: Option<Expiration>,
    ) -> Result<Option<Item>, ErrorReply> {
        let (mut items, now) = self.lock();
        items.counters.gets += 1;
        let item = items.get(key, now).map(|entry| Item {
            flags: entry.flags,
            value: entry.value.clone(),
            cas: entry.cas,
        });
        items.counters.hits += u64::from(item.is_some());
        if let Some(expiration) = touched {
            items.counters.touches += 1;
            items.touch(key, instant(expiration, now));
        }
        Ok(item)
    }

    fn store(&mut self, item: Store) -> Result<Stored, ErrorReply> {
        let (mut items, now) = self.lock();
        items.counters.sets += 1;
        let expires = instant(item.expiration, now);
        let value = match item.value.len() {
            ..=COPIED => Bytes::copy_from_slice(&item.value),
            _ => item.value,
        };
        let (flags, value, expires) = match (item.mode, items.get(&item.key, now)) {
            (StoreMode::Set, _) | (StoreMode::Add, None) | (StoreMode::Replace, Some(_)) => {
                (item.flags, value, expires)
            }
            (StoreMode::Cas(unique), Some(old)) if old.cas == unique => {
                (item.flags, value, expires)
            }
            (StoreMode::Cas(_), Some(_)) => return Ok(Stored::Exists),
            (StoreMode::Cas(_), None) => return Ok(Stored::NotFound),
            (StoreMode::Append, Some(old)) => (old.flags, joined(&old.value, &value)?, old.expires),
            (StoreMode::Prepend, Some(old)) => {
                (old.flags, joined(&value, &old.value)?, old.expires)
            }
            (StoreMode::Add, Some(_))
            | (StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, None) => {
                return Ok(Stored::NotStored);
            }
        };
        items.insert(item.key, flags, value, expires)?;
        Ok(Stored::Stored)
    }

    fn delete(&mut self, key: &Key) -> Result<bool, ErrorReply> {
        let (mut items, now) = self.lock();
        Ok(items.get(key, now).is_some() && items.remove(key).is_some())
    }

    fn count(
        &mut self,
        key: &Key,
        operation: Arithmetic,
        delta: u64,
    ) -> Result<Option<u64>, ErrorReply> {
        let (mut items, now) = self.lock();
        let Some(entry) = items.get(key, now) else {
            return Ok(None);
        };
        let number = std::str::from_utf8(&entry.value).ok();
        let number = number.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = number.and_then(|text| text.parse::<u64>().ok()) else {
            return Err(ErrorReply::NOT_A_NUMBER);
        };
        let number = match operation {
            Arithmetic::Increment => number.wrapping_add(delta),
            Arithmetic::Decrement => number.saturating_sub(delta),
        };
        let (flags, expires) = (entry.flags, entry.expires);
        items.insert(key.clone(), flags, number.to_string().into(), expires)?;
        Ok(Some(number))
    }

    fn touch(&mut self, key: &Key, expiration: Expiration) -> Result<bool, ErrorReply> {
        let (mut items, now) = self.lock();
        items.counters.touches += 1;
        let there = items.get(key, now).is_some();
        if there {
            items.touch(key, instant(expiration, now));
        }
        Ok(there)
    }

    fn flush(&mut self, when: Option<Expiration>) -> Result<(), ErrorReply> {
        let (mut items, now) = self.lock();
        items.counters.flushes += 1;
        items.flushed_at = match when {
            None => Some(now),
            Some(when) => instant(when, now),
        };
        items.expire(now);
        Ok(())
    }

    fn stats(&mut self, group: Option<&[u8]>) -> Result<Option<Vec<Stat>>, ErrorReply> {
        let version = self.version();
        let (mut items, now) = self.lock();
        let Counters {
            gets,
            hits,
            sets,
            touches,
            flushes,
            evictions,
            expired,
            stored,
        } = items.counters;
        let since = |then| {
            now.duration_since(then)
                .as_ref()
                .map_or(0, Duration::as_secs)
        };
        let count = items.by_key.len() as u64;
        let numbers: &[(&'static str, u64)] = match group {
            None => &[
                ("pid", std::process::id().into()),
                ("uptime", since(items.started)),
                ("time", since(UNIX_EPOCH)),
                ("cmd_get", gets),
                ("cmd_set", sets),
                ("cmd_touch", touches),
                ("cmd_flush", flushes),
                ("get_hits", hits),
                ("get_misses", gets - hits),
                ("curr_items", count),
                ("total_items", stored),
                ("bytes", items.bytes as u64),
                ("limit_maxbytes", items.max_bytes as u64),
                ("evictions", evictions),
                ("reclaimed", expired),
            ],
            Some(b"settings") => &[
                ("maxbytes", items.max_bytes as u64),
                ("item_size_max", MAX_VALUE as u64),
            ],
            // One class for all sizes.
            Some(b"items") if count > 0 => &[
                ("items:1:number", count),
                ("items:1:evicted", evictions),
                ("items:1:reclaimed", expired),
            ],
            Some(b"items" | b"sizes") => &[],
            Some(b"slabs") => &[
                ("active_slabs", u64::from(count > 0)),
                ("total_malloced", items.bytes as u64),
            ],
            Some(b"reset") => {
                items.counters = Counters::default();
                return Ok(None);
            }
            Some(_) => return Err(ErrorReply::Unknown),
        };
        let numbers = numbers
            .iter()
            .map(|(name, number)| (Bytes::from(*name), number.to_string().into()));
        let version = group.is_none().then_some((Bytes::from("version"), version));
        Ok(Some(version.into_iter().chain(numbers).collect()))
    }
}

fn joined(first: &Bytes, second: &Bytes) -> Result<Bytes, ErrorReply> {
    // LIMIT: MAX_VALUE.
    if first.len() + second.len() > MAX_VALUE {
        return Err(ErrorReply::TOO_LARGE);
    }
    let mut value = BytesMut::with_capacity(first.len() + second.len());
    value.extend_from_slice(first);
    value.extend_from_slice(second);
    Ok(value.freeze())
}
