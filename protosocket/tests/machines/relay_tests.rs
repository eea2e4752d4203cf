//! The relay without I/O, over pipes and over sockets.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protosocket::{
    ActionId, CloseReason, Connection, ConnectionConfig, ConnectionEnd, Host, HostContext, Limits,
    Machine, MachineReactor, Output, ReactorStatus, SendLimits, Transport, channel,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    frames::{Frame, Frames},
    relay::{Command, Dialer, Event, Open, QUEUED, Relay, RelayError},
};
use protosocket_testkit::{MachineSide, ScriptedPeer, encoded, within};

type End<S> = ConnectionEnd<S, MachineReactor<Relay, Dialer>>;

fn connect(address: impl Into<Bytes>) -> Frame {
    let address = address.into();
    Frame::Connect { address }
}

/// Keeps what the machine says, for a test that plays the host itself.
#[derive(Default)]
struct ByHand {
    events: Vec<Event>,
    actions: Vec<(ActionId, Open)>,
}

impl Host<Relay> for ByHand {
    type Message = Command;

    fn on_event(&mut self, _: &mut HostContext<'_, Relay>, event: Event) {
        self.events.push(event);
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Relay>, id: ActionId, action: Open) {
        self.actions.push((id, action));
    }

    fn on_message(&mut self, _: &mut HostContext<'_, Relay>, _: Command) {}
}

fn by_hand(tunnel: bool) -> MachineSide<Relay, ByHand> {
    MachineSide::new(
        Relay::new(tunnel),
        ByHand::default(),
        Frames,
        Instant::now(),
    )
}

fn opened(side: &mut MachineSide<Relay, ByHand>, result: Result<(), &'static str>) {
    let (id, _) = side.host.actions.pop().expect("a socket is to be opened");
    side.with(|machine, now| machine.handle_action(now, id, result));
    side.resume();
}

#[test]
fn a_request_opens_a_socket_and_what_follows_waits_until_it_is_open() {
    let mut side = by_hand(false);
    let mut bytes = encoded(&mut Frames, connect("a:1")).to_vec();
    bytes.extend(encoded(&mut Frames, Frame::data(0, "early")));
    side.receive(&bytes);
    assert_eq!(side.host.actions, [(ActionId(0), Open("a:1".to_owned()))]);
    assert_eq!(side.host.events, []);
    assert_eq!(side.output(), None);
    opened(&mut side, Ok(()));
    assert_eq!(side.output(), Some(Output::Bulk(Frame::Connected)));
    assert_eq!(side.host.events, [Event::Data("early".into())]);
}

#[test]
fn an_end_of_either_side_is_carried_through_and_both_are_the_end() {
    let mut side = by_hand(false);
    side.receive(&encoded(&mut Frames, connect("a:1")));
    opened(&mut side, Ok(()));
    side.with(Relay::handle_end_of_input).unwrap();
    assert_eq!(side.host.events, [Event::End]);
    side.command(Command::Data("late".into())).unwrap();
    side.command(Command::End).unwrap();
    let outputs: Vec<_> = std::iter::from_fn(|| side.output()).collect();
    let (data, close) = (Frame::data(0, "late"), Frame::Close { stream: 0 });
    let expected = [Frame::Connected, data, close].map(Output::Bulk);
    assert_eq!(outputs, expected);
    assert_eq!(side.machine.status(), ReactorStatus::Disconnect);
    assert!(side.command(Command::Data("later".into())).is_err());
}

#[test]
fn data_before_a_request_is_fatal_and_is_told_so() {
    let mut side = by_hand(false);
    side.receive(&encoded(&mut Frames, Frame::data(0, "x")));
    let error = RelayError::Unexpected("nothing is connected");
    assert_eq!(side.error, Some(error));
    let last = Output::Bulk(Frame::fault("connect first"));
    assert_eq!(side.output(), Some(last));
}

fn start<S: Transport + Send>(stream: S, tunnel: bool, dialer: Dialer) -> JoinHandle<End<S>> {
    let limits = Limits::server().send_limits(SendLimits {
        bulk_bytes: 1024,
        bulk_messages: 16,
        control_bytes: 1024,
    });
    let config = ConnectionConfig::server(limits).expect("the limits are valid");
    let (_, outbound) = channel(1);
    let reactor = MachineReactor::new(Relay::new(tunnel), dialer);
    tokio::spawn(Connection::over(stream, Frames, reactor, outbound, &config))
}

/// A client, a relay, and what it connects to.
fn over_pipes(
    tunnel: bool,
) -> (
    ScriptedPeer<DuplexStream, Frames>,
    JoinHandle<End<DuplexStream>>,
    DuplexStream,
) {
    let (client, stream) = duplex(256);
    let (near, far) = duplex(256);
    let mut near = Some(near);
    let dialer = Dialer::new(move |address| {
        let stream = near.take().filter(|_| address == "far:1");
        async move { stream.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()) }
    });
    (
        ScriptedPeer::new(client, Frames),
        start(stream, tunnel, dialer),
        far,
    )
}

