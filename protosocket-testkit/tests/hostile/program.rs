//! The program from outside: its exit codes and its reports.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::servers::{good, listen, serve};

/// Run it to its end.
async fn hostile(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
    let run = move || {
        Command::new(env!("CARGO_BIN_EXE_hostile"))
            .args(arguments)
            .output()
            .expect("the program")
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The arguments for a server of lines.
fn against(address: &SocketAddr) -> [String; 1] {
    [address.to_string()]
}

const LINES: [&str; 4] = ["--request", r"hello\n", "--expect", r"hello\r\n"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_it_exits_with_zero() {
    let (_, address) = good();
    let [address] = against(&address);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile.json");
    let path = file.to_str().expect("a path in UTF-8");
    let pid = std::process::id().to_string();
    let cases = "--case fin --case never-sends --case garbage-zeros --strict --seed 7";
    let output = hostile(
        &[
            &[address.as_str(), "--json", path, "--pid", &pid],
            &["--patience", "60", "--probe-patience", "60"][..],
            &["--max-wait", "60"],
            &["--max-memory-growth", "1099511627776"],
            &LINES,
            &cases.split(' ').collect::<Vec<_>>(),
        ]
        .concat(),
    )
    .await;
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}{output:?}");
    assert!(table.contains("3 ok, 0 failed, 0 skipped"), "{table}");
    assert_eq!(text(&output.stderr), "");

    let report: Value = serde_json::from_slice(&fs::read(file).expect("a report")).expect("JSON");
    assert_eq!(report["address"], address);
    assert_eq!(report["seed"], 7);
    assert_eq!(report["exit_code"], 0);
    let cases = report["cases"].as_array().expect("a list");
    let names: Vec<&Value> = cases.iter().map(|case| &case["case"]).collect();
    assert_eq!(names, ["fin", "never-sends", "garbage-zeros"]);
    for case in cases {
        assert_eq!(case["verdict"], "ok", "{case}");
        assert_eq!(case["server"]["kept"], 0, "{case}");
        assert!(case["during"]["answered"].as_u64() > Some(0), "{case}");
        assert!(case["after"]["answered_ms"].is_f64(), "{case}");
        #[cfg(target_os = "linux")]
        assert!(case["memory"]["peak"].as_u64() > Some(0), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_exits_with_one() {
    let address = serve(|stream| async move {
        let _held = stream;
        std::future::pending().await
    })
    .await;
    let [address] = against(&address);
    let output = hostile(&[&address, "--patience", "0.2", "--case", "fin"]).await;
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("FAILED: the connection was still open after 200ms"));

    // Where JSON takes the standard output, people read the other one.
    let arguments = [&address, "--case", "garbage", "--json", "-"];
    let probes = ["--request", "a", "--probe-patience", "0.2"];
    let output = hostile(&[&arguments[..], &probes].concat()).await;
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert_eq!(report["cases"][0]["failures"][0]["kind"], "unwell-before");
    assert_eq!(report["not_run"].as_array().map(Vec::len), Some(6));
    let table = text(&output.stderr);
    assert!(table.contains("Are --request and --expect what it speaks?"));
    assert!(table.contains("6 not run"), "{table}");
}

/// Each case leaves so little behind that it passes, and all of them leave too much.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_leaves_a_little_behind_in_each_case_exits_with_one() {
    const CASES: usize = 12;
    // The memory is that of another process, in which nothing else happens.
    let hoard = r#"n=0; while read -r _; do n=$((n + 1))
        eval "x$n=\$(head -c 4000000 /dev/zero | tr '\\0' a)"; echo; done"#;
    let mut process = Command::new("sh")
        .args(["-c", hoard])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let pid = process.id().to_string();
    let stdin = process.stdin.take().expect("a pipe");
    let stdout = BufReader::new(process.stdout.take().expect("a pipe"));
    let pipes = Arc::new(Mutex::new((stdin, stdout)));
    let address = serve(move |mut stream| {
        let pipes = pipes.clone();
        async move {
            let mut first = [0];
            // Poison is what `garbage-ones` begins with, and nobody else.
            if stream.read_exact(&mut first).await.is_ok() && first == [0xff] {
                let (stdin, stdout) = &mut *pipes.lock().expect("no panic");
                stdin.write_all(b"\n").expect("it reads");
                stdout.read_line(&mut String::new()).expect("it answers");
            } else {
                // Whoever has gone needs no answer.
                let _ = stream.write_all(b"hello\r\n").await;
            }
        }
    })
    .await;
    let [address] = against(&address);
    let limits = "--probe-patience 60 --max-wait 60 --patience 60 --max-memory-growth 25165824";
    let output = hostile(
        &[
            &[address.as_str(), "--pid", &pid, "--json", "-"],
            &LINES[..],
            &limits.split(' ').collect::<Vec<_>>(),
            &["--case", "garbage-ones"].repeat(CASES),
        ]
        .concat(),
    )
    .await;
    process.kill().expect("our own child");
    process.wait().expect("our own child");
    let table = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("12 ok, 0 failed, 0 skipped"), "{table}");
    assert!(table.contains("FAILED: memory is"), "{table}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert_eq!(report["exit_code"], 1);
    assert_eq!(report["failures"][0]["kind"], "memory-kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_case_that_was_asked_for_and_not_run_is_not_passed() {
    let (_, address) = good();
    let [address] = against(&address);
    let output = hostile(&[&address, "--case", "pipelining"]).await;
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("it needs a request"), "{table}");
}

/// A process that cannot open its peers knows nothing about the server.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_case_for_which_this_process_has_too_few_files_is_not_passed() {
    let (_, address) = good();
    let run = move || {
        Command::new("sh")
            .args(["-c", "ulimit -n 14; exec \"$0\" \"$@\""])
            .args([env!("CARGO_BIN_EXE_hostile"), &address.to_string()])
            .args(LINES)
            .args(["--case", "garbage-mutated"])
            .output()
            .expect("there is a shell")
    };
    let output = tokio::task::spawn_blocking(run).await.expect("no panic");
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("0 ok, 0 failed, 1 skipped"), "{table}");
    assert!(table.contains("limit of the attacking process"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_arguments_exit_with_two() {
    for (arguments, expected) in [
        (&[][..], "an address is missing"),
        (&["7000", "--case", "nothing"], "--list"),
        (&["192.0.2.1:7000"], "--i-am-allowed-to-attack-this-address"),
        (&["7000", "--patience", "0"], "patience must be"),
    ] {
        let output = hostile(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        let complaint = text(&output.stderr);
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_where_nobody_listens_exits_with_three() {
    let (listener, address) = listen().await;
    drop(listener);
    let [address] = against(&address);
    let output = hostile(&[&address]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("cannot reach"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_cannot_be_written_is_told_before_anything_is_done() {
    let (_, address) = good();
    let [address] = against(&address);
    let output = hostile(&[&address, "--json", "/nonexistent/report.json"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("/nonexistent/report.json"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_has_a_line_for_each_case() {
    let output = hostile(&["--list"]).await;
    assert_eq!(output.status.code(), Some(0));
    let cases = protosocket_testkit::hostile::Case::all();
    let list = text(&output.stdout);
    assert!(
        cases
            .map(|case| case.name())
            .eq(list.lines().filter_map(|line| line.split(' ').next())),
        "{list}"
    );
}
