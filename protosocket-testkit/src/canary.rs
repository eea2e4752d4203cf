//! A well-behaved client beside the bad ones, which counts what it lost and how long it waited.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// What a canary says and what it expects to hear: requests and responses with a number in them.
pub trait Exchange: Send + 'static {
    /// The bytes of the request with this number.
    fn request(&mut self, sequence: u64) -> Bytes;

    /// Take one response off the front of `unread` and tell the number in it, or `None` if it is
    /// not complete.
    ///
    /// # Errors
    /// The server is to blame: these bytes are no response. The canary ends and reports it.
    fn response(&mut self, unread: &mut BytesMut) -> Result<Option<u64>, String>;
}

/// The exchange with a server that echoes lines of text, whichever line ending it prefers.
#[derive(Debug, Clone, Copy, Default)]
pub struct LineEcho;

impl Exchange for LineEcho {
    fn request(&mut self, sequence: u64) -> Bytes {
        format!("canary {sequence}\r\n").into()
    }

    fn response(&mut self, unread: &mut BytesMut) -> Result<Option<u64>, String> {
        let Some(end) = unread.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let line = unread.split_to(end + 1);
        let text = String::from_utf8_lossy(&line);
        let number = text.trim_end().strip_prefix("canary ");
        let number = number.and_then(|number| number.parse().ok());
        number
            .map(Some)
            .ok_or_else(|| format!("expected a line `canary NUMBER`, got {text:?}"))
    }
}

/// The exchange with a server that echoes payloads behind four bytes of length, big-endian. The
/// payload is the number, padded.
#[derive(Debug, Clone, Copy)]
pub struct FramedEcho {
    payload: usize,
}

impl FramedEcho {
    /// Payloads of so many bytes, at least the eight of the number.
    pub fn new(payload: usize) -> Self {
        Self {
            payload: payload.max(size_of::<u64>()),
        }
    }
}

impl Default for FramedEcho {
    fn default() -> Self {
        Self::new(64)
    }
}

impl Exchange for FramedEcho {
    fn request(&mut self, sequence: u64) -> Bytes {
        let mut request = BytesMut::with_capacity(4 + self.payload);
        request.put_u32(self.payload as u32);
        request.put_u64(sequence);
        request.put_bytes(0, self.payload - size_of::<u64>());
        request.freeze()
    }

    fn response(&mut self, unread: &mut BytesMut) -> Result<Option<u64>, String> {
        let Some(&length) = unread.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(length) as usize;
        if length != self.payload {
            let expected = self.payload;
            return Err(format!(
                "expected a payload of {expected} bytes, got one of {length}"
            ));
        }
        if unread.len() < 4 + length {
            return Ok(None);
        }
        let mut response = unread.split_to(4 + length);
        response.advance(4);
        Ok(Some(response.get_u64()))
    }
}

/// How a [`Canary`] sings.
#[derive(Debug, Clone, Copy)]
pub struct CanaryConfig {
    /// Time from one request to the next. 5 ms by default: 200 samples a second are enough for a
    /// 99th percentile within seconds, and no load.
    pub interval: Duration,
    /// Requests that may be unanswered at a time, 4 by default, so that answers can be out of order.
    pub in_flight: usize,
    /// An answer that takes longer than this is counted as late. 20 ms by default.
    pub late_after: Duration,
    /// An answer that takes longer than this is lost, and the canary ends. 10 s by default.
    pub patience: Duration,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(5),
            in_flight: 4,
            late_after: Duration::from_millis(20),
            patience: Duration::from_secs(10),
        }
    }
}

/// A running canary: a task of its own.
#[derive(Debug)]
#[must_use = "a canary that nobody listens to warns nobody"]
pub struct Canary {
    stopping: Arc<AtomicBool>,
    task: JoinHandle<CanaryReport>,
}

/// What a canary met.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CanaryReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered, each once.
    pub answered: u64,
    /// Requests sent and never answered.
    pub lost: u64,
    /// Answers that came before an answer that should have come first.
    pub reordered: u64,
    /// Answers to nothing: to no request, or to one that had been answered.
    pub unexpected: u64,
    /// Answers that took longer than [`CanaryConfig::late_after`].
    pub late: u64,
    /// Half of the answers took at most this long.
    pub p50: Duration,
    /// Of a hundred answers, 99 took at most this long.
    pub p99: Duration,
    /// The longest time to an answer.
    pub max: Duration,
    /// Why the canary stopped before it was told to.
    pub end: Option<String>,
}

