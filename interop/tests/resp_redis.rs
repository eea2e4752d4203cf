//! Our client with a real redis-server.

use std::{process::Command as Process, time::Duration};

use interop::programs::{Program, find, free_port};
use protosocket::{Backoff, Reconnect, TcpConnector};
use protosocket_resp::{
    Client, ClientConfig, Command, CommandError, Event, Protocol, Pushes, Value, connect,
};
use tokio::{task::JoinHandle, time::timeout};

/// How long a test waits before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

fn redis(port: u16, more: &[&str]) -> Option<Program> {
    let mut command = Process::new(find("redis-server")?);
    let port_text = port.to_string();
    command.args(["--port", &port_text, "--save", "", "--appendonly", "no"]);
    command.args(["--bind", "127.0.0.1"]).args(more);
    Some(Program::serve(&mut command, port))
}

type Driver = JoinHandle<Result<(), std::sync::Arc<protosocket::ReconnectError>>>;

fn client(port: u16, config: &ClientConfig) -> (Client, Pushes, Driver) {
    let connector = TcpConnector::new(([127, 0, 0, 1], port).into());
    let backoff = Backoff::new().longest(Duration::from_secs(1));
    let reconnect = Reconnect::new(connector, backoff).unwrap();
    let (client, pushes, driver) = connect(reconnect, config);
    (client, pushes, tokio::spawn(driver))
}

