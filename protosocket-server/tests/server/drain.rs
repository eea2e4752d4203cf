//! C5: a drain loses nothing that can be saved, ends when it is told to, and its report adds up.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use protosocket::{
    Limits, ManualClock, MemoryConnector, PeerAddress, Refusal, SocketConnector, StreamWithAddress,
    TcpOptions, TcpSocketListener, memory_listener,
};
use protosocket_server::{DrainReport, ProtosocketServerConfig};
use tokio::io::DuplexStream;

use crate::{
    common::{Client, Connector, Record, lock, soon, until},
    handshakes::greeted,
};

const DEADLINE: Duration = Duration::from_secs(20);

async fn connect(
    connector: &MemoryConnector,
) -> Client<StreamWithAddress<DuplexStream, PeerAddress>> {
    let stream = soon(connector.connect()).await;
    Client::new(stream.expect("the server listens"))
}

/// How many connections a report knows of.
fn total(report: &DrainReport) -> usize {
    report.finished + report.forced + report.failed + report.dropped + report.stuck
}

#[tokio::test]
async fn c5_1000_requests_in_flight_are_answered_and_none_is_lost() {
    let served = Connector::new();
    let gate = served.gate.clone();
    let (server, address) = served.serve_tcp(ProtosocketServerConfig::default());
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(address).await;
        for number in 0..20 {
            client.send(&format!("hold {number}")).await;
        }
        // Answered at once, so that the twenty before it have been received.
        assert!(client.is_served().await);
        clients.push(client);
    }

    let handle = server.handle.clone();
    let drain = tokio::spawn(async move { handle.drain(DEADLINE).await });
    let report = soon(server.task);
    until(|| std::net::TcpStream::connect(address).is_err()).await;
    assert!(!drain.is_finished(), "it waits for the answers");
    gate.open();
    for client in &mut clients {
        for number in 0..20 {
            assert_eq!(client.line().await, Some(number.to_string()));
        }
        assert_eq!(client.line().await, None);
    }
    drop(clients);
    let drained = soon(drain).await.expect("it does not panic");
    assert_eq!(drained.finished, 50, "{drained}");
    assert!(drained.is_clean(), "{drained}");
    assert_eq!(report.await.expect("it does not panic"), drained);
}

#[tokio::test]
async fn c5_the_deadline_forces_the_rest_and_the_report_counts_what_was_lost() {
    let clock = ManualClock::new();
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default()
        .clock(Arc::new(clock.clone()))
        .observer(record.clone());
    let (listener, connector) = memory_listener(64);
    let served = Connector::new();
    let senders = served.senders.clone();
    let server = served.serve(config, listener);

    // Three requests that are never answered.
    let mut waiting = connect(&connector).await;
    waiting.send("hold a\nhold b\nhold c").await;
    assert!(waiting.is_served().await);
    // Five messages to a peer that does not read, of which none fits into the pipe.
    let mut deaf = connect(&connector).await;
    assert!(deaf.is_served().await);
    let sender = lock(&senders)[1].upgrade().expect("it lives");
    for _ in 0..5 {
        let sent = sender.try_send("x".repeat(100));
        sent.expect("the channel has room");
    }
    drop(sender);
    // And one that has nothing to do.
    let mut idle = connect(&connector).await;
    assert!(idle.is_served().await);

    let handle = server.handle.clone();
    let drain = tokio::spawn(async move { handle.drain(DEADLINE).await });
    assert_eq!(idle.line().await, None);
    server.has_connections(2).await;
    clock.advance(DEADLINE - Duration::from_millis(1));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!drain.is_finished(), "there is a millisecond left");
    clock.advance(Duration::from_millis(1));
    let report = soon(drain).await.expect("it does not panic");
    assert_eq!((report.finished, report.forced), (1, 2), "{report}");
    assert_eq!((report.unanswered, report.unsent), (3, 5), "{report}");
    assert_eq!(total(&report), 3, "{report}");
    assert_eq!(report.elapsed, DEADLINE);
    assert!(!report.is_clean());
    assert_eq!(record.closed("drain_timeout"), 2);
}

