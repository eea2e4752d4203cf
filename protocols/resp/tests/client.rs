//! Our client, with our server and with servers that are played by hand.

use std::{future::Future, net::SocketAddr, time::Duration};

use protosocket::{Backoff, ReactorStatus, Reconnect, TcpConnector, WeakSender};
use protosocket_resp::{
    Client, ClientConfig, Command, CommandError, Connector, Event, Execution, Handler, Protocol,
    Pushes, Reply, Request, Value, connect,
};
use protosocket_server::ProtosocketServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// How long a test waits before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it comes to an end")
}

fn ask(address: SocketAddr, config: &ClientConfig) -> (Client, Pushes) {
    let backoff = Backoff::new().longest(Duration::from_millis(100));
    let reconnect = Reconnect::new(TcpConnector::new(address), backoff).unwrap();
    let (client, pushes, driver) = connect(reconnect, config);
    tokio::spawn(driver);
    (client, pushes)
}

/// Echoes, publishes and hangs up.
struct Session(WeakSender<Value>);

impl Handler for Session {
    fn call(&mut self, request: &Request, reply: &mut Reply<'_>) -> ReactorStatus {
        let argument = request.args().nth(1).unwrap_or_default();
        match request.name() {
            b"ECHO" => reply.bulk(argument),
            b"PUBLISH" => {
                let text = Value::Bulk(request.take(argument));
                let push = Value::Push(vec!["message".into(), text]);
                let sent = self.0.upgrade().map(|sender| sender.try_send(push));
                reply.boolean(sent.is_some_and(|sent| sent.is_ok()));
            }
            b"LEAVE" => {
                reply.ok();
                return ReactorStatus::Disconnect;
            }
            _ => reply.error("ERR unknown command"),
        }
        ReactorStatus::Continue
    }
}

fn serve() -> (SocketAddr, JoinHandle<()>) {
    let connector =
        Connector::new(|sender: protosocket::Sender<Value>, _: &_| Session(sender.downgrade()));
    let server = ProtosocketServerConfig::default()
        .bind_tcp(([127, 0, 0, 1], 0).into(), connector)
        .unwrap();
    let address = server.listener().unwrap().local_address().unwrap();
    let server = tokio::spawn(async move {
        server.await;
    });
    (address, server)
}

fn echo(text: impl AsRef<[u8]>) -> Command {
    Command::new("ECHO").arg(text)
}

#[tokio::test]
async fn each_command_has_its_reply() {
    let (address, server) = serve();
    let (client, _pushes) = ask(address, &ClientConfig::new());
    let calls: Vec<_> = (0..1000)
        .map(|number| client.call(echo(number.to_string())))
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        let reply = within(call).await.unwrap();
        assert_eq!(reply.as_str(), Some(number.to_string().as_str()));
    }
    let large = vec![7; 1024 * 1024];
    let reply = within(client.call(echo(&large))).await.unwrap();
    assert_eq!(reply.as_bytes().map(|bytes| &bytes[..]), Some(&large[..]));
    let error = within(client.call(Command::new("NONE"))).await.unwrap_err();
    assert_eq!(error.code(), Some("ERR"));
    server.abort();
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_replaced() {
    let (address, server) = serve();
    let (client, mut pushes) = ask(address, &ClientConfig::new());
    for _ in 0..3 {
        assert_eq!(within(pushes.next()).await, Some(Event::Connected));
        let reply = within(client.call(echo("here"))).await.unwrap();
        assert_eq!(reply.as_str(), Some("here"));
        within(client.call(Command::new("LEAVE"))).await.unwrap();
    }
    server.abort();
}

#[tokio::test]
async fn what_a_server_pushes_comes_in_order_beside_the_replies() {
    let (address, server) = serve();
    let (client, mut pushes) = ask(address, &ClientConfig::new());
    for number in 0..100 {
        let publish = Command::new("PUBLISH").number(number);
        let reply = within(client.call(publish)).await.unwrap();
        assert_eq!(reply, Value::Boolean(true));
    }
    assert_eq!(within(pushes.next()).await, Some(Event::Connected));
    for number in 0..100 {
        let Some(Event::Push(items)) = within(pushes.next()).await else {
            panic!("push {number} is not there");
        };
        assert_eq!(items[1].as_str(), Some(number.to_string().as_str()));
    }
    server.abort();
}

