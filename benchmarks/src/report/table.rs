//! The report on a terminal.

use std::io::{self, Write};

use super::text::{align, number, range, ratio, wrap};
use super::{INDENT, Report, SystemReport, WorkReport};

/// Columns that a terminal is expected to have.
const WIDTH: usize = 120;

/// Writes the report for people: a block per work, with the figures that it has.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write_table(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for work in &report.works {
        writeln!(out, "{}", work.name)?;
        for block in wrap(&rows(report, work), WIDTH - INDENT.len()) {
            for line in align(&block) {
                writeln!(out, "{INDENT}{line}")?;
            }
        }
        for system in &work.systems {
            for note in &system.notes {
                writeln!(out, "{INDENT}! {}: {note}", system.name)?;
            }
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "Medians of {} rounds. `to` another system is the median of the ratios to it within the rounds, of \
         the figure to its left.",
        report.rounds
    )
}

fn rows(report: &Report, work: &WorkReport) -> Vec<Vec<String>> {
    let figures = report.figures_of(work);
    let reference = report.reference_of(work);
    let mut headings = vec![String::new()];
    for figure in &figures {
        headings.push(figure.label.clone());
        if figure.name == work.headline {
            headings.push(format!("to {reference} (min–max)"));
        } else if Report::is_compared(work, figure) {
            headings.push(format!("to {reference}"));
        }
    }
    let cells = |system: &SystemReport| {
        let mut cells = vec![system.name.clone()];
        for figure in &figures {
            let measured = system.figures.get(&figure.name);
            cells.push(measured.map_or_else(String::new, |it| number(it.spread.median)));
            let to_reference = measured.and_then(|it| it.ratio);
            if figure.name == work.headline {
                cells.push(to_reference.map_or_else(String::new, range));
            } else if Report::is_compared(work, figure) {
                cells.push(to_reference.map_or_else(String::new, |it| ratio(it.median)));
            }
        }
        cells
    };
    let systems = work.systems.iter().map(cells);
    [headings].into_iter().chain(systems).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{echo, idle, report, series};
    use super::*;
    use crate::figure::{Figure, Sample};

    fn table(report: &Report) -> String {
        let mut table = Vec::new();
        write_table(report, &mut table).expect("memory");
        String::from_utf8(table).expect("text")
    }

    #[test]
    fn a_work_has_its_own_columns() {
        let report = report(&[
            echo("loop", &[400.0, 400.0, 500.0]),
            echo("ours", &[420.0, 400.0, 550.0]),
            idle("ours", &[1_050_431.0]),
        ]);
        let expected = "\
echo/64B/1x64
        server ns  to loop (min–max)  messages/s  to loop
  loop        400   1.00 (1.00–1.00)   2,500,000     1.00
  ours        420   1.05 (1.00–1.10)   2,380,952     0.95

idle/1000
        RSS B/conn  to loop (min–max)
  ours   1,050,431

Medians of 5 rounds. `to` another system is the median of the ratios to it within the rounds, of the figure to its left.
";
        assert_eq!(table(&report), expected);
    }

    #[test]
    fn notes_stand_below_the_figures() {
        let mut noted = echo("ours", &[400.0]);
        noted.notes = vec!["round 2: failed: no reply".to_owned()];
        let table = table(&report(&[echo("loop", &[400.0]), noted]));
        let after = table.split("250,000").last().expect("the table");
        assert!(
            after.contains("\n  ! ours: round 2: failed: no reply\n\n"),
            "{table}"
        );
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let sample = Figure::ALL
            .iter()
            .fold(Sample::default(), |sample, &figure| {
                sample.with(figure, 1e15)
            });
        let all = [series("echo/64B/1x64", "protosocket-2.0.2", &[sample])];
        let table = table(&report(&all));
        for line in table.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        assert!(table.matches("protosocket-2.0.2").count() > 1, "{table}");
        for figure in Figure::ALL {
            assert!(table.contains(figure.label()), "{table}");
        }
    }
}