fn noise(size: usize) -> Bytes {
    (0..size).map(|index| (index * 31 % 251) as u8).collect()
}

#[tokio::test(start_paused = true)]
async fn a_refused_address_is_answered() {
    let (mut client, relay, _far) = over_pipes(false);
    client.send(connect("elsewhere:1")).await;
    assert_eq!(within(client.rest()).await, [Frame::fault("refused")]);
    assert!(within(relay).await.unwrap().reason.is_graceful());
}

#[tokio::test(start_paused = true)]
async fn what_the_other_side_does_not_take_is_not_read_from_the_client() {
    let (mut client, relay, mut far) = over_pipes(false);
    client.send(connect("far:1")).await;
    assert_eq!(within(client.receive()).await, Some(Frame::Connected));
    let payload = noise(100_000);
    let frames: Vec<u8> = payload
        .chunks(1000)
        .flat_map(|chunk| encoded(&mut Frames, Frame::data(0, chunk.to_vec())))
        .collect();
    let mut rest = &frames[..];
    while !rest.is_empty()
        && let Ok(written) =
            tokio::time::timeout(Duration::from_millis(1), client.stream.write(rest)).await
    {
        rest = &rest[written.unwrap()..];
    }
    // Two pipes, a frame that is pending, a frame at the seam, and what is read ahead.
    let taken = frames.len() - rest.len();
    assert!(
        taken <= 2 * 256 + 2 * 1009 + 16 * 1024,
        "{taken} bytes were taken"
    );
    let write = async {
        client.stream.write_all(rest).await.unwrap();
        client.send(Frame::Close { stream: 0 }).await;
    };
    let mut received = Vec::new();
    let read = far.read_to_end(&mut received);
    let (_, count) = within(async { tokio::join!(write, read) }).await;
    assert_eq!(count.unwrap(), payload.len());
    assert!(received == payload);
    // The client has ended and the other side has not: bytes go on the other way.
    far.write_all(b"late").await.unwrap();
    assert_eq!(within(client.receive()).await, Some(Frame::data(0, "late")));
    drop(far);
    assert_eq!(within(client.rest()).await, [Frame::Close { stream: 0 }]);
    assert!(matches!(
        within(relay).await.unwrap().reason,
        CloseReason::Disconnect
    ));
}

#[tokio::test(start_paused = true)]
async fn what_the_client_does_not_take_is_not_read_from_the_other_side() {
    let (mut client, relay, mut far) = over_pipes(false);
    client.send(connect("far:1")).await;
    assert_eq!(within(client.receive()).await, Some(Frame::Connected));
    let payload = noise(100_000);
    let mut rest = &payload[..];
    while !rest.is_empty()
        && let Ok(written) = tokio::time::timeout(Duration::from_millis(1), far.write(rest)).await
    {
        rest = &rest[written.unwrap()..];
    }
    // Two pipes, the machine's queue and the send buffer, each beyond its limit by one read.
    let taken = payload.len() - rest.len();
    assert!(
        taken <= 2 * 256 + QUEUED + 1024 + 2 * 1024,
        "{taken} bytes were taken"
    );
    let write = async {
        far.write_all(rest).await.unwrap();
        far.shutdown().await.unwrap();
    };
    let read = async {
        let mut received = Vec::new();
        loop {
            match client.receive().await {
                Some(Frame::Data { payload, .. }) => received.extend_from_slice(&payload),
                other => break (received, other),
            }
        }
    };
    let ((received, last), ()) = within(async { tokio::join!(read, write) }).await;
    assert!(received == payload);
    assert_eq!(last, Some(Frame::Close { stream: 0 }));
    // The other side has ended and the client has not: bytes go on the other way.
    client.send(Frame::data(0, "late")).await;
    client.stream.shutdown().await.unwrap();
    let mut late = Vec::new();
    within(far.read_to_end(&mut late)).await.unwrap();
    assert_eq!(late, b"late");
    assert_eq!(within(client.rest()).await, []);
    assert!(within(relay).await.unwrap().reason.is_graceful());
}

