//! An HTTP/2-like server: a hundred streams on one connection, each with a service future in the
//! host. The machine pulls a part of a response only when the stream has a window and the
//! connection has room, so a hundred bodies do not land in the send buffer at once.
//!
//! A drain says goodbye twice: first without a limit, so that requests which are on their way are
//! still served, and with the last stream's number when the answer to a ping shows that the client
//! has heard the first.

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use protosocket::{
    ActionId, CloseReason, Connection, ConnectionConfig, Host, HostContext, Limits, Machine,
    MachineReactor, Output, ReactorStatus, Rejected, Room, SendLimits, channel,
};
use tokio::io::duplex;

use crate::{
    frames::{Frame, Frames},
    service::{Body, Request, Response, ResponseFuture, Service},
};
use protosocket_testkit::{ScriptedPeer, within};

/// LIMIT: streams at a time.
const STREAMS: usize = 100;

#[derive(Debug)]
pub(crate) enum Command {
    /// A part of a response, when the machine wants one.
    Body(u32, Bytes),
    End(u32),
}

#[derive(Debug)]
pub(crate) enum Event {
    Request(u32),
    Cancelled(u32),
}

#[derive(Debug, thiserror::Error)]
#[error("the client opened stream {0} after a higher one")]
pub(crate) struct OutOfOrder(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    NotSaid,
    /// The first has been said, and its ping not been answered.
    Announced,
    Said,
}

#[derive(Debug, Default)]
struct Stream {
    window: usize,
    part: Bytes,
    ended: bool,
}

#[derive(Debug)]
pub(crate) struct Http2 {
    streams: BTreeMap<u32, Stream>,
    last: u32,
    turn: u32,
    control: VecDeque<Frame>,
    events: VecDeque<Event>,
    goodbye: Goodbye,
}

impl Http2 {
    fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            last: 0,
            turn: 0,
            control: VecDeque::new(),
            events: VecDeque::new(),
            goodbye: Goodbye::NotSaid,
        }
    }

    /// Whether the stream's next part is to be made: the last one has left.
    fn wants_body(&self, stream: u32) -> bool {
        (self.streams.get(&stream)).is_some_and(|state| state.part.is_empty() && !state.ended)
    }
}

impl Machine for Http2 {
    type Codec = Frames;
    type Command = Command;
    type Event = Event;
    type Action = ();
    type ActionResult = ();
    type Error = OutOfOrder;

