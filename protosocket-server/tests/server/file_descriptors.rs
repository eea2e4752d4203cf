//! D1 with real sockets, in a process whose descriptors run out.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use protosocket::{CloseReason, ConnectionObserver, ConnectionStats, PeerAddress, Refusal};
use protosocket_server::ProtosocketServerConfig;

use crate::{
    common::PATIENCE,
    process::{self, tell},
};

/// Set in the process that serves.
const SERVES: &str = "PROTOSOCKET_TEST_SERVES";
const NAME: &str =
    "file_descriptors::d1_a_server_without_descriptors_keeps_what_it_has_and_recovers";

/// Tells the other process what happens, a word per line.
#[derive(Debug, Default)]
struct Teller {
    lacks: AtomicBool,
}

impl ConnectionObserver for Teller {
    fn opened(&self, _: &PeerAddress) {
        tell("opened");
    }

    fn closed(&self, _: &PeerAddress, _: &CloseReason, _: &ConnectionStats) {
        tell("closed");
    }

    fn refused(&self, _: Option<&PeerAddress>, refusal: Refusal) {
        if refusal == Refusal::Resources && !self.lacks.swap(true, Ordering::Relaxed) {
            tell("lacks");
        }
    }
}

/// Serve until the other process is gone.
fn serve() {
    let teller = Arc::new(Teller::default());
    process::serve(ProtosocketServerConfig::default().observer(teller));
}

/// The process that serves, ended with its test.
struct Server {
    process: Child,
    words: Box<dyn Iterator<Item = String>>,
    opened: usize,
    closed: usize,
}

impl Server {
    /// Run this test again, in a process with `limit` descriptors.
    fn with_descriptors(limit: usize) -> Self {
        let program = env::current_exe().expect("a running program has a file");
        let mut process = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\""))
            .arg(program)
            .args(["--exact", NAME, "--nocapture"])
            .env(SERVES, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let output = process.stdout.take().expect("it is piped");
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let words = lines.filter_map(|line| line.strip_prefix('@').map(str::to_owned));
        Self {
            process,
            words: Box::new(words),
            opened: 0,
            closed: 0,
        }
    }

    /// The next thing that it tells.
    fn next(&mut self) -> String {
        let word = self.words.next().expect("the process lives");
        self.opened += usize::from(word == "opened");
        self.closed += usize::from(word == "closed");
        word
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is for the test to notice.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the kernel accepts");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it is a socket");
    stream
}

fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 7];
    stream.write_all(b"hello\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == *b"hello\r\n"
}

/// How soon clients are served again is asserted on a clock that stands still, where the longest
/// wait is half a second; here, that they are.
#[test]
fn d1_a_server_without_descriptors_keeps_what_it_has_and_recovers() {
    if env::var_os(SERVES).is_some() {
        return serve();
    }
    let mut server = Server::with_descriptors(64);
    let address: SocketAddr = server.next().parse().expect("it tells its address");

    let mut early: Vec<_> = (0..20).map(|_| connect(address)).collect();
    assert!(early.iter_mut().all(is_served));

    let flood: Vec<_> = (0..200).map(|_| connect(address)).collect();
    while server.next() != "lacks" {}
    assert!(early.iter_mut().all(is_served), "they notice nothing");

    // Those that find no descriptor are told, instead of hanging for as long as the lack lasts.
    let mut last = flood.last().expect("there are many");
    let told = last.read(&mut [0]);
    let told = told.map_err(|error| error.kind());
    assert!(
        matches!(told, Ok(0) | Err(io::ErrorKind::ConnectionReset)),
        "{told:?}"
    );
    assert!(early.iter_mut().all(is_served), "they notice nothing");

    // The descriptors are back when those of the flood that were served are closed.
    drop(flood);
    while server.opened == early.len() || server.closed != server.opened - early.len() {
        server.next();
    }
    let mut late = connect(address);
    assert!(is_served(&mut late));
    assert!(early.iter_mut().all(is_served));
}
