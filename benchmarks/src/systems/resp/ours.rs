//! `ours`: this project in its default configuration, around a table behind a lock.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use protosocket::ReactorStatus;
use protosocket_resp::{Connector, Handler, Reply, Request};

use super::super::Server;
use super::super::ours::serve_tcp;

pub(in super::super) fn start() -> io::Result<Server> {
    let table = Arc::default();
    serve_tcp(Connector::new(move |_, _| Store(Arc::clone(&table))))
}

type Table = HashMap<Bytes, Bytes>;

struct Store(Arc<Mutex<Table>>);

impl Store {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no code that panics runs under it")
    }
}

impl Handler for Store {
    fn call(&mut self, request: &Request, reply: &mut Reply<'_>) -> ReactorStatus {
        let mut args = request.args();
        let name = args.next().unwrap_or_default();
        match (args.next(), args.next(), args.next()) {
            (Some(key), None, _) if name.eq_ignore_ascii_case(b"GET") => {
                match self.table().get(key) {
                    Some(value) => reply.payload(value.clone()),
                    None => reply.null(),
                }
            }
            (Some(key), Some(value), None) if name.eq_ignore_ascii_case(b"SET") => {
                self.table().insert(request.take(key), request.take(value));
                reply.ok();
            }
            _ => reply.error("ERR only GET and SET are measured"),
        }
        ReactorStatus::Continue
    }
}
