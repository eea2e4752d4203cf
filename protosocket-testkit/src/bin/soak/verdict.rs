//! What was required, what came, and whether that holds: for people and for programs.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Count,
    Bytes,
    Milliseconds,
    PerSecond,
    Percent,
}

/// What is required of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rule {
    /// Nothing: it is for people to know.
    Any,
    Exactly(f64),
    AtMost(f64),
    AtLeast(f64),
}

impl Rule {
    /// Whether a figure is as this requires.
    pub(crate) fn holds(self, figure: f64) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(required) => figure == required,
            Self::AtMost(limit) => figure <= limit,
            Self::AtLeast(limit) => figure >= limit,
        }
    }
}

/// One figure and what was required of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) required: Rule,
    pub(crate) came: f64,
    pub(crate) held: bool,
}

/// What a case has found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) case: &'static str,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
    /// What people should know about how this came about.
    pub(crate) notes: Vec<String>,
}

impl Verdict {
    pub(crate) fn new(case: &'static str, seed: u64) -> Self {
        Self {
            case,
            seed,
            seconds: 0.0,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Whether everything that was required has come.
    pub(crate) fn held(&self) -> bool {
        self.rows.iter().all(|row| row.held)
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A count for people to know.
    pub(crate) fn count(&mut self, what: impl Into<String>, came: u64) {
        self.judge(what, Unit::Count, Rule::Any, came as f64);
    }

    /// A count that is known beforehand.
    pub(crate) fn exactly(&mut self, what: impl Into<String>, required: u64, came: u64) {
        self.judge(
            what,
            Unit::Count,
            Rule::Exactly(required as f64),
            came as f64,
        );
    }

    /// A count with a limit.
    pub(crate) fn at_most(&mut self, what: impl Into<String>, limit: u64, came: u64) {
        self.judge(what, Unit::Count, Rule::AtMost(limit as f64), came as f64);
    }

    /// A count that must be reached.
    pub(crate) fn at_least(&mut self, what: impl Into<String>, limit: u64, came: u64) {
        self.judge(what, Unit::Count, Rule::AtLeast(limit as f64), came as f64);
    }

    /// Memory for people to know.
    pub(crate) fn bytes(&mut self, what: impl Into<String>, came: u64) {
        self.judge(what, Unit::Bytes, Rule::Any, came as f64);
    }

    /// Memory with a limit.
    pub(crate) fn bytes_at_most(&mut self, what: impl Into<String>, limit: u64, came: u64) {
        self.judge(what, Unit::Bytes, Rule::AtMost(limit as f64), came as f64);
    }

    /// Memory with a limit, as a part of other memory.
    pub(crate) fn percent_at_most(
        &mut self,
        what: impl Into<String>,
        of: u64,
        limit: u64,
        came: u64,
    ) {
        let percent = |bytes: u64| bytes as f64 / of as f64 * 100.0;
        self.judge(
            what,
            Unit::Percent,
            Rule::AtMost(percent(limit)),
            percent(came),
        );
    }

    /// A time for people to know.
    pub(crate) fn time(&mut self, what: impl Into<String>, came: Duration) {
        self.judge(what, Unit::Milliseconds, Rule::Any, milliseconds(came));
    }

    /// A time with a limit.
    pub(crate) fn time_at_most(
        &mut self,
        what: impl Into<String>,
        limit: Duration,
        came: Duration,
    ) {
        let rule = Rule::AtMost(milliseconds(limit));
        self.judge(what, Unit::Milliseconds, rule, milliseconds(came));
    }

    /// A rate that must be reached.
    pub(crate) fn rate_at_least(&mut self, what: impl Into<String>, limit: f64, came: f64) {
        self.judge(what, Unit::PerSecond, Rule::AtLeast(limit), came);
    }

    /// The case could not be brought to its end.
    pub(crate) fn broke_off(&mut self, why: &io::Error) {
        self.exactly("errors that ended the case early", 0, 1);
        self.note(format!("it ended early: {why}"));
    }

    fn judge(&mut self, what: impl Into<String>, unit: Unit, required: Rule, came: f64) {
        self.rows.push(Row {
            what: what.into(),
            unit,
            required,
            came,
            held: required.holds(came),
        });
    }
}

/// The longest time to an answer that a flood may cause at the 99th percentile.
pub(crate) fn slowest_beside_a_flood(quiet_p99: Duration) -> Duration {
    (quiet_p99 * 5).max(Duration::from_millis(20))
}

/// Bytes above quiet that a flood may make a server hold.
pub(crate) const FLOOD_MEMORY: u64 = 64 << 20;

/// Live bytes that there may be after a flood, without those that threads keep for the connections to
/// come: 5 % more than behind the warm-up.
pub(crate) fn live_after_a_flood(quiet: u64) -> u64 {
    quiet + quiet / 20
}

/// Bytes in memory that there may be after a flood, without those that threads keep: 5 % more than
/// behind the warm-up, and what an allocator does not give back although it is free.
pub(crate) fn resident_after_a_flood(quiet: u64) -> u64 {
    quiet + quiet / 20 + NOT_GIVEN_BACK
}

/// Bytes that glibc's allocator may keep after a flood: the server's two threads and its main thread
/// have an arena each, and each keeps up to 128 KiB of free memory at its top, and what is free
/// below an allocation that lives. Servers of 5 to 7 MiB that were flooded alike have been seen to
/// differ by up to 1.1 MiB.
const NOT_GIVEN_BACK: u64 = 3 << 19;

/// Bytes that threads of a server may keep for whatever connections come next: each of the two has up
/// to two read buffers of 128 KiB, two send buffers of 1 MiB, and 4.25 MiB for large messages.
pub(crate) const KEPT_BY_THREADS: u64 = 2 * ((2 << 17) + (2 << 20) + (17 << 18));

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("-"),
            Self::Exactly(_) => f.write_str("="),
            Self::AtMost(_) => f.write_str("<="),
            Self::AtLeast(_) => f.write_str(">="),
        }
    }
}

