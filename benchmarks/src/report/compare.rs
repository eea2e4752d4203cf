//! Two reports side by side: what became better or worse by more than the scatter.

use std::fmt;
use std::io::{self, Write};

use super::text::{align, number, range, ratio};
use super::{FigureFacts, INDENT, Measured, Report, SystemReport, WorkReport};
use crate::figure::Better;
use crate::stats::{ENOUGH_ROUNDS, Spread};

/// A machine that was so much busier before one of the runs may have been so during it.
const BUSIER: f64 = 0.5;

/// Smaller changes are none, however little a figure scatters: a page more or less in a process is
/// seen in its memory per connection.
const SMALLEST_CHANGE: f64 = 0.01;

/// What is different in the second of two reports.
#[derive(Debug, PartialEq)]
pub(crate) struct Comparison {
    titles: [String; 2],
    warnings: Vec<String>,
    works: Vec<ComparedWork>,
    /// Works and systems that one of the two lacks.
    only: Vec<String>,
    reference: String,
}

#[derive(Debug, PartialEq)]
struct ComparedWork {
    name: String,
    reference: String,
    rows: Vec<Row>,
}

/// A figure of a system in both reports.
#[derive(Debug, PartialEq)]
struct Row {
    system: String,
    label: String,
    medians: [f64; 2],
    ratios: [Option<Spread>; 2],
    verdict: Verdict,
}

/// What a figure became from the first to the second report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    /// The ranges overlap, or are as good as the same.
    Scatter,
    /// Too few for ranges to mean anything.
    FewRounds,
    /// What the others are compared with is not judged itself.
    Reference,
}

impl Comparison {
    /// Compares the headlines and rates of what both reports have.
    pub(crate) fn of(a: &Report, b: &Report) -> Self {
        let works = both(&a.works, &b.works, |work| &work.name);
        Self {
            titles: [a, b].map(|report| {
                let provenance = &report.provenance;
                format!("commit {}, measured {}", provenance.commit, provenance.time)
            }),
            warnings: differences(a, b),
            works: works
                .map(|(a_work, b_work)| ComparedWork {
                    name: b_work.name.clone(),
                    reference: b.reference_of(b_work).to_owned(),
                    rows: compare_work((a, a_work), (b, b_work)),
                })
                .collect(),
            only: only(a, b, "A").chain(only(b, a, "B")).collect(),
            reference: b.reference.clone(),
        }
    }

    /// Whether a figure became worse by more than the scatter.
    pub(crate) fn has_worse(&self) -> bool {
        self.count(Verdict::Worse) > 0
    }

    /// Writes the comparison for people.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for warning in &self.warnings {
            writeln!(out, "Warning: {warning}")?;
        }
        if !self.warnings.is_empty() {
            writeln!(out)?;
        }
        for (letter, title) in ["A", "B"].iter().zip(&self.titles) {
            writeln!(out, "{letter}: {title}")?;
        }
        for work in &self.works {
            writeln!(out, "\n{}", work.name)?;
            for line in align(&Self::lines(work)) {
                writeln!(out, "{INDENT}{line}")?;
            }
        }
        if !self.only.is_empty() {
            writeln!(out)?;
        }
        for only in &self.only {
            writeln!(out, "{only}")?;
        }
        self.write_rule(out)
    }

    fn lines(work: &ComparedWork) -> Vec<Vec<String>> {
        let headings = ["", "A", "B", "B/A"].map(str::to_owned).into_iter();
        let headings = headings
            .chain(["A", "B"].map(|letter| format!("{letter} to {}", work.reference)))
            .chain([String::new()])
            .collect();
        let cells = |row: &Row| {
            let [a, b] = row.medians;
            let [a_ratio, b_ratio] = row.ratios.map(|it| it.map_or_else(String::new, range));
            vec![
                format!("{} {}", row.system, row.label),
                number(a),
                number(b),
                if a > 0.0 { ratio(b / a) } else { String::new() },
                a_ratio,
                b_ratio,
                row.verdict.to_string(),
            ]
        };
        let rows = work.rows.iter().map(cells);
        [headings].into_iter().chain(rows).collect()
    }

    fn write_rule(&self, out: &mut impl Write) -> io::Result<()> {
        let [better, worse, scatter] =
            [Verdict::Better, Verdict::Worse, Verdict::Scatter].map(|verdict| self.count(verdict));
        writeln!(
            out,
            "\n{better} better, {worse} worse, {scatter} within the scatter.\n\
             A figure is better or worse if the range (min–max) of its ratios to {reference} within \
             the rounds\n(of its values, where a report lacks {reference}) does not overlap that of \
             the other report,\nwith {ENOUGH_ROUNDS} rounds or more in each, and the medians are {} % \
             or more apart.",
            SMALLEST_CHANGE * 100.0,
            reference = self.reference
        )
    }

    fn count(&self, verdict: Verdict) -> usize {
        let rows = self.works.iter().flat_map(|work| &work.rows);
        rows.filter(|row| row.verdict == verdict).count()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Scatter => "scatter",
            Self::FewRounds => "too few rounds",
            Self::Reference => "reference",
        })
    }
}

