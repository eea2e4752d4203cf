//! The report for machines.

use std::{io, time::Duration};

use protosocket_testkit::hostile::{CaseReport, Failure, ProbeOutcome, Verdict};
use serde::Serialize;

use crate::args::Plan;

/// The whole run. Times are in milliseconds, sizes in bytes.
#[derive(Serialize)]
struct Run {
    address: String,
    seed: u64,
    strict: bool,
    exit_code: u8,
    passed: usize,
    failed: usize,
    skipped: usize,
    /// What is wrong with the cases together.
    failures: Vec<Reason>,
    cases: Vec<Case>,
    /// Cases that were not run, because there was no server left.
    not_run: Vec<&'static str>,
}

#[derive(Serialize)]
struct Case {
    case: &'static str,
    verdict: &'static str,
    failures: Vec<Reason>,
    skipped: Option<String>,
    server: Server,
    before: Option<One>,
    during: Several,
    neighbour: Option<Neighbour>,
    after: Option<One>,
    memory: Option<Memory>,
    notes: Vec<String>,
    took_ms: f64,
}

#[derive(Serialize)]
struct Reason {
    kind: &'static str,
    text: String,
}

#[derive(Serialize)]
struct Server {
    opened: usize,
    refused: usize,
    closed: usize,
    reset: usize,
    kept: usize,
    left: usize,
    /// Kept, though some deadline should have ended it.
    overdue: usize,
    slowest_end_ms: Option<f64>,
    kept_ms: Option<f64>,
    sent: u64,
    answered: u64,
}

#[derive(Serialize)]
struct One {
    answered_ms: Option<f64>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Several {
    answered: usize,
    lost: usize,
    median_ms: Option<f64>,
    slowest_ms: Option<f64>,
    problem: Option<String>,
}

/// One connection that was there before.
#[derive(Serialize)]
struct Neighbour {
    conversations: usize,
    slowest_ms: Option<f64>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Memory {
    before: u64,
    peak: u64,
    after: u64,
}

/// The report, with a line feed behind it.
///
/// # Errors
/// None that is known: everything in it can be written as JSON.
pub(crate) fn text(
    plan: &Plan,
    reports: &[CaseReport],
    memory_kept: Option<&Failure>,
    exit_code: u8,
) -> io::Result<String> {
    let count = |name| {
        let verdicts = reports.iter().map(|report| verdict(report));
        verdicts.filter(|verdict| *verdict == name).count()
    };
    let run = Run {
        address: plan.address.to_string(),
        seed: plan.seed,
        strict: plan.strict,
        exit_code,
        passed: count("ok"),
        failed: count("failed"),
        skipped: count("skipped"),
        failures: memory_kept.map(reason).into_iter().collect(),
        cases: reports.iter().map(case).collect(),
        not_run: plan.cases[reports.len()..]
            .iter()
            .map(|case| case.name())
            .collect(),
    };
    Ok(serde_json::to_string_pretty(&run)? + "\n")
}

fn verdict(report: &CaseReport) -> &'static str {
    match report.verdict {
        Verdict::Passed => "ok",
        Verdict::Failed(_) => "failed",
        Verdict::Skipped(_) => "skipped",
    }
}

fn case(report: &CaseReport) -> Case {
    let failures = report.failures().iter().map(reason);
    let server = &report.server;
    let during = &report.during;
    Case {
        case: report.case.name(),
        verdict: verdict(report),
        failures: failures.collect(),
        skipped: match &report.verdict {
            Verdict::Skipped(why) => Some(why.clone()),
            _ => None,
        },
        server: Server {
            opened: server.opened,
            refused: server.refused,
            closed: server.closed,
            reset: server.reset,
            kept: server.kept,
            left: server.left,
            overdue: report.overdue(),
            slowest_end_ms: server.slowest.map(milliseconds),
            kept_ms: server.kept_for.map(milliseconds),
            sent: server.sent,
            answered: server.answered,
        },
        before: report.before.as_ref().map(one),
        during: Several {
            answered: during.answered,
            lost: during.lost,
            median_ms: during.median.map(milliseconds),
            slowest_ms: during.slowest.map(milliseconds),
            problem: during.problem.clone(),
        },
        neighbour: report.neighbour.as_ref().map(|neighbour| Neighbour {
            conversations: neighbour.conversations,
            slowest_ms: neighbour.slowest.map(milliseconds),
            problem: neighbour.problem.clone(),
        }),
        after: report.after.as_ref().map(one),
        memory: report.memory.map(|memory| Memory {
            before: memory.before,
            peak: memory.peak,
            after: memory.after,
        }),
        notes: report.notes.clone(),
        took_ms: milliseconds(report.took),
    }
}

fn reason(failure: &Failure) -> Reason {
    Reason {
        kind: failure.name(),
        text: failure.to_string(),
    }
}

fn one(probe: &ProbeOutcome) -> One {
    One {
        answered_ms: match probe {
            ProbeOutcome::Answered(time) => Some(milliseconds(*time)),
            _ => None,
        },
        problem: probe.problem().map(str::to_owned),
    }
}

/// With microseconds, and nothing behind them.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
