//! D15: how many connections there are is bounded, in all and per address.

use std::sync::{Arc, Mutex, mpsc};

use protosocket::{MemoryListener, Refusal, SocketConnector, TcpConnector, memory_listener};
use protosocket_server::ProtosocketServerConfig;

use crate::common::{Client, Connector, PATIENCE, Record, lock, until};

fn config(record: &Arc<Record>) -> ProtosocketServerConfig {
    ProtosocketServerConfig::default().observer(record.clone())
}

#[tokio::test]
async fn d15_a_newcomer_above_max_connections_is_refused_while_all_have_spoken() {
    let record = Arc::new(Record::default());
    let (server, address) = Connector::new().serve_tcp(config(&record).max_connections(3));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(address).await;
        assert!(client.is_served().await);
        clients.push(client);
    }
    let mut refused = Client::connect(address).await;
    assert_eq!(refused.line().await, None);
    assert_eq!(record.refused(Refusal::Connections), 1);
    for client in &mut clients {
        assert!(client.is_served().await);
    }
    drop(clients.pop());
    server.has_connections(2).await;
    assert!(Client::connect(address).await.is_served().await);
    assert_eq!(record.refused(Refusal::Connections), 1);
}

#[tokio::test]
async fn d15_a_newcomer_takes_the_place_of_the_oldest_that_said_nothing() {
    let record = Arc::new(Record::default());
    let (server, address) = Connector::new().serve_tcp(config(&record).max_connections(3));
    let mut speaker = Client::connect(address).await;
    assert!(speaker.is_served().await);
    let mut silent = Client::connect(address).await;
    server.has_connections(2).await;
    let mut younger = Client::connect(address).await;
    server.has_connections(3).await;

    let mut newcomer = Client::connect(address).await;
    assert!(newcomer.is_served().await);
    assert_eq!(silent.line().await, None);
    assert_eq!(record.closed("aborted"), 1);
    assert!(speaker.is_served().await);
    assert!(younger.is_served().await);
    // Nobody is silent any more.
    assert_eq!(Client::connect(address).await.line().await, None);
    assert_eq!(record.refused(Refusal::Connections), 1);
}

#[tokio::test]
async fn d15_a_flood_of_the_silent_leaves_room_for_those_who_speak() {
    let record = Arc::new(Record::default());
    let (listener, connector) = memory_listener(1024);
    let server = Connector::new().serve(config(&record).max_connections(10), listener);
    let mut flood = Vec::new();
    let mut speakers = Vec::new();
    for _ in 0..5 {
        for _ in 0..100 {
            flood.push(connector.connect().await.expect("the server listens"));
        }
        let stream = connector.connect().await.expect("the server listens");
        let mut speaker = Client::new(stream);
        assert!(speaker.is_served().await);
        speakers.push(speaker);
    }
    for speaker in &mut speakers {
        assert!(speaker.is_served().await);
    }
    server.has_connections(10).await;
    assert_eq!(record.opened() + record.refused(Refusal::Connections), 505);
}

#[tokio::test]
async fn d15_an_address_has_as_many_connections_as_it_may() {
    let record = Arc::new(Record::default());
    let config = config(&record).max_connections_per_address(2);
    let (server, address) = Connector::new().serve_tcp(config);
    let [here, there] = ["127.0.0.1:0", "127.0.0.2:0"].map(|local| {
        let local = local.parse().expect("it is an address");
        TcpConnector::new(address).local_address(local)
    });
    let mut first = Client::connect_by(&here).await;
    let mut second = Client::connect_by(&here).await;
    assert!(first.is_served().await && second.is_served().await);
    assert_eq!(Client::connect_by(&here).await.line().await, None);
    assert_eq!(record.refused(Refusal::ConnectionsPerAddress), 1);
    assert!(Client::connect_by(&there).await.is_served().await);
    // A place that was given up can be taken again.
    drop(first);
    until(|| server.handle.connections() <= 2 && record.closed("end_of_input") == 2).await;
    server.has_connections(1).await;
    assert!(Client::connect_by(&here).await.is_served().await);
    assert!(second.is_served().await);
}

/// The message that a connection is just receiving comes too late to save it, and its place must
/// not be given away twice, nor be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d15_an_eviction_during_the_first_message_keeps_the_count_right() {
    let record = Arc::new(Record::default());
    let (listener, connector) = memory_listener(1024);
    // The victim stops inside its poll, where it has been evicted when it goes on.
    let (inside, is_inside) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let goes_on = Mutex::new(goes_on);
    let server = Connector::<MemoryListener>::new()
        .hearing(move |message| {
            if message == "wait" {
                inside.send(()).expect("the test waits for it");
                // An error says that the test has failed and is over.
                let _ = lock(&goes_on).recv();
            }
        })
        .serve(config(&record).max_connections(1), listener);
    let mut victim = Client::new(connector.connect().await.expect("the server listens"));
    victim.send("wait").await;
    let waited = is_inside.recv_timeout(PATIENCE);
    waited.expect("it hears the message");
    let mut newcomer = Client::new(connector.connect().await.expect("the server listens"));
    server.has_connections(2).await;
    go_on.send(()).expect("it waits");
    assert!(newcomer.is_served().await);
    drop((victim, newcomer));
    server.has_connections(0).await;
    for _ in 0..3 {
        let stream = connector.connect().await.expect("the server listens");
        assert!(Client::new(stream).is_served().await);
        server.has_connections(0).await;
    }
    assert_eq!(record.refused(Refusal::Connections), 0);
}
