//! The arrangement of the example: a listener, a thread and a runtime per core.

use std::{collections::HashSet, time::Duration};

use crate::common::{Client, soon};

#[path = "../../examples/per_core.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod example;

#[tokio::test]
async fn every_core_gets_connections_and_all_are_drained_at_once() {
    let address = "127.0.0.1:0".parse().expect("it is an address");
    let serving = tokio::task::spawn_blocking(move || example::serve(address, 2));
    let cores = soon(serving).await.expect("it does not panic");
    let cores = cores.expect("a port is free");
    let address = cores[0].address;
    assert_eq!(cores[1].address, address, "they share a port");

    let mut seen = HashSet::new();
    let mut clients = Vec::new();
    // The kernel chooses by a hash: that one of two gets none of 64 does not happen.
    for _ in 0..64 {
        let mut client = Client::connect(address).await;
        client.send("hello").await;
        let answer = client.line().await.expect("it is answered");
        let (_, core) = answer.rsplit_once(' ').expect("it names its core");
        seen.insert(core.to_owned());
        clients.push(client);
    }
    assert_eq!(seen.len(), 2);
    let connections: usize = cores.iter().map(|core| core.handle.connections()).sum();
    assert_eq!(connections, 64);

    let readers = tokio::spawn(async move {
        for mut client in clients {
            assert_eq!(client.line().await, None);
        }
    });
    let report = soon(example::drain(&cores, Duration::from_secs(10))).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.finished, 64);
    readers.await.expect("every client was closed");
    assert!(std::net::TcpStream::connect(address).is_err());
}
