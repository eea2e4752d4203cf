//! A line server that answers after a while.
//!
//! A line `3 hello` is answered with `hello` after three seconds, while other lines are answered
//! meanwhile; `quit` says goodbye. Ctrl-C drains and prints what became of the connections.

#![expect(clippy::print_stdout, reason = "it tells its user what to type next")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use protosocket::{
    DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, MessageReactor, ReactorContext,
    ReactorStatus, SendBuffer, SendError, Sender, StreamWithAddress, TcpSocketListener,
};
use protosocket_server::{ProtosocketServerConfig, ServerConnection, ServerConnector};
use tokio::net::TcpStream;

/// What a peer sends: a line, or a wish about an option.
enum Inbound {
    Line(String),
    Negotiate { verb: u8, option: u8 },
}

/// Network virtual terminal (RFC 854): lines, with commands between their bytes.
#[derive(Default)]
struct TelnetCodec {
    line: Vec<u8>,
    /// Between the beginning and the end of a subnegotiation, which is skipped.
    subnegotiating: bool,
}

const SE: u8 = 240;
const SB: u8 = 250;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;
const IAC: u8 = 255;

impl Decoder for TelnetCodec {
    type Message = Inbound;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Inbound>, DecodeError> {
        while self.line.len() <= MAX_LINE {
            let used = match *input.bytes() {
                [] | [IAC] | [IAC, WILL..=DONT] => return Ok(Decoded::Need(input.len() + 1)),
                [IAC, command @ (SB | SE), ..] => {
                    self.subnegotiating = command == SB;
                    2
                }
                [first, ..] if self.subnegotiating => 1 + usize::from(first == IAC),
                [IAC, verb @ WILL..=DONT, option, ..] => {
                    input.advance(3);
                    return Ok(Decoded::Message(Inbound::Negotiate { verb, option }));
                }
                // Other commands ask for nothing that a line server has.
                [IAC, command, ..] if command != IAC => 2,
                [b'\n', ..] => {
                    input.advance(1);
                    return self.take_line().map(Decoded::Message);
                }
                // A doubled IAC is a byte of the line.
                [byte, ..] => {
                    self.line.push(byte);
                    1 + usize::from(byte == IAC)
                }
            };
            input.advance(used);
        }
        Err(DecodeError::malformed("a line is too long"))
    }

    fn is_inside(&self) -> bool {
        self.subnegotiating || !self.line.is_empty()
    }

    fn decode_end(&mut self, _input: &mut Input<'_>) -> Result<Option<Inbound>, DecodeError> {
        let last = (!self.line.is_empty()).then(|| self.take_line());
        last.transpose()
    }
}

impl TelnetCodec {
    fn take_line(&mut self) -> Result<Inbound, DecodeError> {
        let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(DecodeError::other)?;
        Ok(Inbound::Line(line.trim_end_matches(['\r', '\0']).into()))
    }
}

impl Encoder for TelnetCodec {
    type Message = Vec<u8>;

    fn encode(&mut self, message: Vec<u8>, output: &mut SendBuffer) -> Result<(), EncodeError> {
        output.put_slice(&message);
        Ok(())
    }
}

/// One user: the answers that wait for their time, in its order.
#[derive(Default)]
struct Telnet {
    waiting: BTreeMap<(Instant, u64), String>,
    count: u64,
}

const MAX_LINE: usize = 4096;
const MAX_WAITING: usize = 1000;
const MAX_SECONDS: u64 = 3600;

type Context<'a> = ReactorContext<'a, TelnetCodec>;

impl Telnet {
    fn on_line(&mut self, context: &mut Context<'_>, line: &str) -> ReactorStatus {
        let (seconds, text) = line.split_once(' ').unwrap_or((line, ""));
        match seconds.parse() {
            _ if line == "quit" => {
                // Said or not, this is the end.
                let _ = context.reply(b"goodbye\r\n".into());
                ReactorStatus::Disconnect
            }
            Ok(0) => context.reply(format!("{text}\r\n").into()),
            Ok(1..=MAX_SECONDS) if self.waiting.len() == MAX_WAITING => {
                context.reply(b"too many answers are waiting\r\n".into())
            }
            Ok(seconds @ 1..=MAX_SECONDS) => {
                let at = context.now() + Duration::from_secs(seconds);
                self.count += 1;
                self.waiting.insert((at, self.count), format!("{text}\r\n"));
                ReactorStatus::Continue
            }
            _ => context.reply(b"type SECONDS TEXT, such as 3 hello, or quit\r\n".into()),
        }
    }
}

impl MessageReactor for Telnet {
    type Codec = TelnetCodec;
    type Inbound = Inbound;
    type Outbound = Vec<u8>;
    type LogicalOutbound = Infallible;

    fn on_inbound_message(&mut self, context: &mut Context<'_>, message: Inbound) -> ReactorStatus {
        match message {
            Inbound::Line(line) => self.on_line(context, &line),
            // Every option is refused; a peer that refuses one wants no answer.
            Inbound::Negotiate { verb: WILL, option } => context.reply(vec![IAC, DONT, option]),
            Inbound::Negotiate { verb: DO, option } => context.reply(vec![IAC, WONT, option]),
            Inbound::Negotiate { .. } => ReactorStatus::Continue,
        }
    }

    fn on_outbound_message(
        &mut self,
        _context: &mut Context<'_>,
        message: Infallible,
    ) -> Result<(), SendError<Vec<u8>>> {
        match message {}
    }

    fn deadline(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|key| key.0)
    }

    fn poll_outbound_many(
        &mut self,
        _cx: &mut task::Context<'_>,
        context: &mut Context<'_>,
    ) -> Poll<Option<()>> {
        while let Some(next) = self.waiting.first_entry()
            && next.key().0 <= context.now()
            && !context.room().is_empty()
        {
            let _ = context.reply(next.remove().into());
        }
        Poll::Ready(None)
    }

    fn in_flight(&self) -> usize {
        self.waiting.len()
    }
}

struct Connector;

impl ServerConnector for Connector {
    type Codec = TelnetCodec;
    type Reactor = Telnet;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> TelnetCodec {
        TelnetCodec::default()
    }

    fn new_reactor(&self, _: Sender<Infallible>, _: &StreamWithAddress<TcpStream>) -> Telnet {
        Telnet::default()
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9000".into());
    let server = ProtosocketServerConfig::default().bind_tcp(address.parse()?, Connector)?;
    let address = server.listener().ok_or("not listening")?.local_address()?;
    let (ip, port) = (address.ip(), address.port());
    println!("listening: telnet {ip} {port}, then type 3 hello");
    let handle = server.handle();
    tokio::spawn(server);
    tokio::signal::ctrl_c().await?;
    println!("draining: {}", handle.drain(Duration::from_secs(10)).await);
    Ok(())
}