impl Rule {
    fn limit(self) -> Option<f64> {
        match self {
            Self::Any => None,
            Self::Exactly(limit) | Self::AtMost(limit) | Self::AtLeast(limit) => Some(limit),
        }
    }
}

impl Unit {
    /// A figure for people.
    fn show(self, figure: f64) -> String {
        match self {
            Self::Count => format!("{figure:.0}"),
            Self::Bytes if figure.abs() >= f64::from(10 << 20) => {
                format!("{:.1} MiB", figure / f64::from(1 << 20))
            }
            Self::Bytes if figure.abs() >= f64::from(10 << 10) => {
                format!("{:.1} KiB", figure / f64::from(1 << 10))
            }
            Self::Bytes => format!("{figure:.0} B"),
            Self::Milliseconds => format!("{figure:.2} ms"),
            Self::PerSecond => format!("{figure:.0}/s"),
            Self::Percent => format!("{figure:.1} %"),
        }
    }
}

/// Writes the verdict as a table.
pub(crate) fn write_table(verdict: &Verdict, out: &mut impl Write) -> io::Result<()> {
    let Verdict {
        case,
        seed,
        seconds,
        rows,
        notes,
    } = verdict;
    let summary = match verdict.held() {
        true => "held",
        false => "NOT HELD",
    };
    writeln!(out, "{case}: {summary}, {seconds:.1} s, seed {seed}")?;
    let lines: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let required = match row.required.limit() {
                Some(limit) => format!("{} {}", row.required, row.unit.show(limit)),
                None => row.required.to_string(),
            };
            let held = match (row.required, row.held) {
                (Rule::Any, _) => "",
                (_, true) => "held",
                (_, false) => "NOT HELD",
            };
            [
                row.what.clone(),
                required,
                row.unit.show(row.came),
                held.to_owned(),
            ]
        })
        .collect();
    let heading = ["what", "required", "came", ""].map(str::to_owned);
    let width = |column: usize| {
        let cells = lines.iter().chain([&heading]);
        cells.map(|line| line[column].chars().count()).max()
    };
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or(0));
    for line in [&heading].into_iter().chain(&lines) {
        let [what, required, came, held] = line;
        let text = format!(
            "  {what:<0$}  {required:>1$}  {came:>2$}  {held}",
            widths[0], widths[1], widths[2]
        );
        writeln!(out, "{}", text.trim_end())?;
    }
    for note in notes {
        writeln!(out, "  note: {note}")?;
    }
    writeln!(out)
}

