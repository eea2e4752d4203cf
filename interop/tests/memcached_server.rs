//! Our client with a memcached.

use std::{net::SocketAddr, process::Command, time::Duration};

use bytes::Bytes;
use interop::programs::{Program, find, free_port};
use protosocket::{Backoff, Blame, Reconnect, TcpConnector};
use protosocket_memcached::{
    Client, ErrorReply, Expiration,
    client::{Error, Execution, NewValue, PipelineConfig, Swapped},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A memcached on this port, if it is installed.
fn start(port: u16) -> Option<Program> {
    let mut command = Command::new(find("memcached")?);
    command.args(["-u", "root", "-l", "127.0.0.1", "-p", &port.to_string()]);
    Some(Program::serve(&mut command, port))
}

fn connect(port: u16) -> Client {
    let connector = TcpConnector::new(SocketAddr::from(([127, 0, 0, 1], port)));
    let reconnect = Reconnect::new(connector, Backoff::default()).unwrap();
    let (client, driver) = Client::connect(reconnect, &PipelineConfig::new());
    tokio::spawn(driver);
    client
}

#[tokio::test]
async fn each_call_has_its_answers() {
    let port = free_port();
    let Some(_memcached) = start(port) else {
        return;
    };
    let client = connect(port);
    assert_eq!(client.get("a").await.unwrap(), None);
    assert!(!client.replace("a", "x").await.unwrap());
    assert!(!client.append("a", "x").await.unwrap());
    assert!(!client.touch("a", Expiration::NEVER).await.unwrap());
    assert!(!client.delete("a").await.unwrap());
    assert_eq!(client.incr("a", 1).await.unwrap(), None);
    assert_eq!(client.cas("a", "x", 1).await.unwrap(), Swapped::Missing);
    assert!(
        client
            .add("a", NewValue::new("b").flags(u32::MAX))
            .await
            .unwrap()
    );
    assert!(!client.add("a", "x").await.unwrap());
    assert!(client.append("a", "c").await.unwrap());
    assert!(client.prepend("a", "a").await.unwrap());
    let item = client.gets("a").await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags), (&b"abc"[..], u32::MAX));
    let unique = item.cas.unwrap();
    assert_eq!(
        client.cas("a", "10", unique).await.unwrap(),
        Swapped::Stored
    );
    assert_eq!(
        client.cas("a", "2", unique).await.unwrap(),
        Swapped::Changed
    );
    assert_eq!(client.incr("a", 5).await.unwrap(), Some(15));
    // A memcached leaves a blank behind it.
    assert_eq!(client.decr("a", 6).await.unwrap(), Some(9));
    client.set("b", "2").await.unwrap();
    let items = client.get_many(["x", "b", "y", "a"]).await.unwrap();
    let keys: Vec<_> = items.iter().map(|item| item.key.as_slice()).collect();
    assert_eq!(keys, [b"b", b"a"]);
    let minute = Expiration::after(Duration::from_secs(60)).unwrap();
    assert!(client.touch("a", minute).await.unwrap());
    assert!(client.gat("b", minute).await.unwrap().is_some());
    let gats = client.gats("b", Expiration::PASSED).await.unwrap();
    assert!(gats.unwrap().cas.is_some());
    assert_eq!(client.get("b").await.unwrap(), None);
    assert!(client.version().await.unwrap().starts_with(b"1."));
    for group in [None, Some("settings"), Some("slabs"), Some("items")] {
        assert!(!client.stats(group).await.unwrap().is_empty(), "{group:?}");
    }
    assert_eq!(client.stats(Some("reset")).await.unwrap(), []);
    let error = client.stats(Some("nonsense")).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(ErrorReply::Unknown)),
        "{error}"
    );
    client.set("text", "text").await.unwrap();
    let error = client.incr("text", 1).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(ErrorReply::Client(_))),
        "{error}"
    );
    assert_eq!(error.blame(), Blame::Local);
    client.flush_all(None).await.unwrap();
    assert_eq!(client.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn large_values_are_whole_and_too_large_ones_are_refused() {
    let port = free_port();
    let Some(_memcached) = start(port) else {
        return;
    };
    let client = connect(port);
    // An item of 1 MiB has its key and its header in it.
    let large: Bytes = (0..1_048_000).map(|at| (at % 251) as u8).collect();
    let sets: Vec<_> = (0..16)
        .map(|number| client.set(format!("large{number}"), large.clone()))
        .collect();
    let too_large = client.set("large", Bytes::from(vec![0; 2 << 20]));
    let gets: Vec<_> = (0..16)
        .map(|number| client.get(format!("large{number}")))
        .collect();
    for set in sets {
        set.await.unwrap();
    }
    let error = too_large.await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(ErrorReply::Server(_))),
        "{error}"
    );
    assert_eq!(error.blame(), Blame::Peer);
    for get in gets {
        assert!(get.await.unwrap().unwrap().value == large);
    }
    let items = client.get_many((0..16).map(|number| format!("large{number}")));
    assert_eq!(items.await.unwrap().len(), 16);
}

#[tokio::test]
async fn a_thousand_calls_at_once_have_each_its_own_answer() {
    let port = free_port();
    let Some(_memcached) = start(port) else {
        return;
    };
    let client = connect(port);
    let calls: Vec<_> = (0..1000)
        .map(|number| {
            let key = format!("key{number}");
            let set = client.set(key.clone(), number.to_string());
            (set, client.incr(key.clone(), 1), client.get(key), number)
        })
        .collect();
    for (set, incr, get, number) in calls {
        set.await.unwrap();
        assert_eq!(incr.await.unwrap(), Some(number + 1));
        let item = get.await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&item.value).into_owned();
        assert_eq!(text.trim_end(), (number + 1).to_string());
    }
}

#[tokio::test]
async fn a_client_outlives_the_restart_of_its_server() {
    let port = free_port();
    let Some(memcached) = start(port) else {
        return;
    };
    let client = connect(port);
    client.set("a", "before").await.unwrap();
    drop(memcached);
    // What was asked in between may find the connection lost, and says so. What was not sent waits.
    let mut lost = 0;
    let _memcached = start(port);
    let item = loop {
        match client.get("a").await {
            Ok(item) => break item,
            Err(error) => {
                assert!(matches!(error, Error::Connection(_)), "{error}");
                assert_eq!(error.execution(), Execution::MaybeExecuted, "{error}");
                lost += 1;
                assert!(lost < 10, "{error}");
            }
        }
    };
    assert_eq!(item, None, "it is another server");
    client.set("a", "after").await.unwrap();
    assert_eq!(client.get("a").await.unwrap().unwrap().value, "after");
}

/// The lines that our client still sends are taken, and one that it refuses ends a connection.
#[tokio::test]
async fn as_many_keys_as_a_client_may_ask_for_at_once() {
    let port = free_port();
    let Some(_memcached) = start(port) else {
        return;
    };
    let client = connect(port);
    let keys = (0..4000).map(|number| format!("{number:0>250}"));
    assert_eq!(client.get_many(keys).await.unwrap(), []);
    let gat = |count: usize| {
        let keys = (0..count).map(|number| format!(" {number:0>250}"));
        format!("gat 0{}", keys.collect::<String>())
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let line = format!("{}\r\n", gat(8));
    stream.write_all(line.as_bytes()).await.unwrap();
    let mut end = [0; 5];
    stream.read_exact(&mut end).await.unwrap();
    assert_eq!(&end, b"END\r\n");
    // Without its end, so that all of it is there before that is.
    stream.write_all(gat(9).as_bytes()).await.unwrap();
    assert!(matches!(stream.read(&mut end).await, Ok(0) | Err(_)));
}
