//! F24: a server that was stopped for longer than its deadlines reads what came meanwhile before it
//! acts on them.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use protosocket::{CloseReason, ConnectionObserver, ConnectionStats, Limits, PeerAddress};
use protosocket_server::ProtosocketServerConfig;

use crate::{
    common::PATIENCE,
    process::{self, tell},
};

/// Set in the process that serves.
const SERVES: &str = "PROTOSOCKET_TEST_IS_SUSPENDED";
const NAME: &str = "suspended::f24_a_server_that_was_stopped_hears_its_clients_before_it_judges";

/// More than the runtime learns of at a time, which is 1,024 sockets, if there are descriptors for
/// so many.
fn how_many() -> usize {
    const WANTED: usize = 1_100;
    const OTHERS: usize = 100;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    limit.map_or(100, |limit| WANTED.min(limit.saturating_sub(OTHERS)))
}

/// Every deadline on a client, attempt by attempt, in seconds: what the server is stopped for at the
/// least, and above what it takes to open all connections before. A machine that takes longer gets
/// more.
const DEADLINES: [u64; 3] = [6, 20, 60];

/// Tells the other process of what should not happen.
#[derive(Debug)]
struct Teller;

impl ConnectionObserver for Teller {
    fn closed(&self, _: &PeerAddress, reason: &CloseReason, _: &ConnectionStats) {
        tell(reason.name());
    }
}

/// Serve until the other process is gone.
fn serve(deadline: Duration) {
    let limits = Limits::server()
        .first_message_timeout(deadline)
        .message_timeout(deadline)
        .idle_timeout(deadline)
        .write_timeout(deadline);
    process::serve(
        ProtosocketServerConfig::default()
            .limits(limits)
            .observer(std::sync::Arc::new(Teller)),
    );
}

/// The process that serves, ended with its test.
struct Server {
    process: Child,
    address: SocketAddr,
    /// Why connections ended, as far as it has told.
    ends: mpsc::Receiver<String>,
}

impl Server {
    fn start(deadline: u64) -> Self {
        let program = env::current_exe().expect("a running program has a file");
        let mut process = Command::new(program)
            .args(["--exact", NAME, "--nocapture"])
            .env(SERVES, deadline.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs already");
        let output = process.stdout.take().expect("it is piped");
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut words = lines.filter_map(|line| line.strip_prefix('@').map(str::to_owned));
        let address = words.next().expect("it tells its address");
        let (sender, ends) = mpsc::channel();
        thread::spawn(move || words.try_for_each(|word| sender.send(word)));
        Self {
            process,
            address: address.parse().expect("it is an address"),
            ends,
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.expect("there is such a program").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is for the test to notice.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).is_ok() && answer == *b"hello\r\n"
}

/// Open all connections, stop the server for longer than the deadline, and expect every client to be
/// served. `None` if the machine took so long to open them that deadlines may have passed before.
fn attempt(deadline: u64) -> Option<()> {
    let server = Server::start(deadline);
    let deadline = Duration::from_secs(deadline);
    let begun = Instant::now();
    let mut clients: Vec<TcpStream> = Vec::new();
    for number in 0..how_many() {
        let mut client = TcpStream::connect(server.address).expect("the kernel accepts");
        client
            .set_read_timeout(Some(PATIENCE))
            .expect("it is a socket");
        // Silent, inside a message, and idle. One that is closed already is not served below.
        let _ = client.write_all([&b""[..], b"hel", b"hello\n"][number % 3]);
        clients.push(client);
    }
    let idle = clients.iter_mut().skip(2).step_by(3);
    let closed = idle.filter_map(|client| (!is_served(client)).then_some(()));
    let closed = closed.count();
    server.signal("-STOP");
    let stopped = Instant::now();
    // Before that, no deadline of any client can have passed: the server must answer for every end.
    if stopped - begun >= deadline {
        return None;
    }
    assert_eq!(closed, 0, "not served before the server was stopped");
    for (number, client) in clients.iter_mut().enumerate() {
        let rest = [&b"hello\n"[..], b"lo\n", b"hello\n"][number % 3];
        let _ = client.write_all(rest);
    }
    // The deadlines pass by a clock that no test can advance, and more than a second besides.
    while let Some(left) = (deadline + Duration::from_secs(2)).checked_sub(stopped.elapsed()) {
        thread::park_timeout(left);
    }
    server.signal("-CONT");
    let served = clients
        .iter_mut()
        .filter_map(|client| is_served(client).then_some(()));
    let served = served.count();
    let ends: Vec<String> = server.ends.try_iter().take(1).collect();
    assert_eq!(served, how_many(), "the first end: {ends:?}");
    Some(())
}

#[test]
fn f24_a_server_that_was_stopped_hears_its_clients_before_it_judges() {
    if let Ok(deadline) = env::var(SERVES) {
        let deadline = deadline.parse().expect("it is a number of seconds");
        return serve(Duration::from_secs(deadline));
    }
    let fast_enough = DEADLINES.into_iter().find_map(attempt);
    fast_enough.expect("a minute is enough to open the connections");
}
