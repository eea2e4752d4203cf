//! One connection of a peer that does as it likes.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{TcpSocket, TcpStream},
    time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep_until, timeout},
};

use super::{
    Conversation,
    conversation::{Search, Step},
    system,
};

/// How often a peer that does not read looks whether it still has a connection.
const LOOK: Duration = Duration::from_millis(50);

/// How the socket is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    /// As the system does it.
    Normal,
    /// With the smallest receive buffer there is.
    Small,
    /// With segments below a hundred bytes as well.
    Tiny,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// One who means harm.
    Hostile,
    /// One of the others.
    Other,
}

/// What is read of what the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    All,
    Nothing,
    /// A byte each time.
    Every(Duration),
}

/// How the server ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
}

/// What is said, and how fast.
#[derive(Debug)]
pub(super) struct Output {
    unit: Bytes,
    at: usize,
    left: u64,
    pace: Option<Pin<Box<Sleep>>>,
    every: Duration,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    pub(super) opened: Instant,
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// How much of that the server said before it was said anything.
    greeting: u64,
    server: SocketAddr,
    local: SocketAddr,
    /// Whether the system has shown that the server holds the connection. It does not before the
    /// server has accepted it.
    visible: bool,
    /// When the system may be asked again.
    ask_at: Instant,
    /// How it ended, if a write has told.
    broken: Option<End>,
}

impl Output {
    pub(super) fn nothing() -> Self {
        Self::once(Bytes::new())
    }

    /// These bytes, as fast as they are taken.
    pub(super) fn once(bytes: impl Into<Bytes>) -> Self {
        let unit: Bytes = bytes.into();
        let left = unit.len() as u64;
        Self {
            unit,
            at: 0,
            left,
            pace: None,
            every: Duration::ZERO,
        }
    }

    /// A unit that is not empty, this often, in large writes.
    pub(super) fn repeated(unit: &[u8], times: u64) -> Self {
        /// What is given to one write, about.
        const WRITE: usize = 256 * 1024;
        let copies = (WRITE / unit.len()).clamp(1, usize::try_from(times).unwrap_or(WRITE).max(1));
        Self {
            left: unit.len() as u64 * times,
            ..Self::once(unit.repeat(copies))
        }
    }

    /// These bytes, one at a time.
    pub(super) fn dribble(bytes: impl Into<Bytes>, every: Duration) -> Self {
        Self {
            pace: Some(Box::pin(sleep_until(Instant::now()))),
            every,
            ..Self::once(bytes)
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// What may be written at present.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<&[u8]> {
        let mut length = self.unit.len() - self.at;
        length = length.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if let Some(pace) = &mut self.pace {
            if pace.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            length = length.min(1);
        }
        Poll::Ready(&self.unit[self.at..self.at + length])
    }

    fn advance(&mut self, count: usize) {
        self.left -= count as u64;
        self.at += count;
        if self.at == self.unit.len() {
            self.at = 0;
        }
        if let Some(pace) = &mut self.pace {
            pace.as_mut().reset(Instant::now() + self.every);
        }
    }

    fn stop(&mut self) {
        self.left = 0;
    }
}

impl Peer {
    /// Connect. Whatever becomes of the peer, dropping it resets the connection, so that nothing
    /// of it stays behind.
    pub(super) async fn open(
        role: Role,
        server: SocketAddr,
        window: Window,
        patience: Duration,
    ) -> io::Result<Self> {
        let socket = match server {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        if role == Role::Hostile
            && let Some(address) = system::hostile_address(server)
        {
            socket.bind(address)?;
        }
        if window != Window::Normal {
            // The system makes of it what it needs at least.
            socket.set_recv_buffer_size(1)?;
        }
        if window == Window::Tiny {
            system::shrink_segments(&socket);
        }
        let connect = timeout(patience, socket.connect(server));
        let stream = connect.await.map_err(|_| {
            let text = format!("no connection within {patience:?}");
            io::Error::new(io::ErrorKind::TimedOut, text)
        })??;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let local = stream.local_addr()?;
        Ok(Self {
            stream,
            opened: Instant::now(),
            sent: 0,
            answered: 0,
            greeting: 0,
            server,
            local,
            visible: false,
            ask_at: Instant::now(),
            broken: None,
        })
    }

    /// Close it with a FIN when it is dropped.
    pub(super) fn will_close(&self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(None)
    }

    /// Say what a step of the conversation says, and wait for its answer.
    ///
    /// The error says what was missing.
    pub(super) async fn converse(&mut self, step: &Step, patience: Duration) -> Result<(), String> {
        let mut search = Search::new(step.hear.as_ref());
        let mut heard = Vec::new();
        let exchange = async {
            self.stream.write_all(&step.say).await?;
            self.sent += step.say.len() as u64;
            let mut buffer = [0; 4096];
            while search.found() == 0 {
                let count = self.stream.read(&mut buffer).await?;
                if count == 0 {
                    return Ok(false);
                }
                self.answered += count as u64;
                search.feed(&buffer[..count]);
                heard.extend_from_slice(&buffer[..count]);
                heard.truncate(EXCERPT + 1);
            }
            Ok::<_, io::Error>(true)
        };
        let failed = match timeout(patience, exchange).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "the server closed the connection before it answered".to_owned(),
            Ok(Err(error)) => format!("the connection failed before the answer: {error}"),
            Err(_) => format!("no answer within {patience:?}"),
        };
        Err(match (&step.hear, heard.is_empty()) {
            (Some(expected), false) => format!(
                "{failed}; expected {}, got {}",
                excerpt(expected),
                excerpt(&heard)
            ),
            _ => failed,
        })
    }

