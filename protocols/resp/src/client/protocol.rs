use std::error::Error as StdError;

use protosocket::{EncodeError, SendBuffer};
use protosocket_pipeline::{Expect, Protocol as Pipelined, Received};

use super::{ClientConfig, Event, pushes::Publisher};
use crate::{Command, ErrorReply, Protocol, Value, ValueDecoder};

/// RESP, as a [`PipelineClient`](protosocket_pipeline::PipelineClient) speaks it.
/// [`connect`](super::connect) makes one.
pub struct RespProtocol {
    config: ClientConfig,
    preamble: Preamble,
    /// All is said that comes before the commands of callers.
    is_prepared: bool,
    /// What the connection speaks.
    speaks: Protocol,
    publisher: Publisher,
}

/// What was said last on a connection that is being prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preamble {
    Hello,
    Auth,
    Select,
    SetName,
}

/// The server did not let the connection be prepared.
#[derive(Debug, thiserror::Error)]
#[error("{command} was refused: {error}")]
pub struct PreambleError {
    /// What was said.
    pub command: &'static str,
    /// What it was answered.
    #[source]
    pub error: ErrorReply,
}

impl RespProtocol {
    pub(super) fn new(config: ClientConfig, publisher: Publisher) -> Self {
        Self {
            config,
            preamble: Preamble::Hello,
            is_prepared: false,
            speaks: Protocol::Resp2,
            publisher,
        }
    }

    fn hello(&self) -> Command {
        let hello = Command::new("HELLO").arg("3");
        match &self.config.credentials {
            Some((user, password)) => hello.arg("AUTH").arg(user).arg(password),
            None => hello,
        }
    }

    /// What the server said, unless it quotes the password: it will be logged.
    fn without_password(&self, error: ErrorReply) -> ErrorReply {
        let Some((_, password)) = &self.config.credentials else {
            return error;
        };
        let password = password.as_bytes();
        let quotes = |line: &[u8]| line.windows(password.len()).any(|part| part == password);
        match !password.is_empty() && quotes(error.line()) {
            true => ErrorReply::new(format!(
                "{} and more, with the password in it",
                error.code()
            )),
            false => error,
        }
    }

    /// The first of what is still to be said, from `step` on.
    fn say(&mut self, step: Preamble) -> Option<Command> {
        self.preamble = step;
        let config = &self.config;
        match step {
            Preamble::Hello => match config.protocol {
                Protocol::Resp3 => Some(self.hello()),
                Protocol::Resp2 => self.say(Preamble::Auth),
            },
            Preamble::Auth => match &config.credentials {
                // A server of before ACLs knows no users.
                Some((user, password)) if user == "default" => {
                    Some(Command::new("AUTH").arg(password))
                }
                Some((user, password)) => Some(Command::new("AUTH").arg(user).arg(password)),
                None => self.say(Preamble::Select),
            },
            Preamble::Select => match config.database {
                0 => self.say(Preamble::SetName),
                number => Some(Command::new("SELECT").number(i64::from(number))),
            },
            Preamble::SetName => {
                let name = config.name.as_ref()?;
                Some(Command::new("CLIENT").arg("SETNAME").arg(name))
            }
        }
    }
}

impl Pipelined for RespProtocol {
    type Request = Command;
    type Reply = Value;
    type Expected = Option<Acknowledged>;
    type Decoder = ValueDecoder;

    fn decoder(&mut self) -> ValueDecoder {
        self.config.decoder.clone()
    }

    fn preamble(
        &mut self,
        reply: Option<Value>,
    ) -> Result<Option<Command>, Box<dyn StdError + Send + Sync>> {
        let said = self.preamble;
        let next = match (reply, said) {
            (None, _) => {
                self.speaks = Protocol::Resp2;
                self.say(Preamble::Hello)
            }
            // A server that does not know HELLO, or not this version of the protocol.
            (Some(Value::Error(error)), Preamble::Hello)
                if error.code() == "NOPROTO"
                    || error.code() == "ERR" && error.message().contains("unknown command") =>
            {
                self.say(Preamble::Auth)
            }
            (Some(Value::Error(error)), _) => {
                let command = match said {
                    Preamble::Hello => "HELLO",
                    Preamble::Auth => "AUTH",
                    Preamble::Select => "SELECT",
                    Preamble::SetName => "CLIENT SETNAME",
                };
                let error = self.without_password(error);
                return Err(Box::new(PreambleError { command, error }));
            }
            (Some(_), Preamble::Hello) => {
                self.speaks = Protocol::Resp3;
                self.say(Preamble::Select)
            }
            (Some(_), Preamble::Auth) => self.say(Preamble::Select),
            (Some(_), Preamble::Select) => self.say(Preamble::SetName),
            (Some(_), Preamble::SetName) => None,
        };
        self.is_prepared = next.is_none();
        if self.is_prepared {
            self.publisher.tell(Event::Connected);
        }
        Ok(next)
    }

