//! A TURN-like server: clients over datagrams and over streams run the same machine. Relay sockets
//! and connections to peers are actions; what spans connections is one registry behind a mutex; a
//! second stream of the client claims the connection to a peer and is handed over to it, raw.
//!
//! ```text
//!   control stream ── CONNECT peer ─▶ action Connect ─▶ the registry keeps the stream as number 1
//!                  ◀─ CONNECTION 1 ──
//!   data stream ───── BIND 1 ───────▶ action Claim ───▶ the registry gives it away, once
//!                  ◀─ BOUND ───────── handover: bytes flow between client and peer
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Instant,
};

use protosocket::{
    ActionId, CloseReason, ConnectError, Connection, ConnectionConfig, ConnectionStats, Host,
    HostContext, LinesCodec, Machine, MachineReactor, MemoryConnector, Output, ReactorStatus,
    Rejected, Room, SocketConnector, SocketListener, channel, memory_listener,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex},
    sync::mpsc,
};

use protosocket_testkit::{MachineSide, ScriptedPeer, within};

/// Who sent it, and what.
type Datagram = (String, String);

#[derive(Debug)]
pub(crate) enum Action {
    /// Open a relay socket.
    Allocate,
    /// Send from the relay socket.
    SendTo(Datagram),
    /// Connect to a peer.
    Connect(String),
    /// Take a connection that was made for another stream of this client.
    Claim(u32),
}

