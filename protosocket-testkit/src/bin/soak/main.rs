//! Load and soak: whether a server of this project holds under it, on real sockets.
//!
//! Every case starts a server as a process of its own, loads it from this one, and judges what
//! came: what was lost, how long a good client waited beside the load, and whether connections,
//! descriptors, tasks and allocations are back where they were. The server counts for itself
//! through its observer, so that both sides can be compared.
//!
//! `cargo run --release -p protosocket-testkit --bin soak -- --help` tells the options.

mod args;
mod beside;
mod cases;
mod child;
mod client;
mod holding;
mod ledger;
mod machine;
mod progress;
mod protocol;
mod reactor;
mod server;
mod verdict;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use args::{Command, Plan};
use cases::Context;
use protosocket_testkit::{CountingAllocator, INSTRUMENTED_SYSTEM};
use verdict::Verdict;

/// The resident size of a process shows what its allocator keeps as well; this shows what is live.
#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

/// The exit code when something did not hold.
const NOT_HELD: u8 = 1;

/// The exit code for arguments that make no sense.
const USAGE: u8 = 2;

/// The exit code when the system lacks what a case needs.
const SYSTEM: u8 = 3;

fn main() -> ExitCode {
    let command = match Command::parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            complain(format_args!("{error}\nTry `soak --help`."));
            return ExitCode::from(USAGE);
        }
    };
    match execute(command) {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("{error}"));
            ExitCode::from(SYSTEM)
        }
    }
}

fn exit_code(held: bool) -> ExitCode {
    match held {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NOT_HELD),
    }
}

fn execute(command: Command) -> io::Result<ExitCode> {
    match command {
        Command::Help => io::stdout().lock().write_all(args::help().as_bytes())?,
        Command::Serve(orders) => server::serve(orders)?,
        Command::Run(plan) => {
            return match plan.json.as_deref().map(open_for_later).transpose() {
                Ok(json) => run(&plan, json).map(exit_code),
                Err(error) => {
                    complain(format_args!("--json: {error}"));
                    Ok(ExitCode::from(USAGE))
                }
            };
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the cases, and tells whether all held.
fn run(plan: &Plan, json: Option<File>) -> io::Result<bool> {
    let mut verdicts = Vec::new();
    let ran = run_cases(plan, &mut verdicts);
    // Whatever happened: what is in the file from before is not about this run.
    if let Some(file) = json {
        file.set_len(0)?;
        let mut out = BufWriter::new(file);
        verdict::write_json(plan.form.name(), ran.is_ok(), &verdicts, &mut out)?;
        out.flush()?;
    }
    ran?;
    Ok(verdicts.iter().all(Verdict::held))
}

/// # Errors
///
/// When the system lacks what a case needs; the verdicts are those of the cases before.
fn run_cases(plan: &Plan, verdicts: &mut Vec<Verdict>) -> io::Result<()> {
    let context = Context::new(plan.form, plan.sabotage, plan.seed.unwrap_or_else(seed))?;
    for case in &plan.cases {
        let begun = Instant::now();
        let mut verdict = Verdict::new(case.name, context.seed);
        if let Some(sabotage) = plan.sabotage {
            verdict.note(format!("the server is sabotaged: {sabotage:?}"));
        }
        match context.run(case, &mut verdict) {
            Err(error) if machine::is_lack(&error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("{}: {error}", case.name),
                ));
            }
            // A server that has died, or lets nobody in, has not held.
            Err(error) => verdict.broke_off(&error),
            Ok(()) => {}
        }
        verdict.seconds = begun.elapsed().as_secs_f64();
        verdict::write_table(&verdict, &mut io::stdout().lock())?;
        verdicts.push(verdict);
    }
    Ok(())
}

/// A seed that is another one each time. It is printed with the verdict.
fn seed() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    time.map_or(0, |time| u64::from(time.subsec_nanos()))
}

/// Opens the file before minutes of load, but leaves what is in it until there is better.
fn open_for_later(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

fn complain(what: std::fmt::Arguments<'_>) {
    // Without a standard error there is nobody to tell.
    let _: io::Result<()> = writeln!(io::stderr(), "soak: {what}");
}