/// Pairs of the same name.
fn both<'a, T>(
    a: &'a [T],
    b: &'a [T],
    name: impl Fn(&T) -> &str + 'a,
) -> impl Iterator<Item = (&'a T, &'a T)> {
    b.iter()
        .filter_map(move |b| Some((a.iter().find(|a| name(a) == name(b))?, b)))
}

/// What makes figures differ although the program is the same.
fn differences(a: &Report, b: &Report) -> Vec<String> {
    let facts = |report: &Report| {
        let mut facts = report.provenance.facts();
        facts.push(("rounds", report.rounds.to_string()));
        facts.push(("seconds", report.seconds.to_string()));
        facts.push(("reference", report.reference.clone()));
        facts
    };
    let mut warnings: Vec<String> = facts(a)
        .into_iter()
        .zip(facts(b))
        .filter(|(a, b)| a != b)
        .map(|((name, a), (_, b))| format!("{name}: A {a}; B {b}"))
        .collect();
    let load = |report: &Report| report.provenance.machine.load_average;
    if let (Some(a), Some(b)) = (load(a), load(b))
        && (a - b).abs() >= BUSIER
    {
        warnings.push(format!("load average before the run: A {a}; B {b}"));
    }
    warnings
}

/// The works of `here` that `there` lacks, and the systems in those that both have.
fn only<'a>(here: &'a Report, there: &'a Report, letter: &'a str) -> impl Iterator<Item = String> {
    here.works.iter().flat_map(move |work| {
        let Some(other) = there.works.iter().find(|other| other.name == work.name) else {
            return vec![format!("Only in {letter}: {}", work.name)];
        };
        let lacks = |system: &&SystemReport| !other.systems.iter().any(|it| it.name == system.name);
        let missing = work.systems.iter().filter(lacks);
        missing
            .map(|system| format!("Only in {letter}: {} with {}", work.name, system.name))
            .collect()
    })
}

fn compare_work(
    (a_report, a_work): (&Report, &WorkReport),
    (b_report, b_work): (&Report, &WorkReport),
) -> Vec<Row> {
    let references = [a_report.reference_of(a_work), b_report.reference_of(b_work)];
    let same_reference = references[0] == references[1];
    let mut rows = Vec::new();
    for (a, b) in both(&a_work.systems, &b_work.systems, |system| &system.name) {
        for figure in b_report.figures_of(b_work) {
            let measured = (a.figures.get(&figure.name), b.figures.get(&figure.name));
            let (Some(a), Some(b_measured)) = measured else {
                continue;
            };
            if Report::is_compared(b_work, figure) {
                let measured = [a, b_measured];
                rows.push(Row {
                    system: b.name.clone(),
                    label: figure.label.clone(),
                    medians: measured.map(|it| it.spread.median),
                    ratios: measured.map(|it| it.ratio),
                    verdict: if b.name == references[1] {
                        Verdict::Reference
                    } else {
                        judge(figure, measured, same_reference)
                    },
                });
            }
        }
    }
    rows
}