    fn encode(&mut self, command: &Command, output: &mut SendBuffer) -> Result<(), EncodeError> {
        if self.is_prepared
            && let Some(why) = unsuitable(command)
        {
            return Err(EncodeError::invalid(why));
        }
        if self.speaks == Protocol::Resp2 && subscription(command).is_some() {
            return Err(EncodeError::invalid(
                "in RESP2, what is published cannot be told from replies: the server or this \
                 client's configuration has no RESP3",
            ));
        }
        command.write_to(output);
        Ok(())
    }

    fn expect(&mut self, command: &Command) -> Expect<Self> {
        Expect::Reply(subscription(command).map(|kind| Acknowledged {
            kind,
            // Without a channel, UNSUBSCRIBE is for all of them: it is done with the first.
            left: command.len().saturating_sub(1).max(1),
        }))
    }

    fn receive(
        &mut self,
        expected: Option<&mut Option<Acknowledged>>,
        value: Value,
    ) -> Received<Value> {
        let Value::Push(items) = value else {
            return Received::Reply(value);
        };
        let kind = items.first().and_then(Value::as_bytes).cloned();
        self.publisher.tell(Event::Push(items));
        if let (Some(Some(acknowledged)), Some(kind)) = (expected, kind)
            && kind.eq_ignore_ascii_case(acknowledged.kind.as_bytes())
        {
            acknowledged.left -= 1;
            return match acknowledged.left {
                0 => Received::Reply(Value::Null),
                _ => Received::Part,
            };
        }
        Received::Aside
    }
}

/// Why a command is none for a connection that callers share and that may be replaced at any time, if
/// it is not: behind it replies would be counted wrongly, or the next connection would not know of it.
fn unsuitable(command: &Command) -> Option<&'static str> {
    const LONGEST: usize = 7;
    // As a rule the length says that it is another.
    if command.name().len() > LONGEST {
        return None;
    }
    let is = |name: &str| command.is(name);
    let argument = |text: &str| {
        let first = command.first_argument().unwrap_or_default();
        first.eq_ignore_ascii_case(text.as_bytes())
    };
    Some(match command.name().first()?.to_ascii_uppercase() {
        b'M' if is("MONITOR") => "MONITOR turns the connection into something else",
        b'M' if is("MULTI") => {
            "MULTI begins what other callers' commands, or a new connection, may come into: use EVAL"
        }
        b'W' if is("WATCH") => "WATCH is forgotten with its connection: use EVAL",
        b'S' if is("SYNC") => "SYNC turns the connection into something else",
        b'P' if is("PSYNC") => "PSYNC turns the connection into something else",
        b'S' if is("SELECT") => {
            "the next connection would not know of SELECT: see ClientConfig::database"
        }
        b'A' if is("AUTH") => {
            "the next connection would not know of AUTH: see ClientConfig::credentials"
        }
        b'H' if is("HELLO") => "the client says HELLO itself: see ClientConfig::protocol",
        b'R' if is("RESET") => "RESET would undo what the client has said first",
        b'Q' if is("QUIT") => "the connection ends with its last client",
        b'C' if is("CLIENT") && argument("REPLY") => {
            "without replies nobody can tell which of them answers what"
        }
        b'C' if is("CLIENT") && argument("SETNAME") => {
            "the next connection would not know of the name: see ClientConfig::name"
        }
        _ => return None,
    })
}

/// How a command is answered that is about subscriptions: with so many pushes of a kind.
#[derive(Debug)]
pub struct Acknowledged {
    kind: &'static str,
    left: usize,
}

/// The name of the command, if it is about subscriptions.
fn subscription(command: &Command) -> Option<&'static str> {
    const NAMES: [&str; 6] = [
        "SUBSCRIBE",
        "UNSUBSCRIBE",
        "PSUBSCRIBE",
        "PUNSUBSCRIBE",
        "SSUBSCRIBE",
        "SUNSUBSCRIBE",
    ];
    // As a rule the length says that it is another.
    match command.name().len() {
        9.. => NAMES.into_iter().find(|it| command.is(it)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::pushes;

    #[test]
    fn a_password_that_the_server_quotes_is_not_told() {
        for (password, line, told) in [
            (
                "s3cret",
                "ERR unknown command 'AUTH', with args beginning with: 's3cret'",
                false,
            ),
            ("s3cret", "WRONGPASS invalid username-password pair", true),
            ("", "ERR AUTH called without any password configured", true),
        ] {
            let config = ClientConfig::new()
                .protocol(Protocol::Resp2)
                .credentials("default", password);
            let (publisher, _pushes) = pushes::pushes(1);
            let mut protocol = RespProtocol::new(config, publisher);
            protocol.preamble(None).expect("nothing was said yet");
            let refused = Value::Error(ErrorReply::new(line));
            let error = protocol
                .preamble(Some(refused))
                .expect_err("it was refused");
            let said = format!("{error} {error:?}");
            assert_eq!(said.contains(line), told, "{said}");
            assert!(password.is_empty() || !said.contains(password), "{said}");
        }
    }
}
