//! Medians over the rounds, as a table and as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::figure::{Figure, Sample};
use crate::run::Series;
use crate::stats::{Spread, ratios};
use crate::systems::REFERENCE;

/// The medians of a series.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    work: String,
    system: &'static str,
    /// By name. Figures that the work does not have are `null`.
    #[serde(flatten)]
    figures: BTreeMap<&'static str, Option<f64>>,
    rounds: usize,
    /// The headline of the work over that of the reference in the same round. Only the table shows
    /// it.
    #[serde(skip)]
    ratio: Option<Spread>,
}

/// A row per series, in their order.
pub(crate) fn rows(all: &[Series]) -> Vec<Row> {
    all.iter()
        .map(|series| {
            let headline = series.work.headline();
            let reference = all
                .iter()
                .find(|other| other.work == series.work && other.system == REFERENCE);
            Row {
                work: series.work.to_string(),
                system: series.system,
                figures: Figure::ALL
                    .iter()
                    .map(|&figure| {
                        let median = Spread::of(values(series, figure)).map(|it| it.median);
                        (figure.name(), median)
                    })
                    .collect(),
                rounds: series.samples.len(),
                ratio: reference.and_then(|reference| {
                    Spread::of(ratios(
                        &values(series, headline),
                        &values(reference, headline),
                    ))
                }),
            }
        })
        .collect()
}

fn values(series: &Series, figure: Figure) -> Vec<f64> {
    let value = |sample: &Sample| sample.get(figure);
    series.samples.iter().filter_map(value).collect()
}

/// Writes the rows as a list of objects.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write_json(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, rows)?;
    writeln!(out)
}

const COLUMNS: usize = 10;

fn headings() -> [String; COLUMNS] {
    [
        "work",
        "system",
        Figure::Rate.label(),
        Figure::ServerCpu.label(),
        "to loop (min-max)",
        Figure::ClientCpu.label(),
        Figure::P50.label(),
        Figure::P99.label(),
        Figure::P999.label(),
        Figure::Rss.label(),
    ]
    .map(str::to_owned)
}

/// Columns of names, which begin at the left; numbers end at the right.
const NAMES: usize = 2;

/// Writes the rows for people.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write_table(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    let lines: Vec<[String; COLUMNS]> = [headings()]
        .into_iter()
        .chain(rows.iter().map(cells))
        .collect();
    let mut widths = [0; COLUMNS];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    for line in &lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let cell = if column < NAMES {
                format!("{cell:<width$}  ")
            } else {
                format!("{cell:>width$}  ")
            };
            text.push_str(&cell);
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

fn cells(row: &Row) -> [String; COLUMNS] {
    let number = |figure: Figure, digits: usize| {
        let value = row.figures.get(figure.name()).copied().flatten();
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let ratio = row.ratio.map_or_else(
        || "-".to_owned(),
        |Spread { min, median, max }| format!("{median:.2} ({min:.2}-{max:.2})"),
    );
    [
        row.work.clone(),
        row.system.to_owned(),
        number(Figure::Rate, 0),
        number(Figure::ServerCpu, 1),
        ratio,
        number(Figure::ClientCpu, 1),
        number(Figure::P50, 1),
        number(Figure::P99, 1),
        number(Figure::P999, 1),
        number(Figure::Rss, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Work;

    fn series(work: &str, system: &'static str, server_cpu_ns: &[f64]) -> Series {
        let sample = |&value| {
            Sample::default()
                .with(Figure::Rate, 1e9 / value)
                .with(Figure::ServerCpu, value)
        };
        let samples = server_cpu_ns.iter().map(sample).collect();
        Series {
            work: Work::find(work).expect("a load"),
            system,
            samples,
        }
    }

    #[test]
    fn ratios_are_within_rounds_and_within_works() {
        let all = [
            series("echo/64B/1x1", REFERENCE, &[1.0, 10.0, 2.0]),
            series("echo/64B/1x1", "other", &[2.0, 30.0, 3.0]),
            series("echo/64B/1x64", "other", &[5.0]),
        ];
        let rows = rows(&all);
        assert_eq!(
            rows[0].ratio,
            Some(Spread {
                min: 1.0,
                median: 1.0,
                max: 1.0
            })
        );
        assert_eq!(
            rows[1].ratio,
            Some(Spread {
                min: 1.5,
                median: 2.0,
                max: 3.0
            })
        );
        assert_eq!(rows[1].figures["server_cpu_ns"], Some(3.0));
        assert_eq!(rows[1].rounds, 3);
        assert_eq!(rows[2].ratio, None);
    }

    #[test]
    fn json_has_the_fields_and_nulls() {
        let mut json = Vec::new();
        let all = [series("echo/64B/1x64", "other", &[4.0])];
        write_json(&rows(&all), &mut json).expect("memory");
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        let expected = serde_json::json!([{
            "work": "echo/64B/1x64",
            "system": "other",
            "rate": 250_000_000.0,
            "server_cpu_ns": 4.0,
            "client_cpu_ns": null,
            "p50_us": null,
            "p99_us": null,
            "p999_us": null,
            "rss_per_connection": null,
            "rounds": 1,
        }]);
        assert_eq!(value, expected);
    }

    #[test]
    fn the_table_is_aligned() {
        let mut table = Vec::new();
        let all = [
            series("echo/64B/1x64", REFERENCE, &[4.0]),
            series("echo/64B/1x64", "other", &[6.0]),
        ];
        write_table(&rows(&all), &mut table).expect("memory");
        let table = String::from_utf8(table).expect("text");
        let ends: Vec<usize> = table
            .lines()
            .map(|line| line.find("  ").expect("two columns"))
            .collect();
        assert_eq!(ends, [4, 13, 13]);
        assert!(table.contains("1.50 (1.50-1.50)"), "{table}");
    }
}