impl CanaryReport {
    /// Whether every request was answered once and in order. How long that took is the caller's
    /// to judge.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn verdict(&self) -> Result<(), String> {
        let silent = self.answered == 0;
        let faulty = self.lost + self.reordered + self.unexpected > 0 || self.end.is_some();
        match silent || faulty {
            true => Err(self.to_string()),
            false => Ok(()),
        }
    }
}

impl fmt::Display for CanaryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} answered, {} lost, {} reordered, {} unexpected, {} late, \
             p50 {:?}, p99 {:?}, max {:?}",
            self.sent,
            self.answered,
            self.lost,
            self.reordered,
            self.unexpected,
            self.late,
            self.p50,
            self.p99,
            self.max,
        )?;
        match &self.end {
            Some(end) => write!(f, "; it ended: {end}"),
            None => Ok(()),
        }
    }
}

impl Canary {
    /// Let a canary sing on `stream`.
    ///
    /// Its requests follow a timetable, and the time to an answer is counted from when the request
    /// was due: a server that stands still for a second makes every request of that second late, and
    /// not just the one that was under way.
    pub fn start<S>(stream: S, exchange: impl Exchange, config: CanaryConfig) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stopping = Arc::new(AtomicBool::new(false));
        let song = Song {
            stream,
            exchange,
            config,
            unread: BytesMut::new(),
            waiting: VecDeque::new(),
            next: 0,
            waits: Vec::new(),
            reordered: 0,
            unexpected: 0,
        };
        Self {
            task: tokio::spawn(song.sing(stopping.clone())),
            stopping,
        }
    }

    /// Let it wait for the answers that are due, and report.
    ///
    /// # Panics
    /// If its [`Exchange`] has panicked.
    pub async fn stop(self) -> CanaryReport {
        self.stopping.store(true, Ordering::Relaxed);
        self.task.await.expect("the exchange does not panic")
    }
}

struct Song<S, E> {
    stream: S,
    exchange: E,
    config: CanaryConfig,
    unread: BytesMut,
    /// Requests without an answer, and when they were due.
    waiting: VecDeque<(u64, Instant)>,
    next: u64,
    /// How long each answer took.
    waits: Vec<Duration>,
    reordered: u64,
    unexpected: u64,
}

