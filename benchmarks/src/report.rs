//! Medians over the rounds, as a table and as JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::run::{Sample, Series};
use crate::stats::{Spread, ratios};
use crate::systems::REFERENCE;

/// The medians of a series. Figures that the work does not have are `null`.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    work: String,
    system: &'static str,
    /// Messages per second.
    rate: Option<f64>,
    /// Per message.
    server_cpu_ns: Option<f64>,
    /// Per message.
    client_cpu_ns: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    p999_us: Option<f64>,
    /// In bytes.
    rss_per_connection: Option<f64>,
    rounds: usize,
    /// Server processor time over that of the reference in the same round. Only the table shows it.
    #[serde(skip)]
    ratio: Option<Spread>,
}

/// A row per series, in their order.
pub(crate) fn rows(all: &[Series]) -> Vec<Row> {
    all.iter()
        .map(|series| {
            let median = |figure: fn(&Sample) -> Option<f64>| {
                Spread::of(series.samples.iter().filter_map(figure)).map(|spread| spread.median)
            };
            let reference = all
                .iter()
                .find(|other| other.work == series.work && other.system == REFERENCE);
            Row {
                work: series.work.to_string(),
                system: series.system,
                rate: median(|sample| sample.rate),
                server_cpu_ns: median(|sample| sample.server_cpu_ns),
                client_cpu_ns: median(|sample| sample.client_cpu_ns),
                p50_us: median(|sample| sample.p50_us),
                p99_us: median(|sample| sample.p99_us),
                p999_us: median(|sample| sample.p999_us),
                rss_per_connection: median(|sample| sample.rss_per_connection),
                rounds: series.samples.len(),
                ratio: reference.and_then(|reference| {
                    Spread::of(ratios(&server_cpu(series), &server_cpu(reference)))
                }),
            }
        })
        .collect()
}

fn server_cpu(series: &Series) -> Vec<f64> {
    series
        .samples
        .iter()
        .filter_map(|sample| sample.server_cpu_ns)
        .collect()
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

const COLUMNS: [&str; 10] = [
    "work",
    "system",
    "rate",
    "server ns",
    "to loop (min-max)",
    "client ns",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "rss/conn",
];

/// Columns of names, which begin at the left; numbers end at the right.
const NAMES: usize = 2;

/// Writes the rows for people.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write_table(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    let lines: Vec<[String; COLUMNS.len()]> = [COLUMNS.map(str::to_owned)]
        .into_iter()
        .chain(rows.iter().map(cells))
        .collect();
    let mut widths = [0; COLUMNS.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
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

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let number = |figure: Option<f64>, digits: usize| {
        figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
    };
    let ratio = row.ratio.map_or_else(
        || "-".to_owned(),
        |Spread { min, median, max }| format!("{median:.2} ({min:.2}-{max:.2})"),
    );
    [
        row.work.clone(),
        row.system.to_owned(),
        number(row.rate, 0),
        number(row.server_cpu_ns, 1),
        ratio,
        number(row.client_cpu_ns, 1),
        number(row.p50_us, 1),
        number(row.p99_us, 1),
        number(row.p999_us, 1),
        number(row.rss_per_connection, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Work;

    fn series(work: &str, system: &'static str, server_cpu_ns: &[f64]) -> Series {
        let sample = |&server_cpu_ns| Sample {
            rate: Some(1e9 / server_cpu_ns),
            server_cpu_ns: Some(server_cpu_ns),
            ..Sample::default()
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
        assert_eq!(rows[1].server_cpu_ns, Some(3.0));
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
