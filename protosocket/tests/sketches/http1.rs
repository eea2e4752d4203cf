//! An HTTP/1.1-like server: head event → service future in the host → response, with bodies that
//! stream both ways.
//!
//! ```text
//!   Head ─▶ event Request ─▶ service future ─▶ command Respond ─▶ Head
//!   Body ─▶ event Body ────▶ body channel        body polled ───▶ Body …
//!                            full: poll_ready is Pending, its consumer wakes
//!   100 Continue ◀── command Continue ◀── the service polls the body for the first time
//! ```

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use protosocket::{
    ActionId, CloseReason, Connection, ConnectionConfig, DecodeError, Decoded, Decoder,
    EncodeError, Encoder, Host, HostContext, Input, InputPolicy, Limits, Machine, MachineReactor,
    Output, ReactorStatus, Rejected, Room, SendBuffer, SendLimits, channel,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::service::{Body, BodySender, Request, Response, ResponseFuture, Service, body};
use protosocket_testkit::within;

#[derive(Debug)]
pub(crate) struct Head {
    method: String,
    path: String,
    keeps_alive: bool,
    expects_continue: bool,
    has_body: bool,
}

#[derive(Debug)]
pub(crate) enum Inbound {
    Head(Head),
    /// A part of the body, and whether it is the last.
    Body(Bytes, bool),
}

#[derive(Debug)]
pub(crate) enum Outbound {
    Continue,
    Head(u16),
    Body(Bytes),
    End,
}

/// How the body of a response is framed: the request decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Framing {
    #[default]
    Chunked,
    /// The answer to HEAD has none.
    None,
    /// The end of the connection is the end of the body, for HTTP/1.0.
    UntilClose,
}

#[derive(Debug, Default)]
pub(crate) struct Http {
    /// What is left of a request's body.
    left: usize,
    framing: Framing,
}

impl Decoder for Http {
    type Message = Inbound;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Inbound>, DecodeError> {
        if self.left > 0 {
            let count = self.left.min(input.len());
            if count == 0 {
                return Ok(Decoded::Need(1));
            }
            self.left -= count;
            let part = input.take(count);
            return Ok(Decoded::Message(Inbound::Body(part, self.left == 0)));
        }
        let bytes = input.bytes();
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(Decoded::Need(bytes.len() + 1));
        };
        let text = std::str::from_utf8(&bytes[..end]);
        let text = text.map_err(|_| DecodeError::malformed("a head is text"))?;
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let mut word = || first.next().unwrap_or_default().to_owned();
        let (method, path, version) = (word(), word(), word());
        let mut expects_continue = false;
        for line in lines {
            match line.split_once(": ") {
                Some(("Content-Length", value)) => {
                    let value = value.parse();
                    self.left =
                        value.map_err(|_| DecodeError::malformed("a length is a number"))?;
                }
                Some(("Expect", "100-continue")) => expects_continue = true,
                _ => {}
            }
        }
        input.advance(end + 4);
        Ok(Decoded::Message(Inbound::Head(Head {
            method,
            path,
            keeps_alive: version == "HTTP/1.1",
            expects_continue,
            has_body: self.left > 0,
        })))
    }
}

impl Encoder for Http {
    type Message = Outbound;

