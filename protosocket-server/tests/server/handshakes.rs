//! D13 and D14: handshakes have a deadline and a bound, and one of them harms nobody else.

use std::{future::Future, io, pin::Pin, sync::Arc, task::Context, time::Duration};

use protosocket::{
    Establisher, Layered, Limits, ManualClock, MemoryListener, PeerAddress, Refusal,
    SocketConnector, StreamWithAddress, TcpOptions, TcpSocketListener, Transport, memory_listener,
};
use protosocket_server::ProtosocketServerConfig;
use tokio::io::{AsyncReadExt, DuplexStream};

use crate::common::{Client, Connector, Listener, Record, until};

/// Peers must greet with a byte before they are served: `g` is good, `p` makes the handshake panic,
/// and `e` makes it fail.
pub(crate) struct Greeting;

impl<S: Transport + Send> Establisher<S> for Greeting {
    type Stream = S;
    type Establish = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

    fn establish(&self, mut stream: S) -> Self::Establish {
        Box::pin(async move {
            match stream.read_u8().await? {
                b'g' => Ok(stream),
                b'p' => panic!("the test wants it"),
                other => Err(io::Error::other(format!("greeted with {other}"))),
            }
        })
    }
}

/// What a server listens on for peers that must greet.
pub(crate) fn greeted<L: Listener>(listener: L) -> Layered<L, Greeting> {
    Layered::new(listener, Greeting)
}

fn greeting() -> (
    Layered<MemoryListener, Greeting>,
    protosocket::MemoryConnector,
) {
    let (listener, connector) = memory_listener(1024);
    (greeted(listener), connector)
}

async fn connect(
    connector: &protosocket::MemoryConnector,
) -> Client<StreamWithAddress<DuplexStream, PeerAddress>> {
    Client::new(connector.connect().await.expect("the server listens"))
}

#[tokio::test]
async fn d13_a_handshake_that_never_ends_is_cut_by_handshake_timeout() {
    let clock = ManualClock::new();
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default()
        .limits(Limits::server().handshake_timeout(Duration::from_secs(10)))
        .clock(Arc::new(clock.clone()))
        .observer(record.clone());
    let address = "127.0.0.1:0".parse().expect("it is an address");
    let listener = TcpSocketListener::listen(address, TcpOptions::new()).expect("a port is free");
    let address = listener.local_address().expect("it is bound");
    let server = Connector::new().serve(config, greeted(listener));

    let mut silent = Client::connect(address).await;
    until(|| clock.next_alarm().is_some()).await;
    clock.advance(Duration::from_millis(9_999));
    tokio::task::yield_now().await;
    assert_eq!(server.handle.connections(), 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(silent.line().await, None);
    server.has_connections(0).await;
    assert_eq!(record.refused(Refusal::Handshake), 1);
    assert_eq!(record.events().len(), 1);
    let [failure] = &record.failures()[..] else {
        panic!("one failure: {record:?}");
    };
    assert!(failure.contains("handshake_timeout"), "{failure}");
}

#[tokio::test]
async fn d14_5000_stalled_handshakes_do_not_keep_a_good_client_out() {
    let (listener, connector) = greeting();
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default()
        .max_handshakes(1000)
        .observer(record.clone());
    let server = Connector::new().serve(config, listener);
    let mut early = connect(&connector).await;
    early.send("ghello").await;
    assert_eq!(early.line().await.as_deref(), Some("hello"));

    let mut stalled = Vec::new();
    for _ in 0..5000 {
        stalled.push(connect(&connector).await);
    }
    // The oldest made room.
    server.has_connections(1 + 1000).await;
    assert_eq!(record.refused(Refusal::Handshakes), 4000);
    let mut good = connect(&connector).await;
    good.send("ghello").await;
    assert_eq!(good.line().await.as_deref(), Some("hello"));
    assert!(early.is_served().await);
    for client in &mut stalled[..4000] {
        assert_eq!(client.line().await, None);
    }
    let mut survivor = stalled.pop().expect("there are many");
    survivor.send("ghello").await;
    assert_eq!(survivor.line().await.as_deref(), Some("hello"));
}

#[tokio::test]
async fn d14_a_handshake_that_panics_or_fails_ends_only_itself() {
    let (listener, connector) = greeting();
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default().observer(record.clone());
    let server = Connector::new().serve(config, listener);
    let mut early = connect(&connector).await;
    early.send("ghello").await;
    assert_eq!(early.line().await.as_deref(), Some("hello"));
    for (greeting, refusal) in [("p", Refusal::Panicked), ("e", Refusal::Handshake)] {
        let mut bad = connect(&connector).await;
        bad.send(greeting).await;
        assert_eq!(bad.line().await, None);
        server.has_connections(1).await;
        assert_eq!(record.refused(refusal), 1);
    }
    let failures = record.failures();
    assert_eq!(failures, ["memory: the handshake failed: greeted with 101"]);
    assert!(early.is_served().await);
    let mut late = connect(&connector).await;
    late.send("ghello").await;
    assert_eq!(late.line().await.as_deref(), Some("hello"));
    assert!(!server.task.is_finished());
}

#[tokio::test]
async fn a_handshake_that_made_room_is_counted_once_and_with_its_reason() {
    let (listener, connector) = greeting();
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default()
        .max_handshakes(1)
        .observer(record.clone());
    let server = Connector::new().serve(config, listener);
    let mut first = connect(&connector).await;
    server.has_connections(1).await;
    let _second = connect(&connector).await;
    assert_eq!(first.line().await, None);
    server.has_connections(1).await;
    assert_eq!(record.refused(Refusal::Handshakes), 1);
    assert_eq!(record.events().len(), 1, "{record:?}");
}

#[tokio::test]
async fn handshakes_that_were_told_to_make_room_take_none_of_it() {
    let (listener, connector) = greeting();
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default()
        .max_handshakes(2)
        .observer(record.clone());
    // Connections are polled by hand, so that those that were told to go are still there.
    let connections = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = connections.clone();
    let server = Connector::new()
        .spawning(move |connection| kept.lock().expect("nobody panics").push(connection))
        .serve(config, listener);
    let mut clients = Vec::new();
    for (number, connected) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
        clients.push(connect(&connector).await);
        server.has_connections(connected).await;
        let mut connections = connections.lock().expect("nobody panics");
        let newest = connections.last_mut().expect("it came");
        let polled = Pin::new(newest).poll(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(polled.is_pending());
        if number == 3 {
            // The second leaves by itself, while the first, which was told to, is still there.
            drop(connections.remove(1));
            clients.remove(1);
        }
    }
    // The third and fourth are within the bound.
    for client in &mut clients[1..] {
        client.send("ghello").await;
    }
    for connection in std::mem::take(&mut *connections.lock().expect("nobody panics")) {
        tokio::spawn(connection);
    }
    assert_eq!(clients[0].line().await, None);
    for client in &mut clients[1..] {
        assert_eq!(client.line().await.as_deref(), Some("hello"));
    }
    assert_eq!(record.refused(Refusal::Handshakes), 1);
}
