use protosocket::{DecodeError, MessageReactor, ReactorContext, ReactorStatus, SendError};

use crate::{ErrorReply, Protocol, Reply, Request, ServerCodec, Value};

/// What a server does with the commands of one connection.
///
/// HELLO, AUTH and QUIT are answered by the [`Server`] itself.
pub trait Handler: 'static {
    /// Carry a command out, and write its one reply.
    ///
    /// The client is answered in the order in which it asks, so nothing is answered later. On
    /// [`Disconnect`](ReactorStatus::Disconnect) the reply is sent, and the connection ends.
    fn call(&mut self, request: &Request, reply: &mut Reply<'_>) -> ReactorStatus;

    /// Whether this is somebody. Asked where the decoder
    /// [requires](crate::RequestDecoder::require_authentication) it; clients that give no name are
    /// `default`.
    ///
    /// How long this takes must not tell how much of the password was right.
    fn authenticate(&mut self, _user: &[u8], _password: &[u8]) -> bool {
        false
    }

    /// The client has chosen a name for its connection.
    fn set_name(&mut self, _name: &[u8]) {}
}

/// Serves one connection: gives each command to a [`Handler`], one after the other.
///
/// Replies are in RESP2 until the client asks for RESP3 with HELLO. What comes through the
/// connection's [`Sender`](protosocket::Sender) is sent between replies: a [`Value::Push`].
///
/// A client that does not read its replies is not read from, and its connection ends when it has not
/// done so for the connection's `write_timeout`; 1 MiB of replies waits for it, and the one that exceeds
/// that. How large one reply may be is for the [`Handler`] to bound: nothing else knows it before. One that
/// does not read what it is pushed fills the channel, of which `try_send` tells, and ends likewise.
#[derive(Debug)]
pub struct Server<H>(H);

type Context<'a> = ReactorContext<'a, ServerCodec>;

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

impl<H: Handler> Server<H> {
    /// A server of one connection.
    pub fn new(handler: H) -> Self {
        Self(handler)
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.0
    }

    /// What is about the connection, and no business of the handler.
    #[cold]
    fn answer(&mut self, codec: &mut ServerCodec, request: &Request) -> Value {
        let mut args = request.args();
        let name = args.next().unwrap_or_default();
        let answered = match name.to_ascii_uppercase().as_slice() {
            b"HELLO" => self.hello(codec, args.collect()),
            b"AUTH" => match (args.next(), args.next(), args.next()) {
                (Some(password), None, _) => self.authenticate(codec, b"default", password),
                (Some(user), Some(password), None) => self.authenticate(codec, user, password),
                _ => Err("ERR wrong number of arguments for 'auth' command"),
            },
            b"QUIT" => Ok("OK".into()),
            _ => Err("NOAUTH Authentication required."),
        };
        answered.unwrap_or_else(|line| Value::Error(ErrorReply::new(line)))
    }

    fn hello(&mut self, codec: &mut ServerCodec, args: Vec<&[u8]>) -> Result<Value, &'static str> {
        let (version, mut options) = match &args[..] {
            [] => (codec.protocol, &args[..]),
            [b"2", options @ ..] => (Protocol::Resp2, options),
            [b"3", options @ ..] => (Protocol::Resp3, options),
            _ => return Err("NOPROTO unsupported protocol version"),
        };
        let (mut name, mut credentials) = (None, None);
        while let [option, behind @ ..] = options {
            options = match (option.to_ascii_uppercase().as_slice(), behind) {
                (b"AUTH", [user, password, behind @ ..]) => {
                    credentials = Some((*user, *password));
                    behind
                }
                (b"SETNAME", [chosen, behind @ ..]) => {
                    name = Some(*chosen);
                    behind
                }
                _ => return Err("ERR Syntax error in HELLO"),
            };
        }
        // All of it is understood: only then is any of it done.
        if let Some((user, password)) = credentials {
            self.authenticate(codec, user, password)?;
        }
        if !codec.decoder.is_authenticated() {
            return Err(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                 HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client \
                 and select the RESP protocol version at the same time",
            );
        }
        if let Some(name) = name {
            self.0.set_name(name);
        }
        codec.protocol = version;
        let text = |text: &'static str| Value::Bulk(text.as_bytes().into());
        Ok(Value::Map(vec![
            // Clients tell by these two what they may ask.
            (text("server"), text("redis")),
            (text("version"), text("7.4.0")),
            (
                text("proto"),
                Value::Integer(match version {
                    Protocol::Resp2 => 2,
                    Protocol::Resp3 => 3,
                }),
            ),
            (text("id"), Value::Integer(1)),
            (text("mode"), text("standalone")),
            (text("role"), text("master")),
            (text("modules"), Value::Array(Vec::new())),
        ]))
    }

    fn authenticate(
        &mut self,
        codec: &mut ServerCodec,
        user: &[u8],
        password: &[u8],
    ) -> Result<Value, &'static str> {
        if !codec.decoder.requires_authentication() {
            return Err(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            );
        }
        // Who fails is who they were before.
        if !self.0.authenticate(user, password) {
            tracing::debug!("a client has given a wrong password");
            return Err(WRONG_PASSWORD);
        }
        codec.decoder.set_authenticated();
        Ok("OK".into())
    }

    /// Whether a command is for the connection itself.
    #[inline]
    fn is_own(codec: &ServerCodec, name: &[u8]) -> bool {
        let is = |own: &str| name.eq_ignore_ascii_case(own.as_bytes());
        !codec.decoder.is_authenticated()
            || match name.len() {
                4 => is("AUTH") || is("QUIT"),
                5 => is("HELLO"),
                _ => false,
            }
    }
}

impl<H: Handler> MessageReactor for Server<H> {
    type Codec = ServerCodec;
    type Inbound = Request;
    type Outbound = Value;
    type LogicalOutbound = Value;

    #[inline]
    fn on_inbound_message(&mut self, context: &mut Context<'_>, request: Request) -> ReactorStatus {
        if Self::is_own(context.codec(), request.name()) {
            let reply = self.answer(context.codec(), &request);
            let status = context.reply(reply);
            return match request.name().eq_ignore_ascii_case(b"quit") {
                true => ReactorStatus::Disconnect,
                false => status,
            };
        }
        let protocol = context.codec().protocol;
        let mut status = ReactorStatus::Continue;
        let sent = context.send_with(|output| {
            status = self.0.call(&request, &mut Reply::new(output, protocol));
            Ok(())
        });
        match sent {
            Ok(()) => status,
            Err(error) => context.fail(error),
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut Context<'_>,
        push: Value,
    ) -> Result<(), SendError<Value>> {
        context.send(push)
    }

    fn on_decode_error(&mut self, context: &mut Context<'_>, error: &DecodeError) {
        let line = match error {
            DecodeError::Malformed(what) => format!("ERR Protocol error: {what}"),
            error => format!("ERR Protocol error: {error}"),
        };
        // Said or not, this is the end.
        let _ = context.send_control(Value::Error(ErrorReply::escaped(&line)));
    }
}