/// A server that is played by hand.
struct Played {
    listener: TcpListener,
    address: SocketAddr,
}

impl Played {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// The next connection, on which the client says each of these and is answered.
    async fn accept(&self, script: &[(&str, &str)]) -> TcpStream {
        let (mut stream, _) = within(self.listener.accept()).await.unwrap();
        for (words, answer) in script {
            hear(&mut stream, words).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        stream
    }
}

/// Read a command, which must be of these words.
async fn hear(stream: &mut TcpStream, words: &str) {
    let words: Vec<_> = words.split(' ').collect();
    let mut expected = format!("*{}\r\n", words.len());
    for word in words {
        expected += &format!("${}\r\n{word}\r\n", word.len());
    }
    let mut heard = vec![0; expected.len()];
    within(stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), expected);
}

#[tokio::test]
async fn a_server_that_knows_no_resp3_is_spoken_to_in_resp2() {
    for refusal in [
        "-NOPROTO unsupported protocol version\r\n",
        "-ERR unknown command 'HELLO', with args beginning with: '3'\r\n",
    ] {
        let server = Played::new().await;
        let config = ClientConfig::new()
            .credentials("default", "secret")
            .database(7)
            .name("me");
        let (client, mut pushes) = ask(server.address, &config);
        let mut stream = server
            .accept(&[
                ("HELLO 3 AUTH default secret", refusal),
                ("AUTH secret", "+OK\r\n"),
                ("SELECT 7", "+OK\r\n"),
                ("CLIENT SETNAME me", "+OK\r\n"),
            ])
            .await;
        assert_eq!(within(pushes.next()).await, Some(Event::Connected));
        // Here nobody could tell what is published from replies.
        let subscribe = client.call(Command::new("SUBSCRIBE").arg("news"));
        let error = within(subscribe).await.unwrap_err();
        assert!(error.to_string().contains("RESP2"), "{error}");
        assert_eq!(error.execution(), Execution::NeverSent);
        let get = client.call(Command::new("GET").arg("key"));
        hear(&mut stream, "GET key").await;
        stream.write_all(b"$-1\r\n").await.unwrap();
        assert_eq!(within(get).await.unwrap(), Value::Null);
    }
}

#[tokio::test]
async fn who_asks_for_resp2_says_no_hello() {
    let server = Played::new().await;
    let config = ClientConfig::new()
        .protocol(Protocol::Resp2)
        .credentials("somebody", "secret");
    let (_client, mut pushes) = ask(server.address, &config);
    let _stream = server.accept(&[("AUTH somebody secret", "+OK\r\n")]).await;
    assert_eq!(within(pushes.next()).await, Some(Event::Connected));
}

/// Each connection is asked again: the server may have been replaced.
#[tokio::test]
async fn the_version_is_that_of_the_connection() {
    let server = Played::new().await;
    let (client, mut pushes) = ask(server.address, &ClientConfig::new());
    let old = server
        .accept(&[("HELLO 3", "-ERR unknown command `HELLO`\r\n")])
        .await;
    assert_eq!(within(pushes.next()).await, Some(Event::Connected));
    drop(old);
    let mut stream = server.accept(&[("HELLO 3", "%0\r\n")]).await;
    assert_eq!(within(pushes.next()).await, Some(Event::Connected));
    let subscribe = client.call(Command::new("SUBSCRIBE").arg("a").arg("b"));
    hear(&mut stream, "SUBSCRIBE a b").await;
    for channel in ["a", "b"] {
        let push = format!(">3\r\n$9\r\nsubscribe\r\n$1\r\n{channel}\r\n:1\r\n");
        stream.write_all(push.as_bytes()).await.unwrap();
    }
    assert_eq!(within(subscribe).await.unwrap(), Value::Null);
    for _ in 0..2 {
        assert!(matches!(within(pushes.next()).await, Some(Event::Push(_))));
    }
    drop(stream);
    let _old_again = server
        .accept(&[("HELLO 3", "-NOPROTO unsupported protocol version\r\n")])
        .await;
    assert_eq!(within(pushes.next()).await, Some(Event::Connected));
    let subscribe = client.call(Command::new("SUBSCRIBE").arg("a"));
    let error = within(subscribe).await.unwrap_err();
    assert!(error.to_string().contains("RESP2"), "{error}");
}

