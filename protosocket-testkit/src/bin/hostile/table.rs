//! The report for people.

use std::{fmt::Write, time::Duration};

use protosocket_testkit::hostile::{Case, CaseReport, Failure, Verdict};

use crate::args::Plan;

/// The columns of a run.
pub(crate) struct Table {
    /// Whether the server's memory is known.
    memory: bool,
    head: String,
    patience: Duration,
    planned: usize,
}

/// What `--list` prints: a name and a line for each case.
pub(crate) fn list() -> String {
    Case::all().fold(String::new(), |mut text, case| {
        // Writing to a string does not fail.
        let needs = match case.needs_request() {
            true => " (needs --request)",
            false => "",
        };
        let _ = writeln!(text, "{:22} {}{needs}", case.name(), case.summary());
        text
    })
}

impl Table {
    /// For this run.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut head = format!(
            "{} hostile peers against {}, each for up to {}, beside others that {}\n",
            plan.cases.len(),
            plan.address,
            seconds(plan.patience),
            match plan.has_request {
                true => "hold the conversation",
                false => "only connect (give a --request to let them ask for something)",
            }
        );
        head.push_str("slowest: of the others, until its answer");
        if plan.pid.is_some() {
            head.push_str("; memory: before > peak > after, in MiB");
        }
        let _ = write!(
            head,
            "\n\n{:20}  {:22} {:>8} {:>10}  {:>14} {:>9}",
            "case", "the server", "after", "answered", "others served", "slowest"
        );
        if plan.pid.is_some() {
            let _ = write!(head, "  {:>20}", "memory");
        }
        head.push_str("  verdict\n");
        Self {
            memory: plan.pid.is_some(),
            head,
            patience: plan.patience,
            planned: plan.cases.len(),
        }
    }

    /// What is done, and the names of the columns.
    pub(crate) fn head(&self) -> &str {
        &self.head
    }

    /// A line for a case, and more for what must be said about it.
    pub(crate) fn row(&self, report: &CaseReport) -> String {
        let server = &report.server;
        let others = match report.during.answered + report.during.lost {
            0 => "-".to_owned(),
            asked => format!("{} of {asked}", report.during.answered),
        };
        let mut row = format!(
            "{:20}  {:22} {:>8} {:>10}  {:>14} {:>9}",
            report.case,
            server.to_string(),
            after(report),
            bytes(server.answered),
            others,
            report.during.slowest.map_or("-".into(), milliseconds),
        );
        if self.memory {
            let text = report.memory.map_or("-".into(), |memory| {
                format!(
                    "{} > {} > {}",
                    mebibytes(memory.before),
                    mebibytes(memory.peak),
                    mebibytes(memory.after)
                )
            });
            let _ = write!(row, "  {text:>20}");
        }
        row.push_str(match &report.verdict {
            Verdict::Passed => "  ok\n",
            Verdict::Failed(_) => "  FAILED\n",
            Verdict::Skipped(_) => "  skipped\n",
        });
        let mut say = |what: &dyn std::fmt::Display| {
            let _ = writeln!(row, "    {what}");
        };
        if let Verdict::Skipped(why) = &report.verdict {
            say(why);
        }
        report
            .failures()
            .iter()
            .for_each(|failure| say(&format_args!("FAILED: {failure}")));
        report.notes.iter().for_each(|note| say(note));
        row
    }

    /// How it all went, in the last lines.
    pub(crate) fn summary(
        &self,
        reports: &[CaseReport],
        memory_kept: Option<&Failure>,
        took: Duration,
    ) -> String {
        let count = |wanted: fn(&Verdict) -> bool| {
            let verdicts = reports.iter().map(|report| &report.verdict);
            verdicts.filter(|verdict| wanted(verdict)).count()
        };
        let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
        let skipped = count(|verdict| matches!(verdict, Verdict::Skipped(_)));
        let passed = reports.len() - failed - skipped;
        let mut text = format!("\n{passed} ok, {failed} failed, {skipped} skipped");
        if reports.len() < self.planned {
            let left = self.planned - reports.len();
            let _ = write!(text, ", {left} not run: there was no server left");
        }
        let _ = writeln!(text, ", in {}", seconds(took));
        if let (true, Some(first), Some(last)) = (
            self.memory,
            reports.iter().find_map(|report| report.memory),
            reports.iter().rev().find_map(|report| report.memory),
        ) {
            let _ = writeln!(
                text,
                "memory: {} MiB before the first case, {} MiB after the last",
                mebibytes(first.before),
                mebibytes(last.after)
            );
        }
        if let Some(failure) = memory_kept {
            let _ = writeln!(text, "FAILED: {failure}");
        }
        let overdue = reports
            .iter()
            .filter(|report| report.overdue() > 0)
            .filter(|report| !report.failures().iter().any(is_kept))
            .count();
        if overdue > 0 {
            let _ = writeln!(
                text,
                "In {overdue} of them the server kept for {} what some deadline should end: give a \
                 --patience above its deadlines, and --strict to have that judged.",
                seconds(self.patience)
            );
        }
        text
    }
}

/// How long the slowest end took, or for how long none was seen.
fn after(report: &CaseReport) -> String {
    let server = &report.server;
    match (server.kept_for, server.slowest) {
        (Some(kept), _) => format!("> {}", seconds(kept)),
        (None, Some(slowest)) => seconds(slowest),
        (None, None) => "-".to_owned(),
    }
}

fn is_kept(failure: &Failure) -> bool {
    matches!(failure, Failure::Kept { .. })
}

fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        short @ 0.0..0.9995 => format!("{:.0} ms", short * 1000.0),
        medium @ 0.9995..9.995 => format!("{medium:.2} s"),
        long => format!("{long:.1} s"),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / (1024.0 * 1024.0)),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / (1024.0 * 1024.0))
}