#[tokio::test(start_paused = true)]
async fn the_other_side_that_is_lost_is_told_to_the_client() {
    let (mut client, relay, far) = over_pipes(false);
    client.send(connect("far:1")).await;
    assert_eq!(within(client.receive()).await, Some(Frame::Connected));
    drop(far);
    assert_eq!(
        within(client.receive()).await,
        Some(Frame::Close { stream: 0 })
    );
    client.send(Frame::data(0, "to nobody")).await;
    assert_eq!(within(client.rest()).await, [Frame::fault("lost")]);
    assert!(within(relay).await.unwrap().reason.is_graceful());
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_hands_the_raw_stream_over_with_what_was_read_of_it() {
    let (mut client, relay, mut far) = over_pipes(true);
    let mut request = encoded(&mut Frames, connect("far:1")).to_vec();
    request.extend_from_slice(b"\xff\xff raw from the first byte");
    client.stream.write_all(&request).await.unwrap();
    assert_eq!(within(client.receive()).await, Some(Frame::Connected));
    let end = within(relay).await.unwrap();
    assert!(matches!(end.reason, CloseReason::Handover));
    let handover = end.handover.expect("the relay asked for it");
    let (_, dialer) = handover.reactor.into_parts();
    let mut stream = handover.stream;
    let mut other = dialer.into_other().expect("it is connected");
    let unread = handover.unread;
    let tunnel = tokio::spawn(async move {
        other.write_all(&unread).await?;
        copy_bidirectional(&mut stream, &mut other).await
    });
    client.stream.write_all(b", to the last").await.unwrap();
    client.stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    within(far.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"\xff\xff raw from the first byte, to the last");
    far.write_all(b"and back").await.unwrap();
    drop(far);
    let mut back = String::new();
    within(client.stream.read_to_string(&mut back))
        .await
        .unwrap();
    assert_eq!(back, "and back");
    within(tunnel).await.unwrap().unwrap();
}

/// On real sockets, and so on the real clock.
#[tokio::test]
async fn a_relay_connects_to_a_real_address() {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = echo.local_addr().unwrap().to_string();
    let echoing = tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await?;
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let relay = start(stream, false, Dialer::new(TcpStream::connect::<String>));
    let payload = noise(300_000);
    let (read, mut write) = client.into_split();
    let sending = {
        let payload = payload.clone();
        tokio::spawn(async move {
            let mut bytes = encoded(&mut Frames, connect(address)).to_vec();
            for chunk in payload.chunks(10_000) {
                bytes.extend(encoded(&mut Frames, Frame::data(0, chunk.to_vec())));
            }
            // Its end is carried through to the echo, and the echo's end comes back.
            write.write_all(&bytes).await?;
            write.shutdown().await
        })
    };
    let mut client = ScriptedPeer::new(tokio::io::join(read, tokio::io::sink()), Frames);
    assert_eq!(client.receive().await, Some(Frame::Connected));
    let mut received = Vec::new();
    let last = loop {
        match client.receive().await {
            Some(Frame::Data { payload, .. }) => received.extend_from_slice(&payload),
            other => break other,
        }
    };
    assert_eq!(last, Some(Frame::Close { stream: 0 }));
    assert!(received == payload);
    assert_eq!(client.receive().await, None);
    sending.await.unwrap().unwrap();
    assert_eq!(echoing.await.unwrap().unwrap(), payload.len() as u64);
    let end = relay.await.unwrap();
    assert!(
        matches!(end.reason, CloseReason::Disconnect),
        "{:?}",
        end.reason
    );
}
