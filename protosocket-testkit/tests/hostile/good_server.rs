//! Every case against a server with deadlines.

use std::time::Duration;

use protosocket_testkit::hostile::{self, Case, CaseReport, Verdict};
use tokio::task::JoinSet;

use crate::servers::{PATIENCE, good, good_with, line_echo};

/// Each case against a server of its own, some at the same time, because most of it is waiting.
async fn all_cases() -> Vec<(CaseReport, usize)> {
    const BESIDE: usize = 5;
    let mut running = JoinSet::new();
    let mut reports = Vec::new();
    for case in Case::all() {
        if running.len() == BESIDE {
            let next = running.join_next().await.expect("some are running");
            reports.push(next.expect("no panic"));
        }
        running.spawn(async move {
            let (handle, address) = good();
            let report = hostile::run(case, &line_echo(address, PATIENCE).strict(true)).await;
            // What the last probe has left behind goes by itself.
            let gone = async {
                while handle.connections() > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let gone = tokio::time::timeout(PATIENCE, gone).await;
            gone.expect("the server lets go of every connection");
            (report, handle.connections())
        });
    }
    reports.extend(running.join_all().await);
    reports
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_to_f9_a_server_with_deadlines_stands_every_case() {
    let reports = all_cases().await;
    assert_eq!(reports.len(), Case::all().count());
    for (report, left) in &reports {
        let server = &report.server;
        let case = report.case;
        if let Verdict::Skipped(why) = &report.verdict {
            assert_eq!(case, Case::HalfOpen, "{why}");
            continue;
        }
        assert!(report.passed(), "{report}");
        assert_eq!(*left, 0, "{report}");
        assert!(report.during.answered > 0, "{report}");
        let neighbour = report.neighbour.as_ref().expect("lines go on and on");
        assert!(neighbour.conversations > 1, "{report}");
        match case {
            // The server answers empty lines, and waits for the next.
            Case::Garbage(_) | Case::GiantLength(_) | Case::TlsHello => {
                assert!(server.opened > 0, "{report}");
            }
            Case::Reset | Case::Churn | Case::Pipelining => {
                assert_eq!(server.kept, 0, "{report}");
                assert_eq!(server.refused, 0, "{report}");
            }
            _ => assert_eq!(server.closed + server.reset, server.opened, "{report}"),
        }
    }
    let report = |case| {
        let found = reports.iter().find(|(report, _)| report.case == case);
        &found.expect("every case was run").0
    };
    assert_eq!(report(Case::ConnectFlood).server.opened, 120);
    assert_eq!(report(Case::Churn).server.opened, 60);
    let notes = |case| report(case).notes.join("\n");
    let pipelined = notes(Case::Pipelining);
    assert!(pipelined.contains("20000 of 20000"), "{pipelined}");
    let churned = notes(Case::Churn);
    assert!(churned.contains("20 of 20"), "{churned}");
    let half_closed = notes(Case::Fin);
    assert!(half_closed.contains("was answered"), "{half_closed}");

    for (report, _) in &reports {
        let sent = report.server.sent;
        match report.case {
            Case::NeverSends | Case::ConnectFlood => assert_eq!(sent, 0, "{report}"),
            // All but the last byte of a request, if there was time.
            Case::Dribble => assert!((1..6).contains(&sent), "{report}"),
            Case::GiantLength(_) => assert!((24..64).contains(&sent), "{report}"),
            Case::Pipelining => assert_eq!(sent, 20_000 * 6, "{report}"),
            _ => assert!(sent > 0, "{report}"),
        }
    }

    // A window of a few bytes, and none, let through less than one that is only not read.
    let answered = |case| report(case).server.answered;
    assert!(answered(Case::NeverReads) > 16 * 1024);
    assert!((1..8 * 1024).contains(&answered(Case::ZeroWindow)));
    assert!((1..8 * 1024).contains(&answered(Case::TinyWindow)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_request_cases_that_need_one_are_skipped_and_never_passed() {
    let (_, address) = good();
    let target = line_echo(address, PATIENCE).conversation(hostile::Conversation::new());
    for case in Case::all().filter(|case| case.needs_request()) {
        let report = hostile::run(case, &target).await;
        assert!(matches!(report.verdict, Verdict::Skipped(_)), "{report}");
        assert!(!report.passed());
    }
    for case in [Case::NeverSends, Case::Dribble, Case::Fin, Case::Churn] {
        let report = hostile::run(case, &target).await;
        assert!(report.passed(), "{report}");
    }
}

/// A flood of one address uses up what that address may have, and nothing of what others may.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_a_server_with_a_limit_per_address_stands_a_flood() {
    let (_, address) = good_with(|config| config.max_connections_per_address(20));
    let target = line_echo(address, PATIENCE).strict(true);
    let report = hostile::run(Case::ConnectFlood, &target).await;
    assert!(report.passed(), "{report}");
    assert_eq!(report.during.lost, 0, "{report}");
}
