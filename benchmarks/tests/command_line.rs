//! The program from outside: its exit codes and its report.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity};
use serde_json::{Value, json};

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
        (&["run", "--only", "*x"], "echo/64B/1x1"),
        (&["run", "--systems", "nginx"], "protosocket-2.0.2"),
        (&["serve", "nginx", "0"], "protosocket-2.0.2"),
        (
            &["serve", "tonic", "idle/1000", "0"],
            "tonic cannot do idle/1000",
        ),
        (&["report"], "got 0"),
        (&["compare", "a.json"], "got 1"),
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
    for option in ["--json", "--html"] {
        let arguments = ["run", "--seconds", "60", option, "/nonexistent/report"];
        let output = benchmarks(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/report"));
    }
}

/// A short run of this work, and its report.
fn run(work: &str, systems: &str, file: &Path) -> (Output, Value) {
    let path = file.to_str().expect("a path in UTF-8");
    let mut arguments = vec!["run", "--only", work, "--systems", systems];
    arguments.extend(["--rounds", "2", "--seconds", "0.05", "--json", path]);
    let output = benchmarks(&arguments);
    assert!(output.status.success(), "{output:?}");
    let json = fs::read(file).expect("a report");
    (output, serde_json::from_slice(&json).expect("JSON"))
}

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The members of an object.
fn members(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

#[test]
fn a_short_run_reports_every_figure() {
    let file = temporary("report.json");
    fs::write(&file, "x".repeat(1 << 16)).expect("a longer report from before");
    let (output, report) = run("echo/64B/1x64", "loop,ours,protosocket-2.0.2", &file);
    let table = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "echo/64B/1x64");
    for (line, system) in lines[2..].iter().zip(["loop", "ours", "protosocket-2.0.2"]) {
        assert!(line.trim_start().starts_with(system), "{table}");
    }
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "works: 1, systems: 3, rounds: 2; about 2 s\n",
        "progress is for terminals"
    );

    let [work] = &report["works"].as_array().expect("a list")[..] else {
        panic!("{report}");
    };
    assert_eq!(work["name"], "echo/64B/1x64");
    let systems = work["systems"].as_array().expect("a list");
    let names: Vec<&Value> = systems.iter().map(|system| &system["name"]).collect();
    assert_eq!(names, ["loop", "ours", "protosocket-2.0.2"]);
    for system in systems {
        let figures = &system["figures"];
        let expected = [
            "client_cpu_ns",
            "max_us",
            "p50_us",
            "p999_us",
            "p99_us",
            "rate",
            "server_cpu_ns",
        ];
        assert_eq!(members(figures), expected);
        for figure in expected {
            let measured = &figures[figure];
            let ratio = measured["ratio"]["median"].as_f64();
            assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{system}");
            let samples = measured["samples"].as_array().expect("a list");
            assert_eq!(samples.len(), 2);
            let positive = |sample: &Value| sample.as_f64().is_some_and(|sample| sample > 0.0);
            assert!(samples.iter().all(positive), "{system}");
        }
    }

    let (path, page) = (file.to_str(), temporary("report.html"));
    let arguments = ["report", path.expect("a path in UTF-8"), "--html"];
    let shown = benchmarks(&[&arguments[..], &[page.to_str().expect("a path in UTF-8")]].concat());
    assert!(shown.status.success(), "{shown:?}");
    assert_eq!(shown.stdout, output.stdout, "a kept report shows the same");
    let page = fs::read_to_string(page).expect("a page");
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    assert!(page.ends_with("</html>\n"), "{page}");
    assert!(page.contains(">echo/64B/1x64</h2>"), "{page}");
}

#[test]
fn a_report_tells_what_figures_depend_on_and_nothing_of_users_hosts_and_paths() {
    let (_, report) = run("echo/64B/1x1", "loop", &temporary("provenance.json"));
    // Every member is a decision: it must not tell who measured, or where in the file system.
    let provenance = &report["provenance"];
    let expected = [
        "allocator",
        "commit",
        "compiler",
        "libraries",
        "machine",
        "profile",
        "time",
    ];
    assert_eq!(members(provenance), expected);
    let expected = [
        "governor",
        "kernel",
        "load_average",
        "memory_bytes",
        "processor",
        "processors",
        "virtualised",
    ];
    assert_eq!(members(&provenance["machine"]), expected);
    let text = report.to_string();
    for path in [env!("CARGO_MANIFEST_DIR"), env!("CARGO_TARGET_TMPDIR")] {
        assert!(!text.contains(path), "{text}");
    }
}

