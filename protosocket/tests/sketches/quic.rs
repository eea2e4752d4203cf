//! A QUIC-like connection: one object behind a mutex, shared by its streams, each of which is
//! driven by a `Connection` of its own. A request ends by the end of its stream, and the answer
//! comes the other way; a stream that is aborted is reset with a code.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::{Buf, BytesMut};
use protosocket::{
    ActionId, CloseReason, Connection, ConnectionConfig, Host, HostContext, InputPolicy, Limits,
    LinesCodec, Machine, MachineReactor, Output, ReactorStatus, Rejected, Room, Transport, channel,
};
use protosocket_testkit::within;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};

/// LIMIT: bytes that one direction of a stream holds.
const WINDOW: usize = 64;

/// The peer has reset the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reset(u64);

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stream was reset with code {}", self.0)
    }
}

impl std::error::Error for Reset {}

/// One direction of a stream.
#[derive(Default)]
struct Pipe {
    bytes: BytesMut,
    finished: bool,
    reset: Option<Reset>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        let wakers = [self.reader.take(), self.writer.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn reset(&mut self, code: u64) {
        self.reset.get_or_insert(Reset(code));
        self.wake();
    }
}

#[derive(Default)]
struct State {
    /// By number, and by whether it leads to the server.
    pipes: BTreeMap<(u32, bool), Pipe>,
    opened: VecDeque<u32>,
    acceptor: Option<Waker>,
    last: u32,
}

/// The connection that the streams share.
#[derive(Clone, Default)]
struct Quic(Arc<Mutex<State>>);

impl Quic {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under it")
    }

    fn open(&self) -> QuicStream {
        let mut state = self.lock();
        state.last += 1;
        let id = state.last;
        state.opened.push_back(id);
        if let Some(acceptor) = state.acceptor.take() {
            acceptor.wake();
        }
        drop(state);
        QuicStream::new(self.clone(), id, false)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<QuicStream> {
        let mut state = self.lock();
        let Some(id) = state.opened.pop_front() else {
            state.acceptor = Some(cx.waker().clone());
            return Poll::Pending;
        };
        drop(state);
        Poll::Ready(QuicStream::new(self.clone(), id, true))
    }
}

struct QuicStream {
    quic: Quic,
    id: u32,
    is_server: bool,
    /// What an abort says, which whoever serves the stream can set.
    code: Arc<AtomicU64>,
}

impl QuicStream {
    fn new(quic: Quic, id: u32, is_server: bool) -> Self {
        Self {
            quic,
            id,
            is_server,
            code: Arc::default(),
        }
    }

