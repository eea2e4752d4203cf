//! Servers behind a proxy: limits, observers and routes are about its clients.

use std::{
    collections::VecDeque,
    future::Ready,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use protosocket::{
    Accepted, Layered, Limits, ManualClock, PeerAddress, Refusal, SocketListener,
    StreamWithAddress,
    proxy::{Addresses, Network, Proxied, ProxyAcceptor, ProxyHeader},
};
use protosocket_server::{
    Protocol, ProtosocketServerConfig, Route, Routed, Routes, Sniffed, Sniffer,
};
use tokio::io::{DuplexStream, duplex};

use crate::common::{Client, Connector, Event, Record, Running, lock, until};

const PROXY: &str = "10.0.0.7:1";

/// A listener for connections from whatever address a test gives them.
#[derive(Clone, Default)]
struct Anywhere(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<StreamWithAddress<DuplexStream>>,
    waker: Option<Waker>,
}

impl Anywhere {
    fn connect(&self, from: &str) -> Client<DuplexStream> {
        let (near, far) = duplex(4096);
        let mut queue = lock(&self.0);
        queue
            .waiting
            .push_back(StreamWithAddress::new(far, address(from)));
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
        Client::new(near)
    }

    /// A connection through the proxy, whose client is there.
    async fn through_proxy(&self, client: &str) -> Client<DuplexStream> {
        let mut connection = self.connect(PROXY);
        connection.send_raw(&header(client)).await;
        connection
    }
}

impl SocketListener for Anywhere {
    type Stream = StreamWithAddress<DuplexStream>;
    type Establish = Ready<io::Result<Self::Stream>>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        let mut queue = lock(&self.0);
        let Some(stream) = queue.waiting.pop_front() else {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(Ok(Accepted {
            peer: stream.address().into(),
            establish: std::future::ready(Ok(stream)),
        }))
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("it is an address")
}

fn header(client: &str) -> Vec<u8> {
    let addresses = Addresses::tcp(address(client), address("198.51.100.1:443"));
    let header = ProxyHeader::proxy(addresses.expect("they are of one family"));
    header.to_v2().expect("it fits").to_vec()
}

fn acceptor() -> ProxyAcceptor {
    let trusted: Network = "10.0.0.0/8".parse().expect("it is a network");
    ProxyAcceptor::strict([trusted])
}

struct Served {
    anywhere: Anywhere,
    record: Arc<Record>,
    server: Running,
    seen: Arc<Mutex<Vec<ProxyHeader>>>,
}

fn serve(config: ProtosocketServerConfig, acceptor: ProxyAcceptor) -> Served {
    let anywhere = Anywhere::default();
    let record = Arc::new(Record::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = seen.clone();
    let connector = Connector::new().looking(move |stream: &Proxied<_>| {
        lock(&saw).extend(stream.header().cloned());
    });
    let listener = Layered::new(anywhere.clone(), acceptor);
    let server = connector.serve(config.observer(record.clone()), listener);
    Served {
        anywhere,
        record,
        server,
        seen,
    }
}

#[tokio::test]
async fn reactors_and_observers_are_told_of_the_client() {
    let served = serve(ProtosocketServerConfig::default(), acceptor());
    let mut client = served.anywhere.through_proxy("192.0.2.1:7").await;
    assert!(client.is_served().await);
    drop(client);
    served.server.has_connections(0).await;
    let peer = PeerAddress::Ip(address("192.0.2.1:7"));
    assert_eq!(
        served.record.events(),
        [
            Event::Opened(peer.clone()),
            Event::Closed(peer.clone(), "end_of_input")
        ]
    );
    assert_eq!(lock(&served.seen)[0].client(), Some(peer));
}

#[tokio::test]
async fn whoever_is_not_trusted_is_refused_by_its_own_address() {
    let served = serve(ProtosocketServerConfig::default(), acceptor());
    let mut stranger = served.anywhere.connect("203.0.113.9:1");
    assert_eq!(stranger.line().await, None);
    served.server.has_connections(0).await;
    let failures = served.record.failures();
    assert!(
        failures[0].contains("none of the proxies that are trusted"),
        "{failures:?}"
    );
    let peer = Some(PeerAddress::Ip(address("203.0.113.9:1")));
    assert_eq!(
        served.record.events(),
        [Event::Refused(peer, Refusal::Handshake)]
    );
}

#[tokio::test]
async fn limits_per_address_are_about_the_clients_of_a_proxy() {
    let config = ProtosocketServerConfig::default().max_connections_per_address(2);
    let served = serve(config, acceptor());
    // Connections that have not said whose they are, are those of nobody.
    let mut silent: Vec<_> = (0..5).map(|_| served.anywhere.connect(PROXY)).collect();
    served.server.has_connections(5).await;
    let mut clients = Vec::new();
    for client in ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "192.0.2.2:2"] {
        let mut client = served.anywhere.through_proxy(client).await;
        assert!(client.is_served().await);
        clients.push(client);
    }
    let mut third = served.anywhere.through_proxy("192.0.2.1:3").await;
    assert_eq!(third.line().await, None);
    served.server.has_connections(9).await;
    let peer = Some(PeerAddress::Ip(address("192.0.2.1:3")));
    let refused = Event::Refused(peer, Refusal::ConnectionsPerAddress);
    assert_eq!(served.record.events().last(), Some(&refused));
    // Who leaves makes room, for clients of the same address.
    drop(clients.remove(0));
    served.server.has_connections(8).await;
    let mut third = served.anywhere.through_proxy("192.0.2.1:3").await;
    assert!(third.is_served().await);
    // And the proxy's own connections are its own.
    let local = ProxyHeader::local().to_v2().expect("it fits");
    let mut answered = 0;
    for connection in &mut silent {
        connection.send_raw(&local).await;
        answered += usize::from(connection.is_served().await);
    }
    assert_eq!(answered, 2);
}

#[tokio::test]
async fn rates_per_address_are_about_the_clients_of_a_proxy() {
    let clock = ManualClock::new();
    let config = ProtosocketServerConfig::default()
        .clock(Arc::new(clock.clone()))
        .max_connection_rate_per_address(1, 2);
    let served = serve(config, acceptor());
    for (client, is_served) in [
        ("192.0.2.1:1", true),
        ("192.0.2.1:2", true),
        ("192.0.2.2:1", true),
        ("192.0.2.1:3", false),
    ] {
        let mut client = served.anywhere.through_proxy(client).await;
        assert_eq!(client.is_served().await, is_served);
    }
    assert_eq!(served.record.refused(Refusal::RatePerAddress), 1);
    clock.advance(Duration::from_secs(1));
    let mut client = served.anywhere.through_proxy("192.0.2.1:3").await;
    assert!(client.is_served().await);
}

#[tokio::test]
async fn the_program_is_asked_about_the_client_too() {
    let banned = address("192.0.2.66:1").ip();
    let config = ProtosocketServerConfig::default()
        .admit(move |peer| !matches!(peer, PeerAddress::Ip(address) if address.ip() == banned));
    let served = serve(config, acceptor());
    let mut client = served.anywhere.through_proxy("192.0.2.66:1").await;
    assert_eq!(client.line().await, None);
    served.server.has_connections(0).await;
    assert_eq!(served.record.refused(Refusal::Overload), 1);
    let mut client = served.anywhere.through_proxy("192.0.2.1:1").await;
    assert!(client.is_served().await);
}

#[tokio::test]
async fn f4_a_header_that_never_ends_is_cut_by_handshake_timeout() {
    let clock = ManualClock::new();
    let config = ProtosocketServerConfig::default()
        .limits(Limits::server().handshake_timeout(Duration::from_secs(10)))
        .clock(Arc::new(clock.clone()));
    let served = serve(config, acceptor());
    let mut slow = served.anywhere.connect(PROXY);
    until(|| clock.next_alarm().is_some()).await;
    for byte in b"PROXY TCP" {
        slow.send_raw(&[*byte]).await;
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(served.server.handle.connections(), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(slow.line().await, None);
    served.server.has_connections(0).await;
    assert_eq!(served.record.refused(Refusal::Handshake), 1);
}

#[tokio::test]
async fn a_header_stands_before_each_of_several_protocols() {
    type Port = Layered<Layered<Anywhere, ProxyAcceptor>, Sniffer>;
    let anywhere = Anywhere::default();
    let record = Arc::new(Record::default());
    let sniffer = Sniffer::new([Protocol::Ssh]).otherwise(Protocol::Named("lines"));
    let lines = |seen: &Arc<Mutex<Vec<String>>>| {
        let seen = seen.clone();
        Connector::<Routed<Sniffed<Proxied<_>>>>::new().looking(move |stream| {
            let header = stream.get_ref().header().and_then(ProxyHeader::client);
            lock(&seen).push(header.expect("it was sent").to_string());
        })
    };
    let seen = [Arc::<Mutex<Vec<String>>>::default(), Arc::default()];
    let routes = Routes::<Port>::new()
        .route(
            |stream| stream.protocol() == Protocol::Ssh,
            Route::to(lines(&seen[0])),
        )
        .otherwise(Route::to(lines(&seen[1])));
    let listener = Layered::new(Layered::new(anywhere.clone(), acceptor()), sniffer);
    let config = ProtosocketServerConfig::default()
        .max_connections_per_address(1)
        .observer(record.clone());
    let server = config.build_server(listener, routes);
    let server = Running::spawn(server.expect("the configuration is valid"));

    let mut ssh = anywhere.through_proxy("192.0.2.1:1").await;
    ssh.send("SSH-2.0-x").await;
    assert_eq!(ssh.line().await.as_deref(), Some("SSH-2.0-x"));
    let mut line = anywhere.through_proxy("192.0.2.2:1").await;
    assert!(line.is_served().await);
    assert_eq!(lock(&seen[0])[..], ["192.0.2.1:1"]);
    assert_eq!(lock(&seen[1])[..], ["192.0.2.2:1"]);
    let mut again = anywhere.through_proxy("192.0.2.1:2").await;
    assert!(!again.is_served().await);
    server.has_connections(2).await;
    assert_eq!(record.refused(Refusal::ConnectionsPerAddress), 1);
}
