use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use protosocket::{EncodeError, Reconnect, ReconnectError, SendBuffer, SocketConnector};
use protosocket_pipeline::{
    Error, Execution, Expect, PipelineClient, PipelineConfig, Protocol as Pipelined, Received,
};
use tokio::sync::mpsc;

use crate::{Command, ErrorReply, Protocol, Value, ValueDecoder};

/// What is said on each connection before commands are, and what is kept of pushes.
///
/// | what | default | why |
/// |---|---|---|
/// | [`protocol`](Self::protocol) | RESP3, and RESP2 if the server knows no other | pushes, and replies that need no guessing |
/// | [`max_pushes`](Self::max_pushes) | 1,024 | a burst, and the consumer's task gets to run |
/// | [`pipeline`](Self::pipeline) | [`PipelineConfig`] | |
/// | [`decoder`](Self::decoder) | [`ValueDecoder`] | |
#[derive(Clone)]
pub struct ClientConfig {
    protocol: Protocol,
    credentials: Option<(String, String)>,
    database: u32,
    name: Option<String>,
    max_pushes: usize,
    decoder: ValueDecoder,
    pipeline: PipelineConfig,
}

impl ClientConfig {
    /// The defaults: no password, database 0, no name.
    pub fn new() -> Self {
        Self {
            protocol: Protocol::Resp3,
            credentials: None,
            database: 0,
            name: None,
            max_pushes: 1024,
            decoder: ValueDecoder::new(),
            pipeline: PipelineConfig::new(),
        }
    }

    /// The version to ask for. A server that refuses RESP3 is spoken to in RESP2, in which pushes
    /// cannot be told from replies: such a connection must not subscribe.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Who to be. The user of `requirepass` is `default`.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Which database to select.
    #[must_use]
    pub fn database(mut self, number: u32) -> Self {
        self.database = number;
        self
    }

    /// The name of the connections, for whoever looks at the server.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many events wait for [`Pushes`] at most. What comes on top is dropped, counted, and told
    /// as [`Event::Lost`].
    #[must_use]
    pub fn max_pushes(mut self, count: usize) -> Self {
        self.max_pushes = count.max(1);
        self
    }

    /// Read replies with `decoder`, whose limits may differ from the default.
    #[must_use]
    pub fn decoder(mut self, decoder: ValueDecoder) -> Self {
        self.decoder = decoder;
        self
    }

    /// Limits and deadlines of requests and connections.
    #[must_use]
    pub fn pipeline(mut self, pipeline: PipelineConfig) -> Self {
        self.pipeline = pipeline;
        self
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("protocol", &self.protocol)
            .field("user", &self.credentials.as_ref().map(|it| &it.0))
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// A client of the server that `reconnect` connects to, what the server pushes, and the driver: a
/// future to be spawned. See [`protosocket_pipeline::connect`].
pub fn connect<C: SocketConnector>(
    reconnect: Reconnect<C>,
    config: &ClientConfig,
) -> (
    Client,
    Pushes,
    impl Future<Output = Result<(), Arc<ReconnectError>>> + use<C>,
) {
    let (events, receiver) = mpsc::channel(config.max_pushes);
    let lost = Arc::new(AtomicU64::new(0));
    let protocol = RespProtocol {
        config: config.clone(),
        preamble: Preamble::Hello,
        speaks: Protocol::Resp2,
        events,
        lost: lost.clone(),
    };
    let (client, driver) = protosocket_pipeline::connect(reconnect, protocol, &config.pipeline);
    let pushes = Pushes { receiver, lost };
    (Client(client), pushes, driver)
}

/// Sends commands, from any task or thread, without waiting for the replies before. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(PipelineClient<RespProtocol>);

impl Client {
    /// The reply to `command`. It is on its way with this call; await it at once, later or beside
    /// others.
    ///
    /// Servers confirm subscriptions with pushes: SUBSCRIBE and its like are answered with null when
    /// those have come, which [`Pushes`] tell as well. They need RESP3. Commands that turn the
    /// connection into something else, such as MONITOR and SYNC, are refused.
    ///
    /// # Errors
    /// What the server answered, if it is an error, or what became of the command otherwise.
    pub fn call(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Value, CommandError>> + Send + use<> {
        let response = self.0.request(command);
        async {
            match response.await? {
                Value::Error(error) => Err(CommandError::Refused(error)),
                value => Ok(value),
            }
        }
    }

    /// The pipeline below, for its timeouts, counts and end.
    pub fn pipeline(&self) -> &PipelineClient<RespProtocol> {
        &self.0
    }
}

impl From<PipelineClient<RespProtocol>> for Client {
    /// A client whose pipeline has been given another timeout.
    fn from(pipeline: PipelineClient<RespProtocol>) -> Self {
        Self(pipeline)
    }
}

/// How a command ended that did not get what it asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The server said so.
    #[error("the server refused the command: {0}")]
    Refused(#[source] ErrorReply),
    /// There was no reply.
    #[error(transparent)]
    NoReply(#[from] Error),
}

impl CommandError {
    /// The code of the server's error, such as `WRONGTYPE`.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(error) => Some(error.code()),
            Self::NoReply(_) => None,
        }
    }

    /// Whether the command may have had an effect.
    pub fn execution(&self) -> Execution {
        match self {
            Self::Refused(_) => Execution::MaybeExecuted,
            Self::NoReply(error) => error.execution(),
        }
    }
}

/// What a server sends without having been asked, in order.
#[derive(Debug)]
pub struct Pushes {
    receiver: mpsc::Receiver<Event>,
    lost: Arc<AtomicU64>,
}

/// Something that [`Pushes`] tell.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A connection is ready. What belonged to the one before is gone: subscriptions, tracking.
    Connected,
    /// A push: its kind (`message`, `subscribe`, `invalidate` …), and what belongs to it.
    Push(Vec<Value>),
    /// So many events were dropped, because nobody took them as fast as they came.
    Lost(u64),
}

impl Pushes {
    /// The next event; `None` when the driver has ended.
    pub async fn next(&mut self) -> Option<Event> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => self.receiver.recv().await,
            // Those before the gap are told behind it: what matters is that there is one.
            lost => Some(Event::Lost(lost)),
        }
    }
}

/// RESP, as [`PipelineClient`] speaks it. [`connect`] makes one.
pub struct RespProtocol {
    config: ClientConfig,
    preamble: Preamble,
    /// What the connection speaks.
    speaks: Protocol,
    events: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
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
    fn tell(&self, event: Event) {
        // LIMIT: max_pushes.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn hello(&self) -> Command {
        let hello = Command::new("HELLO").arg("3");
        match &self.config.credentials {
            Some((user, password)) => hello.arg("AUTH").arg(user).arg(password),
            None => hello,
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
        if next.is_none() {
            self.tell(Event::Connected);
        }
        Ok(next)
    }

    fn encode(&mut self, command: &Command, output: &mut SendBuffer) -> Result<(), EncodeError> {
        if ["MONITOR", "SYNC", "PSYNC"].iter().any(|it| command.is(it)) {
            return Err(EncodeError::invalid(
                "MONITOR, SYNC and PSYNC turn a connection into something else",
            ));
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
        self.tell(Event::Push(items));
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
