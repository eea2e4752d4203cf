//! Our client, with our server and with scripted ones.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use protosocket::{Backoff, Blame, Reconnect, TcpConnector};
use protosocket_memcached::{
    Client, ErrorReply, Expiration, Key, KeyError, Keys, Request, Retrieve,
    client::{
        ConnectionError, Error, Execution, Memcached, NewValue, PipelineConfig, Reply, Swapped,
    },
    server::Connector,
};
use protosocket_server::ProtosocketServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

#[path = "../examples/server/memory.rs"]
mod memory;

fn serve() -> (SocketAddr, JoinHandle<()>) {
    let cache = memory::Memory::new(64 << 20, SystemTime::now);
    let config = ProtosocketServerConfig::default();
    let connector = Connector::new(move |_| cache.clone());
    let server = config
        .bind_tcp(([127, 0, 0, 1], 0).into(), connector)
        .unwrap();
    let address = server.listener().unwrap().local_address().unwrap();
    let server = tokio::spawn(async move {
        server.await;
    });
    (address, server)
}

fn connect(address: SocketAddr) -> Client {
    let reconnect = Reconnect::new(TcpConnector::new(address), Backoff::default()).unwrap();
    let (client, driver) = Client::connect(reconnect, &PipelineConfig::new());
    tokio::spawn(driver);
    client
}

#[tokio::test]
async fn each_call_has_its_answers() {
    let (address, server) = serve();
    let client = connect(address);
    assert_eq!(client.get("a").await.unwrap(), None);
    assert!(!client.replace("a", "x").await.unwrap());
    assert!(!client.append("a", "x").await.unwrap());
    assert!(!client.prepend("a", "x").await.unwrap());
    assert!(!client.touch("a", Expiration::NEVER).await.unwrap());
    assert!(!client.delete("a").await.unwrap());
    assert_eq!(client.incr("a", 1).await.unwrap(), None);
    assert_eq!(client.cas("a", "x", 1).await.unwrap(), Swapped::Missing);
    assert!(client.add("a", NewValue::new("b").flags(7)).await.unwrap());
    assert!(!client.add("a", "x").await.unwrap());
    assert!(client.append("a", "c").await.unwrap());
    assert!(client.prepend("a", "a").await.unwrap());
    let item = client.gets("a").await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags), (&b"abc"[..], 7));
    let unique = item.cas.unwrap();
    assert_eq!(client.cas("a", "1", unique).await.unwrap(), Swapped::Stored);
    assert_eq!(
        client.cas("a", "2", unique).await.unwrap(),
        Swapped::Changed
    );
    assert!(client.replace("a", "10").await.unwrap());
    assert_eq!(client.incr("a", 5).await.unwrap(), Some(15));
    assert_eq!(client.decr(b"a", 20).await.unwrap(), Some(0));
    client.set("b", "2").await.unwrap();
    let items = client.get_many(["x", "b", "y", "a"]).await.unwrap();
    let keys: Vec<_> = items.iter().map(|item| item.key.as_slice()).collect();
    assert_eq!(keys, [b"b", b"a"]);
    assert_eq!(client.get_many([""; 0]).await.unwrap(), []);
    assert!(client.touch("a", Expiration::PASSED).await.unwrap());
    assert_eq!(client.get("a").await.unwrap(), None);
    let gat = client.gat("b", Expiration::PASSED).await.unwrap();
    assert_eq!(gat.unwrap().cas, None);
    assert_eq!(client.gats("b", Expiration::NEVER).await.unwrap(), None);
    assert!(client.version().await.unwrap().starts_with(b"1.6"));
    assert!(client.stats(None).await.unwrap().len() > 10);
    assert_eq!(client.stats(Some("reset")).await.unwrap(), []);
    client.set("c", "3").await.unwrap();
    assert!(client.delete("c").await.unwrap());
    client.set("c", "3").await.unwrap();
    client.flush_all(None).await.unwrap();
    assert_eq!(client.get("c").await.unwrap(), None);
    let quiet = Request::FlushAll {
        when: None,
        noreply: true,
    };
    assert_eq!(client.request(quiet).await.unwrap(), Reply::Nothing);
    server.abort();
}

#[tokio::test]
async fn calls_that_are_begun_together_have_each_its_own_answer() {
    let (address, server) = serve();
    let client = connect(address);
    let calls: Vec<_> = (0..1000)
        .map(|number| {
            let key = format!("key{number}");
            let set = client.set(key.clone(), number.to_string());
            (set, client.get(key), number)
        })
        .collect();
    for (set, get, number) in calls {
        set.await.unwrap();
        let item = get.await.unwrap().unwrap();
        assert_eq!(item.value, number.to_string());
    }
    server.abort();
}

#[tokio::test]
async fn c1_keys_that_cannot_be_sent_fail_before_anything_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = connect(listener.local_addr().unwrap());
    for (key, expected) in [
        (String::new(), KeyError::Empty),
        ("k".repeat(251), KeyError::TooLong(251)),
        ("a b".into(), KeyError::Forbidden { byte: b' ', at: 1 }),
        (
            "a\r\nflush_all".into(),
            KeyError::Forbidden { byte: b'\r', at: 1 },
        ),
        ("\u{7f}".into(), KeyError::Forbidden { byte: 0x7f, at: 0 }),
        ("a\0".into(), KeyError::Forbidden { byte: 0, at: 1 }),
    ] {
        let errors = [
            client.get(key.clone()).await.unwrap_err(),
            client.set(key.clone(), "x").await.unwrap_err(),
            client.delete(key.clone()).await.unwrap_err(),
            client.incr(key.clone(), 1).await.unwrap_err(),
            client
                .touch(key.clone(), Expiration::NEVER)
                .await
                .unwrap_err(),
            client.get_many(["good".to_owned(), key]).await.unwrap_err(),
        ];
        for error in errors {
            assert!(
                matches!(&error, Error::Key(found) if *found == expected),
                "{error}"
            );
            assert_eq!(error.blame(), Blame::Local);
            assert_eq!(error.execution(), Execution::NeverSent);
        }
    }
    // What comes first on the wire is what is asked next.
    let version = client.version();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut heard = [0; 9];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"version\r\n");
    stream.write_all(b"VERSION 1\r\n").await.unwrap();
    assert_eq!(version.await.unwrap(), "1");
    assert!(Key::new("k".repeat(250)).is_ok());
}