/// Writes the report as one of five rounds in which processor times were these.
fn write_report(mut report: Value, name: &str, times: &[(&str, f64)]) -> PathBuf {
    let systems = times.iter().map(|&(system, time)| {
        let mut measured = json!({ "min": time, "median": time, "max": time });
        measured["ratio"] = measured.clone();
        measured["samples"] = json!(vec![time; 5]);
        json!({ "name": system, "figures": { "server_cpu_ns": measured } })
    });
    report["works"][0]["systems"] = systems.collect();
    let file = temporary(name);
    fs::write(&file, report.to_string()).expect("a file");
    file
}

#[test]
fn a_comparison_fails_only_when_asked_to_and_only_on_what_is_worse() {
    let (_, report) = run("echo/64B/1x64", "loop", &temporary("sample.json"));
    let low = write_report(report.clone(), "low.json", &[("loop", 1.0), ("ours", 1.0)]);
    let high = write_report(report, "high.json", &[("loop", 1.0), ("ours", 1.5)]);
    for (a, b, option, code) in [
        (&low, &high, None, 0),
        (&low, &high, Some("--fail-on-worse"), 3),
        (&high, &low, Some("--fail-on-worse"), 0),
        (&low, &low, Some("--fail-on-worse"), 0),
    ] {
        let files = [a, b].map(|file| file.to_str().expect("a path in UTF-8"));
        let mut arguments = vec!["compare", files[0], files[1]];
        arguments.extend(option);
        let output = benchmarks(&arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        let worse = if a == &low && b == &high {
            "1 worse"
        } else {
            "0 worse"
        };
        assert!(text.contains(worse), "{text}");
    }
}

/// The samples of a figure, of every system.
fn samples(report: &Value, work: &str, figure: &str) -> Vec<f64> {
    let works = report["works"].as_array().expect("a list");
    let found = works.iter().find(|it| it["name"] == work).expect(work);
    let systems = found["systems"].as_array().expect("a list");
    let samples = systems.iter().flat_map(|system| {
        assert_eq!(system.get("notes"), None, "{work}");
        let samples = system["figures"][figure]["samples"].as_array();
        samples.unwrap_or_else(|| panic!("{work} has no {figure}: {system}"))
    });
    samples.map(|it| it.as_f64().expect("a number")).collect()
}

/// Measures one work and checks that each figure is there, is within its bounds, and that there is
/// no other.
fn assert_figures(work: &str, expected: &[(&str, std::ops::Range<f64>)]) -> Value {
    assert_figures_of("loop,ours", work, expected)
}

/// The same of these systems.
fn assert_figures_of(
    systems: &str,
    work: &str,
    expected: &[(&str, std::ops::Range<f64>)],
) -> Value {
    let file = temporary(&format!("{}.json", work.replace('/', "-")));
    // With a star a pattern is the whole name, so that no longer one is meant as well.
    let (_, report) = run(&format!("{work}*"), systems, &file);
    let measured = report["works"][0]["systems"].as_array().expect("a list");
    let names: Vec<&str> = (measured.iter())
        .filter_map(|system| system["name"].as_str())
        .collect();
    assert_eq!(names.join(","), systems, "{work}");
    let figures = &measured[0]["figures"];
    let mut names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(members(figures), names, "{work}");
    for (figure, bounds) in expected {
        for value in samples(&report, work, figure) {
            assert!(bounds.contains(&value), "{figure} of {work}: {value}");
        }
    }
    report
}

/// Whatever is positive and finite: how fast it was is for people to judge.
const ANY: std::ops::Range<f64> = f64::MIN_POSITIVE..f64::INFINITY;

const MIB: f64 = 1_048_576.0;

#[test]
fn echoes_have_rates_processor_times_and_ordered_percentiles() {
    for work in ["echo/1MiB/1x64", "ping-pong/64B", "two-workers/64B/64x16"] {
        let expected = [
            "rate",
            "server_cpu_ns",
            "client_cpu_ns",
            "p50_us",
            "p99_us",
            "p999_us",
            "max_us",
        ];
        let report = assert_figures(work, &expected.map(|figure| (figure, ANY)));
        assert_ordered(&report, work, &["p50_us", "p99_us", "p999_us", "max_us"]);
    }
}

/// The figures of each round, none below the one before it.
fn assert_ordered(report: &Value, work: &str, figures: &[&str]) {
    for pair in figures.windows(2) {
        let (lower, upper) = (
            samples(report, work, pair[0]),
            samples(report, work, pair[1]),
        );
        let ordered = lower
            .iter()
            .zip(&upper)
            .all(|(lower, upper)| lower <= upper);
        assert!(ordered, "{pair:?} of {work}: {lower:?}, {upper:?}");
    }
}

#[test]
fn streams_and_connections_have_rates_and_processor_times() {
    for work in ["stream/64B", "stream/1MiB", "connect/16"] {
        let expected = ["rate", "server_cpu_ns", "client_cpu_ns"];
        assert_figures(work, &expected.map(|figure| (figure, ANY)));
    }
}

#[test]
fn a_schedule_is_never_ahead_of_itself() {
    let work = "latency/64B/16x20000";
    let report = assert_figures(
        work,
        &[
            // The first of 1,001 messages is due at once, and the last one after 50 ms.
            ("rate", 0.0..20_021.0),
            ("server_cpu_ns", ANY),
            ("p50_us", ANY),
            ("p99_us", ANY),
            ("p999_us", ANY),
            ("max_us", ANY),
            ("send_delay_p99_us", ANY),
        ],
    );
    assert_ordered(&report, work, &["p50_us", "p99_us", "p999_us", "max_us"]);
    // A message cannot come back before it was sent.
    assert_ordered(&report, work, &["send_delay_p99_us", "max_us"]);
}

#[test]
fn silent_connections_have_resident_and_live_memory() {
    let per_connection = |most| {
        [
            ("rss_per_connection", 0.0..most),
            ("heap_per_connection", 100.0..most),
        ]
    };
    assert_figures("idle/1000", &per_connection(100_000.0));
    assert_figures("idle-after-burst/32", &per_connection(8.0 * MIB));
}

#[test]
fn a_flood_has_the_latencies_of_its_probe_and_the_peak_of_memory() {
    for work in ["flood/64B/1-reading", "flood/16KiB/8-deaf"] {
        let report = assert_figures(
            work,
            &[
                ("p50_us", ANY),
                ("p99_us", ANY),
                ("max_us", ANY),
                ("peak_rss", 1.0..1_024.0 * MIB),
            ],
        );
        assert_ordered(&report, work, &["p50_us", "p99_us", "max_us"]);
    }
}

#[test]
fn a_slow_reader_costs_processor_time_and_memory() {
    // The bursts have 48 MiB; a server that holds a third of them has not pushed back.
    let expected = [("server_cpu_ns", ANY), ("peak_rss", 1.0..16.0 * MIB)];
    assert_figures("slow-reader/1KiB", &expected);
}

/// Every system that makes and answers calls, and those of them that speak the wire of the loop.
const RPC: &str = "loop,ours,protosocket-rpc-2.0.2,tarpc,tonic";
const STREAMING: &str = "loop,ours,protosocket-rpc-2.0.2,tonic";
const RPC_SERVERS: &str = "loop,ours,ours-pending,protosocket-rpc-2.0.2";

#[test]
fn calls_have_rates_and_processor_times() {
    let expected = ["rate", "server_cpu_ns", "client_cpu_ns"].map(|figure| (figure, ANY));
    for (work, systems) in [
        ("rpc/64B/64x16", RPC),
        ("rpc-two-workers/64B/1x64", RPC),
        ("rpc-stream/1KiB", STREAMING),
        ("rpc-server/64B/1x1024", RPC_SERVERS),
        ("rpc-server-two-workers/1KiB/64x16", RPC_SERVERS),
        ("rpc-server-stream/1MiB", RPC_SERVERS),
    ] {
        assert_figures_of(systems, work, &expected);
    }
}

#[test]
fn calls_on_a_schedule_are_paced_by_the_yardstick() {
    for (work, systems) in [
        ("rpc-latency/64B/70%", "loop,ours,protosocket-rpc-2.0.2"),
        ("rpc-server-latency/64B/70%", RPC_SERVERS),
    ] {
        let expected = [
            "rate",
            "server_cpu_ns",
            "p50_us",
            "p99_us",
            "p999_us",
            "max_us",
            "send_delay_p99_us",
        ];
        let expected = expected.map(|figure| (figure, ANY));
        let report = assert_figures_of(systems, work, &expected);
        assert_ordered(&report, work, &["p50_us", "p99_us", "p999_us", "max_us"]);
        // A call cannot be answered before it was made.
        assert_ordered(&report, work, &["send_delay_p99_us", "max_us"]);
    }
}

#[test]
fn calls_that_nobody_reads_and_calls_without_an_end_have_a_memory() {
    for work in [
        "rpc-server-deaf/1KiB-calls",
        "rpc-server-deaf/1KiB-streams",
        "rpc-server-never/10000",
    ] {
        let expected = [
            ("rss_per_connection", 0.0..1_100.0 * MIB),
            ("heap_per_connection", 0.0..1_100.0 * MIB),
            ("peak_rss", 0.0..1_100.0 * MIB),
        ];
        assert_figures_of("loop,ours", work, &expected);
    }
    let expected = [("peak_rss", 0.0..64.0 * MIB), ("client_peak_rss", ANY)];
    assert_figures_of(STREAMING, "rpc-slow-consumer/1KiB", &expected);
}

/// Those that echo over TLS.
const OVER_TLS: &str = "loop,ours,framed";

#[test]
fn echoes_handshakes_and_connections_over_tls_have_their_figures() {
    let expected = [
        "rate",
        "server_cpu_ns",
        "client_cpu_ns",
        "p50_us",
        "p99_us",
        "p999_us",
        "max_us",
    ];
    for work in ["tls/64B/1x1", "tls/16KiB/64x16"] {
        assert_figures_of(OVER_TLS, work, &expected.map(|figure| (figure, ANY)));
    }
    let systems = "loop,ours,framed,tokio-rustls";
    let expected = ["rate", "server_cpu_ns", "client_cpu_ns"];
    let expected = expected.map(|figure| (figure, ANY));
    assert_figures_of(systems, "tls-handshake/16", &expected);
    // Rustls alone holds some KiB of each connection, and no server holds 1 MiB.
    let expected = [
        ("rss_per_connection", 2_000.0..MIB),
        ("heap_per_connection", 2_000.0..MIB),
    ];
    assert_figures_of(systems, "tls-idle/1000", &expected);
}

#[test]
fn commands_have_rates_and_processor_times_beside_redis() {
    let expected = [
        "rate",
        "server_cpu_ns",
        "p50_us",
        "p99_us",
        "p999_us",
        "max_us",
        "send_delay_p99_us",
    ];
    let expected = expected.map(|figure| (figure, ANY));
    if !are_installed(&["setpriv", "redis-server"]) {
        assert_figures_of("ours", "resp/GET/50x16", &expected);
        return;
    }
    for work in ["resp/GET/50x16", "resp/SET/50x1"] {
        let report = assert_figures_of("ours,redis-server", work, &expected);
        assert_eq!(report["works"][0]["reference"], "redis-server");
        let ratio = &report["works"][0]["systems"][0]["figures"]["server_cpu_ns"]["ratio"];
        assert!(ratio["median"].as_f64().is_some(), "{report}");
    }
    if are_installed(&["redis-benchmark"]) {
        let expected = [("rate", ANY), ("server_cpu_ns", ANY)];
        for work in ["resp-benchmark/GET/50x1", "resp-benchmark/SET/50x16"] {
            assert_figures_of("ours,redis-server", work, &expected);
        }
    }
}

/// Whether these programs are in the path. Where they must be, they are not looked for.
fn are_installed(programs: &[&str]) -> bool {
    if env::var_os("CI").is_some() {
        return true;
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&folders).collect();
    programs.iter().all(|program| {
        let found = folders.iter().any(|folder| folder.join(program).is_file());
        if !found {
            eprintln!("SKIPPED: {program} is not installed");
        }
        found
    })
}

#[test]
fn a_program_that_is_not_installed_is_told_in_the_report_and_fails_only_where_it_must_be() {
    for (ci, status, expected) in [
        (None, 0, "skipped: setpriv is not installed"),
        (Some("1"), 1, "failed: the serve process: ended early"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_benchmarks"));
        command.args(["run", "--only", "resp/GET/50x1*", "--rounds", "1"]);
        command.args(["--seconds", "0.05", "--systems", "ours,redis-server"]);
        command.env("PATH", "/nonexistent").env_remove("CI");
        command.envs(ci.map(|value| ("CI", value)));
        let output = command.output().expect("the program");
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(table.contains("  ours "), "{table}");
        assert!(table.contains(expected), "{table}");
    }
}

#[test]
fn a_file_that_is_no_report_is_told_and_exits_with_one() {
    let file = temporary("no-report.json");
    fs::write(&file, r#"{ "formula": 1 }"#).expect("a file");
    let path = file.to_str().expect("a path in UTF-8");
    for (path, expected) in [
        (path, "missing field `format`"),
        ("/nonexistent/report.json", "No such file"),
    ] {
        for arguments in [&["report", path][..], &["compare", path, path]] {
            let output = benchmarks(arguments);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(complaint.contains(path), "{complaint}");
            assert!(complaint.contains(expected), "{complaint}");
        }
    }
}

#[test]
fn a_server_ends_when_its_parent_is_gone() {
    let allowed = sched_getaffinity(None).expect("the processors of this process");
    let processor = (0..CpuSet::MAX_CPU)
        .find(|&cpu| allowed.is_set(cpu))
        .expect("a processor");
    let mut server = Command::new(env!("CARGO_BIN_EXE_benchmarks"))
        .args(["serve", "loop", "echo/64B/1x1", &processor.to_string()])
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
