//! A server on a scripted stream, on a clock that stands still.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use protosocket::{Limits, channel};
use protosocket_memcached::{ServerCodec, server::Server};
use protosocket_testkit::{Driven, Setup};

#[path = "../examples/server/memory.rs"]
mod memory;

/// A server of the example's cache, and the cache's clock.
struct Served {
    connection: Driven<Server<memory::Memory>>,
    seconds: Arc<AtomicU64>,
}

/// The year 2024, in seconds.
const NOW: u64 = 1_704_067_200;

impl Served {
    fn new() -> Self {
        Self::with_memory(64 << 20)
    }

    fn with_memory(bytes: usize) -> Self {
        let seconds = Arc::new(AtomicU64::new(NOW));
        let clock = seconds.clone();
        let cache = memory::Memory::new(bytes, move || {
            let seconds = clock.load(Ordering::SeqCst);
            UNIX_EPOCH + Duration::from_secs(seconds)
        });
        let (sender, outbound) = channel::<Infallible>(1);
        drop(sender);
        let setup = Setup::limits(Limits::server());
        let connection = setup.drive(ServerCodec::default(), Server::new(cache), outbound);
        Self {
            connection,
            seconds,
        }
    }

    /// What it says to this.
    fn answer(&mut self, request: impl AsRef<[u8]>) -> String {
        self.connection.peer.forget_written();
        self.connection.peer.send(request);
        self.connection.settle();
        let written = self.connection.peer.written();
        String::from_utf8(written).expect("it is text")
    }

    fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    #[track_caller]
    fn expect(&mut self, request: &str, answer: &str) {
        let request = request.replace('\n', "\r\n");
        assert_eq!(
            self.answer(&request),
            answer.replace('\n', "\r\n"),
            "to {request:?}"
        );
    }
}

#[test]
fn each_command_has_its_answers() {
    let mut server = Served::new();
    for (request, answer) in [
        ("get a\n", "END\n"),
        ("replace a 1 0 1\nx\n", "NOT_STORED\n"),
        ("append a 1 0 1\nx\n", "NOT_STORED\n"),
        ("prepend a 1 0 1\nx\n", "NOT_STORED\n"),
        ("cas a 1 0 1 1\nx\n", "NOT_FOUND\n"),
        ("touch a 1\n", "NOT_FOUND\n"),
        ("incr a 1\n", "NOT_FOUND\n"),
        ("delete a\n", "NOT_FOUND\n"),
        ("add a 7 0 1\nb\n", "STORED\n"),
        ("add a 8 0 1\nx\n", "NOT_STORED\n"),
        // Flags stay as they are.
        ("append a 9 0 1\nc\n", "STORED\n"),
        ("prepend a 9 0 1\na\n", "STORED\n"),
        ("gets a\n", "VALUE a 7 3 3\nabc\nEND\n"),
        ("get x a y a\n", "VALUE a 7 3\nabc\nVALUE a 7 3\nabc\nEND\n"),
        ("cas a 1 0 1 2\nx\n", "EXISTS\n"),
        ("cas a 1 0 1 3\nx\n", "STORED\n"),
        ("gats 100 a\n", "VALUE a 1 1 4\nx\nEND\n"),
        ("touch a 0\n", "TOUCHED\n"),
        ("set a 0 0 0\n\n", "STORED\n"),
        ("get a\n", "VALUE a 0 0\n\nEND\n"),
        ("verbosity 1\n", "OK\n"),
        ("stats reset\n", "RESET\n"),
        ("stats nonsense\n", "ERROR\n"),
        (
            "stats settings\n",
            "STAT maxbytes 67108864\nSTAT item_size_max 1048576\nEND\n",
        ),
        ("delete a\nget a\n", "DELETED\nEND\n"),
        ("flush_all\n", "OK\n"),
    ] {
        server.expect(request, answer);
    }
    assert!(server.answer("version\r\n").starts_with("VERSION 1.6.0"));
    assert!(server.answer("stats\r\n").contains("STAT curr_items 0\r\n"));
    server.answer("get a\r\nquit\r\nget b\r\n");
    assert_eq!(server.connection.peer.written(), b"END\r\n");
}

