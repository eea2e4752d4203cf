//! The example's memcached with the clients that everyone has: libmemcached's conformance test and
//! load, and pymemcache.

use std::{
    env,
    net::SocketAddr,
    process::{Command, Output, Stdio},
    time::SystemTime,
};

use interop::programs::find;
use protosocket_memcached::server::Connector;
use protosocket_server::ProtosocketServerConfig;

#[path = "../../protocols/memcached/examples/server/memory.rs"]
mod memory;

/// Start our server, and run a program against it that ends by itself.
fn run(command: impl FnOnce(SocketAddr) -> Command) -> (String, bool) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let address = runtime.block_on(async {
        let cache = memory::Memory::new(64 << 20, SystemTime::now);
        let config = ProtosocketServerConfig::default();
        let connector = Connector::new(move |_| cache.clone());
        let server = config.bind_tcp(([127, 0, 0, 1], 0).into(), connector);
        let server = server.expect("a port is free");
        let listener = server.listener().expect("it is bound");
        let address = listener.local_address().expect("it is bound");
        tokio::spawn(server);
        address
    });
    let mut command = command(address);
    let Output {
        stdout,
        stderr,
        status,
    } = command.stdin(Stdio::null()).output().expect("it was found");
    let text = [stdout, stderr].concat();
    (
        String::from_utf8_lossy(&text).into_owned(),
        status.success(),
    )
}

/// A program that is ended if it takes too long.
fn limited(program: &str) -> Option<Command> {
    let mut command = Command::new(find("timeout")?);
    command.arg("60").arg(find(program)?);
    Some(command)
}

#[test]
fn memccapable_finds_nothing_that_the_text_protocol_lacks() {
    let Some(mut command) = limited("memccapable") else {
        return;
    };
    let (text, is_success) = run(|address| {
        let port = address.port().to_string();
        command.args(["-h", "127.0.0.1", "-p", &port, "-a", "-v"]);
        command
    });
    assert!(is_success, "{text}");
    assert!(text.contains("All tests passed"), "{text}");
    assert_eq!(text.matches("[pass]").count(), 27, "{text}");
}

#[test]
fn memcslap_stores_and_reads_from_four_threads() {
    for test in ["set", "get", "mget"] {
        let Some(mut command) = limited("memcslap") else {
            return;
        };
        let (text, is_success) = run(|address| {
            command.arg(format!("--servers={address}"));
            command.args(["--concurrency=4", "--execute-number=500"]);
            command.arg(format!("--test={test}"));
            command
        });
        assert!(is_success, "{text}");
        assert!(text.contains("2000 keys by"), "{text}");
        assert!(!text.to_lowercase().contains("fail"), "{text}");
    }
}

const SCRIPT: &str = r#"
import sys
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError
c = Client(("127.0.0.1", int(sys.argv[1])), default_noreply=False, timeout=30, connect_timeout=30)
assert c.set("a", b"1", expire=100, flags=7)
assert c.get("a") == b"1"
value, unique = c.gets("a")
assert value == b"1"
assert c.cas("a", b"2", unique) is True
assert c.cas("a", b"3", unique) is False
assert c.cas("none", b"3", unique) is None
assert c.incr("a", 5) == 7 and c.decr("a", 100) == 0 and c.incr("none", 1) is None
assert c.add("a", b"x") is False and c.replace("none", b"x") is False
assert c.append("a", b"!") and c.prepend("a", b">") and c.get("a") == b">0!"
assert c.set_many({"k%d" % i: b"v%d" % i for i in range(1000)}) == []
many = c.get_many(["k%d" % i for i in range(2000)])
assert many == {"k%d" % i: b"v%d" % i for i in range(1000)}
assert c.touch("a", 0) and not c.touch("none", 0)
big = bytes(range(256)) * 4096
assert c.set("big", big) and c.get("big") == big
try:
    c.set("big", big + b"x")
    sys.exit("a value above 1 MiB was stored")
except MemcacheServerError as error:
    assert b"too large" in error.args[0]
assert c.get("a") == b">0!"
assert c.delete("a") and not c.delete("a")
for i in range(1000):
    c.set("n%d" % i, b"v", noreply=True)
    c.incr("n%d" % i, 1, noreply=True)
    c.delete("k%d" % i, noreply=True)
assert c.get("n999") == b"v" and c.get("k1") is None
assert c.version().startswith(b"1.6") and c.stats()[b"curr_items"] == 1001
assert c.stats("settings")[b"item_size_max"] == 1048576
try:
    c.incr("n1", 1)
    sys.exit("what is no number was counted")
except MemcacheClientError:
    pass
assert c.flush_all() and c.get("n999") is None
c.quit()
print("done")
"#;

#[test]
fn pymemcache_gets_what_it_asks_for() {
    let python = env::var("PYTHON").unwrap_or("python3".into());
    let imported = Command::new(&python)
        .args(["-c", "import pymemcache"])
        .stderr(Stdio::null())
        .status();
    if !imported.is_ok_and(|status| status.success()) {
        assert!(env::var_os("CI").is_none(), "{python} has no pymemcache");
        eprintln!("SKIPPED: {python} has no pymemcache (PYTHON names another python)");
        return;
    }
    let (text, is_success) = run(|address| {
        let mut command = Command::new("timeout");
        command.args(["60", &python, "-c", SCRIPT, &address.port().to_string()]);
        command
    });
    assert!(is_success && text.contains("done"), "{text}");
}
