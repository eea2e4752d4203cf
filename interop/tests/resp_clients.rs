//! redis-cli, redis-benchmark and redis-py with the example's server, both versions of RESP.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use interop::programs::{Program, find, free_port};

/// The server of the example, which Cargo builds beside the tests of its own crate only.
fn server() -> (Program, u16) {
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "-q",
            "-p",
            "protosocket-resp",
            "--example",
            "resp-server",
        ])
        .status();
    assert!(built.expect("cargo runs").success(), "it builds");
    let own = env::current_exe().expect("this is a program");
    let folder = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let port = free_port();
    let mut command = Command::new(folder.join("examples/resp-server"));
    command.arg(format!("127.0.0.1:{port}"));
    (Program::serve(&mut command, port), port)
}

/// What a program says, which must end well.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it was found");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{problem}");
    text
}

fn cli(program: &PathBuf, port: u16, version: &[&str], arguments: &[&str]) -> String {
    let port = port.to_string();
    let mut command = Command::new(program);
    command.args(["-p", &port]).args(version).args(arguments);
    run(&mut command).trim_end().to_owned()
}

#[test]
fn redis_cli_speaks_both_versions() {
    let Some(program) = find("redis-cli") else {
        return;
    };
    let (_server, port) = server();
    for version in [&[][..], &["-3"][..]] {
        let say = |arguments: &[&str]| cli(&program, port, version, arguments);
        assert_eq!(say(&["FLUSHALL"]), "OK");
        assert_eq!(say(&["PING"]), "PONG");
        assert_eq!(say(&["ECHO", "a b"]), "a b");
        assert_eq!(say(&["SET", "key", "value", "EX", "100"]), "OK");
        assert_eq!(say(&["SET", "key", "other", "NX"]), "");
        assert_eq!(say(&["GET", "key"]), "value");
        assert_eq!(say(&["TTL", "key"]), "100");
        assert_eq!(say(&["MSET", "a", "1", "b", "2"]), "OK");
        assert_eq!(say(&["MGET", "a", "none", "b"]), "1\n\n2");
        assert_eq!(say(&["INCR", "a"]), "2");
        assert_eq!(say(&["DECR", "b"]), "1");
        assert!(say(&["INCR", "key"]).contains("not an integer"));
        assert_eq!(say(&["EXPIRE", "a", "-1"]), "1");
        assert_eq!(say(&["EXISTS", "a", "b", "key"]), "2");
        assert_eq!(say(&["DEL", "b", "none"]), "1");
        assert_eq!(say(&["TTL", "none"]), "-2");
        assert!(say(&["SELECT", "1"]).contains("out of range"));
        assert!(say(&["NONSENSE"]).contains("unknown command"));
        let hello = say(&["HELLO", "3"]);
        assert!(hello.contains("proto"), "{hello}");
    }
}

#[test]
fn redis_benchmark_comes_to_its_end() {
    let Some(program) = find("redis-benchmark") else {
        return;
    };
    let (_server, port) = server();
    for depth in ["1", "16"] {
        let mut command = Command::new(&program);
        let port = port.to_string();
        command.args(["-p", &port, "-n", "10000", "-P", depth, "-q", "-c", "20"]);
        command.args(["-t", "ping,set,get,incr,mset"]);
        let text = run(&mut command);
        let tests = [
            "PING_INLINE:",
            "PING_MBULK:",
            "SET:",
            "GET:",
            "INCR:",
            "MSET",
        ];
        for test in tests {
            assert!(text.contains(test), "{test} is missing: {text}");
        }
        assert!(!text.contains("rror"), "{text}");
    }
}

#[test]
fn redis_py_speaks_both_versions() {
    let python = env::var_os("PYTHON").unwrap_or("python3".into());
    let has_redis = Command::new(&python).args(["-c", "import redis"]).output();
    if !has_redis.is_ok_and(|output| output.status.success()) {
        assert!(env::var_os("CI").is_none(), "Python has no module redis");
        eprintln!("SKIPPED: {} has no module redis", python.display());
        return;
    }
    let (_server, port) = server();
    let script = r#"
import redis, sys
for protocol in (2, 3):
    r = redis.Redis(port=int(sys.argv[1]), protocol=protocol, client_name="py", socket_timeout=20)
    r.flushall()
    assert r.ping() and r.echo("x") == b"x" and r.client_getname() in ("py", b"py")
    assert r.set("key", "value", px=100000) and r.get("key") == b"value"
    assert 99000 < r.pttl("key") <= 100000 and r.ttl("none") == -2
    assert r.set("key", "other", nx=True) is None and r.set("key", "other", xx=True)
    large = b"x" * 1000000
    assert r.set("large", large) and r.get("large") == large
    assert r.mset({"a": 1, "b": 2}) and r.mget("a", "none", "b") == [b"1", None, b"2"]
    pipe = r.pipeline(transaction=False)
    for _ in range(1000):
        pipe.incr("n")
    assert pipe.execute() == list(range(1, 1001))
    try:
        r.incr("key")
        raise SystemExit("no error")
    except redis.ResponseError as error:
        assert "not an integer" in str(error)
    assert r.delete("a", "b", "c") == 2 and r.exists("a") == 0
    r.close()
print("done")
"#;
    let mut command = Command::new(python);
    command.args(["-c", script, &port.to_string()]);
    assert_eq!(run(&mut command).trim_end(), "done");
}
