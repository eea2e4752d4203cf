//! What connections come in through and are opened with: TCP, Unix sockets, pipes in memory.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use protosocket::{
    Limits, PeerAddress, SocketConnector, StreamWithAddress, TcpConnector, TcpOptions,
    TcpSocketListener, Transport, UnixConnector, UnixSocketListener, memory_listener,
};
use protosocket_server::ProtosocketServerConfig;

use crate::common::{Client, Connector, soon};

/// A path for a socket that no other test uses, removed with what is there.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        let name = format!("protosocket-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // The listener has removed it, usually.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn config() -> ProtosocketServerConfig {
    ProtosocketServerConfig::default()
}

fn listen(address: &str) -> (TcpSocketListener, SocketAddr) {
    let address = address.parse().expect("it is an address");
    let listener = TcpSocketListener::listen(address, TcpOptions::new()).expect("a port is free");
    let address = listener.local_address().expect("it is bound");
    (listener, address)
}

#[tokio::test]
async fn tcp_over_ipv4_and_ipv6_knows_its_peer() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let (listener, address) = listen(any);
        let server = Connector::new()
            .looking(|stream: &StreamWithAddress<_>| {
                assert!(stream.address().ip().is_loopback());
                assert_eq!(stream.peer_address(), PeerAddress::Ip(stream.address()));
            })
            .serve(config(), listener);
        let mut client = Client::connect(address).await;
        assert!(client.is_served().await, "{any}");
        drop(client);
        assert!(server.drain().await.stuck == 0);
    }
}

