//! D16: a panic in the code of one connection ends that connection, and nothing else.

use std::sync::Arc;

use protosocket::{Refusal, SocketConnector, memory_listener};
use protosocket_server::ProtosocketServerConfig;

use crate::common::{Client, Connector, Place, Record, lock, until};

/// What a panic in `place` does to a server with another connection, which must notice nothing.
async fn with_panic_in(place: Place) -> Arc<Record> {
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default().observer(record.clone());
    let (listener, connector) = memory_listener(1024);
    let served = Connector::new();
    let (panics, senders) = (served.panics.clone(), served.senders.clone());
    let server = served.serve(config, listener);
    let connect = || async { Client::new(connector.connect().await.expect("the server listens")) };

    let mut canary = connect().await;
    assert!(canary.is_served().await);
    *lock(&panics) = Some(place);
    let mut bad = connect().await;
    until(|| server.handle.connections() == 2 || record.refused(Refusal::Panicked) == 1).await;
    *lock(&panics) = None;
    if record.refused(Refusal::Panicked) == 0 {
        bad.send("boom").await;
        if place == Place::OnOutbound {
            assert_eq!(bad.line().await.as_deref(), Some("boom"));
            let sender = lock(&senders)[1].upgrade().expect("it lives");
            sender.send("boom".to_owned()).await.expect("it lives");
        }
        if place == Place::OnEnd {
            assert_eq!(bad.line().await.as_deref(), Some("boom"));
        } else {
            // One that panics after its answer has been written may have sent it.
            while let Some(line) = bad.line().await {
                assert_eq!(line, "boom");
            }
        }
        drop(bad);
    }
    server.has_connections(1).await;
    assert!(canary.is_served().await, "{place:?}");
    assert!(connect().await.is_served().await, "{place:?}");
    assert!(!server.task.is_finished(), "{place:?}");
    drop(canary);
    let report = server.drain().await;
    assert!(report.is_clean(), "{place:?}: {report}");
    record
}

#[tokio::test]
async fn d16_a_panic_on_the_way_to_a_connection_refuses_it() {
    for place in [Place::Codec, Place::NewReactor, Place::SpawnConnection] {
        let record = with_panic_in(place).await;
        assert_eq!(record.refused(Refusal::Panicked), 1, "{place:?}");
        assert_eq!(record.opened(), 2, "{place:?}");
    }
}

#[tokio::test]
async fn d16_a_panic_in_a_connection_ends_it_with_that_reason() {
    for place in [
        Place::Decode,
        Place::Encode,
        Place::OnInbound,
        Place::OnOutbound,
        Place::Poll,
        Place::PollReady,
        Place::PollOutbound,
        Place::InFlight,
    ] {
        let record = with_panic_in(place).await;
        assert_eq!(record.closed("panicked"), 1, "{place:?}: {record:?}");
        assert_eq!(record.opened(), 3, "{place:?}");
    }
}

#[tokio::test]
async fn d16_a_panic_at_the_end_of_a_connection_does_not_hide_how_it_ended() {
    let record = with_panic_in(Place::OnEnd).await;
    assert_eq!(record.closed("panicked"), 0, "{record:?}");
    let in_order = record.closed("end_of_input") + record.closed("drained");
    assert_eq!((record.opened(), in_order), (3, 3), "{record:?}");
}

/// The owner of a connection drops it, and its reactor panics while it is asked for what it
/// leaves behind. A second panic on the way out would end the whole program.
#[tokio::test]
async fn d16_a_dropped_connection_whose_reactor_panics_is_counted_all_the_same() {
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default().observer(record.clone());
    let (listener, connector) = memory_listener(1024);
    let tasks = Arc::new(std::sync::Mutex::new(Vec::new()));
    let spawned = tasks.clone();
    let served =
        Connector::new().spawning(move |connection| lock(&spawned).push(tokio::spawn(connection)));
    let panics = served.panics.clone();
    let server = served.serve(config, listener);
    let mut client = Client::new(connector.connect().await.expect("the server listens"));
    assert!(client.is_served().await);
    *lock(&panics) = Some(Place::InFlightNow);
    lock(&tasks)[0].abort();
    assert_eq!(client.line().await, None);
    server.has_connections(0).await;
    assert_eq!(record.closed("dropped"), 1, "{record:?}");
}
