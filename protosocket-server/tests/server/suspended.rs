//! F24: a server that was stopped for longer than its deadlines reads what came meanwhile before it
//! acts on them.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use protosocket::{
    CloseReason, ConnectionObserver, ConnectionStats, Limits, PeerAddress, TcpSocketListener,
};
use protosocket_server::ProtosocketServerConfig;

use crate::common::{Connector, PATIENCE};

/// Set in the process that serves.
const SERVES: &str = "PROTOSOCKET_TEST_IS_SUSPENDED";
const NAME: &str = "suspended::f24_a_server_that_was_stopped_hears_its_clients_before_it_judges";

/// More than the runtime learns of at a time, which is 1,024 sockets, if there are descriptors for
/// so many.
fn how_many() -> usize {
    const WANTED: usize = 1_500;
    const OTHERS: usize = 100;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    limit.map_or(100, |limit| WANTED.min(limit.saturating_sub(OTHERS)))
}

/// Every deadline on a client, above what a busy machine takes between two of its lines, and what
/// the server is stopped for at the least.
const DEADLINE: Duration = Duration::from_secs(6);

/// Tells the other process of what should not happen.
#[derive(Debug)]
struct Teller;

#[expect(clippy::print_stdout, reason = "this is how the two processes talk")]
fn tell(what: &str) {
    println!("\n@{what}");
}

impl ConnectionObserver for Teller {
    fn closed(&self, _: &PeerAddress, reason: &CloseReason, _: &ConnectionStats) {
        tell(reason.name());
    }
}

/// Serve until the other process is gone.
fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .expect("there are descriptors for a runtime");
    runtime.block_on(async {
        let limits = Limits::server()
            .first_message_timeout(DEADLINE)
            .message_timeout(DEADLINE)
            .idle_timeout(DEADLINE)
            .write_timeout(DEADLINE);
        let server = ProtosocketServerConfig::default()
            .limits(limits)
            .observer(std::sync::Arc::new(Teller))
            .bind_tcp(
                SocketAddr::from(([127, 0, 0, 1], 0)),
                Connector::<TcpSocketListener>::new(),
            )
            .expect("a port is free");
        let address = server.listener().map(TcpSocketListener::local_address);
        let address = address.expect("it listens").expect("it is bound");
        tell(&address.to_string());
        let server = tokio::spawn(server);
        let end = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
        tokio::select! {
            _ = end => {}
            ended = server => panic!("the server has ended: {ended:?}"),
        }
    });
}

/// The process that serves, ended with its test.
struct Server(Child);

impl Server {
    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.expect("there is such a program").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is for the test to notice.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).is_ok() && answer == *b"hello\r\n"
}

#[test]
fn f24_a_server_that_was_stopped_hears_its_clients_before_it_judges() {
    if env::var_os(SERVES).is_some() {
        return serve();
    }
    let program = env::current_exe().expect("a running program has a file");
    let mut process = Command::new(program)
        .args(["--exact", NAME, "--nocapture"])
        .env(SERVES, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs already");
    let output = process.stdout.take().expect("it is piped");
    let server = Server(process);
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    let mut words = lines.filter_map(|line| line.strip_prefix('@').map(str::to_owned));
    let address = words.next().expect("it tells its address");
    let address: SocketAddr = address.parse().expect("it is an address");

    let mut clients: Vec<TcpStream> = Vec::new();
    for number in 0..how_many() {
        let mut client = TcpStream::connect(address).expect("the kernel accepts");
        client
            .set_read_timeout(Some(PATIENCE))
            .expect("it is a socket");
        // Silent, inside a message, and idle.
        client
            .write_all([&b""[..], b"hel", b"hello\n"][number % 3])
            .expect("it is open");
        clients.push(client);
    }
    for client in clients.iter_mut().skip(2).step_by(3) {
        assert!(is_served(client));
    }
    server.signal("-STOP");
    let stopped = Instant::now();
    for (number, client) in clients.iter_mut().enumerate() {
        let rest = [&b"hello\n"[..], b"lo\n", b"hello\n"][number % 3];
        client.write_all(rest).expect("the kernel takes it");
    }
    // The deadlines pass by a clock that no test can advance, and more than a second besides.
    while let Some(left) = (DEADLINE + Duration::from_secs(2)).checked_sub(stopped.elapsed()) {
        std::thread::park_timeout(left);
    }
    server.signal("-CONT");
    let served = clients
        .iter_mut()
        .filter_map(|client| is_served(client).then_some(()));
    assert_eq!(
        served.count(),
        how_many(),
        "the first end: {:?}",
        words.next()
    );
}