#[tokio::test]
async fn tcp_that_is_refused_says_where_and_why() {
    let (listener, address) = listen("127.0.0.1:0");
    drop(listener);
    let error = soon(TcpConnector::new(address).connect()).await;
    let error = error.expect_err("nobody listens");
    assert_eq!(error.source.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(error.address, PeerAddress::Ip(address));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

/// The clock jumps to the deadline when there is nothing else to wait for.
#[tokio::test(start_paused = true)]
async fn d13_tcp_that_nobody_answers_times_out() {
    let address = "127.0.0.1:0".parse().expect("it is an address");
    let options = TcpOptions::new().listen_backlog(1);
    let listener = TcpSocketListener::listen(address, options).expect("a port is free");
    let address = listener.local_address().expect("it is bound");
    // The kernel completes as many as fit into the backlog, and ignores the others.
    let full: Vec<_> = (0..2)
        .map(|_| std::net::TcpStream::connect(address).expect("the backlog has room"))
        .collect();
    let begun = tokio::time::Instant::now();
    let connector = TcpConnector::new(address).timeout(Duration::from_secs(7));
    let error = soon(connector.connect()).await.expect_err("nobody accepts");
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("connect_timeout"), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 7);
    drop(full);
}

#[tokio::test(start_paused = true)]
async fn d13_connectors_take_connect_timeout_from_their_limits() {
    let limits = Limits::client().connect_timeout(Duration::from_secs(3));
    let (_listener, connector) = memory_listener(64);
    let connector = connector.limits(&limits);
    let begun = tokio::time::Instant::now();
    let mut waiting = Vec::new();
    let error = loop {
        match connector.connect().await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn tcp_on_an_address_in_use_says_which() {
    let (_listener, address) = listen("127.0.0.1:0");
    let error = TcpSocketListener::listen(address, TcpOptions::new());
    let error = error.expect_err("it is in use");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn unix_connects_serves_and_removes_its_file() {
    let path = SocketPath::new("serves");
    let server = config().bind_unix(&path.0, Connector::<UnixSocketListener>::new());
    let server = server.expect("the path is free");
    let handle = server.handle();
    tokio::spawn(server);
    let stream = soon(UnixConnector::new(&path.0).connect()).await;
    let mut client = Client::new(stream.expect("the server listens"));
    assert!(client.is_served().await);
    let (report, end) = tokio::join!(soon(handle.drain(Duration::from_secs(9))), client.line());
    assert!(report.is_clean() && end.is_none(), "{report}");
    assert!(!path.0.exists());
}

#[tokio::test]
async fn unix_that_is_refused_or_not_there_says_where_and_why() {
    let path = SocketPath::new("refused");
    let connector = UnixConnector::new(&path.0);
    let error = soon(connector.connect()).await.expect_err("nobody listens");
    assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    // A listener that is gone without removing its file.
    drop(std::os::unix::net::UnixListener::bind(&path.0).expect("the path is free"));
    let error = soon(connector.connect()).await.expect_err("nobody listens");
    assert_eq!(error.source.kind(), io::ErrorKind::ConnectionRefused);
    let path = path.0.display().to_string();
    assert!(error.to_string().contains(&path), "{error}");
}

#[tokio::test]
async fn unix_replaces_the_file_of_a_listener_that_is_gone_and_no_other() {
    let path = SocketPath::new("stale");
    drop(std::os::unix::net::UnixListener::bind(&path.0).expect("the path is free"));
    assert!(path.0.exists());
    let listener = UnixSocketListener::listen(&path.0).expect("nobody listens there");
    let server = Connector::new().serve(config(), listener);
    let error = UnixSocketListener::listen(&path.0).expect_err("somebody listens there");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let stream = UnixConnector::new(&path.0).connect().await;
    let mut client = Client::new(stream.expect("the first still listens"));
    assert!(client.is_served().await);
    drop(client);
    server.drain().await;

    std::fs::write(&path.0, "not a socket").expect("the directory is writable");
    let error = UnixSocketListener::listen(&path.0).expect_err("a file is there");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let text = std::fs::read_to_string(&path.0).expect("it is there");
    assert_eq!(text, "not a socket");
}

#[tokio::test]
async fn unix_leaves_the_file_of_its_successor() {
    let path = SocketPath::new("successor");
    let first = UnixSocketListener::listen(&path.0).expect("the path is free");
    std::fs::remove_file(&path.0).expect("it is there");
    let second = UnixSocketListener::listen(&path.0).expect("the path is free");
    drop(first);
    let server = Connector::new().serve(config(), second);
    let stream = soon(UnixConnector::new(&path.0).connect()).await;
    assert!(Client::new(stream.expect("it listens")).is_served().await);
    assert!(!server.task.is_finished());
}

/// A full backlog blocks whoever asks on a blocking socket, so the look at whether a listener
/// lives must not.
#[tokio::test]
async fn unix_does_not_hang_on_a_live_listener_with_a_full_backlog() {
    let path = SocketPath::new("busy");
    let (_busy, _waiting) = busy_listener(&path);
    let at = path.0.clone();
    let error = soon(tokio::task::spawn_blocking(move || {
        UnixSocketListener::listen(at).map(drop)
    }));
    let error = error.await.expect("it does not panic");
    let error = error.expect_err("somebody listens there");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test(start_paused = true)]
async fn d13_unix_that_nobody_accepts_times_out_or_connects_when_there_is_room() {
    let path = SocketPath::new("timeout");
    let (busy, waiting) = busy_listener(&path);
    let connector = UnixConnector::new(&path.0).timeout(Duration::from_secs(7));
    let begun = tokio::time::Instant::now();
    let error = soon(connector.connect()).await.expect_err("nobody accepts");
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut, "{error}");
    assert_eq!(begun.elapsed().as_secs(), 7);
    let accept = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        busy.accept().expect("one is waiting")
    };
    let (connected, _accepted) = tokio::join!(connector.connect(), accept);
    connected.expect("there is room");
    drop(waiting);
}

/// A listener whose backlog is full, and those that fill it.
fn busy_listener(path: &SocketPath) -> (socket2::Socket, Vec<socket2::Socket>) {
    let address = socket2::SockAddr::unix(&path.0).expect("the path is short");
    let socket = || {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        socket.expect("there is a descriptor")
    };
    let listener = socket();
    listener.bind(&address).expect("the path is free");
    listener.listen(1).expect("it is bound");
    let mut waiting = Vec::new();
    loop {
        let client = socket();
        client.set_nonblocking(true).expect("it is a socket");
        match client.connect(&address) {
            Ok(()) => waiting.push(client),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                return (listener, waiting);
            }
        }
    }
}

#[tokio::test]
async fn memory_connects_serves_and_refuses_when_the_listener_is_gone() {
    let (listener, connector) = memory_listener(64);
    let server = Connector::new().serve(config(), listener);
    let stream = soon(connector.connect()).await.expect("it listens");
    assert_eq!(stream.peer_address(), PeerAddress::Memory);
    let mut client = Client::new(stream);
    assert!(client.is_served().await);
    let (report, end) = tokio::join!(server.drain(), client.line());
    assert!(report.is_clean() && end.is_none(), "{report}");
    let error = soon(connector.connect()).await.expect_err("it is gone");
    assert_eq!(error.source.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn d13_memory_that_nobody_accepts_times_out() {
    let (_listener, connector) = memory_listener(64);
    let mut waiting = Vec::new();
    let error = loop {
        match soon(connector.connect()).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
        assert!(waiting.len() < 10_000, "there is no bound");
    };
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut, "{error}");
}
