//! What an observer hears adds up: each connection is opened and closed, or refused, once.

use std::{collections::HashMap, sync::Arc};

use protosocket::{Refusal, SocketConnector, TcpOptions, TcpSocketListener, memory_listener};
use protosocket_server::ProtosocketServerConfig;

use crate::{
    common::{Client, Connector, Event, Record, lock, until},
    handshakes::greeted,
};

#[tokio::test]
async fn each_connection_is_opened_and_closed_or_refused_exactly_once() {
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default()
        .max_connections(20)
        .max_handshakes(3)
        .observer(record.clone());
    let address = "127.0.0.1:0".parse().expect("it is an address");
    let listener = TcpSocketListener::listen(address, TcpOptions::new()).expect("a port is free");
    let address = listener.local_address().expect("it is bound");
    let tasks = Arc::new(std::sync::Mutex::new(Vec::new()));
    let spawned = tasks.clone();
    let server = Connector::new()
        .spawning(move |connection| lock(&spawned).push(tokio::spawn(connection)))
        .serve(config, greeted(listener));

    let mut clients = Vec::new();
    for number in 0..60 {
        let mut client = Client::connect(address).await;
        match number % 6 {
            0 => client.send("phello").await,
            1 => client.send("ehello").await,
            2 => {}
            3 => client.send_raw(b"g").await,
            _ => {
                client.send("ghello").await;
                if client.line().await.is_some() && number % 12 == 4 {
                    drop(client);
                    continue;
                }
            }
        }
        clients.push(client);
    }
    // Some are dropped by their owner, in a handshake or after it, and some handshakes go on.
    let spawned = lock(&tasks).len();
    for number in 1..=3 {
        clients.push(Client::connect(address).await);
        until(|| lock(&tasks).len() == spawned + number).await;
    }
    for task in lock(&tasks).iter().rev().skip(2).take(10) {
        task.abort();
    }
    until(|| record.refused(Refusal::Dropped) > 0 && record.closed("dropped") > 0).await;
    drop(clients.split_off(clients.len() / 2));
    let report = server.drain().await;
    drop(clients);
    assert_eq!(report.stuck, 0, "{report}");

    let mut lives: HashMap<_, Vec<Event>> = HashMap::new();
    for event in record.events() {
        let peer = match &event {
            Event::Opened(peer) | Event::Closed(peer, _) | Event::Refused(Some(peer), _) => peer,
            Event::Refused(None, _) => panic!("a refusal without a peer: {event:?}"),
        };
        lives.entry(peer.clone()).or_default().push(event);
    }
    assert_eq!(lives.len(), 63, "nobody was forgotten");
    for refusal in [
        Refusal::Connections,
        Refusal::Handshakes,
        Refusal::Handshake,
        Refusal::Panicked,
        Refusal::Draining,
        Refusal::Dropped,
    ] {
        assert!(record.refused(refusal) > 0, "the test has no {refusal:?}");
    }
    for life in lives.values() {
        assert!(
            matches!(
                life[..],
                [Event::Opened(_), Event::Closed(..)] | [Event::Refused(..)]
            ),
            "{life:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_is_dropped_before_it_is_established_is_refused() {
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default().observer(record.clone());
    let (listener, connector) = memory_listener(64);
    let server = Connector::new().spawning(drop).serve(config, listener);
    let mut client = Client::new(connector.connect().await.expect("the server listens"));
    assert_eq!(client.line().await, None);
    server.has_connections(0).await;
    assert_eq!(record.refused(Refusal::Dropped), 1);
    assert_eq!(record.events().len(), 1);
}