#[tokio::test]
async fn c5_handshakes_are_ended_by_a_drain_and_count_as_dropped() {
    let record = Arc::new(Record::default());
    let config = ProtosocketServerConfig::default().observer(record.clone());
    let (listener, connector) = memory_listener(64);
    let server = Connector::new().serve(config, greeted(listener));
    let mut stalled = connect(&connector).await;
    let mut served = connect(&connector).await;
    served.send("ghello").await;
    assert_eq!(served.line().await.as_deref(), Some("hello"));
    server.has_connections(2).await;
    let report = server.drain().await;
    assert_eq!((report.finished, report.dropped), (1, 1), "{report}");
    assert_eq!(total(&report), 2);
    assert_eq!(stalled.line().await, None);
    assert_eq!(record.refused(Refusal::Draining), 1);
}

#[tokio::test]
async fn c5_draining_again_gives_the_same_report() {
    let (listener, connector) = memory_listener(64);
    let server = Connector::new().serve(ProtosocketServerConfig::default(), listener);
    let mut client = connect(&connector).await;
    assert!(client.is_served().await);
    let (first, second) = tokio::join!(server.drain(), server.drain());
    assert_eq!(first, second);
    assert_eq!(server.drain().await, first);
    assert_eq!(soon(server.task).await.expect("it does not panic"), first);
    assert_eq!(first.finished, 1, "{first}");
}

#[tokio::test]
async fn c5_a_drain_may_take_for_ever() {
    let (listener, connector) = memory_listener(64);
    let server = Connector::new().serve(ProtosocketServerConfig::default(), listener);
    let mut client = connect(&connector).await;
    assert!(client.is_served().await);
    let report = server.handle.drain(Duration::MAX).await;
    assert_eq!(report.finished, 1, "{report}");
}

#[tokio::test]
async fn c5_of_two_drains_the_earlier_deadline_counts() {
    let clock = ManualClock::new();
    let config = ProtosocketServerConfig::default().clock(Arc::new(clock.clone()));
    let (listener, connector) = memory_listener(64);
    let server = Connector::new().serve(config, listener);
    let mut client = connect(&connector).await;
    client.send("hold for ever").await;
    assert!(client.is_served().await);
    let drains = [60, 10, 30].map(|seconds| {
        let handle = server.handle.clone();
        tokio::spawn(async move { handle.drain(Duration::from_secs(seconds)).await })
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(10));
    for drain in drains {
        let report = soon(drain).await.expect("it does not panic");
        assert_eq!((report.forced, report.unanswered), (1, 1), "{report}");
        assert_eq!(report.elapsed, Duration::from_secs(10));
    }
}

#[tokio::test]
async fn c5_the_port_can_be_bound_at_once_after_a_drain() {
    let (server, address) = Connector::new().serve_tcp(ProtosocketServerConfig::default());
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect(address).await;
        assert!(client.is_served().await);
        clients.push(client);
    }
    let mut readers = tokio::task::JoinSet::new();
    for mut client in clients {
        readers.spawn(async move { client.line().await });
    }
    let report = server.drain().await;
    assert!(report.is_clean(), "{report}");
    // The server closed first, so its side of these connections is in TIME_WAIT.
    let listener = TcpSocketListener::listen(address, TcpOptions::new()).expect("the port is free");
    Connector::new().serve(ProtosocketServerConfig::default(), listener);
    assert!(Client::connect(address).await.is_served().await);
}

#[tokio::test]
async fn c5_connections_of_a_server_that_was_dropped_are_drained_by_its_handle() {
    let (server, address) = Connector::new().serve_tcp(ProtosocketServerConfig::default());
    let mut client = Client::connect(address).await;
    assert!(client.is_served().await);
    server.task.abort();
    assert!(soon(server.task).await.is_err());
    // The listener is closed, and connections live on.
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(client.is_served().await);
    let (report, end) = tokio::join!(soon(server.handle.drain(DEADLINE)), client.line());
    assert_eq!(end, None);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.finished, 1);
}