#[test]
fn c3_what_wants_no_reply_gets_none() {
    let mut server = Served::new();
    let requests = "set a 0 0 1 noreply\n1\nadd a 0 0 1 noreply\n1\nreplace b 0 0 1 noreply\n1\n\
        append b 0 0 1 noreply\n1\nprepend b 0 0 1 noreply\n1\ncas a 0 0 1 99 noreply\n1\n\
        incr a 1 noreply\ndecr b 1 noreply\nincr a x noreply\ntouch b 0 noreply\n\
        delete b noreply\nverbosity 1 noreply\nset a x 0 1 noreply\n1\n";
    server.expect(requests, "");
    let too_large = format!("set a 0 0 2000000 noreply\r\n{}\r\n", "x".repeat(2_000_000));
    assert_eq!(server.answer(too_large), "");
    server.expect("get a\n", "VALUE a 0 1\n2\nEND\n");
    server.expect("flush_all noreply\nget a\n", "END\n");
}

#[test]
fn c7_counting_wraps_as_the_protocol_says_and_refuses_what_is_no_number() {
    let mut server = Served::new();
    server.expect(
        "set n 5 0 20\n18446744073709551614\nincr n 1\n",
        "STORED\n18446744073709551615\n",
    );
    server.expect("incr n 2\n", "1\n");
    server.expect("decr n 5\nget n\n", "0\nVALUE n 5 1\n0\nEND\n");
    let error = "CLIENT_ERROR cannot increment or decrement non-numeric value\n";
    for value in ["x", "-1", "1 ", "+1", "18446744073709551616", ""] {
        let set = format!("set n 0 0 {}\n{value}\n", value.len());
        server.expect(&set, "STORED\n");
        server.expect("incr n 1\n", error);
        server.expect("decr n 1\n", error);
        server.expect(
            "get n\n",
            &format!("VALUE n 0 {}\n{value}\nEND\n", value.len()),
        );
    }
    server.expect(
        "incr n 18446744073709551616\n",
        "CLIENT_ERROR invalid numeric delta argument\n",
    );
}

#[test]
fn items_expire_as_they_are_told() {
    let mut server = Served::new();
    let at = NOW + 3_000_000;
    server.expect(
        "set a 0 10 1\na\nset b 0 -1 1\nb\nset c 0 0 1\nc\n",
        "STORED\nSTORED\nSTORED\n",
    );
    server.expect(&format!("set d 0 {at} 1\nd\n"), "STORED\n");
    server.expect(
        "get a b c d\n",
        "VALUE a 0 1\na\nVALUE c 0 1\nc\nVALUE d 0 1\nd\nEND\n",
    );
    server.pass(9);
    server.expect("get a\n", "VALUE a 0 1\na\nEND\n");
    server.pass(1);
    server.expect("get a\nadd a 0 2592000 1\nA\n", "END\nSTORED\n");
    server.pass(2_592_000 - 1);
    server.expect("get a\n", "VALUE a 0 1\nA\nEND\n");
    server.pass(1);
    server.expect("get a d\ntouch d 5\n", "VALUE d 0 1\nd\nEND\nTOUCHED\n");
    server.pass(5);
    server.expect("get d c\n", "VALUE c 0 1\nc\nEND\n");
    server.expect("flush_all 10\nget c\n", "OK\nVALUE c 0 1\nc\nEND\n");
    server.pass(10);
    server.expect("get c\n", "END\n");
}

#[test]
fn above_its_memory_a_cache_evicts_what_was_used_longest_ago() {
    let mut server = Served::with_memory(10 * 1024);
    let value = "x".repeat(2000);
    for key in ["a", "b", "c", "d"] {
        server.expect(&format!("set {key} 0 0 2000\n{value}\n"), "STORED\n");
    }
    server.expect("get a\n", &format!("VALUE a 0 2000\n{value}\nEND\n"));
    server.expect(
        &format!("set e 0 0 2000\n{value}\nget b\n"),
        "STORED\nEND\n",
    );
    server.expect("touch a 0\n", "TOUCHED\n");
    let large = "x".repeat(11_000);
    let answer = "SERVER_ERROR out of memory storing object\n";
    server.expect(&format!("set f 0 0 11000\n{large}\n"), answer);
    server.expect("touch a 0\n", "TOUCHED\n");
}

