//! How far a run is: one line on a terminal, written over and over.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Columns of a terminal that does not tell how many it has.
const USUAL_COLUMNS: usize = 80;

// LIMIT: a bar that is longer than this is not read more precisely.
const LONGEST_BAR: usize = 40;

/// Below this a bar says nothing, and the text takes its place.
const SHORTEST_BAR: usize = 8;

/// The progress of a run on the standard error, if that is a terminal. Anywhere else there is none.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `None` when nobody looks.
    columns: Option<usize>,
    start: Instant,
    done: Share,
    total: Share,
}

/// Measurements, and the time that they are estimated to take. The estimate weighs them against each
/// other: a minute of one and a second of another are not two halves.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    count: usize,
    estimate: Duration,
}

impl Progress {
    /// The beginning of a run of so many measurements that is estimated to take so long.
    pub(crate) fn new(count: usize, estimate: Duration) -> Self {
        let columns = || {
            let columns = std::env::var("COLUMNS").ok()?;
            columns.parse().ok().filter(|&columns| columns > 0)
        };
        Self {
            columns: io::stderr()
                .is_terminal()
                .then(|| columns().unwrap_or(USUAL_COLUMNS)),
            start: Instant::now(),
            done: Share::default(),
            total: Share { count, estimate },
        }
    }

    /// Says what is measured from here on.
    pub(crate) fn show(&self, what: impl Display) {
        if let Some(columns) = self.columns {
            let left = time_left(
                self.start.elapsed(),
                self.done.estimate,
                self.total.estimate,
            );
            let counts = (self.done.count, self.total.count);
            write_over(&line(columns, counts, left, &what.to_string()));
        }
    }

    /// Counts a measurement that was estimated to take so long.
    pub(crate) fn advance(&mut self, estimate: Duration) {
        self.done.count += 1;
        self.done.estimate += estimate;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.columns.is_some() {
            write_over("");
        }
    }
}

fn write_over(line: &str) {
    // Losing the progress is no reason to lose the measurement.
    let _: io::Result<()> = write!(io::stderr(), "\r\x1b[2K{line}");
}

/// What is left takes as much longer or shorter than estimated as what is done.
fn time_left(elapsed: Duration, done: Duration, total: Duration) -> Duration {
    let left = total.saturating_sub(done);
    if done.is_zero() {
        left
    } else {
        elapsed.mul_f64(left.div_duration_f64(done))
    }
}

/// One character less than the terminal is wide, so that none wraps.
fn line(columns: usize, (done, total): (usize, usize), left: Duration, what: &str) -> String {
    let digits = total.to_string().len();
    let count = format!("{done:>digits$}/{total}");
    let text = format!("{} left  {what}", clock(left));
    let room = columns.saturating_sub(1);
    let bar = room
        .saturating_sub(count.len() + text.chars().count() + " [] ".len())
        .min(LONGEST_BAR);
    let line = if bar < SHORTEST_BAR {
        format!("{count} {text}")
    } else {
        let full = bar * done / total.max(1);
        let empty = bar - full;
        format!("{count} [{:#<full$}{:.<empty$}] {text}", "", "")
    };
    line.chars().take(room).collect()
}

/// `m:ss`, rounded up: nothing is left only when all is done.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_line_has_count_bar_time_and_what_is_measured() {
        let shown = line(60, (5, 20), 61 * SECOND, "echo/64B/1x64 ours");
        assert_eq!(
            shown,
            " 5/20 [#####................] 1:01 left  echo/64B/1x64 ours"
        );
    }

    #[test]
    fn a_bar_is_empty_at_first_and_full_at_last() {
        let shown = line(200, (0, 3), SECOND, "");
        assert!(shown.contains(&format!("[{}]", ".".repeat(LONGEST_BAR))));
        let shown = line(200, (3, 3), SECOND, "");
        assert!(shown.contains(&format!("[{}]", "#".repeat(LONGEST_BAR))));
    }

    #[test]
    fn no_line_is_as_wide_as_the_terminal() {
        for columns in 0..100 {
            let shown = line(columns, (7, 1_000), 3_600 * SECOND, "idle/1000 of ‘ours’");
            assert!(
                shown.chars().count() <= columns.saturating_sub(1),
                "{shown}"
            );
        }
        let shown = line(45, (7, 1_000), 3_600 * SECOND, "idle/1000 ours");
        assert_eq!(shown, "   7/1000 60:00 left  idle/1000 ours");
    }

    #[test]
    fn the_time_left_is_the_estimate_corrected_by_what_was_measured() {
        assert_eq!(time_left(SECOND, Duration::ZERO, 9 * SECOND), 9 * SECOND);
        assert_eq!(time_left(4 * SECOND, 2 * SECOND, 5 * SECOND), 6 * SECOND);
        assert_eq!(
            time_left(9 * SECOND, 5 * SECOND, 5 * SECOND),
            Duration::ZERO
        );
    }

    #[test]
    fn a_clock_rounds_up() {
        assert_eq!(clock(Duration::ZERO), "0:00");
        assert_eq!(clock(Duration::from_millis(59_001)), "1:00");
        assert_eq!(clock(3_725 * SECOND), "62:05");
    }
}