/// Writes the verdicts as one JSON object. A run that is not complete has not held.
pub(crate) fn write_json(
    form: &str,
    complete: bool,
    verdicts: &[Verdict],
    out: &mut impl Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'a> {
        form: &'a str,
        /// Whether every case was run.
        complete: bool,
        held: bool,
        cases: &'a [Verdict],
    }
    let report = Report {
        form,
        complete,
        held: complete && verdicts.iter().all(Verdict::held),
        cases: verdicts,
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_can_be_broken() {
        assert!(Rule::Any.holds(f64::MAX));
        for (rule, good, bad) in [
            (Rule::Exactly(3.0), 3.0, 4.0),
            (Rule::Exactly(3.0), 3.0, 2.0),
            (Rule::AtMost(3.0), 3.0, 3.1),
            (Rule::AtLeast(3.0), 3.0, 2.9),
        ] {
            assert!(rule.holds(good), "{rule:?}");
            assert!(!rule.holds(bad), "{rule:?}");
            assert!(!rule.holds(f64::NAN), "{rule:?}: what was not measured");
        }
    }

    #[test]
    fn one_broken_row_breaks_the_verdict() {
        let judgements: [fn(&mut Verdict, bool); 7] = [
            |verdict, good| verdict.exactly("lost", 0, u64::from(!good)),
            |verdict, good| verdict.at_most("left", 5, if good { 5 } else { 6 }),
            |verdict, good| verdict.at_least("served", 5, if good { 5 } else { 4 }),
            |verdict, good| verdict.bytes_at_most("memory", 10, if good { 10 } else { 11 }),
            |verdict, good| {
                verdict.percent_at_most("memory of quiet", 50, 60, if good { 60 } else { 61 });
            },
            |verdict, good| {
                let came = Duration::from_micros(if good { 20_000 } else { 20_001 });
                verdict.time_at_most("p99", Duration::from_millis(20), came);
            },
            |verdict, good| verdict.rate_at_least("rate", 2.0, if good { 2.0 } else { 1.9 }),
        ];
        for judge in judgements {
            let mut verdict = Verdict::new("case", 1);
            verdict.count("figure", 7);
            verdict.bytes("figure", 7);
            verdict.time("figure", Duration::from_secs(7));
            judge(&mut verdict, true);
            assert!(verdict.held(), "{verdict:?}");
            judge(&mut verdict, false);
            assert!(!verdict.held(), "{verdict:?}");
            judge(&mut verdict, true);
            assert!(!verdict.held(), "{verdict:?}");
        }
    }

    #[test]
    fn limits_of_a_flood() {
        let limit = |milliseconds| slowest_beside_a_flood(Duration::from_millis(milliseconds));
        assert_eq!(limit(1), Duration::from_millis(20));
        assert_eq!(limit(4), Duration::from_millis(20));
        assert_eq!(limit(5), Duration::from_millis(25));
        let quiet = 100 << 20;
        assert_eq!(live_after_a_flood(quiet), 105 << 20);
        assert_eq!(resident_after_a_flood(quiet), (105 << 20) + NOT_GIVEN_BACK);
    }

    #[test]
    fn tables_say_what_did_not_hold() {
        let mut verdict = Verdict::new("flood", 42);
        verdict.exactly("lost by the canary", 0, 3);
        verdict.bytes("memory", 64 << 20);
        verdict.note("a note");
        let mut table = Vec::new();
        write_table(&verdict, &mut table).expect("memory takes everything");
        let table = String::from_utf8(table).expect("text");
        assert!(table.contains("flood: NOT HELD"), "{table}");
        assert!(table.contains("seed 42"), "{table}");
        assert!(
            table.contains("lost by the canary       = 0         3  NOT HELD"),
            "{table}"
        );
        assert!(table.contains("64.0 MiB\n"), "{table}");
        assert!(table.contains("note: a note"), "{table}");
        let mut json = Vec::new();
        write_json("short", true, &[verdict], &mut json).expect("memory takes everything");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["held"], false);
        assert_eq!(json["form"], "short");
        let row = &json["cases"][0]["rows"][0];
        assert_eq!(row["required"]["exactly"], 0.0);
        assert_eq!(row["came"], 3.0);
        assert_eq!(row["held"], false);
    }
}
