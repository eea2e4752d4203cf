//! Points hostile peers at a server, and tells what it does.
//!
//! `cargo run -p protosocket-testkit --bin hostile -- --help` tells the options, what is judged,
//! and what the exit codes mean.

mod args;
mod json;
mod table;

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    process::ExitCode,
    time::Instant,
};

use args::{Command, Plan};
use protosocket_testkit::hostile::{self, CaseReport, Failure, ProbeOutcome, Verdict};
use table::Table;

/// The server failed a case.
const FAILED: u8 = 1;
/// The arguments make no sense.
const USAGE: u8 = 2;
/// There is no server at the address.
const UNREACHABLE: u8 = 3;

fn main() -> ExitCode {
    let code = match Command::parse(lexopt::Parser::from_env()) {
        Ok(Command::Help) => print(&args::help()),
        Ok(Command::List) => print(&table::list()),
        Ok(Command::Run(plan)) => run_in_runtime(&plan),
        Err(error) => {
            complain(format_args!("{error}\nTry `hostile --help`."));
            USAGE
        }
    };
    ExitCode::from(code)
}

fn print(text: &str) -> u8 {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => FAILED,
    }
}

fn run_in_runtime(plan: &Plan) -> u8 {
    // Two threads, so that the others are asked in time while a peer floods.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let done = runtime.and_then(|runtime| runtime.block_on(run(plan)));
    done.unwrap_or_else(|error| {
        complain(format_args!("{error}"));
        FAILED
    })
}

async fn run(plan: &Plan) -> io::Result<u8> {
    if !plan.is_loopback() {
        complain(format_args!(
            "WARNING: {} is not of this machine. Floods and stalled connections are attacks: make \
             sure that its owner agrees.",
            plan.address
        ));
    }
    let json = plan.json.as_ref().map(args::Json::open).transpose();
    let mut json = match json {
        Ok(json) => json,
        Err(error) => {
            complain(format_args!("--json: {error}"));
            return Ok(USAGE);
        }
    };
    match hostile::probe(&plan.target).await {
        ProbeOutcome::Refused(problem) => {
            complain(format_args!("cannot reach {}: {problem}", plan.address));
            return Ok(UNREACHABLE);
        }
        ProbeOutcome::Unanswered(problem) => complain(format_args!(
            "{} does not serve anybody, before anything was done to it: {problem}\n\
             Are --request and --expect what it speaks?",
            plan.address
        )),
        _ => {}
    }
    // Where JSON takes the standard output, people read the other one.
    let mut out: Box<dyn Write> = match json.as_ref().is_some_and(|json| json.is_stdout()) {
        true => Box::new(io::stderr()),
        false => Box::new(io::stdout()),
    };
    let begun = Instant::now();
    let table = Table::new(plan);
    out.write_all(table.head().as_bytes())?;
    let mut reports: Vec<CaseReport> = Vec::new();
    for case in &plan.cases {
        let report = hostile::run(*case, &plan.target).await;
        out.write_all(table.row(&report).as_bytes())?;
        out.flush()?;
        let over = is_over(&report);
        reports.push(report);
        if over {
            break;
        }
    }
    let kept = hostile::memory_kept(&reports, &plan.target);
    let red = kept.is_some() || reports.iter().any(|report| is_red(report, plan));
    let code = if red { FAILED } else { 0 };
    let summary = table.summary(&reports, kept.as_ref(), begun.elapsed());
    out.write_all(summary.as_bytes())?;
    if let Some(json) = &mut json {
        json.write_all(json::text(plan, &reports, kept.as_ref(), code)?.as_bytes())?;
        json.flush()?;
    }
    Ok(code)
}

/// Whether there is no server left to do more to.
fn is_over(report: &CaseReport) -> bool {
    report.failures().iter().any(|failure| {
        matches!(
            failure,
            Failure::NotAccepting(_) | Failure::UnwellBefore(_) | Failure::ProcessEnded(_)
        )
    })
}

/// A case that was asked for by its name and could not be run has not passed.
fn is_red(report: &CaseReport, plan: &Plan) -> bool {
    match report.verdict {
        Verdict::Passed => false,
        Verdict::Failed(_) => true,
        Verdict::Skipped(_) => plan.by_name,
    }
}

fn complain(what: fmt::Arguments<'_>) {
    // Without a standard error there is nobody to tell.
    let _: io::Result<()> = writeln!(io::stderr(), "hostile: {what}");
}

impl args::Json {
    /// Before anything is done, so that a report is not lost to a wrong path.
    fn open(&self) -> io::Result<JsonOutput> {
        Ok(match self {
            Self::Stdout => JsonOutput::Stdout(io::stdout()),
            Self::File(path) => {
                let file = File::create(path);
                let file = file.map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                });
                JsonOutput::File(file?)
            }
        })
    }
}

/// Where the JSON report goes.
enum JsonOutput {
    Stdout(io::Stdout),
    File(File),
}

impl JsonOutput {
    fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout(_))
    }
}

impl Write for JsonOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(file) => file.flush(),
        }
    }
}
