//! What came of a run, and a watch over it.

use std::{fmt, sync::mpsc, thread, time::Duration};

use super::Level;

/// What came of running a corpus at one level.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a report that nobody looks at proves nothing"]
#[non_exhaustive]
pub struct Report {
    /// The level.
    pub level: Level,
    /// How many cases were run.
    pub ran: usize,
    /// What went wrong, each with the id of its case.
    pub failures: Vec<String>,
}

impl Report {
    /// Expect that some were run and that none failed.
    ///
    /// # Panics
    /// With everything that went wrong.
    #[track_caller]
    pub fn expect_all(&self) {
        assert!(self.ran > 0, "no case was run at the level {}", self.level);
        assert!(self.failures.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (level, ran, failed) = (self.level, self.ran, self.failures.len());
        write!(f, "{failed} of {ran} cases failed at the level {level}")?;
        for failure in &self.failures {
            write!(f, "\n  {failure}")?;
        }
        Ok(())
    }
}

/// What a run tells its watch.
enum News {
    Begins(String),
    Failed(String),
    Done,
}

/// A run's way to its watch.
pub(super) struct Watch(mpsc::Sender<News>);

impl Watch {
    /// A case begins.
    pub(super) fn begin(&self, id: &str) {
        self.tell(News::Begins(id.to_owned()));
    }

    /// A case has failed.
    pub(super) fn fail(&self, id: &str, problem: impl fmt::Display) {
        self.tell(News::Failed(format!("{id}: {problem}")));
    }

    fn tell(&self, news: News) {
        // An error says that the watch has lost its patience.
        let _ = self.0.send(news);
    }
}

/// Run cases in a thread of their own, so that one that keeps the thread busy for ever is a failure
/// and not a test that never ends.
pub(super) fn watched(
    level: Level,
    patience: Duration,
    run: impl FnOnce(&Watch) + Send + 'static,
) -> Report {
    let (sender, news) = mpsc::channel();
    let runner = thread::spawn(move || {
        let watch = Watch(sender);
        run(&watch);
        watch.tell(News::Done);
    });
    let mut report = Report {
        level,
        ran: 0,
        failures: Vec::new(),
    };
    let mut current = "before the first case".to_owned();
    loop {
        match news.recv_timeout(6 * patience) {
            Ok(News::Begins(id)) => {
                report.ran += 1;
                current = id;
            }
            Ok(News::Failed(failure)) => report.failures.push(failure),
            Ok(News::Done) => return report,
            // Longer than anything that can be waited for takes.
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // The thread cannot be ended, and goes with the process.
                let hang = format!(
                    "{current}: it hangs: nothing has come of it in {:?}",
                    6 * patience
                );
                report.failures.push(hang);
                return report;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let panicked = runner.join().is_err();
                debug_assert!(panicked, "a run that ends says so");
                report.failures.push(format!("{current}: it panicked"));
                return report;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_hangs_is_a_failure_of_its_case() {
        let (_keep, never) = mpsc::channel::<()>();
        let report = watched(Level::Decoder, Duration::from_millis(10), move |watch| {
            watch.begin("lines/first");
            watch.begin("lines/second");
            let _ = never.recv();
        });
        assert_eq!(report.ran, 2);
        assert!(report.failures[0].starts_with("lines/second: it hangs"));
    }

    #[test]
    fn a_run_that_panics_is_a_failure_of_its_case() {
        let report = watched(Level::Server, Duration::from_secs(20), |watch| {
            watch.begin("lines/first");
            panic!("on purpose");
        });
        assert_eq!(report.failures, ["lines/first: it panicked"]);
    }
}