#[derive(Debug)]
pub(crate) enum Done {
    Allocated(u32),
    Sent,
    Connected(u32),
    Claimed,
    Failed(&'static str),
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
pub(crate) struct Never;

#[derive(Debug, Default)]
pub(crate) struct Turn {
    actions: VecDeque<Action>,
    /// Actions given out so far: the next one's number.
    given: u64,
    /// Actions that are under way.
    waiting: usize,
    outputs: VecDeque<String>,
    /// This stream is to carry a claimed connection. What follows may be raw.
    claiming: bool,
    claimed: bool,
}

impl Machine for Turn {
    type Codec = LinesCodec;
    /// A datagram came to the relay socket.
    type Command = Datagram;
    type Event = ();
    type Action = Action;
    type ActionResult = Done;
    type Error = Never;

    fn handle_inbound(&mut self, _now: Instant, line: String) -> Result<(), Never> {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let action = match (verb, rest.split_once(' '), rest.parse()) {
            ("ALLOCATE", ..) => Action::Allocate,
            ("CONNECT", ..) => Action::Connect(rest.to_owned()),
            ("SEND", Some((peer, text)), _) => Action::SendTo((peer.to_owned(), text.to_owned())),
            ("BIND", _, Ok(number)) => {
                self.claiming = true;
                Action::Claim(number)
            }
            _ => {
                self.outputs.push_back("ERROR bad request".to_owned());
                return Ok(());
            }
        };
        self.actions.push_back(action);
        Ok(())
    }

    fn handle_command(
        &mut self,
        _now: Instant,
        (peer, text): Datagram,
    ) -> Result<(), Rejected<Datagram>> {
        self.outputs.push_back(format!("DATA {peer} {text}"));
        Ok(())
    }

    fn handle_action(&mut self, _now: Instant, _id: ActionId, result: Done) {
        self.waiting -= 1;
        self.claiming = false;
        self.outputs.push_back(match result {
            Done::Allocated(number) => format!("ALLOCATED {number}"),
            Done::Connected(number) => format!("CONNECTION {number}"),
            Done::Claimed => {
                self.claimed = true;
                "BOUND".to_owned()
            }
            Done::Sent => return,
            Done::Failed(why) => format!("ERROR {why}"),
        });
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn poll_action(&mut self) -> Option<(ActionId, Action)> {
        let action = self.actions.pop_front()?;
        self.given += 1;
        self.waiting += 1;
        Some((ActionId(self.given), action))
    }

    fn poll_output(&mut self, _now: Instant, room: Room) -> Option<Output<String>> {
        if room.is_empty() {
            return None;
        }
        self.outputs.pop_front().map(Output::Bulk)
    }

    fn wants_input(&self) -> bool {
        // LIMIT: one request at a time waits for the outside.
        self.waiting == 0 && !self.claiming
    }

    fn is_idle(&self) -> bool {
        self.waiting == 0
    }

    fn status(&self) -> ReactorStatus {
        match self.claimed {
            true => ReactorStatus::Handover,
            false => ReactorStatus::Continue,
        }
    }
}

/// What the clients' connections have in common.
#[derive(Default)]
struct Registry {
    last: u32,
    /// Relay sockets, by which peers reach their clients.
    relays: BTreeMap<u32, mpsc::Sender<Datagram>>,
    /// Connections to peers that no stream has claimed yet.
    unclaimed: BTreeMap<u32, DuplexStream>,
    /// What was sent to peers.
    sent: Vec<Datagram>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Registry>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().expect("nothing panics under it")
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<DuplexStream, ConnectError>> + Send>>;

/// One client's sockets.
struct Sockets {
    shared: Shared,
    peers: MemoryConnector,
    relay: Option<(u32, mpsc::Receiver<Datagram>)>,
    connecting: Option<(ActionId, Connecting)>,
    claimed: Option<DuplexStream>,
}

impl Sockets {
    fn new(shared: &Shared, peers: &MemoryConnector) -> Self {
        Self {
            shared: shared.clone(),
            peers: peers.clone(),
            relay: None,
            connecting: None,
            claimed: None,
        }
    }
}

impl Host<Turn> for Sockets {
    type Message = ();

    fn on_event(&mut self, _: &mut HostContext<'_, Turn>, (): ()) {}

    fn on_action(&mut self, context: &mut HostContext<'_, Turn>, id: ActionId, action: Action) {
        let mut registry = self.shared.lock();
        let done = match action {
            Action::Allocate => {
                let (to_client, relay) = mpsc::channel(16);
                registry.last += 1;
                let number = registry.last;
                registry.relays.insert(number, to_client);
                self.relay = Some((number, relay));
                Done::Allocated(number)
            }
            Action::SendTo(datagram) => {
                registry.sent.push(datagram);
                Done::Sent
            }
            Action::Connect(peer) if peer != "bob" => Done::Failed("no such peer"),
            Action::Connect(_) => {
                let peers = self.peers.clone();
                let connecting = Box::pin(async move { Ok(peers.connect().await?.into_inner()) });
                self.connecting = Some((id, connecting));
                return;
            }
            Action::Claim(number) => match registry.unclaimed.remove(&number) {
                Some(stream) => {
                    self.claimed = Some(stream);
                    Done::Claimed
                }
                None => Done::Failed("no such connection"),
            },
        };
        context.complete(id, done);
    }

    fn on_message(&mut self, _: &mut HostContext<'_, Turn>, (): ()) {}

    fn poll(&mut self, cx: &mut Context<'_>, context: &mut HostContext<'_, Turn>) {
        if let Some((id, connecting)) = &mut self.connecting
            && let Poll::Ready(connected) = connecting.as_mut().poll(cx)
        {
            let id = *id;
            self.connecting = None;
            let done = match connected {
                Ok(stream) => {
                    let mut registry = self.shared.lock();
                    registry.last += 1;
                    let number = registry.last;
                    registry.unclaimed.insert(number, stream);
                    Done::Connected(number)
                }
                Err(_) => Done::Failed("the peer is not there"),
            };
            context.complete(id, done);
        }
        while let Some((_, relay)) = &mut self.relay
            && let Poll::Ready(Some(datagram)) = relay.poll_recv(cx)
        {
            context.command(datagram).expect("it takes all");
        }
    }

    fn on_end(&mut self, _: &CloseReason, _: &ConnectionStats, _: Option<&Never>) {
        if let Some((number, _)) = self.relay.take() {
            self.shared.lock().relays.remove(&number);
        }
    }
}

/// Serve one stream, and become a pipe to the peer if it claims a connection.
async fn serve(stream: DuplexStream, host: Sockets) -> CloseReason {
    let (_, outbound) = channel(1);
    let reactor = MachineReactor::new(Turn::default(), host);
    let config = ConnectionConfig::default();
    let end = Connection::new(stream, LinesCodec::new(), reactor, outbound, &config).await;
    if let Some(handover) = end.handover {
        let (_, host) = handover.reactor.into_parts();
        let mut peer = host.claimed.expect("it was handed over for this");
        let mut client = handover.stream;
        if peer.write_all(&handover.unread).await.is_ok() {
            // Either side may vanish: that ends the pipe, and there is nobody to tell.
            let _ = copy_bidirectional(&mut client, &mut peer).await;
        }
    }
    end.reason
}

fn client_of(shared: &Shared, peers: &MemoryConnector) -> ScriptedPeer<DuplexStream, LinesCodec> {
    let (client, stream) = duplex(256);
    tokio::spawn(serve(stream, Sockets::new(shared, peers)));
    ScriptedPeer::new(client, LinesCodec::new())
}

async fn ask(client: &mut ScriptedPeer<DuplexStream, LinesCodec>, line: &str) -> String {
    client.send(line.to_owned()).await;
    within(client.receive()).await.expect("it answers")
}

#[test]
fn a_client_over_datagrams_has_a_relay_socket() {
    let shared = Shared::default();
    let (_, peers) = memory_listener(64);
    let host = Sockets::new(&shared, &peers);
    let mut side = MachineSide::new(Turn::default(), host, LinesCodec::new(), Instant::now());
    // A datagram in, a datagram out: each is one call of the codec.
    side.receive(b"ALLOCATE\r\n");
    assert_eq!(side.send(usize::MAX), "ALLOCATED 1\r\n");
    side.receive(b"SEND bob hello\r\n");
    assert_eq!(side.send(usize::MAX), "");
    let datagram = |text: &str| ("bob".to_owned(), text.to_owned());
    assert_eq!(shared.lock().sent, [datagram("hello")]);
    let relay = shared.lock().relays[&1].clone();
    relay.try_send(datagram("hi")).expect("there is room");
    side.with(|_, _| {});
    assert_eq!(side.send(usize::MAX), "DATA bob hi\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_claimed_connection_flows_raw_on_a_second_stream() {
    let shared = Shared::default();
    let (mut listener, peers) = memory_listener(64);
    let mut control = client_of(&shared, &peers);
    assert_eq!(ask(&mut control, "ALLOCATE").await, "ALLOCATED 1");
    assert_eq!(ask(&mut control, "CONNECT eve").await, "ERROR no such peer");
    assert_eq!(ask(&mut control, "CONNECT bob").await, "CONNECTION 2");
    let accepted = within(poll_fn(|cx| listener.poll_accept(cx)))
        .await
        .unwrap();
    let mut peer = accepted.establish.await.unwrap();

    let mut data = client_of(&shared, &peers);
    assert_eq!(ask(&mut data, "BIND 7").await, "ERROR no such connection");
    data.stream.write_all(b"BIND 2\r\nraw").await.unwrap();
    assert_eq!(within(data.receive()).await.as_deref(), Some("BOUND"));
    let mut heard = [0; 3];
    within(peer.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"raw");
    peer.write_all(b"\xff and back").await.unwrap();
    drop(peer);
    let mut back = Vec::new();
    within(data.stream.read_to_end(&mut back)).await.unwrap();
    assert_eq!(back, b"\xff and back");

    // The control stream is still served, and its end gives the relay socket up.
    assert_eq!(ask(&mut control, "NONSENSE").await, "ERROR bad request");
    assert_eq!(shared.lock().relays.len(), 1);
    control.stream.shutdown().await.unwrap();
    assert_eq!(within(control.receive()).await, None);
    assert_eq!(shared.lock().relays.len(), 0);
}