#[tokio::test]
async fn errors_of_a_server_say_whose_fault_they_are_and_the_connection_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = connect(listener.local_addr().unwrap());
    let calls = [(); 4].map(|()| client.get("a"));
    let (mut stream, _) = listener.accept().await.unwrap();
    let answers =
        "ERROR\r\nCLIENT_ERROR yours\r\nVALUE a 0 1\r\nx\r\nSERVER_ERROR \u{1b}mine\r\nEND\r\n";
    let mut heard = [0; 28];
    stream.read_exact(&mut heard).await.unwrap();
    stream.write_all(answers.as_bytes()).await.unwrap();
    let expected = [
        (ErrorReply::Unknown, Blame::Local),
        (ErrorReply::client("yours"), Blame::Local),
        (ErrorReply::server(" mine"), Blame::Peer),
    ];
    let mut calls = calls.into_iter();
    for (reply, blame) in expected {
        let error = calls.next().unwrap().await.unwrap_err();
        assert!(
            matches!(&error, Error::Refused(found) if *found == reply),
            "{error}"
        );
        assert_eq!(error.blame(), blame, "{error}");
    }
    assert_eq!(calls.next().unwrap().await.unwrap(), None);
}

#[tokio::test]
async fn c3_a_server_that_answers_something_else_is_left_and_callers_are_told_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = connect(listener.local_addr().unwrap());
    for (answer, says) in [
        ("STORED\r\n", "STORED"),
        ("VALUE b 0 1\r\nx\r\nEND\r\n", "not asked for"),
        ("VALUE a 0 1\r\nx\r\nVALUE a 0 1\r\nx\r\n", "not asked for"),
        ("VALUE a 0 1 5\r\nx\r\nEND\r\n", "cas unique"),
        ("nonsense\r\n", "a response of memcached"),
    ] {
        let call = client.get("a");
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = [0; 7];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        let error = call.await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.execution(), Execution::MaybeExecuted);
        assert_eq!(error.blame(), Blame::Peer, "{error}");
        assert!(
            matches!(
                error,
                Error::Connection(ConnectionError::ConnectionLost { .. })
            ),
            "{error}"
        );
    }
    client.close(Duration::ZERO);
}

#[tokio::test]
async fn c2_an_answer_that_is_too_large_fails_its_call_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = TcpConnector::new(listener.local_addr().unwrap());
    let reconnect = Reconnect::new(connector, Backoff::default()).unwrap();
    let protocol = Memcached::default().max_answer(1000);
    let config = PipelineConfig::new();
    let (pipeline, driver) = protosocket_pipeline::connect(reconnect, protocol, &config);
    tokio::spawn(driver);
    let client = Client::over(pipeline);
    let (many, one) = (client.get_many(["a", "b", "c"]), client.get("a"));
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut heard = [0; 19];
    stream.read_exact(&mut heard).await.unwrap();
    let item = |key, cas| format!("VALUE {key} 0 400{cas}\r\n{}\r\n", "x".repeat(400));
    let items = ["a", "b", "c"].map(|key| item(key, " 7")).concat();
    let answers = format!("{items}END\r\n{}END\r\n", item("a", ""));
    stream.write_all(answers.as_bytes()).await.unwrap();
    let error = many.await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 1000 }), "{error}");
    assert!(error.to_string().contains("max_answer"), "{error}");
    assert_eq!(error.blame(), Blame::Local);
    assert_eq!(error.execution(), Execution::MaybeExecuted);
    assert_eq!(one.await.unwrap().unwrap().value.len(), 400);
}

#[tokio::test]
async fn c1_more_keys_than_a_server_takes_are_not_sent() {
    let (address, server) = serve();
    let client = connect(address);
    let keys = |count: usize| (0..count).map(|number| format!("{number:0>250}"));
    // "gets", the keys with a blank each, and the end of the line.
    let most = ((1 << 20) - 6) / 251;
    assert_eq!(client.get_many(keys(most)).await.unwrap(), []);
    let gat = |count| {
        let keys: Vec<_> = keys(count).map(|key| Key::new(key).unwrap()).collect();
        client.request(Request::Retrieve(Retrieve {
            keys: Keys::new(&keys),
            with_cas: false,
            touch: Some(Expiration::NEVER),
        }))
    };
    assert_eq!(gat(8).await.unwrap(), Reply::Items(Vec::new()));
    let refused = [
        (
            client.get_many(keys(most + 1)).await.unwrap_err(),
            "1048576",
        ),
        (gat(9).await.unwrap_err(), "2048"),
    ];
    for (error, limit) in refused {
        assert_eq!(error.execution(), Execution::NeverSent, "{error}");
        assert_eq!(error.blame(), Blame::Local, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(limit) && text.contains("fewer keys"),
            "{text}"
        );
    }
    assert!(client.version().await.is_ok());
    server.abort();
}