    fn encode(&mut self, message: Outbound, output: &mut SendBuffer) -> Result<(), EncodeError> {
        let chunked = self.framing == Framing::Chunked;
        match message {
            Outbound::Continue => output.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Outbound::Head(status) => {
                let header = match chunked {
                    true => "Transfer-Encoding: chunked\r\n",
                    false => "",
                };
                output.put_slice(format!("HTTP/1.1 {status}\r\n{header}\r\n").as_bytes());
            }
            Outbound::Body(_) | Outbound::End if self.framing == Framing::None => {}
            Outbound::Body(part) if chunked => {
                output.put_slice(format!("{:x}\r\n", part.len()).as_bytes());
                output.put_bytes(part);
                output.put_slice(b"\r\n");
            }
            Outbound::Body(part) => output.put_bytes(part),
            Outbound::End if chunked => output.put_slice(b"0\r\n\r\n"),
            Outbound::End => {}
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) enum Command {
    Continue,
    Respond(u16),
    Body(Bytes),
    End,
}

#[derive(Debug)]
pub(crate) enum Event {
    Request { method: String, path: String },
    Body(Bytes),
    BodyEnd,
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
pub(crate) struct Never;

/// The server's side of one exchange after the other.
#[derive(Debug, Default)]
pub(crate) struct Http1 {
    framing: Framing,
    /// The request that is being read, or answered.
    exchange: Option<Exchange>,
    outputs: VecDeque<Outbound>,
    events: VecDeque<Event>,
    closes: bool,
}

#[derive(Debug)]
struct Exchange {
    body_ended: bool,
    /// The client waits to be told to send the body.
    expects_continue: bool,
    answered: bool,
}

impl Http1 {
    /// LIMIT: one part of a response waits here.
    fn wants_body(&self) -> bool {
        self.outputs.is_empty()
    }

    fn finish_if_done(&mut self) {
        let done = |exchange: &Exchange| exchange.answered && exchange.body_ended;
        if self.exchange.as_ref().is_some_and(done) {
            self.exchange = None;
        }
    }
}

impl Machine for Http1 {
    type Codec = Http;
    type Command = Command;
    type Event = Event;
    type Action = ();
    type ActionResult = ();
    type Error = Never;

    fn handle_inbound(&mut self, _now: Instant, message: Inbound) -> Result<(), Never> {
        let ended = match message {
            Inbound::Head(head) => {
                self.framing = match &*head.method {
                    "HEAD" => Framing::None,
                    _ if head.keeps_alive => Framing::Chunked,
                    _ => Framing::UntilClose,
                };
                self.closes = !head.keeps_alive;
                self.exchange = Some(Exchange {
                    body_ended: !head.has_body,
                    expects_continue: head.expects_continue,
                    answered: false,
                });
                let Head { method, path, .. } = head;
                self.events.push_back(Event::Request { method, path });
                !head.has_body
            }
            Inbound::Body(part, last) => {
                self.events.push_back(Event::Body(part));
                last
            }
        };
        if ended {
            self.events.push_back(Event::BodyEnd);
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.body_ended = ended;
        }
        self.finish_if_done();
        Ok(())
    }

    fn handle_drain(&mut self, _now: Instant) {
        self.closes = true;
    }

    fn handle_command(&mut self, _: Instant, command: Command) -> Result<(), Rejected<Command>> {
        let Some(exchange) = &mut self.exchange else {
            let reason = "there is no request";
            return Err(Rejected { command, reason });
        };
        match command {
            Command::Continue => {
                if std::mem::take(&mut exchange.expects_continue) && !exchange.answered {
                    self.outputs.push_back(Outbound::Continue);
                }
            }
            Command::Respond(status) => self.outputs.push_back(Outbound::Head(status)),
            Command::Body(part) => self.outputs.push_back(Outbound::Body(part)),
            Command::End => {
                exchange.answered = true;
                self.outputs.push_back(Outbound::End);
            }
        }
        Ok(())
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_output(&mut self, _now: Instant, room: Room) -> Option<Output<Outbound>> {
        if room.is_empty() {
            return None;
        }
        let output = self.outputs.pop_front()?;
        // The next request may be decoded once the framing of this answer is of no use any more.
        if matches!(output, Outbound::End) {
            self.finish_if_done();
        }
        Some(Output::Bulk(output))
    }

    fn wants_input(&self) -> bool {
        // A request that is complete is answered before the next one is looked at.
        match &self.exchange {
            None => self.outputs.is_empty() && !self.closes,
            Some(exchange) => !exchange.body_ended,
        }
    }

    fn is_idle(&self) -> bool {
        self.exchange.is_none() && self.outputs.is_empty()
    }

    fn status(&self) -> ReactorStatus {
        match self.closes && self.is_idle() {
            true => ReactorStatus::Disconnect,
            false => ReactorStatus::Continue,
        }
    }

    fn input_policy(&self) -> InputPolicy {
        InputPolicy::Answering
    }

    fn configure_codec(&self, codec: &mut Http) {
        codec.framing = self.framing;
    }
}

/// Where the service lives: its future, the body on its way to it, and the body that it answers
/// with.
struct Server<S> {
    service: S,
    request: Option<BodySender>,
    /// The service has not asked for the body yet.
    unasked: bool,
    running: Option<ResponseFuture>,
    response: Option<Body>,
}

impl<S: Service> Server<S> {
    fn new(service: S) -> Self {
        Self {
            service,
            request: None,
            unasked: false,
            running: None,
            response: None,
        }
    }
}

/// A command that the machine takes while it has a request, which is while the host has one.
fn command(context: &mut HostContext<'_, Http1>, command: Command) {
    let taken = context.command(command);
    taken.expect("the request is still being answered");
}

impl<S: Service> Host<Http1> for Server<S> {
    type Message = ();

    fn on_event(&mut self, _: &mut HostContext<'_, Http1>, event: Event) {
        match (event, &mut self.request) {
            (Event::Request { method, path }, _) => {
                let (sender, body) = body();
                self.request = Some(sender);
                self.unasked = true;
                self.running = Some(self.service.call(Request { method, path, body }));
            }
            (Event::Body(part), Some(request)) => request.push(part),
            (Event::BodyEnd, Some(request)) => {
                request.end();
                self.request = None;
            }
            (_, None) => {}
        }
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Http1>, _: ActionId, (): ()) {}

    fn on_message(&mut self, _: &mut HostContext<'_, Http1>, (): ()) {}

    fn poll(&mut self, cx: &mut Context<'_>, context: &mut HostContext<'_, Http1>) {
        if let Some(running) = &mut self.running
            && let Poll::Ready(response) = running.as_mut().poll(cx)
        {
            self.running = None;
            command(context, Command::Respond(response.status));
            self.response = Some(response.body);
        }
        if self.unasked
            && let Some(request) = &mut self.request
            && request.poll_polled(cx).is_ready()
        {
            self.unasked = false;
            command(context, Command::Continue);
        }
        while context.machine().wants_body()
            && let Some(response) = &mut self.response
            && let Poll::Ready(part) = response.poll_chunk(cx)
        {
            match part {
                Some(part) => command(context, Command::Body(part)),
                None => {
                    self.response = None;
                    command(context, Command::End);
                }
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.request {
            Some(request) => request.poll_ready(cx),
            None => Poll::Ready(()),
        }
    }
}

/// Answers with what it gets, and is slow to begin with; `/nothing` without a look at the body.
async fn echo(request: Request) -> Response {
    if request.path == "/nothing" {
        return Response {
            status: 200,
            body: Body::of("nothing"),
        };
    }
    assert_eq!(request.method, "POST");
    let (mut sender, body) = body();
    let mut source = request.body;
    let mut total = 0;
    tokio::spawn(async move {
        while let Some(part) = source.chunk().await {
            // The client is faster at first, so the channel to this task fills.
            if total == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            total += part.len();
            std::future::poll_fn(|cx| sender.poll_ready(cx)).await;
            sender.push(part);
        }
        sender.end();
    });
    Response { status: 200, body }
}

/// What the chunks of a chunked body hold.
fn unchunked(mut text: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = text.iter().position(|byte| *byte == b'\r').expect("a size");
        let size = std::str::from_utf8(&text[..line]).expect("it is text");
        let size = usize::from_str_radix(size, 16).expect("in hexadecimal");
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&text[line + 2..line + 2 + size]);
        text = &text[line + 2 + size + 2..];
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_stream_both_ways_and_the_framing_follows_the_request() {
    let (mut client, stream) = duplex(512);
    let limits = Limits::server().send_limits(SendLimits {
        bulk_bytes: 4096,
        bulk_messages: 64,
        control_bytes: 1024,
    });
    let config = ConnectionConfig::server(limits).expect("the limits are valid");
    let (_, outbound) = channel(1);
    let reactor = MachineReactor::new(Http1::default(), Server::new(echo));
    let codec = Http::default();
    let server = tokio::spawn(Connection::new(stream, codec, reactor, outbound, &config));

    let payload: Vec<u8> = (0..100_000).map(|index| (index % 251) as u8).collect();
    let head = format!(
        "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        payload.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let head = b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n";
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut answer = vec![0; head.len()];
    within(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, head);
    let mut answer = vec![0; go_on.len()];
    within(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, go_on);
    // The rest in one go: the body, then a HEAD and a request of HTTP/1.0 behind it.
    let (mut read, mut write) = tokio::io::split(client);
    let write = async {
        write.write_all(&payload).await.unwrap();
        write
            .write_all(b"HEAD /nothing HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        write
            .write_all(b"GET /nothing HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
    };
    let mut text = Vec::new();
    let ((), read) = within(async { tokio::join!(write, read.read_to_end(&mut text)) }).await;
    read.unwrap();
    let empty = b"HTTP/1.1 200\r\n\r\n";
    let last = [&empty[..], &empty[..], b"nothing"].concat();
    assert!(
        text.ends_with(&last),
        "HEAD has no body, HTTP/1.0 an unframed one"
    );
    assert!(unchunked(&text) == payload);
    let end = within(server).await.unwrap();
    assert!(matches!(end.reason, CloseReason::Disconnect));
}
