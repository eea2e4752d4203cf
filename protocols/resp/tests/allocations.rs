//! What commands cost a busy server in memory: nothing but what its store keeps. In a program of its
//! own, because the allocator counts for all threads.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use memory::{Session, Store};
use protosocket::{Connection, ConnectionConfig, Limits, ManualClock, Sender, channel};
use protosocket_resp::{RequestDecoder, Server, ServerCodec, Value};
use protosocket_testkit::{
    CountingAllocator, INSTRUMENTED_SYSTEM, Repeater, RepeatingStream, Setup, alone,
    repeating_stream,
};

#[path = "../examples/server/memory.rs"]
mod memory;

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection whose client sends the same command again and again.
struct Busy {
    connection: Connection<RepeatingStream, Server<Session>>,
    peer: Repeater,
    flag: Arc<Flag>,
    _sender: Sender<Value>,
}

impl Busy {
    fn new(store: &Arc<Mutex<Store>>, command: &[u8]) -> Self {
        let (stream, peer) = repeating_stream(command);
        let (sender, receiver) = channel(4);
        let config = ConnectionConfig::server(Limits::server())
            .expect("the defaults are valid")
            .with_clock(Arc::new(ManualClock::new()));
        let codec = ServerCodec::new(RequestDecoder::new());
        let server = Server::new(Session::new(store.clone()));
        Self {
            connection: Connection::new(stream, codec, server, receiver, &config),
            peer,
            flag: Arc::new(Flag(AtomicBool::new(true))),
            _sender: sender,
        }
    }

    /// How often `count` commands allocate, growing a buffer included. Each has a reply of so many
    /// bytes.
    fn allocations(&mut self, count: usize, reply: usize) -> usize {
        let waker = Waker::from(self.flag.clone());
        let mut cx = Context::from_waker(&waker);
        let written = self.peer.written();
        let before = ALLOCATOR.stats();
        self.peer.send(count);
        while self.flag.0.swap(false, Ordering::Relaxed) {
            assert!(Pin::new(&mut self.connection).poll(&mut cx).is_pending());
        }
        let after = ALLOCATOR.stats() - before;
        assert_eq!(self.peer.written() - written, count * reply);
        after.allocations + after.reallocations
    }
}

/// 64 bytes each, which divide what a connection reads at once: the beginning of a command whose
/// rest is not there is kept in memory of its own.
const SET: &[u8] =
    b"*3\r\n$3\r\nSET\r\n$14\r\nkey:0123456789\r\n$23\r\n0123456789abcdefghijklm\r\n";
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$44\r\nkey:0123456789012345678901234567890123456789\r\n";
const SET_OF_GET: &[u8] =
    b"*3\r\n$3\r\nSET\r\n$44\r\nkey:0123456789012345678901234567890123456789\r\n$5\r\nvalue\r\n";

const FEW: usize = 2_000;

#[test]
fn getting_allocates_nothing() {
    assert_eq!(GET.len(), 64);
    alone("getting_allocates_nothing", || {
        let store = Arc::default();
        Busy::new(&store, SET_OF_GET).allocations(1, 5);
        let mut busy = Busy::new(&store, GET);
        let value = "$5\r\nvalue\r\n".len();
        // Buffers grow until they hold what waits at once.
        busy.allocations(10 * FEW, value);
        // The thread that has started this one may allocate in the beginning.
        let rounds = [(); 10].map(|()| busy.allocations(10 * FEW, value));
        assert!(rounds.contains(&0), "{rounds:?}");
    });
}

#[test]
fn setting_allocates_the_value() {
    assert_eq!(SET.len(), 64);
    alone("setting_allocates_the_value", || {
        let mut busy = Busy::new(&Arc::default(), SET);
        busy.allocations(10 * FEW, 5);
        let rounds = [(); 10].map(|()| busy.allocations(10 * FEW, 5));
        assert!(rounds.contains(&(10 * FEW)), "{rounds:?}");
    });
}

#[test]
fn a_key_that_is_deleted_and_set_again_does_not_expire() {
    let store = Arc::<Mutex<Store>>::default();
    let (_sender, receiver) = channel(1);
    let server = Server::new(Session::new(store.clone()));
    let codec = ServerCodec::new(RequestDecoder::new());
    let mut server = Setup::default().drive(codec, server, receiver);
    server.peer.send("SET a x EX 1000\r\nDEL a\r\nSET a y\r\n");
    server.settle();
    let later = Instant::now() + Duration::from_secs(2000);
    store.lock().unwrap().sweep(later);
    server.peer.send("GET a\r\nSET a z EX 1000\r\n");
    server.settle();
    store.lock().unwrap().sweep(later);
    server.peer.send("DBSIZE\r\n");
    server.settle();
    let said = String::from_utf8(server.peer.written()).unwrap();
    assert_eq!(said, "+OK\r\n:1\r\n+OK\r\n$1\r\ny\r\n+OK\r\n:0\r\n");
}

#[test]
fn a_time_that_is_none_changes_nothing_and_a_reply_has_a_limit() {
    let store = Arc::<Mutex<Store>>::default();
    let (_sender, receiver) = channel(1);
    let server = Server::new(Session::new(store.clone()));
    let codec = ServerCodec::new(RequestDecoder::new());
    let mut server = Setup::default().drive(codec, server, receiver);
    server
        .peer
        .send("SET a x\r\nEXPIRE a abc\r\nEXPIRE a 9223372036854775807\r\nGET a\r\n");
    server.peer.send("EXPIRE a -1\r\nGET a\r\n");
    server.settle();
    let said = String::from_utf8(server.peer.written()).unwrap();
    let lines: Vec<_> = said.lines().collect();
    let [set, no_number, too_late, size, value, gone, null] = lines[..] else {
        panic!("{said}");
    };
    assert_eq!(
        [set, size, value, gone, null],
        ["+OK", "$1", "x", ":1", "$-1"]
    );
    assert!(
        no_number.starts_with("-ERR") && too_late.starts_with("-ERR"),
        "{said}"
    );
    let value = "v".repeat(10_000);
    server.peer.send(format!(
        "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$10000\r\n{value}\r\n"
    ));
    server.peer.send(format!("MGET{}\r\n", " b".repeat(7_000)));
    server.settle();
    let said = String::from_utf8(server.peer.written()).unwrap();
    assert!(
        said.ends_with("-ERR the reply would be larger than 64 MiB\r\n"),
        "{} bytes",
        said.len()
    );
}
