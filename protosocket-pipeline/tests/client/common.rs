use std::{
    collections::VecDeque,
    error::Error as StdError,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use protosocket::{
    Backoff, ConnectError, ConnectionConfig, EncodeError, Limits, LinesCodec, ManualClock,
    PeerAddress, Reconnect, ReconnectError, SendBuffer, SocketConnector,
};
use protosocket_pipeline::{
    Error, Execution, Expect, PipelineClient, PipelineConfig, Protocol, Received, Response, connect,
};
use protosocket_testkit::{ScriptedStream, StreamPeer, scripted_stream};

/// Lines. A request `quiet …` has no reply; a reply of `+…` goes on with the next line, `>…` is a
/// push, and `?…` must not come. A preamble is said if there is one, and answered with `ok`.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) preamble: Option<&'static str>,
    pub(crate) pushes: Arc<Mutex<Vec<String>>>,
}

impl Protocol for Lines {
    type Request = String;
    type Reply = String;
    type Expected = String;
    type Decoder = LinesCodec;

    fn decoder(&mut self) -> LinesCodec {
        LinesCodec::new()
    }

    fn preamble(
        &mut self,
        reply: Option<String>,
    ) -> Result<Option<String>, Box<dyn StdError + Send + Sync>> {
        match (reply, self.preamble) {
            (None, Some(preamble)) => Ok(Some(preamble.into())),
            (None, None) => Ok(None),
            (Some(reply), _) if reply == "ok" => Ok(None),
            (Some(reply), _) => Err(reply.into()),
        }
    }

    fn encode(&mut self, request: &String, output: &mut SendBuffer) -> Result<(), EncodeError> {
        if request == "unspeakable" {
            output.put_slice(b"half");
            return Err(EncodeError::invalid("told to fail"));
        }
        if request != "empty" {
            output.put_slice(request.as_bytes());
            output.put_slice(b"\n");
        }
        Ok(())
    }

    fn expect(&mut self, request: &String) -> Expect<Self> {
        match request.starts_with("quiet") {
            true => Expect::Nothing("said".into()),
            false => Expect::Reply(String::new()),
        }
    }

    fn receive(&mut self, expected: Option<&mut String>, line: String) -> Received<String> {
        match (line.as_bytes().first(), expected) {
            (Some(b'>'), _) => {
                self.pushes.lock().unwrap().push(line);
                Received::Aside
            }
            (Some(b'?'), _) => Received::Unexpected("a question".into()),
            (Some(b'+'), Some(expected)) => {
                expected.push_str(&line[1..]);
                Received::Part
            }
            (Some(b'+'), None) => Received::Part,
            (_, Some(expected)) => Received::Reply(std::mem::take(expected) + &line),
            (_, None) => Received::Reply(line),
        }
    }
}

/// Opens what is there to be opened.
#[derive(Default, Clone)]
pub(crate) struct Door(Arc<Mutex<(Openings, Option<Waker>)>>);

/// The streams to come, and the attempts that fail.
type Openings = VecDeque<Option<ScriptedStream>>;

impl SocketConnector for Door {
    type Stream = ScriptedStream;

