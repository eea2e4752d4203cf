//! What no script of a peer can ask for, on real sockets: it is about who sends through a
//! connection, or owns it.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use protosocket::{
    Connection, ConnectionConfig, Limits, LinesCodec, ReactorStatus, Sender, SocketConnector,
    SocketListener, StreamWithAddress, TcpConnector, TcpSocketListener, TrySendError, channel,
};
use protosocket_server::{ProtosocketServerConfig, ServerConnection, ServerConnector};
use protosocket_testkit::{Probe, Recorder, Resources, alone, echo, silent};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::LocalSet,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it does not hang")
}

/// A sender into a connection that runs, what is told of it, and the socket of its peer.
struct Ours {
    sender: Sender<String>,
    observer: Arc<Recorder>,
    peer: TcpStream,
}

struct Serving(mpsc::UnboundedSender<Sender<String>>);

impl ServerConnector for Serving {
    type Codec = LinesCodec;
    type Reactor = Probe<LinesCodec>;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new()
    }

    fn new_reactor(
        &self,
        outbound: Sender<String>,
        _: &<TcpSocketListener as SocketListener>::Stream,
    ) -> Probe<LinesCodec> {
        self.0.send(outbound).expect("the test waits for it");
        Probe::new(silent()).0
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::task::spawn_local(connection);
    }
}

async fn of_a_server() -> Ours {
    let (senders, mut accepted) = mpsc::unbounded_channel();
    let observer = Arc::new(Recorder::new());
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = ProtosocketServerConfig::default()
        .observer(observer.clone())
        .bind_tcp(anywhere, Serving(senders));
    let server = server.expect("a port is free");
    let listener = server.listener().expect("it listens");
    let address = listener.local_address().expect("it is bound");
    tokio::task::spawn_local(server);
    let peer = TcpStream::connect(address).await.expect("it listens");
    Ours {
        sender: soon(accepted.recv()).await.expect("it is served"),
        observer,
        peer,
    }
}

/// A client's connection, and the socket of its server.
struct Client {
    connection: Connection<StreamWithAddress<TcpStream>, Probe<LinesCodec>>,
    sender: Sender<String>,
    observer: Arc<Recorder>,
    peer: TcpStream,
}

impl Client {
    async fn new(reactor: Probe<LinesCodec>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let stream = soon(TcpConnector::new(address).connect()).await;
        let stream = stream.expect("it listens");
        let (peer, _) = soon(listener.accept()).await.expect("it has connected");
        let (sender, outbound) = channel(1024);
        let observer = Arc::new(Recorder::new());
        let config = ConnectionConfig::client(Limits::client()).expect("the defaults are valid");
        let config = config.with_observer(observer.clone());
        Self {
            connection: Connection::over(stream, LinesCodec::new(), reactor, outbound, &config),
            sender,
            observer,
            peer,
        }
    }
}

async fn of_a_client() -> Ours {
    let client = Client::new(Probe::new(silent()).0).await;
    tokio::task::spawn_local(client.connection);
    Ours {
        sender: client.sender,
        observer: client.observer,
        peer: client.peer,
    }
}

fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("there are descriptors for a runtime");
    LocalSet::new().block_on(&runtime, test);
}

/// A line of which a thousand are more than the kernel and a send buffer hold.
fn line(number: usize) -> String {
    format!("{number:016000}")
}

/// Queue lines until there is no room, without letting the connection take one meanwhile.
fn fill(sender: &Sender<String>) -> usize {
    (0..)
        .find(|number| sender.try_send(line(*number)).is_err())
        .expect("a channel is bounded")
}

async fn read_lines(peer: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    let read = soon(peer.read_to_end(&mut all)).await;
    read.expect("it is an end in order");
    let text = String::from_utf8(all).expect("it is what was sent");
    for (number, found) in text.lines().enumerate() {
        assert!(found == line(number), "the line {number} is another");
    }
    text.lines().count()
}

/// Whatever is queued when the last sender goes is sent, the last of it included.
async fn queues_and_goes(ours: impl Future<Output = Ours>, shuts_down: bool, end: &str) {
    let Ours {
        sender,
        observer,
        mut peer,
    } = ours.await;
    let queued = fill(&sender);
    assert!(queued > 500, "{queued} lines are no backlog");
    drop(sender);
    if shuts_down {
        peer.shutdown().await.expect("it is open");
    }
    assert_eq!(read_lines(&mut peer).await, queued);
    drop(peer);
    soon(observer.until_ended(1)).await;
    assert_eq!(observer.closed(), [end]);
    assert_eq!(observer.traffic().messages_out, queued as u64);
}