    /// Say all of this, while reading and not reading as told, until the server ends the
    /// connection or it is `until`, which gives `None`.
    pub(super) async fn play(
        &mut self,
        output: &mut Output,
        reading: Reading,
        until: Instant,
    ) -> Option<End> {
        self.play_until(output, reading, until, |_| false, None)
            .await
    }

    /// As [`play`](Self::play), but stop as well when `enough` says so of what was heard, or when
    /// all is said, something was answered, and then nothing for `quiet`.
    pub(super) async fn play_until(
        &mut self,
        output: &mut Output,
        reading: Reading,
        until: Instant,
        mut enough: impl FnMut(&[u8]) -> bool,
        quiet: Option<Duration>,
    ) -> Option<End> {
        let mut deadline = pin!(sleep_until(until));
        let mut silence = pin!(sleep_until(Instant::now()));
        let mut tick = interval(match reading {
            Reading::All | Reading::Nothing => LOOK,
            Reading::Every(every) => every,
        });
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Floods have thousands of peers that say nothing.
        let mut buffer = vec![0; if output.is_done() { 1024 } else { 16 * 1024 }];
        poll_fn(|cx| {
            let before = (self.answered, output.left);
            let end = match reading {
                Reading::All => self.poll_read_all(cx, &mut buffer, &mut enough),
                _ => self.poll_look(cx, &mut tick, reading),
            };
            if let Poll::Ready(end) = end {
                return Poll::Ready(end);
            }
            if self.poll_write(cx, output).is_ready() && reading != Reading::All {
                return Poll::Ready(self.broken);
            }
            if let Some(quiet) = quiet
                && output.is_done()
                && self.is_answered()
            {
                if before != (self.answered, output.left) {
                    silence.as_mut().reset(Instant::now() + quiet);
                }
                if silence.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
            }
            deadline.as_mut().poll(cx).map(|()| None)
        })
        .await
    }

    /// Wait for what the server says by itself.
    pub(super) async fn hear_greeting(
        &mut self,
        conversation: &Conversation,
        patience: Duration,
    ) -> Result<(), String> {
        let steps = conversation.steps().iter();
        for step in steps.take_while(|step| step.say.is_empty()) {
            self.converse(step, patience).await?;
        }
        self.greeting = self.answered;
        Ok(())
    }

    /// Whether the server has said more than its greeting.
    pub(super) fn is_answered(&self) -> bool {
        self.answered > self.greeting
    }

    /// Vanish until the server lets go of the connection, or it is `until`.
    pub(super) async fn vanish(&mut self, until: Instant) -> io::Result<Option<End>> {
        /// How long an answer to a sign of life may take.
        const SIGN: Duration = Duration::from_secs(1);
        system::vanish(&self.stream)?;
        let mut tick = interval(LOOK);
        let mut gone = false;
        while Instant::now() < until && !gone {
            tick.tick().await;
            gone = self.was_let_go();
        }
        system::reappear(&self.stream)?;
        if self.visible {
            return Ok(gone.then_some(End::Reset));
        }
        // A server that has forgotten the connection answers a byte of it with a reset.
        let mut sign = Output::once(&b"\n"[..]);
        Ok(self
            .play(&mut sign, Reading::All, Instant::now() + SIGN)
            .await)
    }

