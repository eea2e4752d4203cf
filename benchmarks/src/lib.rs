//! Echo servers, servers of calls and key-value servers side by side, in one run.
//!
//! Every system answers through its public interface and in its default configuration: echoes to the
//! same client over the same wire, plain or over TLS, calls to its own client and, where the wire is
//! the same, to one client for all, and commands to one client and to `redis-benchmark`. Server and client are processes of their own on different
//! processors. The systems take turns within each round; what is reported is the median over the
//! rounds, and the median of the ratios to the hand-written loop within the rounds. Processor time
//! per message is the steadiest figure: rates depend on the client as well.
//!
//! `cargo run --release -p benchmarks -- run --help` tells the options.

mod args;
mod bout;
mod call;
mod child;
mod drive;
mod figure;
mod frame;
mod machine;
mod progress;
mod provenance;
mod report;
mod run;
mod serve;
mod stats;
mod systems;
mod work;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use args::Command;
use provenance::Provenance;
use report::{Comparison, Report};
use run::{Plan, Series};

/// The exit code for arguments that make no sense.
const USAGE: u8 = 2;

/// The exit code of a comparison with something worse, for those who ask for it.
const WORSE: u8 = 3;

/// What the program does, from its arguments to its exit code: 2 for arguments that make no sense,
/// 1 when something could not be measured.
pub fn main() -> ExitCode {
    let command = match Command::parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            complain(format_args!("{error}\nTry `benchmarks --help`."));
            return ExitCode::from(USAGE);
        }
    };
    match execute(command) {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> io::Result<ExitCode> {
    match command {
        Command::Help => io::stdout().lock().write_all(args::help().as_bytes())?,
        Command::Run { plan, json, html } => {
            run_and_report(&plan, json.as_deref(), html.as_deref())?;
        }
        Command::Report { json, html } => {
            let report = report::read(&json)?;
            if let Some(path) = html {
                replace(&open_for_later(&path)?, |out| {
                    report::write_html(&report, out)
                })?;
            }
            report::write_table(&report, &mut io::stdout().lock())?;
        }
        Command::Compare {
            files: [a, b],
            fail_on_worse,
        } => {
            let comparison = Comparison::of(&report::read(&a)?, &report::read(&b)?);
            comparison.write(&mut io::stdout().lock())?;
            if fail_on_worse && comparison.has_worse() {
                return Ok(ExitCode::from(WORSE));
            }
        }
        Command::Serve { start, placement } => serve::serve(start, placement)?,
        Command::Drive(orders) => drive::drive(&orders)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_and_report(plan: &Plan, json: Option<&Path>, html: Option<&Path>) -> io::Result<()> {
    let json = json.map(open_for_later).transpose()?;
    let html = html.map(open_for_later).transpose()?;
    // Without a standard error there is nobody to tell.
    let _: io::Result<()> = writeln!(io::stderr(), "{plan}");
    let provenance = Provenance::here();
    let all = run::run(plan)?;
    let report = Report::new(provenance, plan, &all);
    // What is to be kept comes first: a table can be lost with the terminal.
    if let Some(file) = json {
        replace(&file, |out| report::write(&report, out))?;
    }
    if let Some(file) = html {
        replace(&file, |out| report::write_html(&report, out))?;
    }
    report::write_table(&report, &mut io::stdout().lock())?;
    if all.iter().all(Series::is_complete) {
        Ok(())
    } else {
        Err(io::Error::other("some measurements failed"))
    }
}

/// Opens the file before minutes of measuring, but leaves what is in it until there is better.
fn open_for_later(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

/// Writes the file anew.
fn replace(
    file: &File,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    // A pipe or a terminal has no length.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()
}

fn complain(what: std::fmt::Arguments<'_>) {
    // Without a standard error there is nobody to tell.
    let _: io::Result<()> = writeln!(io::stderr(), "benchmarks: {what}");
}
