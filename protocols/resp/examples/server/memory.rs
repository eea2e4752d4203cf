//! A key-value store in memory, and the commands that redis-cli, redis-benchmark and redis-py need.
#![expect(unreachable_pub, reason = "each program has it as a module of its own")]

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use protosocket::ReactorStatus;
use protosocket_resp::{Handler, Reply, Request};

/// Keys, and for some of them when they expire: found out when they are asked for, and by a sweep.
#[derive(Default)]
pub struct Store {
    entries: HashMap<Bytes, Entry>,
    /// Keys that expire, the next one first.
    volatile: BTreeSet<(Instant, Bytes)>,
}

struct Entry {
    value: Bytes,
    expires: Option<Instant>,
}

/// LIMIT: one small command may ask for the same large value a million times.
const LARGEST_REPLY: usize = 64 * 1024 * 1024;

/// LIMIT: how many keys one sweep removes, so that no command waits long for it.
const SWEPT: usize = 1000;

impl Store {
    fn get(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let expires = self.entries.get(key)?.expires;
        if expires.is_some_and(|at| at <= Instant::now()) {
            self.remove(key);
        }
        self.entries.get_mut(key)
    }

    fn set(&mut self, key: &[u8], value: Bytes, expires: Option<Instant>) {
        let entry = Entry { value, expires };
        match self.entries.get_mut(key) {
            Some(old) => {
                if let Some(at) = mem::replace(old, entry).expires {
                    self.volatile.remove(&(at, Bytes::copy_from_slice(key)));
                }
            }
            None => {
                self.entries.insert(Bytes::copy_from_slice(key), entry);
            }
        }
        let volatile = expires.map(|at| (at, Bytes::copy_from_slice(key)));
        self.volatile.extend(volatile);
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let removed = self.entries.remove_entry(key);
        if let Some((
            key,
            Entry {
                expires: Some(at), ..
            },
        )) = &removed
        {
            self.volatile.remove(&(*at, key.clone()));
        }
        removed.is_some()
    }

    /// Remove keys that have expired.
    pub fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT {
            match self.volatile.first() {
                Some((at, _)) if *at <= now => {}
                _ => return,
            }
            if let Some((_, key)) = self.volatile.pop_first() {
                self.entries.remove(&key);
            }
        }
    }
}

/// One client.
pub struct Session {
    store: Arc<Mutex<Store>>,
    name: Vec<u8>,
}

/// The line of an error that a command is answered with.
type Outcome = Result<(), &'static str>;

const NOT_A_NUMBER: &str = "ERR value is not an integer or out of range";
const SYNTAX: &str = "ERR syntax error";

impl Session {
    /// A client of this store.
    pub fn new(store: Arc<Mutex<Store>>) -> Self {
        let name = Vec::new();
        Self { store, name }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store
            .lock()
            .expect("no code that panics runs under it")
    }

    fn execute(&mut self, name: &[u8], request: &Request, reply: &mut Reply<'_>) -> Outcome {
        let mut args = request.args();
        args.next();
        match (name, request.len()) {
            (b"GET", 2) => match self.store().get(args.next().unwrap_or_default()) {
                Some(entry) => reply.payload(entry.value.clone()),
                None => reply.null(),
            },
            (b"SET", 3..) => return self.set(request, reply),
            (b"PING", 1) => reply.simple("PONG"),
            (b"PING" | b"ECHO", 2) => reply.bulk(args.next().unwrap_or_default()),
            (b"MGET", 2..) => {
                let mut store = self.store();
                let sizes = args
                    .clone()
                    .map(|key| store.get(key).map_or(0, |it| it.value.len()));
                if sizes.sum::<usize>() > LARGEST_REPLY {
                    return Err("ERR the reply would be larger than 64 MiB");
                }
                reply.array(args.len());
                args.for_each(|key| match store.get(key) {
                    Some(entry) => reply.payload(entry.value.clone()),
                    None => reply.null(),
                });
            }
            (b"MSET", 3..) if args.len().is_multiple_of(2) => {
                let mut store = self.store();
                while let (Some(key), Some(value)) = (args.next(), args.next()) {
                    store.set(key, request.take(value), None);
                }
                reply.ok();
            }
            (b"DEL" | b"UNLINK", 2..) => {
                let mut store = self.store();
                let deleted = |key: &&[u8]| store.get(key).is_some() && store.remove(key);
                reply.integer(args.filter(deleted).count() as i64);
            }
            (b"EXISTS", 2..) => {
                let mut store = self.store();
                reply.integer(args.filter(|key| store.get(key).is_some()).count() as i64);
            }
            (b"INCR", 2) => return self.add(request, 1, reply),
            (b"DECR", 2) => return self.add(request, -1, reply),
            (b"INCRBY", 3) => return self.add(request, number(args.nth(1))?, reply),
            (b"EXPIRE" | b"PEXPIRE", 3) => {
                let key = args.next().unwrap_or_default();
                let unit = if name[0] == b'P' { 1 } else { 1000 };
                let until = match number(args.next())? {
                    // What is to expire in the past is gone.
                    ..=0 => Instant::now(),
                    count => after(count, unit)?,
                };
                let mut store = self.store();
                let value = store.get(key).map(|entry| entry.value.clone());
                reply.integer(i64::from(value.is_some()));
                if let Some(value) = value {
                    store.set(key, value, Some(until));
                }
            }
            (b"TTL" | b"PTTL", 2) => {
                let unit = if name[0] == b'P' { 1 } else { 1000 };
                let mut store = self.store();
                reply.integer(match store.get(args.next().unwrap_or_default()) {
                    None => -2,
                    Some(Entry { expires: None, .. }) => -1,
                    Some(Entry {
                        expires: Some(at), ..
                    }) => {
                        let left = at.saturating_duration_since(Instant::now());
                        (left.as_millis() as i64 + unit / 2) / unit
                    }
                });
            }
            (b"DBSIZE", 1) => reply.integer(self.store().entries.len() as i64),
            (b"FLUSHALL" | b"FLUSHDB", _) => {
                *self.store() = Store::default();
                reply.ok();
            }
            (b"SELECT", 2) if args.next() == Some(b"0") => reply.ok(),
            (b"SELECT", 2) => return Err("ERR DB index is out of range"),
            // What tools ask before they begin.
            (b"CLIENT", 2..) => match args.next().map(<[u8]>::to_ascii_uppercase).as_deref() {
                Some(b"GETNAME") => reply.bulk(&self.name),
                Some(b"SETNAME") => {
                    self.name = args.next().unwrap_or_default().into();
                    reply.ok();
                }
                Some(b"ID") => reply.integer(1),
                _ => reply.ok(),
            },
            (b"COMMAND", _) => reply.array(0),
            (b"CONFIG", 3..)
                if args
                    .next()
                    .is_some_and(|it| it.eq_ignore_ascii_case(b"get")) =>
            {
                // redis-benchmark asks for two of them, one at a time, to print them.
                reply.map(args.len());
                args.for_each(|name| {
                    reply.bulk(name);
                    reply.bulk(b"");
                });
            }
            (b"INFO", _) => reply.verbatim(*b"txt", b"# Server\r\nredis_version:7.4.0\r\n"),
            _ => return Err("ERR unknown command, or wrong number of arguments for it"),
        }
        Ok(())
    }

