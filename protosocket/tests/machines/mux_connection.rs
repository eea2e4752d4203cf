//! The multiplexer on connections over pipes, with a clock that moves only when nothing else can.

use std::time::Duration;

use bytes::Bytes;
use protosocket::{
    CloseReason, Connection, ConnectionConfig, ConnectionEnd, ConnectionHandle, Host, Limits,
    MachineReactor, SendLimits, Sender, channel,
};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    frames::{Frame, Frames},
    hosts::{Client, Log, Server, Service},
    mux::{Command, Config, Event, Mux, MuxError, Role},
};
use protosocket_testkit::{ScriptedPeer, encoded, within};

/// The idle timeout of `Limits::server`.
const IDLE: Duration = Duration::from_secs(600);

type End<H> = ConnectionEnd<DuplexStream, MachineReactor<Mux, H>>;

/// A running connection and the ways to it.
struct Running<H: Host<Mux>> {
    sender: Option<Sender<Command>>,
    handle: ConnectionHandle,
    connection: JoinHandle<End<H>>,
}

impl<H: Host<Mux, Message = Command> + Send> Running<H> {
    fn start(stream: DuplexStream, role: Role, host: H, limits: Limits) -> Self {
        let (sender, outbound) = channel(16);
        let config = match role {
            Role::Client => ConnectionConfig::client(limits),
            Role::Server => ConnectionConfig::server(limits),
        };
        let config = config.expect("the limits are valid");
        let machine = Mux::new(role, Config::default());
        let reactor = MachineReactor::new(machine, host);
        let mut connection = Connection::new(stream, Frames, reactor, outbound, &config);
        Self {
            sender: Some(sender),
            handle: connection.handle(),
            connection: tokio::spawn(connection),
        }
    }

    async fn command(&self, command: Command) {
        let sender = self.sender.as_ref().expect("it has not been dropped");
        within(sender.send(command))
            .await
            .expect("the connection takes it");
    }

    async fn end(self) -> End<H> {
        drop(self.sender);
        within(self.connection).await.expect("it does not panic")
    }
}

/// Little room for bulk, some for control.
fn tight() -> Limits {
    Limits::server().send_limits(SendLimits {
        bulk_bytes: 256,
        bulk_messages: 16,
        control_bytes: 256,
    })
}

fn serve(
    service: Service,
    pipe: usize,
) -> (ScriptedPeer<DuplexStream, Frames>, Running<Server>, Log) {
    let (near, far) = duplex(pipe);
    let host = Server::new(service);
    let log = host.log.clone();
    let running = Running::start(far, Role::Server, host, tight());
    (ScriptedPeer::new(near, Frames), running, log)
}

fn open(stream: u32) -> Frame {
    let credit = u32::MAX;
    Frame::Open { stream, credit }
}

fn text(stream: u32, size: usize) -> Bytes {
    (0..size)
        .map(|index| (index * 7 + stream as usize) as u8)
        .collect()
}

fn payload_of(frames: &[Frame], wanted: u32) -> usize {
    let sizes = frames.iter().map(|frame| match frame {
        Frame::Data { stream, payload } if *stream == wanted => payload.len(),
        _ => 0,
    });
    sizes.sum()
}

#[tokio::test(start_paused = true)]
async fn an_exchange_through_pipes_of_any_size_has_the_same_outcome() {
    let started = Instant::now();
    for pipe in [1, 8, 100, 4096] {
        let (near, far) = duplex(pipe);
        let (log, service) = (Log::default(), Server::new(Service::Echo));
        let client = Running::start(near, Role::Client, Client(log.clone()), Limits::client());
        let server = Running::start(far, Role::Server, service, tight());
        for stream in 1..=4 {
            client.command(Command::Open(stream)).await;
            let payload = text(stream, 1000 * stream as usize);
            client.command(Command::Send(stream, payload)).await;
            client
                .command(match stream {
                    4 => Command::Cancel(stream),
                    _ => Command::Finish(stream),
                })
                .await;
        }
        // The client ends when its last sender is gone and its streams are done.
        let client = client.end().await;
        assert!(matches!(client.reason, CloseReason::NoSenders));
        assert_eq!(client.stats.unsent, 0);
        // How it ends is no matter: a credit for what was cancelled may find that nobody is there.
        server.end().await;
        for stream in 1..=3 {
            let received = log.lock().received(stream);
            assert!(
                received == text(stream, 1000 * stream as usize),
                "stream {stream}"
            );
        }
        // What the echo of the cancelled stream was quick enough for.
        let before_the_cancel = log.lock().received(4);
        assert!(text(4, 4000).starts_with(&before_the_cancel));
    }
    assert_eq!(
        Instant::now(),
        started,
        "nothing had to wait for a deadline"
    );
}

