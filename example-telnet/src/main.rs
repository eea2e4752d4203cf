//! A line server that answers after a while.
//!
//! A line `3 hello` is answered with `hello` after three seconds, while other lines are answered
//! meanwhile; `quit` says goodbye. Ctrl-C drains and prints what became of the connections.

#![expect(clippy::print_stdout, reason = "it tells its user what to type next")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    env, error, str,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protosocket::{
    DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, MessageReactor, ReactorContext,
    ReactorStatus, SendBuffer, SendError, Sender, StreamWithAddress, TcpSocketListener,
};
use protosocket_server::{ProtosocketServerConfig, ServerConnection, ServerConnector};
use tokio::net::TcpStream;

/// What a peer sends: a line, or a wish to negotiate an option (RFC 854).
enum Inbound {
    Line(String),
    Negotiate { verb: u8, option: u8 },
}

/// What it is sent: bytes as they are.
type Outbound = Vec<u8>;

const SE: u8 = 240;
const SB: u8 = 250;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;
const IAC: u8 = 255;
const MAX_LINE: usize = 4096;
const MAX_WAITING: usize = 1000;
const MAX_SECONDS: u64 = 3600;

/// Network virtual terminal: lines, with commands between their bytes.
#[derive(Default)]
struct TelnetCodec {
    line: Vec<u8>,
}

impl Decoder for TelnetCodec {
    type Message = Inbound;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Inbound>, DecodeError> {
        loop {
            let used = match *input.bytes() {
                [] => return Ok(Decoded::Need(1)),
                [IAC, IAC, ..] => {
                    self.line.push(IAC);
                    2
                }
                [IAC, verb @ WILL..=DONT, option, ..] => {
                    input.advance(3);
                    return Ok(Decoded::Message(Inbound::Negotiate { verb, option }));
                }
                [IAC, SB, ref rest @ ..] => match rest.windows(2).position(|w| w == [IAC, SE]) {
                    Some(end) => 2 + end + 2,
                    None if rest.len() < MAX_LINE => return Ok(Decoded::Need(input.len() + 1)),
                    None => return Err(DecodeError::malformed("a subnegotiation never ended")),
                },
                [IAC] | [IAC, WILL..=DONT] => return Ok(Decoded::Need(input.len() + 1)),
                // Other commands ask for nothing that a line server has.
                [IAC, _, ..] => 2,
                [b'\n', ..] => {
                    input.advance(1);
                    return self
                        .take_line()
                        .map(|line| Decoded::Message(Inbound::Line(line)));
                }
                [byte, ..] => {
                    self.line.push(byte);
                    1
                }
            };
            input.advance(used);
            if self.line.len() > MAX_LINE {
                let (size, limit) = (self.line.len() as u64, MAX_LINE as u64);
                return Err(DecodeError::TooLarge { size, limit });
            }
        }
    }

    fn decode_end(&mut self, _input: &mut Input<'_>) -> Result<Option<Inbound>, DecodeError> {
        let last = (!self.line.is_empty()).then(|| self.take_line().map(Inbound::Line));
        last.transpose()
    }
}

impl TelnetCodec {
    fn take_line(&mut self) -> Result<String, DecodeError> {
        let line = std::mem::take(&mut self.line);
        let text = str::from_utf8(&line).map_err(DecodeError::other)?;
        Ok(text.trim_end_matches(['\r', '\0']).to_owned())
    }
}

impl Encoder for TelnetCodec {
    type Message = Outbound;

    fn encode(&mut self, message: Outbound, output: &mut SendBuffer) -> Result<(), EncodeError> {
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

impl MessageReactor for Telnet {
    type Codec = TelnetCodec;
    type Inbound = Inbound;
    type Outbound = Outbound;
    type LogicalOutbound = Infallible;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, TelnetCodec>,
        message: Inbound,
    ) -> ReactorStatus {
        let line = match message {
            Inbound::Line(line) => line,
            // Refuse every option: WILL with DONT, DO with WONT. WONT and DONT need no answer.
            Inbound::Negotiate { verb, option } => match verb {
                WILL => return context.reply(vec![IAC, DONT, option]),
                DO => return context.reply(vec![IAC, WONT, option]),
                _ => return ReactorStatus::Continue,
            },
        };
        if line == "quit" {
            return match context.reply(b"goodbye\r\n".to_vec()) {
                ReactorStatus::Continue => ReactorStatus::Disconnect,
                failed => failed,
            };
        }
        let (seconds, text) = line.split_once(' ').unwrap_or((&line, ""));
        match seconds.parse() {
            _ if self.waiting.len() == MAX_WAITING => {
                context.reply(b"too many answers are waiting\r\n".to_vec())
            }
            Ok(0) => context.reply(format!("{text}\r\n").into_bytes()),
            Ok(seconds @ 1..=MAX_SECONDS) => {
                let at = context.now() + Duration::from_secs(seconds);
                self.count += 1;
                self.waiting.insert((at, self.count), format!("{text}\r\n"));
                ReactorStatus::Continue
            }
            _ => context.reply(b"type SECONDS TEXT, such as 3 hello, or quit\r\n".to_vec()),
        }
    }

    fn on_outbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, TelnetCodec>,
        message: Infallible,
    ) -> Result<(), SendError<Outbound>> {
        match message {}
    }

    fn deadline(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|key| key.0)
    }

    fn poll_outbound_many(
        &mut self,
        _cx: &mut Context<'_>,
        context: &mut ReactorContext<'_, TelnetCodec>,
    ) -> Poll<Option<()>> {
        while let Some(next) = self.waiting.first_entry()
            && next.key().0 <= context.now()
            && !context.room().is_empty()
        {
            let _ = context.reply(next.remove().into_bytes());
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

    fn new_reactor(
        &self,
        _outbound: Sender<Infallible>,
        _stream: &StreamWithAddress<TcpStream>,
    ) -> Telnet {
        Telnet::default()
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn error::Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:9000".to_owned());
    let server = ProtosocketServerConfig::default().bind_tcp(address.parse()?, Connector)?;
    let address = server.listener().ok_or("not listening")?.local_address()?;
    println!(
        "listening: telnet {} {}, then type 3 hello",
        address.ip(),
        address.port()
    );
    let handle = server.handle();
    tokio::spawn(server);
    tokio::signal::ctrl_c().await?;
    println!("draining: {}", handle.drain(Duration::from_secs(10)).await);
    Ok(())
}