#[tokio::test]
async fn pushes_that_nobody_takes_are_told_as_lost_where_they_are_missing() {
    let server = Played::new().await;
    let (client, mut pushes) = ask(server.address, &ClientConfig::new().max_pushes(3));
    let mut stream = server.accept(&[("HELLO 3", "%0\r\n")]).await;
    let push = |number: i64| Event::Push(vec![Value::Integer(number)]);
    for round in 0..2 {
        let get = client.call(Command::new("GET").arg("key"));
        hear(&mut stream, "GET key").await;
        let wire: String = (0..10)
            .map(|number| format!(">1\r\n:{number}\r\n"))
            .collect();
        let wire = format!("{wire}_\r\n");
        stream.write_all(wire.as_bytes()).await.unwrap();
        // The reply is behind all of them.
        within(get).await.unwrap();
        let first = match round {
            0 => {
                assert_eq!(within(pushes.next()).await, Some(Event::Connected));
                2
            }
            _ => 3,
        };
        for number in 0..first {
            assert_eq!(within(pushes.next()).await, Some(push(number)));
        }
        let lost = Event::Lost(10 - first as u64);
        assert_eq!(within(pushes.next()).await, Some(lost));
    }
    drop((client, stream));
    assert_eq!(within(pushes.next()).await, None);
}

#[tokio::test]
async fn commands_that_turn_a_connection_into_something_else_are_not_sent() {
    let (address, server) = serve();
    let (client, _pushes) = ask(address, &ClientConfig::new());
    for name in ["MONITOR", "sync", "PSYNC"] {
        let error = within(client.call(Command::new(name))).await.unwrap_err();
        assert_eq!(error.execution(), Execution::NeverSent, "{error}");
        assert!(matches!(error, CommandError::NoReply(_)));
    }
    assert!(within(client.call(echo("x"))).await.is_ok());
    server.abort();
}

#[tokio::test]
async fn calls_take_as_long_as_they_may_and_none_is_taken_after_the_end() {
    let server = Played::new().await;
    let (client, _pushes) = ask(server.address, &ClientConfig::new());
    let mut stream = server.accept(&[("HELLO 3", "%0\r\n")]).await;
    let hasty = client.with_timeout(Duration::from_millis(1));
    let error = within(hasty.call(echo("x"))).await.unwrap_err();
    assert!(matches!(error, CommandError::NoReply(_)), "{error}");
    let last = client.call(echo("y"));
    client.close(PATIENCE);
    let error = within(client.call(echo("z"))).await.unwrap_err();
    assert_eq!(error.execution(), Execution::NeverSent, "{error}");
    stream.write_all(b"+x\r\n+y\r\n").await.unwrap();
    assert_eq!(within(last).await.unwrap().as_str(), Some("y"));
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"y\r\n"), "and then it ends");
}

#[tokio::test]
async fn commands_that_would_shift_replies_or_be_forgotten_are_not_sent() {
    let (address, server) = serve();
    let (client, _pushes) = ask(address, &ClientConfig::new());
    for words in [
        "MONITOR",
        "sync",
        "PSYNC ? -1",
        "CLIENT REPLY SKIP",
        "client reply off",
        "CLIENT SETNAME me",
        "HELLO 2",
        "AUTH secret",
        "SELECT 1",
        "RESET",
        "QUIT",
        "MULTI",
        "WATCH key",
    ] {
        let mut words = words.split(' ');
        let command = Command::new(words.next().unwrap()).args(words);
        let refused = within(client.call(command.clone())).await.unwrap_err();
        assert_eq!(
            refused.execution(),
            Execution::NeverSent,
            "{command:?}: {refused}"
        );
        // And replies go on to be those of their commands.
        let echoed = within(client.call(echo("next"))).await.unwrap();
        assert_eq!(echoed.as_str(), Some("next"), "{command:?}");
    }
    for words in [
        "CLIENT ID",
        "MGET a b",
        "SETEX k 1 v",
        "SORT list",
        "ECHO MULTI",
    ] {
        let mut words = words.split(' ');
        let command = Command::new(words.next().unwrap()).args(words);
        let answer = within(client.call(command.clone())).await;
        let sent = match &answer {
            Ok(_) => true,
            Err(error) => error.execution() != Execution::NeverSent,
        };
        assert!(sent, "{command:?}: {answer:?}");
    }
    server.abort();
}