#[test]
fn d2_d8_what_is_queued_in_a_server_when_the_last_sender_goes_is_sent() {
    // A server waits for its client's end as well.
    on_one_thread(queues_and_goes(of_a_server(), true, "end_of_input"));
}

#[test]
fn d2_d8_what_is_queued_in_a_client_when_the_last_sender_goes_is_sent() {
    on_one_thread(queues_and_goes(of_a_client(), false, "no_senders"));
}

/// Who waits for room in a connection is told that there is none any more, and so is who comes late.
async fn waits_and_is_told(ours: impl Future<Output = Ours>) {
    let Ours {
        sender,
        observer,
        mut peer,
    } = ours.await;
    let waiting = async {
        let mut sent = 0;
        loop {
            match sender.send(line(sent)).await {
                Ok(()) => sent += 1,
                Err(refused) => return (sent, refused.0),
            }
        }
    };
    let resets = async {
        // By then there is more on its way than anybody reads.
        let mut byte = [0];
        peer.read_exact(&mut byte).await.expect("it is sent");
        SockRef::from(&peer)
            .set_linger(Some(Duration::ZERO))
            .expect("it is a socket");
        drop(peer);
    };
    let ((sent, refused), ()) = soon(async { tokio::join!(waiting, resets) }).await;
    assert_eq!(refused, line(sent), "it comes back");
    assert!(sender.is_closed());
    let late = sender.try_send("late".to_owned());
    assert_eq!(late, Err(TrySendError::Closed("late".to_owned())));
    soon(observer.until_ended(1)).await;
    assert_eq!(observer.closed(), ["io"]);
    // Each was sent, or is counted.
    let stats = observer.traffic();
    assert_eq!(stats.messages_out + stats.unsent, sent as u64);
}

#[test]
fn d7_who_waits_for_a_server_s_connection_that_has_ended_is_told() {
    on_one_thread(waits_and_is_told(of_a_server()));
}

#[test]
fn d7_who_waits_for_a_client_s_connection_that_has_ended_is_told() {
    on_one_thread(waits_and_is_told(of_a_client()));
}

#[test]
fn f18_a_client_that_is_drained_sends_what_it_has_accepted() {
    on_one_thread(async {
        let mut client = Client::new(Probe::new(silent()).0).await;
        let handle = client.connection.handle();
        tokio::task::spawn_local(client.connection);
        let queued = fill(&client.sender);
        handle.drain(Instant::now() + PATIENCE);
        drop(client.sender);
        assert_eq!(read_lines(&mut client.peer).await, queued);
        drop(client.peer);
        soon(client.observer.until_ended(1)).await;
        assert_eq!(client.observer.closed(), ["drained"]);
    });
}

/// Poll a client that echoes so often, and then drop it; `None` if it ended before.
async fn dropped_at(poll: usize) -> Option<()> {
    let (reactor, knobs) = Probe::new(echo());
    knobs.lock().on_end_of_input = ReactorStatus::Disconnect;
    let Client {
        connection,
        sender,
        observer,
        mut peer,
    } = Client::new(reactor).await;
    let mut connection = Some(Box::pin(connection));
    let mut polls = 0;
    let client = poll_fn(|cx| {
        if polls == poll {
            connection = None;
            return Poll::Ready(None);
        }
        polls += 1;
        let polled = connection.as_mut().expect("it is there").as_mut().poll(cx);
        polled.map(|_| Some(()))
    });
    let server = async {
        let mut answer = [0; 6];
        for _ in 0..3 {
            // A client that is gone refuses, or does not answer.
            if peer.write_all(b"hello\n").await.is_err()
                || peer.read_exact(&mut answer).await.is_err()
            {
                break;
            }
        }
        let _ = peer.shutdown().await;
        let _ = peer.read(&mut answer).await;
        drop(peer);
    };
    let (ended, ()) = soon(async { tokio::join!(client, server) }).await;
    drop(connection);
    let end = ["dropped", "disconnect"][usize::from(ended.is_some())];
    assert_eq!(observer.closed(), [end], "dropped at poll {poll}");
    assert_eq!(observer.opened(), 1, "dropped at poll {poll}");
    assert!(sender.is_closed());
    ended
}

#[test]
fn f17_a_client_that_is_dropped_at_any_poll_is_counted_once_and_keeps_no_socket() {
    let name =
        "sockets::f17_a_client_that_is_dropped_at_any_poll_is_counted_once_and_keeps_no_socket";
    alone(name, || {
        on_one_thread(async {
            let before = Resources::now().descriptors;
            let mut poll = 0;
            while dropped_at(poll).await.is_none() {
                poll += 1;
                assert!(poll < 1000, "it does not end");
                assert_eq!(Resources::now().descriptors, before);
            }
            assert!(poll >= 3, "it ended after {poll} polls");
        });
    });
}