    fn set(&mut self, request: &Request, reply: &mut Reply<'_>) -> Outcome {
        let mut args = request.args().skip(1);
        let (Some(key), Some(value)) = (args.next(), args.next()) else {
            return Err(SYNTAX);
        };
        let (mut expires, mut wanted) = (None, None);
        while let Some(option) = args.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"EX" if expires.is_none() => expires = Some(deadline(args.next(), 1000)?),
                b"PX" if expires.is_none() => expires = Some(deadline(args.next(), 1)?),
                b"NX" if wanted.is_none() => wanted = Some(false),
                b"XX" if wanted.is_none() => wanted = Some(true),
                _ => return Err(SYNTAX),
            }
        }
        let mut store = self.store();
        match wanted.is_none_or(|wanted| store.get(key).is_some() == wanted) {
            true => {
                store.set(key, request.take(value), expires);
                reply.ok();
            }
            false => reply.null(),
        }
        Ok(())
    }

    fn add(&mut self, request: &Request, by: i64, reply: &mut Reply<'_>) -> Outcome {
        let key = request.args().nth(1).unwrap_or_default();
        let mut store = self.store();
        let sum = match store.get(key) {
            None => Some(by),
            Some(entry) => {
                let sum = number(Some(&entry.value))?.checked_add(by);
                if let Some(sum) = sum {
                    entry.value = sum.to_string().into();
                    reply.integer(sum);
                    return Ok(());
                }
                None
            }
        };
        let sum = sum.ok_or("ERR increment or decrement would overflow")?;
        store.set(key, sum.to_string().into(), None);
        reply.integer(sum);
        Ok(())
    }
}

fn number(text: Option<&[u8]>) -> Result<i64, &'static str> {
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).ok_or(NOT_A_NUMBER)
}

/// So many times `unit` milliseconds from the present on.
fn deadline(count: Option<&[u8]>, unit: i64) -> Result<Instant, &'static str> {
    match number(count)? {
        ..=0 => Err(INVALID_EXPIRE),
        count => after(count, unit),
    }
}

/// So many units of milliseconds from now on.
fn after(count: i64, unit: i64) -> Result<Instant, &'static str> {
    let millis = count.checked_mul(unit).ok_or(INVALID_EXPIRE)?;
    let at = Instant::now().checked_add(Duration::from_millis(millis as u64));
    at.ok_or(INVALID_EXPIRE)
}

const INVALID_EXPIRE: &str = "ERR invalid expire time";

impl Handler for Session {
    fn call(&mut self, request: &Request, reply: &mut Reply<'_>) -> ReactorStatus {
        let mut name = [0; 16];
        let given = request.name();
        let length = given.len().min(name.len());
        let name = &mut name[..length];
        name.copy_from_slice(&given[..length]);
        name.make_ascii_uppercase();
        if let Err(line) = self.execute(name, request, reply) {
            reply.error(line);
        }
        ReactorStatus::Continue
    }

    fn set_name(&mut self, name: &[u8]) {
        self.name = name.into();
    }
}