    fn handle_inbound(&mut self, _now: Instant, frame: Frame) -> Result<(), OutOfOrder> {
        match frame {
            Frame::Open { stream, .. } if stream <= self.last => return Err(OutOfOrder(stream)),
            Frame::Open { stream, credit } => {
                if self.goodbye == Goodbye::Said || self.streams.len() >= STREAMS {
                    self.control.push_back(Frame::Cancel { stream });
                    return Ok(());
                }
                self.last = stream;
                let window = credit as usize;
                let state = Stream {
                    window,
                    ..Stream::default()
                };
                self.streams.insert(stream, state);
                self.events.push_back(Event::Request(stream));
            }
            Frame::Credit { stream, amount } => {
                if let Some(state) = self.streams.get_mut(&stream) {
                    state.window += amount as usize;
                }
            }
            Frame::Cancel { stream } if self.streams.remove(&stream).is_some() => {
                self.events.push_back(Event::Cancelled(stream));
            }
            Frame::Pong if self.goodbye == Goodbye::Announced => {
                self.goodbye = Goodbye::Said;
                let last = self.last;
                self.control.push_back(Frame::Goodbye { last });
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_drain(&mut self, _now: Instant) {
        if self.goodbye == Goodbye::NotSaid {
            self.goodbye = Goodbye::Announced;
            let last = u32::MAX;
            self.control.extend([Frame::Goodbye { last }, Frame::Ping]);
        }
    }

    fn handle_command(&mut self, _: Instant, command: Command) -> Result<(), Rejected<Command>> {
        let (Command::Body(stream, _) | Command::End(stream)) = command;
        match (self.streams.get_mut(&stream), command) {
            (Some(state), Command::Body(_, part)) => state.part = part,
            (Some(state), Command::End(_)) => state.ended = true,
            (None, command) => {
                let reason = "the stream is gone";
                return Err(Rejected { command, reason });
            }
        }
        Ok(())
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_output(&mut self, _now: Instant, room: Room) -> Option<Output<Frame>> {
        if let Some(frame) = self.control.pop_front() {
            return Some(Output::Control(frame));
        }
        if room.is_empty() {
            return None;
        }
        let is_ready = |(_, state): &(&u32, &Stream)| match state.part.is_empty() {
            true => state.ended,
            false => state.window > 0,
        };
        let after = self.streams.range(self.turn..).find(is_ready);
        let before = || self.streams.range(..self.turn).find(is_ready);
        let id = *after.or_else(before)?.0;
        self.turn = id + 1;
        let state = self.streams.get_mut(&id)?;
        if state.part.is_empty() {
            self.streams.remove(&id);
            return Some(Output::Bulk(Frame::Close { stream: id }));
        }
        let size = state.window.min(room.bytes).min(state.part.len());
        state.window -= size;
        let part = state.part.split_to(size);
        Some(Output::Bulk(Frame::data(id, part)))
    }

    fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.control.is_empty() && self.goodbye != Goodbye::Announced
    }

    fn status(&self) -> ReactorStatus {
        match self.goodbye == Goodbye::Said && self.is_idle() {
            true => ReactorStatus::Disconnect,
            false => ReactorStatus::Continue,
        }
    }
}

/// One of the streams, on the host's side.
enum Call {
    Running(ResponseFuture),
    Answering(Body),
}

struct Server<S> {
    service: S,
    calls: BTreeMap<u32, Call>,
}

impl<S: Service> Host<Http2> for Server<S> {
    type Message = ();

    fn on_event(&mut self, _: &mut HostContext<'_, Http2>, event: Event) {
        match event {
            Event::Request(stream) => {
                let call = self.service.call(Request {
                    method: "GET".to_owned(),
                    path: format!("/{stream}"),
                    body: Body::of(""),
                });
                self.calls.insert(stream, Call::Running(call));
            }
            Event::Cancelled(stream) => {
                self.calls.remove(&stream);
            }
        }
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Http2>, _: ActionId, (): ()) {}

    fn on_message(&mut self, _: &mut HostContext<'_, Http2>, (): ()) {}

    fn poll(&mut self, cx: &mut Context<'_>, context: &mut HostContext<'_, Http2>) {
        // A sketch polls them all; a server would poll those that were woken.
        self.calls.retain(|&stream, call| {
            loop {
                match call {
                    Call::Running(running) => match running.as_mut().poll(cx) {
                        Poll::Ready(response) => *call = Call::Answering(response.body),
                        Poll::Pending => return true,
                    },
                    Call::Answering(body) => {
                        if !context.machine().wants_body(stream) {
                            return true;
                        }
                        let Poll::Ready(part) = body.poll_chunk(cx) else {
                            return true;
                        };
                        let ended = part.is_none();
                        let command = match part {
                            Some(part) => Command::Body(stream, part),
                            None => Command::End(stream),
                        };
                        let taken = context.command(command);
                        taken.expect("a part is taken when it is wanted");
                        if ended {
                            return false;
                        }
                    }
                }
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_streams_share_the_room_and_a_goodbye_is_said_twice() {
    let started = tokio::time::Instant::now();
    let (client, stream) = duplex(1024);
    let limits = Limits::server().send_limits(SendLimits {
        bulk_bytes: 4096,
        bulk_messages: 64,
        control_bytes: 4096,
    });
    let config = ConnectionConfig::server(limits).expect("the limits are valid");
    let (_, outbound) = channel(1);
    let service = |request: Request| async move {
        let number: usize = request.path[1..].parse().expect("a number");
        Response {
            status: 200,
            body: Body::of(vec![number as u8; 1000]),
        }
    };
    let calls = BTreeMap::new();
    let reactor = MachineReactor::new(Http2::new(), Server { service, calls });
    let mut connection = Connection::new(stream, Frames, reactor, outbound, &config);
    let handle = connection.handle();
    let server = tokio::spawn(connection);
    let mut client = ScriptedPeer::new(client, Frames);
    for stream in 1..=100 {
        client
            .send(Frame::Open {
                stream,
                credit: 400,
            })
            .await;
    }
    // Everybody gets the first window, one stream after the other.
    let mut received = BTreeMap::<u32, usize>::new();
    while received.values().sum::<usize>() < 100 * 400 {
        match within(client.receive()).await {
            Some(Frame::Data { stream, payload }) => {
                *received.entry(stream).or_default() += payload.len();
            }
            other => panic!("no stream can be done: {other:?}"),
        }
    }
    assert!(received.values().all(|size| *size == 400));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    handle.drain(deadline.into_std());
    let announced = within(client.receive()).await;
    assert_eq!(announced, Some(Frame::Goodbye { last: u32::MAX }));
    assert_eq!(within(client.receive()).await, Some(Frame::Ping));
    // This one was on its way. It is over the limit of a hundred, unless one is cancelled.
    client.send(Frame::Cancel { stream: 1 }).await;
    client
        .send(Frame::Open {
            stream: 101,
            credit: 1000,
        })
        .await;
    client.send(Frame::Pong).await;
    client
        .send(Frame::Open {
            stream: 102,
            credit: 1000,
        })
        .await;
    for stream in 2..=100 {
        client
            .send(Frame::Credit {
                stream,
                amount: 600,
            })
            .await;
    }
    let frames = within(client.rest()).await;
    let said = frames
        .iter()
        .filter(|frame| matches!(frame, Frame::Goodbye { .. }));
    assert_eq!(said.collect::<Vec<_>>(), [&Frame::Goodbye { last: 101 }]);
    assert!(frames.contains(&Frame::Cancel { stream: 102 }));
    let closed = frames
        .iter()
        .filter(|frame| matches!(frame, Frame::Close { .. }));
    assert_eq!(closed.count(), 100);
    for frame in frames {
        if let Frame::Data { stream, payload } = frame {
            *received.entry(stream).or_default() += payload.len();
        }
    }
    assert_eq!(received.remove(&1), Some(400));
    assert!(received.len() == 100 && received.values().all(|size| *size == 1000));
    let end = within(server).await.unwrap();
    assert!(matches!(end.reason, CloseReason::Disconnect));
    assert_eq!(tokio::time::Instant::now(), started);
}
