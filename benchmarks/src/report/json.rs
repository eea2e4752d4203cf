//! Reports as they are kept.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Deserialize;

use super::Report;

/// The version of the structure of a report. Fields may be added without another one; who reads a
/// report passes over what it does not know.
pub(super) const FORMAT: u64 = 1;

/// The part of a report that every version has.
#[derive(Deserialize)]
struct Version {
    format: u64,
}

/// Writes the report as an object.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

/// Reads a report that [`write`] has written.
///
/// # Errors
///
/// Names the file, and says what is wrong with it: it cannot be read, it is no report, or one of
/// another version.
pub(crate) fn read(path: &Path) -> io::Result<Report> {
    fs::read(path)
        .and_then(|bytes| parse(&bytes))
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn parse(bytes: &[u8]) -> io::Result<Report> {
    let refuse = |error: serde_json::Error| {
        let expected = "expected a report of `benchmarks run --json`";
        io::Error::new(io::ErrorKind::InvalidData, format!("{error}; {expected}"))
    };
    let Version { format } = serde_json::from_slice(bytes).map_err(refuse)?;
    if format != FORMAT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "a report of format {format}, expected format {FORMAT}; \
                 read it with the program that has written it, or measure again"
            ),
        ));
    }
    serde_json::from_slice(bytes).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{echo, idle, report};
    use super::*;

    fn value() -> Value {
        let report = report(&[echo("loop", &[4.0, 2.0]), idle("ours", &[0.1])]);
        serde_json::to_value(report).expect("a report")
    }

    fn refusal(value: &Value) -> String {
        let error = parse(value.to_string().as_bytes()).expect_err("no report");
        error.to_string()
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report = report(&[echo("loop", &[4.0, 2.0]), idle("ours", &[0.1])]);
        let mut file = Vec::new();
        write(&report, &mut file).expect("memory");
        assert_eq!(parse(&file).expect("a report"), report);
    }

    #[test]
    fn a_report_has_these_fields() {
        let expected = json!({
            "format": 1,
            "provenance": {
                "time": "2026-01-31T12:00:00Z",
                "commit": "c0ffee",
                "compiler": "rustc 1.95.0",
                "profile": "release, opt-level 3",
                "allocator": "system",
                "libraries": ["peer 2.0.2"],
                "machine": {
                    "processor": "Chip 7",
                    "processors": 2,
                    "kernel": "6.1.0",
                    "memory_bytes": 4_294_967_296_u64,
                    "governor": null,
                    "virtualised": true,
                    "load_average": 0.25,
                },
            },
            "rounds": 5,
            "seconds": 1.0,
            "reference": "loop",
            "figures": [
                { "name": "rate", "label": "messages/s", "better": "higher" },
                { "name": "server_cpu_ns", "label": "server ns", "better": "lower" },
                { "name": "rss_per_connection", "label": "RSS B/conn", "better": "lower" },
            ],
            "works": [
                {
                    "name": "echo/64B/1x64",
                    "headline": "server_cpu_ns",
                    "systems": [{
                        "name": "loop",
                        "figures": {
                            "rate": {
                                "min": 250_000_000.0, "median": 375_000_000.0, "max": 500_000_000.0,
                                "ratio": { "min": 1.0, "median": 1.0, "max": 1.0 },
                                "samples": [250_000_000.0, 500_000_000.0],
                            },
                            "server_cpu_ns": {
                                "min": 2.0, "median": 3.0, "max": 4.0,
                                "ratio": { "min": 1.0, "median": 1.0, "max": 1.0 },
                                "samples": [4.0, 2.0],
                            },
                        },
                    }],
                },
                {
                    "name": "idle/1000",
                    "headline": "rss_per_connection",
                    "systems": [{
                        "name": "ours",
                        "figures": {
                            "rss_per_connection": {
                                "min": 0.1, "median": 0.1, "max": 0.1,
                                "ratio": null,
                                "samples": [0.1],
                            },
                        },
                    }],
                },
            ],
        });
        let mut value = value();
        let systems = value.as_object_mut().expect("an object").remove("systems");
        assert_eq!(value, expected);
        assert_eq!(systems.expect("systems")[0]["name"], "loop");
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let mut value = value();
        value["weather"] = json!("fair");
        value["provenance"]["machine"]["colour"] = json!({ "of": "the lid" });
        value["works"][0]["systems"][0]["figures"]["luck"] =
            value["works"][0]["systems"][0]["figures"]["rate"].clone();
        let report = parse(value.to_string().as_bytes()).expect("a report");
        assert_eq!(report.works.len(), 2);
    }

    #[test]
    fn another_format_is_refused() {
        let mut value = value();
        value["format"] = json!(2);
        // What a later format looks like is not for this program to know.
        value.as_object_mut().expect("an object").remove("works");
        let refusal = refusal(&value);
        assert!(
            refusal.contains("of format 2, expected format 1"),
            "{refusal}"
        );
    }

    #[test]
    fn what_is_no_report_is_told_by_the_field_that_is_missing() {
        for (pointer, field) in [
            ("", "format"),
            ("", "works"),
            ("", "provenance"),
            ("/provenance", "commit"),
            ("/provenance/machine", "virtualised"),
            ("/works/0", "headline"),
            ("/works/0/systems/0/figures/rate", "median"),
            ("/figures/0", "better"),
        ] {
            let mut value = value();
            let object = value.pointer_mut(pointer).and_then(Value::as_object_mut);
            object.expect("an object").remove(field).expect("a field");
            let refusal = refusal(&value);
            let expected = format!("missing field `{field}`");
            assert!(
                refusal.starts_with(&expected),
                "{pointer} {field}: {refusal}"
            );
            assert!(refusal.contains("expected a report of"), "{refusal}");
        }
        assert!(refusal(&json!([])).starts_with("invalid length 0"));
        assert!(parse(b"").expect_err("nothing").to_string().contains("EOF"));
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = read(Path::new("/nonexistent/report.json")).expect_err("no file");
        assert!(error.to_string().starts_with("/nonexistent/report.json: "));
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