impl<S, E> Song<S, E>
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Exchange,
{
    async fn sing(mut self, stopping: Arc<AtomicBool>) -> CanaryReport {
        let end = self.exchange(&stopping).await.err();
        self.waits.sort_unstable();
        let most = self.waits.len().saturating_sub(1);
        let quantile = |hundredth: usize| {
            let index = (self.waits.len() * hundredth).div_ceil(100);
            let wait = self.waits.get(index.saturating_sub(1).min(most));
            wait.copied().unwrap_or_default()
        };
        let late = self
            .waits
            .iter()
            .filter(|wait| **wait > self.config.late_after);
        CanaryReport {
            sent: self.next,
            answered: self.waits.len() as u64,
            lost: self.waiting.len() as u64,
            reordered: self.reordered,
            unexpected: self.unexpected,
            late: late.count() as u64,
            p50: quantile(50),
            p99: quantile(99),
            max: quantile(100),
            end,
        }
    }

    async fn exchange(&mut self, stopping: &AtomicBool) -> Result<(), String> {
        let mut due = Instant::now();
        loop {
            let is_stopping = stopping.load(Ordering::Relaxed);
            if is_stopping && self.waiting.is_empty() {
                return Ok(());
            }
            let may_send = !is_stopping && self.waiting.len() < self.config.in_flight;
            if may_send && due <= Instant::now() {
                self.send(due).await?;
                due += self.config.interval;
                continue;
            }
            // With nothing to send, look up now and then whether it is to stop.
            let until = match may_send {
                true => due,
                false => Instant::now() + self.config.interval,
            };
            self.hear(until).await?;
            self.lose_patience()?;
        }
    }

    async fn send(&mut self, due: Instant) -> Result<(), String> {
        let request = self.exchange.request(self.next);
        self.waiting.push_back((self.next, due));
        self.next += 1;
        let until = Instant::now() + self.config.patience;
        match timeout_at(until, self.stream.write_all(&request)).await {
            Ok(written) => written.map_err(|error| format!("writing failed: {error}")),
            Err(_) => Err(format!(
                "the server took no request for {:?}",
                self.config.patience
            )),
        }
    }

    /// Take in what comes up to an instant.
    async fn hear(&mut self, until: Instant) -> Result<(), String> {
        let Ok(read) = timeout_at(until, self.stream.read_buf(&mut self.unread)).await else {
            return Ok(());
        };
        match read {
            Ok(0) => return Err("the server finished sending".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("reading failed: {error}")),
        }
        while let Some(number) = self.exchange.response(&mut self.unread)? {
            self.note(number);
        }
        Ok(())
    }

    fn note(&mut self, number: u64) {
        let Some(index) = self.waiting.iter().position(|wait| wait.0 == number) else {
            self.unexpected += 1;
            return;
        };
        self.reordered += u64::from(index > 0);
        if let Some((_, due)) = self.waiting.remove(index) {
            self.waits.push(due.elapsed());
        }
    }

    fn lose_patience(&self) -> Result<(), String> {
        match self.waiting.front() {
            Some((number, due)) if due.elapsed() > self.config.patience => Err(format!(
                "request {number} was not answered for {:?}",
                self.config.patience
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// Run a canary against a server for a second of virtual time.
    async fn sing<F>(server: impl FnOnce(DuplexStream) -> F) -> CanaryReport
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (near, far) = duplex(1024);
        tokio::spawn(server(far));
        let canary = Canary::start(near, LineEcho, CanaryConfig::default());
        tokio::time::sleep(Duration::from_secs(1)).await;
        canary.stop().await
    }

    async fn lines(stream: &mut DuplexStream, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.iter().filter(|&&byte| byte == b'\n').count() < count {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                break;
            }
        }
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn an_echo_loses_nothing_and_is_never_late() {
        let report = sing(|mut stream| async move {
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        })
        .await;
        report.verdict().unwrap();
        assert!((195..=205).contains(&report.answered), "{report}");
        assert_eq!((report.late, report.max), (0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_makes_everything_late_that_was_due_in_it() {
        let report = sing(|mut stream| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        })
        .await;
        report.verdict().unwrap();
        assert_eq!(report.max, Duration::from_millis(500));
        assert!((90..=105).contains(&report.late), "{report}");
        assert!(report.p99 > Duration::from_millis(450), "{report}");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_out_of_order_are_counted() {
        let report = sing(|mut stream| async move {
            let two = lines(&mut stream, 2).await;
            let text = String::from_utf8(two).expect("it says lines");
            let mut lines: Vec<&str> = text.lines().collect();
            lines.reverse();
            let swapped = lines.join("\n") + "\n";
            let _ = stream.write_all(swapped.as_bytes()).await;
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        })
        .await;
        assert_eq!((report.reordered, report.lost), (1, 0));
        report.verdict().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_goes_away_loses_what_was_asked() {
        let report = sing(|mut stream| async move {
            let _ = lines(&mut stream, 3).await;
        })
        .await;
        assert_eq!((report.sent, report.answered, report.lost), (3, 0, 3));
        assert_eq!(report.end.as_deref(), Some("the server finished sending"));
        report.verdict().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_loss_when_patience_ends() {
        let started = Instant::now();
        let report = sing(|stream| async move {
            let _kept = stream;
            std::future::pending::<()>().await;
        })
        .await;
        assert_eq!((report.sent, report.lost), (4, 4));
        assert!((10..12).contains(&started.elapsed().as_secs()));
        let end = report.end.expect("it does not wait for ever");
        assert!(end.contains("request 0 was not answered for 10s"), "{end}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_twice_and_an_answer_that_is_none() {
        let report = sing(|mut stream| async move {
            let one = lines(&mut stream, 1).await;
            let _ = stream.write_all(&one.repeat(2)).await;
            let _ = stream.write_all(b"good morning\n").await;
            let _ = lines(&mut stream, usize::MAX).await;
        })
        .await;
        assert_eq!((report.answered, report.unexpected), (1, 1));
        let end = report.end.expect("it does not understand");
        assert!(end.contains("good morning"), "{end}");
    }

    #[test]
    fn framed_echo_takes_one_frame_at_a_time() {
        let mut exchange = FramedEcho::new(9);
        let mut unread = BytesMut::new();
        for sequence in [3, 4] {
            unread.extend_from_slice(&exchange.request(sequence));
        }
        let last = unread.split_off(unread.len() - 1);
        assert_eq!(exchange.response(&mut unread), Ok(Some(3)));
        assert_eq!(exchange.response(&mut unread), Ok(None));
        unread.unsplit(last);
        assert_eq!(exchange.response(&mut unread), Ok(Some(4)));
        unread.put_u32(10);
        let error = exchange.response(&mut unread).unwrap_err();
        assert!(error.contains("9 bytes"), "{error}");
    }
}
