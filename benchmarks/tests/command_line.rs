//! The program from outside: its exit codes and its report.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity};
use serde_json::Value;

fn benchmarks(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_benchmarks"))
        .args(arguments)
        .output()
        .expect("the program")
}

#[test]
fn bad_arguments_are_told_and_exit_with_two() {
    for (arguments, expected) in [
        (&[][..], "expected `run`"),
        (&["run", "--rounds", "none"], "expected a number"),
        (&["run", "--only", "*B"], "echo/64B/1x1"),
        (&["run", "--systems", "tonic"], "protosocket-2.0.2"),
        (&["serve", "tonic", "0"], "protosocket-2.0.2"),
    ] {
        let output = benchmarks(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_anything_is_measured() {
    let output = benchmarks(&[
        "run",
        "--seconds",
        "60",
        "--json",
        "/nonexistent/report.json",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/report.json"));
}

#[test]
fn a_short_run_reports_every_figure() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report.json");
    fs::write(&file, "x".repeat(1 << 16)).expect("a longer report from before");
    let path = file.to_str().expect("a path in UTF-8");
    let output = benchmarks(&[
        "run",
        "--only",
        "echo/64B/1x64",
        "--systems",
        "loop,ours,protosocket-2.0.2",
        "--rounds",
        "2",
        "--seconds",
        "0.05",
        "--json",
        path,
    ]);
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(lines, 1 + 3, "a heading and a line for each system");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "works: 1, systems: 3, rounds: 2; about 2 s\n",
        "progress is for terminals"
    );

    let report: Value = serde_json::from_slice(&fs::read(file).expect("a report")).expect("JSON");
    let systems: Vec<&Value> = report
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| &row["system"])
        .collect();
    assert_eq!(systems, ["loop", "ours", "protosocket-2.0.2"]);
    for row in report.as_array().expect("a list") {
        assert_eq!(row["work"], "echo/64B/1x64");
        assert_eq!(row["rounds"], 2);
        assert_eq!(row["rss_per_connection"], Value::Null);
        for figure in [
            "rate",
            "server_cpu_ns",
            "client_cpu_ns",
            "p50_us",
            "p99_us",
            "p999_us",
        ] {
            assert!(
                row[figure].as_f64().is_some_and(|figure| figure > 0.0),
                "{figure}: {row}"
            );
        }
    }
}

#[test]
fn idle_connections_report_memory_alone() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("idle.json");
    let path = file.to_str().expect("a path in UTF-8");
    let output = benchmarks(&[
        "run",
        "--only",
        "idle",
        "--systems",
        "loop",
        "--rounds",
        "1",
        "--json",
        path,
    ]);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(file).expect("a report")).expect("JSON");
    let bytes = report[0]["rss_per_connection"].as_f64().expect("bytes");
    assert!((1_000.0..100_000.0).contains(&bytes), "{bytes}");
    assert_eq!(report[0]["server_cpu_ns"], Value::Null);
    assert_eq!(report[0]["rate"], Value::Null);
}

#[test]
fn a_server_ends_when_its_parent_is_gone() {
    let allowed = sched_getaffinity(None).expect("the processors of this process");
    let processor = (0..CpuSet::MAX_CPU)
        .find(|&cpu| allowed.is_set(cpu))
        .expect("a processor");
    let mut server = Command::new(env!("CARGO_BIN_EXE_benchmarks"))
        .args(["serve", "loop", &processor.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut address = String::new();
    BufReader::new(server.stdout.take().expect("a pipe"))
        .read_line(&mut address)
        .expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{address}");

    // Pipes are closed when the process that holds them ends, however it ends.
    drop(server.stdin.take());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = server.try_wait().expect("our own child") {
            break Some(status);
        }
        if start.elapsed() > Duration::from_secs(10) {
            server.kill().expect("our own child");
            server.wait().expect("our own child");
            break None;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "std has no wait for a child with a deadline"
        )]
        thread::sleep(Duration::from_millis(5));
    };
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}