#[test]
fn c2_an_item_that_is_too_large_is_stepped_over() {
    let mut server = Served::new();
    server.expect("set a 0 0 1\na\n", "STORED\n");
    assert_eq!(server.answer("set a 0 0 4000000\r\n"), "");
    let block = "y".repeat(100_000);
    for _ in 0..40 {
        assert_eq!(server.answer(&block), "");
    }
    server.expect(
        "\nget a\n",
        "SERVER_ERROR object too large for cache\nVALUE a 0 1\na\nEND\n",
    );
    let whole = "z".repeat(1024 * 1024);
    server.expect(&format!("set a 0 0 1048576\n{whole}\n"), "STORED\n");
    server.expect(
        "append a 0 0 1\na\n",
        "SERVER_ERROR object too large for cache\n",
    );
}

#[test]
fn c1_a_thousand_large_items_are_answered_as_the_client_reads() {
    let mut server = Served::new();
    let value = "x".repeat(1024 * 1024);
    server.expect(&format!("set a 0 0 1048576\n{value}\n"), "STORED\n");
    server.connection.peer.forget_written();
    server.connection.peer.set_window(0);
    let keys = " a".repeat(1000);
    server
        .connection
        .peer
        .send(format!("get{keys} b\r\nversion\r\n"));
    server.connection.settle();
    // The send buffer's limit, and the item that went over it.
    let waiting = server.connection.connection().stats();
    assert!(waiting.unsent <= 2, "{waiting:?}");
    let mut read = 0;
    while read < 1000 << 20 {
        server.connection.peer.open_window(64 << 20);
        server.connection.settle();
        let written = server.connection.peer.written_len();
        assert!(written > 0, "it stands still after {read} bytes");
        read += written;
        if read < 1000 << 20 {
            server.connection.peer.forget_written();
        }
    }
    server.connection.peer.open_window(64 << 20);
    server.connection.settle();
    let rest = server.connection.peer.written();
    assert!(rest.ends_with(b"\r\n"), "it is whole");
    let rest = String::from_utf8_lossy(&rest[rest.len() - 60..]).into_owned();
    assert!(rest.contains("END\r\nVERSION "), "{rest:?}");
}

#[test]
fn many_keys_that_are_not_there_are_looked_up_in_turns() {
    let mut server = Served::new();
    let keys = " k".repeat(100_000);
    assert_eq!(server.answer(format!("get{keys}\r\n")), "END\r\n");
    assert!(
        server.connection.polls() > 100,
        "{}",
        server.connection.polls()
    );
}

#[test]
fn a_client_that_has_half_closed_gets_everything() {
    let mut server = Served::new();
    server
        .connection
        .peer
        .send("set a 0 0 1\r\na\r\nget a b\r\n");
    server.connection.peer.end();
    server.connection.settle();
    let written = server.connection.peer.written();
    assert_eq!(written, b"STORED\r\nVALUE a 0 1\r\na\r\nEND\r\n");
    assert_eq!(server.connection.reason(), "end_of_input");
}

#[test]
fn where_framing_is_unsure_the_client_is_told_and_nothing_is_carried_out() {
    for (request, says) in [
        (
            "set a 0 0 1\r\nflush_all\r\nversion\r\n",
            "CLIENT_ERROR bad data chunk",
        ),
        (
            "set a b 0 0 1\r\nversion\r\nversion\r\n",
            "CLIENT_ERROR bad command line format",
        ),
        (
            "set a 0 0 99999999\r\nversion\r\n",
            "SERVER_ERROR object too large",
        ),
        (
            "POST / HTTP/1.1\r\nversion\r\n",
            "CLIENT_ERROR this is memcached",
        ),
        ("\u{16}version\r\n", "CLIENT_ERROR this is memcached"),
    ] {
        let mut server = Served::new();
        let answer = server.answer(request);
        assert!(answer.starts_with(says), "{answer}");
        assert_eq!(answer.matches("\r\n").count(), 1, "{answer}");
        server.connection.peer.end();
        server.connection.pass(Duration::from_secs(10));
        assert!(server.connection.is_ended(), "to {request:?}");
    }
}
