//! The program `soak` from outside: its arguments, its exit codes, its report, and that a server that
//! leaks, hoards, loses, forgets, stands still or dies is caught.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// The exit code when something did not hold.
const NOT_HELD: i32 = 1;
/// The exit code for arguments that make no sense.
const USAGE: i32 = 2;
/// The exit code when the system lacks something.
const SYSTEM: i32 = 3;

fn soak(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_soak"))
        .args(arguments)
        .output()
        .expect("the program")
}

/// Runs with a report, and returns it.
fn report(name: &str, arguments: &[&str]) -> (Output, Value) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    fs::write(&file, "x".repeat(1 << 20)).expect("a longer report from before");
    let path = file.to_str().expect("a path in UTF-8");
    let output = soak(&[arguments, &["--tiny", "--json", path]].concat());
    let report = fs::read(&file).expect("a report");
    let report = serde_json::from_slice(&report)
        .unwrap_or_else(|error| panic!("{error} in the report: {output:?}"));
    (output, report)
}

/// The rows of all cases of a report, each with the name of its case.
fn rows(report: &Value) -> Vec<(&str, &Value)> {
    let cases = report["cases"].as_array().expect("a list");
    let rows = cases.iter().flat_map(|case| {
        let name = case["case"].as_str().expect("a name");
        let rows = case["rows"].as_array().expect("a list");
        rows.iter().map(move |row| (name, row))
    });
    rows.collect()
}

/// What did not hold.
fn broken(report: &Value) -> Vec<&str> {
    let broken = rows(report).into_iter();
    let broken = broken.filter(|(_, row)| row["held"] == false);
    broken.filter_map(|(_, row)| row["what"].as_str()).collect()
}

#[track_caller]
fn expect_broken(name: &str, arguments: &[&str], what: &str) {
    let (output, report) = report(name, arguments);
    assert_eq!(output.status.code(), Some(NOT_HELD), "{output:?}");
    assert_eq!(report["held"], false);
    let broken = broken(&report);
    assert!(
        broken.iter().any(|row| row.contains(what)),
        "{what:?} is not among what did not hold: {broken:?}"
    );
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("NOT HELD"), "{table}");
}

#[test]
fn bad_arguments_are_told_and_exit_with_two() {
    for (arguments, expected) in [
        (&["walk"][..], "open churn drain descriptors flood mixed"),
        (&["--fast"], "--fast"),
        (&["open", "--seed", "many"], "many"),
        (
            &["--sabotage", "all"],
            "leak, hoard, clutch, lose, forget, hurry, stall, die",
        ),
        (&["serve", "--descriptors"], "missing argument"),
    ] {
        let output = soak(arguments);
        assert_eq!(output.status.code(), Some(USAGE), "{arguments:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
    }
}

#[test]
fn help_tells_the_exit_codes() {
    let output = soak(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(help.contains("Exit codes: 0"), "{help}");
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_any_load() {
    let output = soak(&["--long", "--json", "/nonexistent/report.json"]);
    assert_eq!(output.status.code(), Some(USAGE));
    assert_eq!(output.stdout, b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/report.json"));
}

#[test]
fn a_limit_that_is_too_low_is_told_with_the_way_to_raise_it() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 400; exec \"$0\" \"$@\""])
        .args([env!("CARGO_BIN_EXE_soak"), "open"])
        .output()
        .expect("there is a shell");
    assert_eq!(output.status.code(), Some(SYSTEM), "{output:?}");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("ulimit -Hn 8100"), "{complaint}");
    assert!(complaint.contains("the hard limit is 400"), "{complaint}");
}

#[test]
fn a_tiny_run_loses_nothing_and_gives_everything_back() {
    let (output, report) = report("tiny", &["--seed", "7"]);
    let cases = report["cases"].as_array().expect("a list");
    let names: Vec<_> = cases
        .iter()
        .filter_map(|case| case["case"].as_str())
        .collect();
    assert_eq!(
        names,
        ["open", "churn", "drain", "descriptors", "flood", "mixed"]
    );
    assert_eq!(report["form"], "tiny");
    assert!(cases.iter().all(|case| case["seed"] == 7));
    assert_eq!(output.stderr, b"", "progress is for terminals");
    // How fast it is depends on what else the machine does, and on the build.
    let counted = rows(&report)
        .into_iter()
        .filter(|(_, row)| row["unit"] == "count");
    let broken: Vec<_> = counted.filter(|(_, row)| row["held"] == false).collect();
    assert!(broken.is_empty(), "{broken:#?}\n{output:?}");
    for (case, row) in rows(&report) {
        assert!(row["came"].is_number(), "{case}: {row}");
    }
}

#[test]
fn a_server_that_leaks_is_caught() {
    expect_broken(
        "leak",
        &["open", "--sabotage", "leak"],
        "live allocations of the server afterwards",
    );
}

#[test]
fn a_server_that_loses_an_answer_is_caught() {
    expect_broken(
        "lose",
        &["open", "--sabotage", "lose"],
        "exchanges that failed",
    );
}

/// Memory in one allocation, which the number of allocations does not show.
#[test]
fn a_server_that_hoards_memory_is_caught_behind_a_flood() {
    let (_, report) = report("hoard", &["flood", "--sabotage", "hoard"]);
    let broken = broken(&report);
    for what in [
        "server memory without these, of quiet",
        "live bytes without these",
    ] {
        assert!(broken.contains(&what), "{what:?}: {broken:?}");
    }
    let count = "live allocations of the server afterwards";
    assert!(!broken.contains(&count), "{broken:?}");
}

#[test]
fn a_server_that_keeps_descriptors_is_caught() {
    expect_broken(
        "clutch",
        &["descriptors", "--sabotage", "clutch"],
        "descriptors of the server afterwards",
    );
}

#[test]
fn a_server_that_drops_an_answer_when_it_is_drained_is_caught() {
    let what = "all answered: answers that arrived";
    expect_broken("forget", &["drain", "--sabotage", "forget"], what);
}

/// What is answered before the drain begins says nothing about it.
#[test]
fn a_drain_with_less_in_flight_than_it_should_have_is_caught() {
    let what = "all answered: in flight when the drain begins";
    expect_broken("hurry", &["drain", "--sabotage", "hurry"], what);
}

#[test]
fn a_server_that_stands_still_is_caught() {
    expect_broken("stall", &["mixed", "--sabotage", "stall"], "canary p99");
}

/// The server has died: that is no fault of the system, and the report is about this run.
#[test]
fn a_server_that_dies_has_not_held() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dies.json");
    fs::write(&file, r#"{"held": true}"#).expect("a report from before");
    let path = file.to_str().expect("a path in UTF-8");
    let output = soak(&["churn", "--tiny", "--sabotage", "die", "--json", path]);
    assert_eq!(output.status.code(), Some(NOT_HELD), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("churn: NOT HELD"), "{table}");
    assert!(table.contains("it ended early"), "{table}");
    assert!(table.contains("seed"), "{table}");
    let report = fs::read(&file).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["held"], false);
}

#[test]
fn a_server_ends_when_its_parent_is_gone() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_soak"))
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut addresses = String::new();
    BufReader::new(server.stdout.take().expect("a pipe"))
        .read_line(&mut addresses)
        .expect("its addresses");
    assert!(addresses.contains("127.0.0.1:"), "{addresses}");

    // Pipes are closed when the process that holds them ends, however it ends.
    drop(server.stdin.take());
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(server.wait()));
    let status = end.recv_timeout(Duration::from_secs(60));
    let status = status.expect("it ends").expect("it is our own child");
    assert!(status.success(), "{status:?}");
}