    fn with<T>(&self, to_server: bool, act: impl FnOnce(&mut Pipe) -> T) -> T {
        let mut state = self.quic.lock();
        act(state.pipes.entry((self.id, to_server)).or_default())
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(self.is_server, |pipe| {
            if let Some(reset) = pipe.reset {
                return Poll::Ready(Err(io::Error::other(reset)));
            }
            if pipe.bytes.is_empty() && !pipe.finished {
                pipe.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let count = pipe.bytes.len().min(buffer.remaining());
            buffer.put_slice(&pipe.bytes[..count]);
            pipe.bytes.advance(count);
            pipe.wake();
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(!self.is_server, |pipe| {
            if let Some(reset) = pipe.reset {
                return Poll::Ready(Err(io::Error::other(reset)));
            }
            let count = bytes.len().min(WINDOW - pipe.bytes.len());
            if count == 0 {
                pipe.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            pipe.bytes.extend_from_slice(&bytes[..count]);
            pipe.wake();
            Poll::Ready(Ok(count))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(!self.is_server, |pipe| {
            pipe.finished = true;
            pipe.wake();
        });
        Poll::Ready(Ok(()))
    }
}

impl Transport for QuicStream {
    fn abort(&mut self) {
        let code = self.code.load(Ordering::Relaxed);
        for to_server in [false, true] {
            self.with(to_server, |pipe| pipe.reset(code));
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

/// The client of one exchange: lines out, the end, lines in, the end.
#[derive(Debug)]
struct Ask {
    lines: VecDeque<String>,
    answer: VecDeque<String>,
    answered: bool,
}

impl Machine for Ask {
    type Codec = LinesCodec;
    type Command = ();
    type Event = String;
    type Action = ();
    type ActionResult = ();
    type Error = Never;

    fn handle_inbound(&mut self, _now: Instant, line: String) -> Result<(), Never> {
        self.answer.push_back(line);
        Ok(())
    }

    fn handle_end_of_input(&mut self, _now: Instant) -> Result<(), Never> {
        self.answered = true;
        Ok(())
    }

    fn handle_command(&mut self, _now: Instant, (): ()) -> Result<(), Rejected<()>> {
        Ok(())
    }

    fn poll_event(&mut self) -> Option<String> {
        self.answer.pop_front()
    }

    fn poll_output(&mut self, _now: Instant, room: Room) -> Option<Output<String>> {
        if room.is_empty() {
            return None;
        }
        self.lines.pop_front().map(Output::Bulk)
    }

    fn is_idle(&self) -> bool {
        self.answered
    }

    fn status(&self) -> ReactorStatus {
        // The request is complete when its last line has been sent; the answer is to come.
        ReactorStatus::Finish
    }
}

/// The server of one exchange: it answers when the request has ended.
#[derive(Debug, Default)]
struct Answer {
    lines: usize,
    output: Option<String>,
    rejected: Option<u64>,
    ended: bool,
}

impl Machine for Answer {
    type Codec = LinesCodec;
    type Command = ();
    /// The stream is to be reset with this code.
    type Event = u64;
    type Action = ();
    type ActionResult = ();
    type Error = Never;

    fn handle_inbound(&mut self, _now: Instant, line: String) -> Result<(), Never> {
        self.lines += 1;
        if line == "nonsense" {
            self.rejected = Some(7);
            self.ended = true;
        }
        Ok(())
    }

    fn handle_end_of_input(&mut self, _now: Instant) -> Result<(), Never> {
        self.output = Some(format!("{} lines", self.lines));
        Ok(())
    }

    fn handle_command(&mut self, _now: Instant, (): ()) -> Result<(), Rejected<()>> {
        Ok(())
    }

    fn poll_event(&mut self) -> Option<u64> {
        self.rejected.take()
    }

    fn poll_output(&mut self, _now: Instant, room: Room) -> Option<Output<String>> {
        if room.is_empty() {
            return None;
        }
        self.output.take().map(Output::Bulk)
    }

    fn is_idle(&self) -> bool {
        self.output.is_none()
    }

    fn status(&self) -> ReactorStatus {
        match self.ended {
            true => ReactorStatus::Abort,
            false => ReactorStatus::Continue,
        }
    }

    fn input_policy(&self) -> InputPolicy {
        InputPolicy::Answering
    }
}

/// Passes the answer on.
struct Asker(mpsc::UnboundedSender<String>);

impl Host<Ask> for Asker {
    type Message = ();

    fn on_event(&mut self, _: &mut HostContext<'_, Ask>, line: String) {
        // Nobody may be interested any more.
        let _ = self.0.send(line);
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Ask>, _: ActionId, (): ()) {}

    fn on_message(&mut self, _: &mut HostContext<'_, Ask>, (): ()) {}
}

/// Puts the code where the stream finds it when it is aborted.
struct Answerer(Arc<AtomicU64>);

impl Host<Answer> for Answerer {
    type Message = ();

    fn on_event(&mut self, _: &mut HostContext<'_, Answer>, code: u64) {
        self.0.store(code, Ordering::Relaxed);
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Answer>, _: ActionId, (): ()) {}

    fn on_message(&mut self, _: &mut HostContext<'_, Answer>, (): ()) {}
}

/// Serve every stream that the client opens.
async fn serve(quic: Quic) {
    loop {
        let stream = poll_fn(|cx| quic.poll_accept(cx)).await;
        let (_, outbound) = channel(1);
        let host = Answerer(stream.code.clone());
        let reactor = MachineReactor::new(Answer::default(), host);
        let config = ConnectionConfig::default();
        let connection = Connection::over(stream, LinesCodec::new(), reactor, outbound, &config);
        tokio::spawn(connection);
    }
}

/// Ask on a stream of its own.
async fn ask(quic: &Quic, lines: Vec<String>) -> (CloseReason, Option<String>) {
    let machine = Ask {
        lines: lines.into(),
        answer: VecDeque::new(),
        answered: false,
    };
    let (deliver, mut answers) = mpsc::unbounded_channel();
    let (_, outbound) = channel(1);
    let config = ConnectionConfig::client(Limits::client()).expect("the limits are valid");
    let reactor = MachineReactor::new(machine, Asker(deliver));
    let stream = quic.open();
    let end = Connection::over(stream, LinesCodec::new(), reactor, outbound, &config).await;
    (end.reason, answers.try_recv().ok())
}

#[tokio::test(start_paused = true)]
async fn each_stream_ends_by_itself_and_one_is_reset_with_a_code() {
    let started = tokio::time::Instant::now();
    let quic = Quic::default();
    let server = tokio::spawn(serve(quic.clone()));
    let asking: Vec<_> = (0..10)
        .map(|count| {
            let quic = quic.clone();
            // More than a window holds, so that each waits for its own reader.
            let lines = (0..count * 10)
                .map(|index| format!("line {index}"))
                .collect();
            tokio::spawn(async move { ask(&quic, lines).await })
        })
        .collect();
    let (reason, answer) = within(ask(&quic, vec!["nonsense".to_owned()])).await;
    let CloseReason::Io { source, .. } = reason else {
        panic!("a reset is an error of the stream, not {reason}");
    };
    let reset = source.get_ref().and_then(|source| source.downcast_ref());
    assert_eq!((reset, answer), (Some(&Reset(7)), None));
    for (count, asked) in asking.into_iter().enumerate() {
        let (reason, answer) = within(asked).await.unwrap();
        assert!(matches!(reason, CloseReason::EndOfInput), "{reason}");
        assert_eq!(answer, Some(format!("{} lines", count * 10)));
    }
    server.abort();
    assert_eq!(tokio::time::Instant::now(), started);
}