    async fn connect(&self) -> Result<ScriptedStream, ConnectError> {
        let opened = poll_fn(|cx| {
            let mut door = self.0.lock().unwrap();
            match door.0.pop_front() {
                Some(opened) => Poll::Ready(opened),
                None => {
                    door.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        opened.await.ok_or(ConnectError {
            address: PeerAddress::Unknown,
            source: io::ErrorKind::ConnectionRefused.into(),
        })
    }
}

impl Door {
    fn push(&self, opened: Option<ScriptedStream>) {
        let mut door = self.0.lock().unwrap();
        door.0.push_back(opened);
        let waker = door.1.take();
        drop(door);
        waker.into_iter().for_each(Waker::wake);
    }
}

pub(crate) struct Flag(AtomicBool);

impl Flag {
    /// One that is set: the first poll needs no wake.
    pub(crate) fn set() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A waker that does this on the spot.
struct Spot<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Spot<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

type Driver = Pin<Box<dyn Future<Output = Result<(), Arc<ReconnectError>>>>>;

/// A client, its driver, and the server's ends of its streams.
pub(crate) struct World {
    pub(crate) client: Option<PipelineClient<Lines>>,
    pub(crate) driver: Option<Driver>,
    pub(crate) ended: Option<Result<(), Arc<ReconnectError>>>,
    pub(crate) clock: ManualClock,
    pub(crate) door: Door,
    flag: Arc<Flag>,
}

pub(crate) fn config() -> PipelineConfig {
    PipelineConfig::new()
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Lines::default(), config(), None)
    }

    pub(crate) fn with(protocol: Lines, config: PipelineConfig, attempts: Option<u32>) -> Self {
        let clock = ManualClock::new();
        let connection = ConnectionConfig::client(Limits::client().linger_timeout(None)).unwrap();
        let connection = connection.with_clock(Arc::new(clock.clone()));
        let config = config.connection(connection).unwrap();
        let door = Door::default();
        let reconnect = Reconnect::new(door.clone(), Backoff::new().seed(7))
            .unwrap()
            .max_attempts(attempts.and_then(std::num::NonZeroU32::new))
            .with_clock(Arc::new(clock.clone()));
        let (client, driver) = connect(reconnect, protocol, &config);
        let flag = Flag::set();
        Self {
            client: Some(client),
            driver: Some(Box::pin(driver)),
            ended: None,
            clock,
            door,
            flag,
        }
    }

    /// Poll the driver for as long as it is woken.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            let Some(driver) = &mut self.driver else {
                return;
            };
            if !self.flag.take() {
                return;
            }
            let waker = Waker::from(self.flag.clone());
            if let Poll::Ready(ended) = driver.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.ended = Some(ended);
                self.driver = None;
            }
        }
        panic!("the driver keeps waking itself");
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.settle();
    }

    /// Open a connection, once its delay is over.
    #[track_caller]
    pub(crate) fn open(&mut self) -> StreamPeer {
        let (stream, peer) = scripted_stream();
        self.door.push(Some(stream));
        self.settle();
        // The longest delay after the first failures, below all other deadlines.
        self.advance(Duration::from_millis(200));
        peer
    }

    pub(crate) fn refuse(&mut self) {
        self.door.push(None);
        self.settle();
    }

    pub(crate) fn ask(&self, request: &str) -> Asked {
        let client = self.client.as_ref().expect("it has not been dropped");
        Asked::new(client.request(request.into()))
    }
}

/// Somebody who waits for a reply, and polls only when woken.
pub(crate) struct Asked {
    response: Response<Lines>,
    flag: Arc<Flag>,
}

impl Asked {
    pub(crate) fn new(response: Response<Lines>) -> Self {
        let flag = Flag::set();
        Self { response, flag }
    }

    /// Wait with a waker that does `act` on the spot.
    pub(crate) fn wait_and(mut self, act: impl Fn() + Send + Sync + 'static) -> Response<Lines> {
        let waker = Waker::from(Arc::new(Spot(act)));
        let polled = Pin::new(&mut self.response).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        self.response
    }

    fn poll(&mut self) -> Option<String> {
        if !self.flag.take() {
            return None;
        }
        let waker = Waker::from(self.flag.clone());
        match Pin::new(&mut self.response).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => Some(describe(result)),
            Poll::Pending => None,
        }
    }

    /// The end, of which it must have been told.
    #[track_caller]
    pub(crate) fn end(&mut self) -> String {
        self.poll().expect("it was not told")
    }

    #[track_caller]
    pub(crate) fn waits(&mut self) {
        assert_eq!(self.poll(), None);
    }
}

pub(crate) fn describe(result: Result<String, Error>) -> String {
    let error = match result {
        Ok(reply) => return reply,
        Err(error) => error,
    };
    assert!(!error.to_string().is_empty());
    match (&error, error.execution()) {
        (Error::QueueFull(_) | Error::Encode(_), _) => error.name().into(),
        (Error::ConnectionLost { reason, .. }, Execution::MaybeExecuted) => {
            format!("connection_lost, maybe executed: {}", reason.name())
        }
        (_, Execution::NeverSent) => format!("{}, never sent", error.name()),
        (_, Execution::MaybeExecuted) => format!("{}, maybe executed", error.name()),
    }
}

/// What the client has said, as text.
pub(crate) fn heard(peer: &StreamPeer) -> String {
    String::from_utf8(peer.written()).unwrap()
}