fn judge(figure: &FigureFacts, measured: [&Measured; 2], same_reference: bool) -> Verdict {
    let rounds = |it: &Measured| it.samples.iter().flatten().count();
    if measured.iter().any(|it| rounds(it) < ENOUGH_ROUNDS) {
        return Verdict::FewRounds;
    }
    let [a, b] = match measured.map(|it| it.ratio) {
        [Some(a), Some(b)] if same_reference => [a, b],
        _ => measured.map(|it| it.spread),
    };
    let (lower, higher) = match figure.better {
        Better::Lower => (Verdict::Better, Verdict::Worse),
        Better::Higher => (Verdict::Worse, Verdict::Better),
    };
    if (b.median - a.median).abs() < SMALLEST_CHANGE * a.median {
        Verdict::Scatter
    } else if b.max < a.min {
        lower
    } else if b.min > a.max {
        higher
    } else {
        Verdict::Scatter
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{echo, idle, report};
    use super::*;

    const LOOP: &[f64] = &[100.0; ENOUGH_ROUNDS];

    fn verdicts(a: &Report, b: &Report) -> Vec<Verdict> {
        let works = Comparison::of(a, b).works;
        let rows = works.iter().flat_map(|work| &work.rows);
        rows.map(|row| row.verdict).collect()
    }

    fn text(comparison: &Comparison) -> String {
        let mut text = Vec::new();
        comparison.write(&mut text).expect("memory");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn worse_is_beyond_the_range_of_the_other_and_in_the_bad_direction() {
        use Verdict::{Better, Reference, Scatter, Worse};
        let base = [101.0, 102.0, 103.0, 104.0, 105.0];
        for (ours, expected) in [
            ([105.1, 106.0, 107.0, 108.0, 109.0], Worse),
            ([105.0, 106.0, 107.0, 108.0, 109.0], Scatter),
            ([100.0, 100.0, 100.0, 100.0, 100.9], Better),
            ([90.0, 99.0, 100.0, 101.0, 101.0], Scatter),
        ] {
            let a = report(&[echo("loop", LOOP), echo("ours", &base)]);
            let b = report(&[echo("loop", LOOP), echo("ours", &ours)]);
            // Processor time and rate, which is its inverse.
            assert_eq!(
                verdicts(&a, &b),
                [Reference, Reference, expected, expected],
                "{ours:?}"
            );
            assert_eq!(Comparison::of(&a, &b).has_worse(), expected == Worse);
        }
    }

    #[test]
    fn a_page_more_is_no_change() {
        let [a, b, c] = [1_024.0, 1_028.0, 1_036.0].map(|bytes| {
            let ours = [bytes; ENOUGH_ROUNDS];
            report(&[
                idle("loop", &[16_384.0; ENOUGH_ROUNDS]),
                idle("ours", &ours),
            ])
        });
        assert_eq!(verdicts(&a, &b)[1], Verdict::Scatter);
        assert_eq!(verdicts(&a, &c)[1], Verdict::Worse);
        assert_eq!(verdicts(&c, &a)[1], Verdict::Better);
    }

    #[test]
    fn a_machine_that_became_slower_is_no_worse_program() {
        let ours = [110.0, 111.0, 112.0, 113.0, 114.0];
        let slower = |values: &[f64]| values.iter().map(|it| it * 2.0).collect::<Vec<_>>();
        let a = report(&[echo("loop", LOOP), echo("ours", &ours)]);
        let b = report(&[echo("loop", &slower(LOOP)), echo("ours", &slower(&ours))]);
        assert!(!verdicts(&a, &b).contains(&Verdict::Worse));
        // Without the reference, there is nothing to tell the one from the other.
        let a = report(&[echo("ours", &ours)]);
        assert_eq!(verdicts(&a, &b), [Verdict::Worse; 2]);
    }

    #[test]
    fn ratios_to_different_references_are_not_compared() {
        let ours = [110.0, 111.0, 112.0, 113.0, 114.0];
        let a = report(&[echo("loop", LOOP), echo("ours", &ours)]);
        let mut b = report(&[echo("loop", &[50.0; 5]), echo("ours", &ours)]);
        b.reference = "something else".to_owned();
        assert_eq!(verdicts(&a, &b)[2..], [Verdict::Scatter; 2]);
    }

    #[test]
    fn few_rounds_are_not_judged() {
        let few = ENOUGH_ROUNDS - 1;
        let a = report(&[echo("loop", LOOP), echo("ours", &[100.0; ENOUGH_ROUNDS])]);
        let b = report(&[
            echo("loop", LOOP),
            echo("ours", &[900.0; ENOUGH_ROUNDS][..few]),
        ]);
        assert_eq!(verdicts(&a, &b)[2..], [Verdict::FewRounds; 2]);
        assert_eq!(verdicts(&b, &a)[2..], [Verdict::FewRounds; 2]);
    }

    #[test]
    fn facts_that_differ_are_told_first() {
        let a = report(&[echo("loop", LOOP)]);
        assert_eq!(Comparison::of(&a, &a).warnings, [""; 0]);
        let mut b = a.clone();
        b.provenance.machine.processor = Some("Chip 8".to_owned());
        b.provenance.machine.load_average = Some(0.75);
        b.provenance.compiler = "rustc 1.96.0".to_owned();
        b.seconds = 0.3;
        let text = text(&Comparison::of(&a, &b));
        let lines: Vec<&str> = text.lines().take(6).collect();
        assert_eq!(
            lines,
            [
                "Warning: processor: A Chip 7; B Chip 8",
                "Warning: compiler: A rustc 1.95.0; B rustc 1.96.0",
                "Warning: seconds: A 1; B 0.3",
                "Warning: load average before the run: A 0.25; B 0.75",
                "",
                "A: commit c0ffee, measured 2026-01-31T12:00:00Z",
            ]
        );
    }

    #[test]
    fn works_and_systems_of_one_report_are_named() {
        let a = report(&[echo("loop", LOOP), echo("ours", LOOP), idle("loop", LOOP)]);
        let b = report(&[echo("loop", LOOP), echo("ours-channel", LOOP)]);
        let comparison = Comparison::of(&a, &b);
        assert_eq!(
            comparison.only,
            [
                "Only in A: echo/64B/1x64 with ours",
                "Only in A: idle/1000",
                "Only in B: echo/64B/1x64 with ours-channel",
            ]
        );
        assert!(text(&comparison).contains("\nOnly in A: idle/1000\n"));
    }

    #[test]
    fn a_comparison_is_a_table_and_its_rule() {
        let a = report(&[echo("loop", LOOP), echo("ours", LOOP)]);
        let b = report(&[echo("loop", LOOP), echo("ours", &[125.0; ENOUGH_ROUNDS])]);
        let expected = "\
A: commit c0ffee, measured 2026-01-31T12:00:00Z
B: commit c0ffee, measured 2026-01-31T12:00:00Z

echo/64B/1x64
                            A           B   B/A         A to loop         B to loop
  loop server ns          100         100  1.00  1.00 (1.00–1.00)  1.00 (1.00–1.00)  reference
  loop messages/s  10,000,000  10,000,000  1.00  1.00 (1.00–1.00)  1.00 (1.00–1.00)  reference
  ours server ns          100         125  1.25  1.00 (1.00–1.00)  1.25 (1.25–1.25)      worse
  ours messages/s  10,000,000   8,000,000  0.80  1.00 (1.00–1.00)  0.80 (0.80–0.80)      worse

0 better, 2 worse, 0 within the scatter.
A figure is better or worse if the range (min–max) of its ratios to loop within the rounds
(of its values, where a report lacks loop) does not overlap that of the other report,
with 5 rounds or more in each, and the medians are 1 % or more apart.
";
        assert_eq!(text(&Comparison::of(&a, &b)), expected);
    }
}
