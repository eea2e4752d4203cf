//! What the machine took from a thread, so that it is not held against the server on it.

use std::{
    fs,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time from one beat to the next.
const EVERY: Duration = Duration::from_millis(20);

/// A thread that has nothing to do but to wake up, and that notes how late it does, and for how long
/// the thread that has started it was ready and did not run.
pub(super) struct Heartbeat {
    /// Ends the thread when it is dropped.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Beats>,
}

/// When each beat came, and how much was lost since the one before.
#[derive(Debug, Default)]
pub(super) struct Beats(Vec<(Instant, Duration)>);

impl Heartbeat {
    pub(super) fn start() -> Self {
        let (stop, stopped) = mpsc::channel();
        // Only Linux tells; elsewhere, beats that come late have to do.
        let watched = fs::read_link("/proc/thread-self").unwrap_or_default();
        let watched = Path::new("/proc").join(watched).join("schedstat");
        let thread = thread::spawn(move || {
            let mut beats = Beats::default();
            let mut last = Instant::now();
            let mut waited = waited_to_run(&watched);
            loop {
                let end = stopped.recv_timeout(EVERY);
                let now = Instant::now();
                let late = (now - last).saturating_sub(EVERY);
                let waited_until_now = waited_to_run(&watched);
                let waited_since = waited_until_now.saturating_sub(waited);
                beats.0.push((now, late.max(waited_since)));
                (last, waited) = (now, waited_until_now);
                if end != Err(RecvTimeoutError::Timeout) {
                    return beats;
                }
            }
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Beats {
        drop(self.stop);
        self.thread.join().expect("a heart does nothing that fails")
    }
}

/// For how long a thread was ready to run while others ran.
fn waited_to_run(schedstat: &Path) -> Duration {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(1);
    Duration::from_nanos(nanoseconds.and_then(|text| text.parse().ok()).unwrap_or(0))
}

impl Beats {
    /// The most that was lost within any `window`: nobody who waited that long can have lost more to
    /// the machine.
    pub(super) fn most_lost_in(&self, window: Duration) -> Duration {
        let mut most = Duration::ZERO;
        let mut sum = Duration::ZERO;
        let mut first = 0;
        for (at, late) in &self.0 {
            sum += *late;
            // What a beat within the window tells of may have begun before it.
            while *at - self.0[first].0 > window {
                sum -= self.0[first].1;
                first += 1;
            }
            most = most.max(sum);
        }
        most.min(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_counts_within_a_window_only() {
        let begin = Instant::now();
        let ms = Duration::from_millis;
        let late = [(20, 0), (540, 500), (560, 0), (880, 300), (3000, 10)];
        let beats = late.map(|(at, late)| (begin + ms(at), ms(late)));
        let beats = Beats(beats.to_vec());
        assert_eq!(beats.most_lost_in(ms(1000)), ms(800));
        assert_eq!(beats.most_lost_in(ms(300)), ms(300));
        assert_eq!(beats.most_lost_in(ms(5000)), ms(810));
        assert_eq!(Beats::default().most_lost_in(ms(1000)), ms(0));
    }

    #[test]
    fn a_heart_beats_until_it_is_stopped() {
        let heart = Heartbeat::start();
        assert!(!heart.stop().0.is_empty());
    }
}