    fn poll_read_all(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        enough: &mut impl FnMut(&[u8]) -> bool,
    ) -> Poll<Option<End>> {
        loop {
            let mut read = ReadBuf::new(buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                // The error of a reset is told once, and a write may have been told.
                Poll::Ready(Ok(())) if read.filled().is_empty() => {
                    return Poll::Ready(Some(self.broken.unwrap_or(End::Closed)));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Some(End::Reset)),
                Poll::Ready(Ok(())) => {
                    self.answered += read.filled().len() as u64;
                    if enough(read.filled()) {
                        return Poll::Ready(None);
                    }
                }
            }
        }
    }

    /// Find out how the connection is without reading, or with reading a byte.
    fn poll_look(
        &mut self,
        cx: &mut Context<'_>,
        tick: &mut Interval,
        reading: Reading,
    ) -> Poll<Option<End>> {
        while tick.poll_tick(cx).is_ready() {
            let ready = pin!(self.stream.ready(Interest::READABLE)).poll(cx);
            let closed = matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed());
            if closed || self.was_let_go() {
                let error = self.stream.take_error();
                let reset = error.is_ok_and(|error| error.is_some()) || !closed;
                return Poll::Ready(Some(match reset {
                    true => End::Reset,
                    false => End::Closed,
                }));
            }
            if reading != Reading::Nothing
                && let Ok(count) = self.stream.try_read(&mut [0])
            {
                self.answered += count as u64;
            }
        }
        Poll::Pending
    }

    /// Whether the server has held its end, and does not any more, as far as the system can tell
    /// without much work.
    fn was_let_go(&mut self) -> bool {
        /// How much of the time may be spent on asking: a twentieth.
        const SHARE: u32 = 20;
        let begun = Instant::now();
        if begun < self.ask_at {
            return false;
        }
        let held = system::is_held(self.server, self.local);
        self.ask_at = begun + begun.elapsed() * SHARE;
        self.visible |= held == Some(true);
        self.visible && held == Some(false)
    }

    /// Ready when the connection does not take anything any more.
    fn poll_write(&mut self, cx: &mut Context<'_>, output: &mut Output) -> Poll<()> {
        while !output.is_done() {
            let Poll::Ready(piece) = output.poll_piece(cx) else {
                return Poll::Pending;
            };
            match Pin::new(&mut self.stream).poll_write(cx, piece) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(count)) => {
                    self.sent += count as u64;
                    output.advance(count);
                }
                Poll::Ready(Err(error)) => {
                    output.stop();
                    // A reset after the server's FIN is told in this way.
                    self.broken = Some(match error.kind() {
                        io::ErrorKind::BrokenPipe => End::Closed,
                        _ => End::Reset,
                    });
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Read what is there, so that it is not taken for the next answer.
    pub(super) fn forget_unread(&mut self) {
        // LIMIT: a server that talks without end is not listened to without end.
        const ROUNDS: usize = 256;
        let mut buffer = [0; 4096];
        for _ in 0..ROUNDS {
            match self.stream.try_read(&mut buffer) {
                // An end is told to whoever reads next.
                Ok(0) | Err(_) => return,
                Ok(count) => self.answered += count as u64,
            }
        }
    }

    /// Count what was answered and not read, which leaves it where it is: reading would open the
    /// window for more.
    pub(super) fn count_unread(&mut self) {
        /// More than a receive buffer holds that is not read.
        const MOST: usize = 1024 * 1024;
        let mut buffer = vec![0; MOST];
        let mut unread = ReadBuf::new(&mut buffer);
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(count)) = self.stream.poll_peek(&mut cx, &mut unread) {
            self.answered += count as u64;
        }
    }
}

/// How much of an answer is shown, in bytes.
const EXCERPT: usize = 60;

/// The beginning of it, as Rust would write it.
fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(EXCERPT)];
    let dots = if shown.len() < bytes.len() { "…" } else { "" };
    format!("\"{}{dots}\"", shown.escape_ascii())
}