fn say(words: &str) -> Command {
    let mut words = words.split(' ');
    let name = words.next().unwrap_or_default();
    Command::new(name).args(words)
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

#[tokio::test]
async fn all_kinds_of_values() {
    let port = free_port();
    let Some(_server) = redis(port, &["--enable-debug-command", "yes"]) else {
        return;
    };
    let (client, _pushes, driver) = client(port, &ClientConfig::new().name("ours").database(1));
    let ask = async |words: &str| within(client.call(say(words))).await.unwrap();
    let text = |text: &'static str| Value::Bulk(text.as_bytes().into());
    assert_eq!(ask("CLIENT GETNAME").await, text("ours"));
    assert_eq!(ask("DEBUG PROTOCOL string").await, text("Hello World"));
    assert_eq!(ask("DEBUG PROTOCOL integer").await, Value::Integer(12345));
    let Value::Double(double) = ask("DEBUG PROTOCOL double").await else {
        panic!("it is a double");
    };
    assert_eq!(double.to_string(), "3.141");
    assert_eq!(ask("DEBUG PROTOCOL null").await, Value::Null);
    assert_eq!(ask("DEBUG PROTOCOL true").await, Value::Boolean(true));
    assert_eq!(ask("DEBUG PROTOCOL false").await, Value::Boolean(false));
    let numbers = |count| (0..count).map(Value::Integer).collect::<Vec<_>>();
    assert_eq!(ask("DEBUG PROTOCOL array").await, Value::Array(numbers(3)));
    assert_eq!(ask("DEBUG PROTOCOL set").await, Value::Set(numbers(3)));
    let map = (0..3).map(|key| (Value::Integer(key), Value::Boolean(key == 1)));
    assert_eq!(ask("DEBUG PROTOCOL map").await, Value::Map(map.collect()));
    let big = "1234567999999999999999999999999999999";
    assert_eq!(
        ask("DEBUG PROTOCOL bignum").await,
        Value::BigNumber(big.into())
    );
    let verbatim = Value::Verbatim(*b"txt", "This is a verbatim\nstring".into());
    assert_eq!(ask("DEBUG PROTOCOL verbatim").await, verbatim);
    let attributed = ask("DEBUG PROTOCOL attrib").await;
    assert!(matches!(attributed, Value::Attributed(_)), "{attributed:?}");
    ask("HSET h a 1 b 2").await;
    let hash = ask("HGETALL h").await;
    assert!(matches!(hash, Value::Map(_)), "{hash:?}");
    assert_eq!(hash.get("b"), Some(&text("2")));

    let error = within(client.call(say("INCR h"))).await.unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
    let large = bytes::Bytes::from(vec![b'x'; 3_000_000]);
    let set = Command::new("SET").arg("large").payload(large.clone());
    within(client.call(set)).await.unwrap();
    assert!(ask("GET large").await == Value::Bulk(large));

    let asked: Vec<_> = (0..2000).map(|_| client.call(say("INCR n"))).collect();
    for (before, asked) in asked.into_iter().enumerate() {
        assert_eq!(
            within(asked).await.unwrap(),
            Value::Integer(before as i64 + 1)
        );
    }
    drop(client);
    within(driver).await.unwrap().unwrap();
}

#[tokio::test]
async fn passwords_in_both_versions() {
    let port = free_port();
    let Some(_server) = redis(port, &["--requirepass", "secret"]) else {
        return;
    };
    for version in [Protocol::Resp2, Protocol::Resp3] {
        let config = ClientConfig::new().protocol(version);
        let right = config.clone().credentials("default", "secret");
        let (right, _pushes, _driver) = client(port, &right);
        let pong = within(right.call(say("PING"))).await.unwrap();
        assert_eq!(pong, Value::from("PONG"));
        let wrong = config.clone().credentials("default", "wrong");
        let (wrong, _pushes, _driver) = client(port, &wrong);
        let error = within(wrong.call(say("PING"))).await.unwrap_err();
        assert!(error.to_string().contains("WRONGPASS"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_started_again_is_found_again() {
    let port = free_port();
    let Some(server) = redis(port, &[]) else {
        return;
    };
    let (client, mut pushes, _driver) = client(port, &ClientConfig::new());
    within(client.call(say("SET a 1"))).await.unwrap();
    assert_eq!(within(pushes.next()).await, Some(Event::Connected));
    // A request in flight is lost, and one that is made meanwhile waits.
    let blocked = client.call(say("BLPOP list 0"));
    let (other, _, other_driver) = self::client(port, &ClientConfig::new());
    loop {
        let info = within(other.call(say("INFO clients"))).await.unwrap();
        if info
            .as_str()
            .is_some_and(|it| it.contains("blocked_clients:1"))
        {
            break;
        }
    }
    drop(other);
    within(other_driver).await.unwrap().unwrap();
    drop(server);
    let error: CommandError = within(blocked).await.unwrap_err();
    assert!(error.to_string().contains("connection was lost"), "{error}");
    let waiting = client.call(say("GET a"));
    let _server = redis(port, &[]).expect("it was there before");
    assert_eq!(within(waiting).await.unwrap(), Value::Null);
    assert_eq!(within(pushes.next()).await, Some(Event::Connected));
}

#[tokio::test]
async fn what_is_published_is_pushed() {
    let port = free_port();
    let Some(_server) = redis(port, &[]) else {
        return;
    };
    let (client, mut pushes, _driver) = client(port, &ClientConfig::new());
    within(client.call(say("SUBSCRIBE one two"))).await.unwrap();
    within(client.call(say("PUBLISH two hello"))).await.unwrap();
    let kinds: Vec<String> = {
        let mut kinds = Vec::new();
        while kinds.len() < 3 {
            if let Some(Event::Push(items)) = within(pushes.next()).await {
                kinds.push(
                    items
                        .iter()
                        .filter_map(Value::as_str)
                        .collect::<Vec<_>>()
                        .join(" "),
                );
            }
        }
        kinds
    };
    assert_eq!(
        kinds,
        ["subscribe one", "subscribe two", "message two hello"]
    );
    let error = within(client.call(say("SUBSCRIBE"))).await.unwrap_err();
    assert_eq!(error.code(), Some("ERR"), "{error}");
    within(client.call(say("UNSUBSCRIBE"))).await.unwrap();
    let pong = within(client.call(say("PING"))).await.unwrap();
    assert_eq!(pong, Value::from("PONG"));
}