#[tokio::test]
async fn c5_a_connection_that_its_owner_drops_during_the_drain_counts_as_dropped() {
    let (listener, connector) = memory_listener(64);
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let spawned = tasks.clone();
    let server = Connector::new()
        .spawning(move |connection| lock(&spawned).push(tokio::spawn(connection)))
        .serve(ProtosocketServerConfig::default(), listener);
    let mut client = connect(&connector).await;
    client.send("hold a\nhold b").await;
    assert!(client.is_served().await);
    let mut drain = pin!(server.handle.drain(DEADLINE));
    assert!(
        drain
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    lock(&tasks)[0].abort();
    let report = soon(drain).await;
    assert_eq!((report.dropped, report.unanswered), (1, 2), "{report}");
    assert_eq!(total(&report), 1);
    assert_eq!(client.line().await, None);
}

#[tokio::test]
async fn c5_connections_that_nobody_polls_are_stuck_and_end_no_drain_late() {
    let clock = ManualClock::new();
    let config = ProtosocketServerConfig::default().clock(Arc::new(clock.clone()));
    let (listener, connector) = memory_listener(64);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    let server = Connector::new()
        .spawning(move |connection| lock(&keep).push(connection))
        .serve(config, listener);
    let _clients = [connect(&connector).await, connect(&connector).await];
    server.has_connections(2).await;
    let handle = server.handle.clone();
    let drain = tokio::spawn(async move { handle.drain(DEADLINE).await });
    until(|| clock.next_alarm().is_some()).await;
    clock.advance(DEADLINE + Duration::from_secs(1));
    let report = soon(drain).await.expect("it does not panic");
    assert_eq!(report.stuck, 2, "{report}");
    assert_eq!(total(&report), 2);
}

#[tokio::test]
async fn c5_a_connection_that_has_ended_is_counted_though_its_future_is_kept() {
    let (listener, connector) = memory_listener(64);
    let server = Connector::new()
        .spawning(|connection| {
            tokio::spawn(async move {
                let mut connection = pin!(connection);
                connection.as_mut().await;
                std::future::pending::<()>().await;
            });
        })
        .serve(ProtosocketServerConfig::default(), listener);
    let mut gone = connect(&connector).await;
    assert!(gone.is_served().await);
    drop(gone);
    server.has_connections(0).await;
    let mut client = connect(&connector).await;
    assert!(client.is_served().await);
    let report = server.drain().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.finished, 1, "{report}");
}

#[tokio::test]
async fn c5_the_report_adds_up_whatever_happens() {
    let clock = ManualClock::new();
    let config = ProtosocketServerConfig::default()
        .limits(Limits::server().handshake_timeout(None))
        .clock(Arc::new(clock.clone()));
    let (listener, connector) = memory_listener(64);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let (keep, spawned) = (kept.clone(), tasks.clone());
    let server = Connector::new()
        .spawning(move |connection| {
            // The last is never polled.
            if lock(&spawned).len() == 5 {
                lock(&keep).push(connection);
            } else {
                lock(&spawned).push(tokio::spawn(connection));
            }
        })
        .serve(config, greeted(listener));
    let mut clients = Vec::new();
    for number in 1..=6 {
        let mut client = connect(&connector).await;
        if number <= 4 {
            client.send("ghold x\nhello").await;
            assert_eq!(client.line().await.as_deref(), Some("hello"));
        }
        server.has_connections(number).await;
        clients.push(client);
    }
    let handle = server.handle.clone();
    let drain = tokio::spawn(async move { handle.drain(DEADLINE).await });
    // Finished: the one whose handshake has not ended is dropped, the first goes in the middle of
    // a message, the second is dropped by its owner, the third and the fourth are forced.
    server.has_connections(5).await;
    clients[0].send_raw(b"\xff\n").await;
    lock(&tasks)[1].abort();
    server.has_connections(3).await;
    clock.advance(DEADLINE);
    server.has_connections(1).await;
    clock.advance(Duration::from_secs(1));
    let report = soon(drain).await.expect("it does not panic");
    let DrainReport {
        finished,
        forced,
        failed,
        dropped,
        stuck,
        unanswered,
        ..
    } = report;
    assert_eq!(
        (finished, forced, failed, dropped, stuck),
        (0, 2, 1, 2, 1),
        "{report}"
    );
    assert_eq!(unanswered, 4, "{report}");
}
