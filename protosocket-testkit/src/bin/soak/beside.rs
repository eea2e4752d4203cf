//! A canary beside the load: on a thread of its own, which the load does not delay.

use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use protosocket_testkit::{Canary, CanaryConfig, CanaryReport, FramedEcho};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::client::{self, PATIENCE};
use crate::verdict::Verdict;

/// Time between two requests of a canary: 500 samples a second, so that a second has a 99th
/// percentile.
const INTERVAL: Duration = Duration::from_millis(2);

/// A running canary.
#[derive(Debug)]
pub(crate) struct Beside {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<io::Result<CanaryReport>>,
}

impl Beside {
    /// Lets a canary sing to the server at `address`.
    pub(crate) fn start(address: SocketAddr) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("canary".to_owned())
            .spawn(move || sing(address, stopped))?;
        Ok(Self { stop, thread })
    }

    /// Waits for its last answers.
    ///
    /// # Errors
    ///
    /// When it could not connect.
    pub(crate) fn stop(self) -> io::Result<CanaryReport> {
        // It has ended by itself if nobody listens.
        let _ = self.stop.send(());
        self.thread
            .join()
            .map_err(|_| io::Error::other("the canary panicked"))?
    }

    /// What a canary hears of a server for `time`.
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop).
    pub(crate) async fn listen(address: SocketAddr, time: Duration) -> io::Result<CanaryReport> {
        let beside = Self::start(address)?;
        tokio::time::sleep(time).await;
        beside.stop()
    }
}

fn sing(address: SocketAddr, stopped: oneshot::Receiver<()>) -> io::Result<CanaryReport> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = client::connect(address, 0).await?;
        let config = CanaryConfig {
            interval: INTERVAL,
            patience: PATIENCE,
            ..CanaryConfig::default()
        };
        let canary = Canary::start(stream, FramedEcho::default(), config);
        // Whoever drops the sender wants it to stop as well.
        let _ = stopped.await;
        Ok(canary.stop().await)
    })
}

/// Judges what canaries have lost; how long they waited is judged elsewhere.
pub(crate) fn judge(what: &str, reports: &[CanaryReport], verdict: &mut Verdict) {
    let faults = reports
        .iter()
        .map(|report| {
            let silent = u64::from(report.answered == 0 || report.end.is_some());
            report.lost + report.reordered + report.unexpected + silent
        })
        .sum();
    verdict.exactly(
        format!("{what}: lost or reordered by the canary"),
        0,
        faults,
    );
    for end in reports.iter().filter_map(|report| report.end.as_ref()) {
        verdict.note(format!("{what}: the canary ended: {end}"));
    }
}

/// The shortest of their 99th percentiles: of several attempts on a machine that does other things
/// as well, that is what the server is to blame for.
pub(crate) fn best_p99(reports: &[CanaryReport]) -> Duration {
    let p99s = reports.iter().map(|report| report.p99);
    p99s.min().unwrap_or(Duration::MAX)
}
