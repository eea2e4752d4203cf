//! D26: socket options are honoured as they are set, on the listener and on what it accepts.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use protosocket::{
    Keepalive, SocketConnector, StreamWithAddress, TcpConnector, TcpOptions, TcpSocketListener,
};
use protosocket_server::{ProtosocketServerConfig, ProtosocketSocketConfig};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::common::{Client, Connector, lock};

/// What a connected socket says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Options {
    nodelay: bool,
    keepalive: Option<Keepalive>,
    user_timeout: Option<Duration>,
}

impl Options {
    fn of(stream: &StreamWithAddress<TcpStream>) -> Self {
        let socket = SockRef::from(stream.get_ref());
        let read = || -> io::Result<Self> {
            let keepalive = match socket.keepalive()? {
                true => Some(Keepalive {
                    time: socket.tcp_keepalive_time()?,
                    interval: socket.tcp_keepalive_interval()?,
                    count: socket.tcp_keepalive_retries()?,
                }),
                false => None,
            };
            Ok(Self {
                nodelay: socket.tcp_nodelay()?,
                keepalive,
                user_timeout: user_timeout(&socket)?,
            })
        };
        read().expect("it is a socket")
    }
}

#[cfg(target_os = "linux")]
fn user_timeout(socket: &SockRef<'_>) -> io::Result<Option<Duration>> {
    socket.tcp_user_timeout()
}

#[cfg(not(target_os = "linux"))]
fn user_timeout(_: &SockRef<'_>) -> io::Result<Option<Duration>> {
    Ok(None)
}

/// The options of a connection as the server accepts it, and as a connector opens it.
async fn options_with(config: TcpOptions) -> [Options; 2] {
    let seen = Arc::new(Mutex::new(None));
    let accepted = seen.clone();
    let socket_config: ProtosocketSocketConfig = config.clone();
    let (_server, address) = Connector::new()
        .looking(move |stream| *lock(&accepted) = Some(Options::of(stream)))
        .serve_tcp(ProtosocketServerConfig::default().socket_config(socket_config));
    let connector = TcpConnector::new(address).options(config);
    let stream = connector.connect().await.expect("the server listens");
    let opened = Options::of(&stream);
    assert!(Client::new(stream).is_served().await);
    let accepted = lock(&seen).expect("a connection was looked at");
    [accepted, opened]
}

fn listen(address: &str, options: TcpOptions) -> io::Result<TcpSocketListener> {
    TcpSocketListener::listen(address.parse().expect("it is an address"), options)
}

fn address_of(listener: &TcpSocketListener) -> SocketAddr {
    listener.local_address().expect("it is bound")
}

#[tokio::test]
async fn d26_nodelay_is_as_it_was_set() {
    for nodelay in [true, false] {
        for options in options_with(TcpOptions::new().nodelay(nodelay)).await {
            assert_eq!(options.nodelay, nodelay);
        }
    }
    assert!(options_with(TcpOptions::new()).await[0].nodelay);
}

#[tokio::test]
async fn d26_keepalive_is_as_it_was_set_or_off() {
    let keepalive = Keepalive {
        time: Duration::from_secs(77),
        interval: Duration::from_secs(5),
        count: 3,
    };
    for expected in [Some(keepalive), None, Some(Keepalive::DEFAULT)] {
        for options in options_with(TcpOptions::new().keepalive(expected)).await {
            assert_eq!(options.keepalive, expected);
        }
    }
    let default = options_with(TcpOptions::new()).await[0];
    assert_eq!(default.keepalive, Some(Keepalive::DEFAULT));
}

#[tokio::test]
async fn d26_reuse_address_is_as_it_was_set() {
    for reuse in [true, false] {
        let listener = listen("127.0.0.1:0", TcpOptions::new().reuse_address(reuse));
        let listener = listener.expect("a port is free");
        let set = SockRef::from(&listener).reuse_address();
        assert_eq!(set.expect("it is a socket"), reuse);
    }
}

#[tokio::test]
async fn d26_the_port_is_shared_only_on_request() {
    let alone = listen("127.0.0.1:0", TcpOptions::new()).expect("a port is free");
    assert!(!SockRef::from(&alone).reuse_port().expect("it is a socket"));
    let share = || TcpOptions::new().reuse_port(true);
    let taken = TcpSocketListener::listen(address_of(&alone), share());
    assert_eq!(
        taken.expect_err("it is not shared").kind(),
        io::ErrorKind::AddrInUse
    );

    let first = listen("127.0.0.1:0", share()).expect("a port is free");
    assert!(SockRef::from(&first).reuse_port().expect("it is a socket"));
    let second = TcpSocketListener::listen(address_of(&first), share());
    assert_eq!(
        address_of(&second.expect("it is shared")),
        address_of(&first)
    );
    let alone = TcpSocketListener::listen(address_of(&first), TcpOptions::new());
    assert_eq!(
        alone.expect_err("it does not share").kind(),
        io::ErrorKind::AddrInUse
    );
}