#[tokio::test(start_paused = true)]
async fn credits_and_cancels_are_heard_while_bulk_is_full() {
    let (mut peer, server, log) = serve(Service::Source(100_000), 64);
    peer.send(open(1)).await;
    peer.send(open(2)).await;
    within(log.until(|notes| notes.events.contains(&Event::Opened(2)))).await;
    // From here on nothing is read, and the server's send buffer fills.
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    peer.send(Frame::Cancel { stream: 1 }).await;
    within(log.until(|notes| notes.events.contains(&Event::Cancelled(1)))).await;
    server
        .handle
        .drain((Instant::now() + Duration::from_secs(30)).into_std());
    peer.send(Frame::Close { stream: 2 }).await;
    let frames = within(peer.rest()).await;
    let left = payload_of(&frames, 1);
    assert!(
        left <= 256 + 64 + 16,
        "{left} bytes of a cancelled stream were sent"
    );
    assert_eq!(payload_of(&frames, 2), 100_000);
    assert!(server.end().await.reason.is_graceful());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_from_the_application_overtakes_the_bulk_of_its_own_machine() {
    let (near, far) = duplex(64);
    let client = Running::start(near, Role::Client, Client::default(), tight());
    let mut peer = ScriptedPeer::new(far, Frames);
    client.command(Command::Open(1)).await;
    client.command(Command::Send(1, text(1, 1000))).await;
    assert_eq!(
        peer.receive().await,
        Some(Frame::Open {
            stream: 1,
            credit: 64
        })
    );
    peer.send(Frame::Credit {
        stream: 1,
        amount: u32::MAX,
    })
    .await;
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    client.command(Command::Cancel(1)).await;
    let connection = tokio::spawn(client.end());
    let frames = within(peer.rest()).await;
    assert_eq!(frames.last(), Some(&Frame::Cancel { stream: 1 }));
    let sent = payload_of(&frames, 1);
    assert!(
        sent <= 256 + 64 + 16,
        "{sent} bytes were sent before the cancel"
    );
    within(connection).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_large_stream_does_not_hold_up_a_small_one() {
    let (mut peer, server, _) = serve(Service::Echo, 64);
    peer.send(open(1)).await;
    let mut before_the_echo = 0;
    // Stream 1 always has a window of data on its way back; stream 2 has three bytes.
    peer.send(Frame::data(1, text(1, 64))).await;
    peer.send(open(2)).await;
    peer.send(Frame::data(2, "abc")).await;
    peer.send(Frame::Close { stream: 2 }).await;
    loop {
        match within(peer.receive()).await.expect("it goes on") {
            Frame::Data { stream: 1, payload } => {
                before_the_echo += payload.len();
                assert!(before_the_echo < 2000, "stream 2 is starved");
            }
            Frame::Credit { stream: 1, amount } => {
                peer.send(Frame::data(1, text(1, amount as usize))).await;
            }
            Frame::Close { stream: 2 } => break,
            _ => {}
        }
    }
    peer.send(Frame::Cancel { stream: 1 }).await;
    drop(peer);
    let _ = server.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_goodbye_refuses_what_is_new_and_finishes_what_is_old() {
    let started = Instant::now();
    let (near, far) = duplex(64);
    let log = Log::default();
    let client = Running::start(near, Role::Client, Client(log.clone()), Limits::client());
    let host = Server::new(Service::Echo);
    let server_log = host.log.clone();
    let server = Running::start(far, Role::Server, host, tight());
    client.command(Command::Open(1)).await;
    within(server_log.until(|notes| notes.events.contains(&Event::Opened(1)))).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    server.handle.drain(deadline.into_std());
    within(log.until(|notes| notes.events.contains(&Event::Goodbye))).await;
    client.command(Command::Open(2)).await;
    within(log.until(|notes| notes.rejected.len() == 1)).await;
    assert_eq!(log.lock().rejected[0].command, Command::Open(2));
    client.command(Command::Send(1, text(1, 500))).await;
    client.command(Command::Finish(1)).await;
    // Nobody has dropped a sender: the machines know when all is done.
    let client_end = within(client.connection).await.unwrap();
    let server_end = within(server.connection).await.unwrap();
    assert!(client_end.reason.is_graceful() && server_end.reason.is_graceful());
    assert_eq!(log.lock().received(1), text(1, 500));
    assert_eq!(Instant::now(), started);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_command_leaves_the_connection_alive() {
    let (near, far) = duplex(64);
    let log = Log::default();
    let client = Running::start(near, Role::Client, Client(log.clone()), Limits::client());
    let _server = Running::start(far, Role::Server, Server::new(Service::Echo), tight());
    client.command(Command::Send(9, text(9, 3))).await;
    within(log.until(|notes| notes.rejected.len() == 1)).await;
    client.command(Command::Open(1)).await;
    client.command(Command::Send(1, text(1, 3))).await;
    within(log.until(|notes| notes.received(1) == text(1, 3))).await;
    client.command(Command::Cancel(1)).await;
    assert!(client.end().await.reason.is_graceful());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_open_keeps_the_connection_from_being_idle() {
    let (mut peer, server, log) = serve(Service::Echo, 64);
    peer.send(open(1)).await;
    within(log.until(|notes| notes.events.contains(&Event::Opened(1)))).await;
    // Long past the idle timeout; each ping is answered.
    let started = Instant::now();
    while started.elapsed() < IDLE * 2 {
        let frame = tokio::time::timeout(2 * IDLE, peer.receive()).await;
        if frame.expect("it is asked").expect("it is not idle") == Frame::Ping {
            peer.send(Frame::Pong).await;
        }
    }
    peer.send(Frame::Cancel { stream: 1 }).await;
    let idle_since = Instant::now();
    let end = tokio::time::timeout(2 * IDLE, peer.receive()).await;
    assert_eq!(end, Ok(None));
    let idle = idle_since.elapsed();
    assert!(idle >= IDLE && idle < IDLE + Duration::from_secs(1));
    assert_eq!(
        server.end().await.reason.to_string(),
        "the connection was idle for too long (idle_timeout)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stays_silent_is_asked_and_given_up_with_a_last_word() {
    let (mut peer, server, log) = serve(Service::Echo, 64);
    let started = Instant::now();
    peer.send(open(1)).await;
    let frames = tokio::time::timeout(IDLE, peer.rest())
        .await
        .expect("it is given up");
    let amount = 64;
    assert_eq!(
        frames,
        [
            Frame::Credit { stream: 1, amount },
            Frame::Ping,
            Frame::fault("silence")
        ]
    );
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(20) && took < Duration::from_secs(21));
    let end = server.end().await;
    assert_eq!(end.reason.to_string(), MuxError::Silent.to_string());
    assert_eq!(log.lock().error, Some(MuxError::Silent));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_frame_are_answered_with_a_last_word() {
    let (mut peer, server, _) = serve(Service::Echo, 64);
    peer.send(open(1)).await;
    peer.stream.write_all(&[0xff; 9]).await.unwrap();
    let frames = within(peer.rest()).await;
    assert_eq!(frames.last(), Some(&Frame::fault("decode")));
    assert!(matches!(server.end().await.reason, CloseReason::Decode(_)));
}

#[tokio::test(start_paused = true)]
async fn the_last_word_arrives_behind_a_full_send_buffer() {
    let (mut peer, server, log) = serve(Service::Source(100_000), 64);
    peer.send(open(1)).await;
    within(log.until(|notes| notes.events.contains(&Event::Opened(1)))).await;
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    peer.send(Frame::data(1, text(1, 65))).await;
    let frames = within(peer.rest()).await;
    assert_eq!(frames.last(), Some(&Frame::fault("protocol")));
    assert!(
        payload_of(&frames, 1) < 1000,
        "bulk went on after the failure"
    );
    let end = server.end().await;
    assert!(matches!(end.reason, CloseReason::Protocol(_)));
    assert_eq!(log.lock().error, Some(MuxError::Credit(1)));
}

/// The peer asks for an answer to each ping and reads none: the reserve is used up, and then the
/// server reads no more, until the answers can leave.
#[tokio::test(start_paused = true)]
async fn answers_to_control_beyond_the_reserve_pause_the_input_and_none_is_lost() {
    let (mut peer, server, _) = serve(Service::Echo, 64);
    let mut pings = encoded(&mut Frames, Frame::Ping).repeat(20_000);
    let all = pings.len();
    while !pings.is_empty()
        && let Ok(written) =
            tokio::time::timeout(Duration::from_millis(1), peer.stream.write(&pings)).await
    {
        pings.drain(..written.unwrap());
    }
    // Two buffers of answers, two pipes, what is read ahead, and a frame at each seam.
    let taken = all - pings.len();
    let bound = 2 * 256 + 2 * 64 + 16 * 1024 + 4 * 9;
    assert!(taken <= bound, "{taken} bytes were taken and not answered");
    let (reader, mut writer) = tokio::io::split(peer.stream);
    let write = async {
        writer.write_all(&pings).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut reader = ScriptedPeer::new(tokio::io::join(reader, tokio::io::sink()), Frames);
    let (end, frames, ()) =
        within(async { tokio::join!(server.end(), reader.rest(), write) }).await;
    assert!(matches!(end.reason, CloseReason::EndOfInput));
    assert!(
        frames == vec![Frame::Pong; 20_000],
        "{} pongs",
        frames.len()
    );
}