#[tokio::test]
async fn d26_only_v6_is_as_it_was_set() {
    for only in [true, false] {
        let listener = listen("[::]:0", TcpOptions::new().only_v6(only)).expect("a port is free");
        let set = SockRef::from(&listener).only_v6();
        assert_eq!(set.expect("it is a socket"), only);
        let v4 = SocketAddr::from(([127, 0, 0, 1], address_of(&listener).port()));
        assert_eq!(TcpConnector::new(v4).connect().await.is_ok(), !only);
    }
}

/// Nothing accepts here: the kernel completes as many connections as fit into the backlog, and
/// lets the others wait.
#[tokio::test]
async fn d26_the_backlog_is_as_it_was_set() {
    for (backlog, fit) in [(1, 2), (20, 21)] {
        let options = TcpOptions::new().listen_backlog(backlog);
        let listener = listen("127.0.0.1:0", options).expect("a port is free");
        let address = address_of(&listener);
        let mut connected = Vec::new();
        for _ in 0..fit {
            let stream = TcpConnector::new(address).connect().await;
            connected.push(stream.expect("the backlog has room"));
        }
        let patience = Duration::from_millis(200);
        let waits = TcpConnector::new(address).timeout(patience).connect().await;
        let error = waits.expect_err("the backlog is full");
        assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
    }
}

#[tokio::test]
async fn d26_a_connector_that_binds_reuses_its_address_as_it_was_told() {
    for reuse in [true, false] {
        let (_server, address) = Connector::new().serve_tcp(ProtosocketServerConfig::default());
        let options = TcpOptions::new().reuse_address(reuse).reuse_port(reuse);
        let connector = TcpConnector::new(address)
            .options(options)
            .local_address(SocketAddr::from(([127, 0, 0, 1], 0)));
        let stream = connector.connect().await.expect("the server listens");
        let socket = SockRef::from(stream.get_ref());
        assert_eq!(socket.reuse_address().expect("it is a socket"), reuse);
        assert_eq!(socket.reuse_port().expect("it is a socket"), reuse);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn f9_user_timeout_is_as_it_was_set_or_off() {
    let seconds = Duration::from_secs;
    for expected in [Some(seconds(7)), None, Some(seconds(120))] {
        for options in options_with(TcpOptions::new().user_timeout(expected)).await {
            assert_eq!(options.user_timeout, expected);
        }
    }
    for options in options_with(TcpOptions::new()).await {
        assert_eq!(options.user_timeout, Some(seconds(120)));
        assert_eq!(options.keepalive, Some(Keepalive::DEFAULT));
    }
}

#[tokio::test]
async fn c25_options_that_cannot_work_are_refused_by_name() {
    let keepalive = |change: fn(&mut Keepalive)| {
        let mut keepalive = Keepalive::DEFAULT;
        change(&mut keepalive);
        TcpOptions::new().keepalive(keepalive)
    };
    for (name, options) in [
        ("listen_backlog", TcpOptions::new().listen_backlog(0)),
        (
            "user_timeout",
            TcpOptions::new().user_timeout(Duration::ZERO),
        ),
        (
            "user_timeout",
            TcpOptions::new().user_timeout(Duration::MAX),
        ),
        ("keepalive.time", keepalive(|k| k.time = Duration::ZERO)),
        ("keepalive.time", keepalive(|k| k.time = Duration::MAX)),
        (
            "keepalive.interval",
            keepalive(|k| k.interval = Duration::from_millis(999)),
        ),
        ("keepalive.count", keepalive(|k| k.count = 0)),
        ("keepalive.count", keepalive(|k| k.count = 128)),
    ] {
        let error = listen("127.0.0.1:0", options.clone()).expect_err("it cannot work");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(name), "{error}");
        let connector = TcpConnector::new(SocketAddr::from(([127, 0, 0, 1], 9)));
        let error = connector.options(options).connect().await;
        let error = error.expect_err("it cannot work").source;
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

#[tokio::test]
async fn c25_bounds_of_zero_are_refused_by_name() {
    let config = ProtosocketServerConfig::default;
    for (name, config) in [
        ("max_connections ", config().max_connections(0)),
        ("max_handshakes ", config().max_handshakes(0)),
        (
            "max_connections_per_address ",
            config().max_connections_per_address(0),
        ),
        (
            "max_connection_rate_per_address ",
            config().max_connection_rate_per_address(0, 1),
        ),
        (
            "max_connection_rate_per_address ",
            config().max_connection_rate_per_address(1, 0),
        ),
        ("max_message_size ", config().max_buffer_length(0)),
    ] {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let error = config.bind_tcp(address, Connector::new());
        let error = error.expect_err("it cannot work");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

/// F19: the error says what and why, and nothing is tried again.
#[tokio::test]
async fn f19_an_address_that_cannot_be_bound_is_an_error_at_once() {
    let holder = listen("127.0.0.1:0", TcpOptions::new()).expect("a port is free");
    let taken = address_of(&holder).to_string();
    for (address, kind) in [
        (taken.as_str(), io::ErrorKind::AddrInUse),
        // For documentation: no host has this address.
        ("192.0.2.1:0", io::ErrorKind::AddrNotAvailable),
    ] {
        let bound = ProtosocketServerConfig::default()
            .bind_tcp(address.parse().expect("it is an address"), Connector::new());
        let error = bound.expect_err("it cannot be bound");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(address), "{error}");
    }
}
