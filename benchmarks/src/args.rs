//! The command line.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::ValueExt;
use lexopt::prelude::{Long, Short, Value};

use crate::drive::Drive;
use crate::machine::Placement;
use crate::run::Plan;
use crate::systems::{self, SYSTEMS, Start, System};
use crate::work::Work;

/// What people may ask for. The other commands are for the processes of a run.
const COMMANDS: &str = "`run`, `report` or `compare`";

// LIMIT: a run ends, whatever is typed.
const MOST_ROUNDS: usize = 1_000;
const MEASURED_SECONDS: std::ops::RangeInclusive<f64> = 0.01..=60.0;

/// Stands for a rate that is not asked for.
const ANY_RATE: &str = "any";

/// What the program is to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Say how it is used.
    Help,
    /// Measure and report.
    Run {
        /// What to measure.
        plan: Plan,
        /// Where to keep the report.
        json: Option<PathBuf>,
        /// Where to write it as a page.
        html: Option<PathBuf>,
    },
    /// Show a report that was kept.
    Report {
        /// Where it was written.
        json: PathBuf,
        /// Where to write it as a page.
        html: Option<PathBuf>,
    },
    /// Show what is better and what is worse in the second of two reports.
    Compare {
        /// Where they were written.
        files: [PathBuf; 2],
        /// Whether something worse is a failure.
        fail_on_worse: bool,
    },
    /// Be a server for the run that has started this process.
    Serve {
        /// Which one.
        start: Start,
        /// Where.
        placement: Placement,
    },
    /// Be its client.
    Drive(Drive),
}

/// Arguments that make no sense, and what would.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

impl Command {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    ///
    /// Says which argument is wrong and what is expected in its place.
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self, UsageError> {
        match arguments.next()? {
            Some(Short('h') | Long("help")) => Ok(Self::Help),
            Some(Value(command)) => match command.to_str() {
                Some("run") => parse_run(arguments),
                Some("report") => parse_report(arguments),
                Some("compare") => parse_compare(arguments),
                Some("serve") => parse_serve(arguments),
                Some("drive") => parse_drive(arguments),
                _ => Err(UsageError(format!(
                    "unknown command {command:?}, expected {COMMANDS}"
                ))),
            },
            Some(other) => Err(other.unexpected().into()),
            None => Err(UsageError(format!(
                "a command is missing, expected {COMMANDS}"
            ))),
        }
    }
}

impl Drive {
    /// The arguments from which the client reads these orders.
    pub(crate) fn to_arguments(self) -> [String; 7] {
        [
            self.placement.to_string(),
            self.address.to_string(),
            self.system.name.to_owned(),
            self.work.to_string(),
            self.warm_up.as_millis().to_string(),
            self.measured.as_millis().to_string(),
            self.rate
                .map_or_else(|| ANY_RATE.to_owned(), |rate| rate.to_string()),
        ]
    }
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    let full = Plan::full();
    let describe = |system: &&System| format!("  {:<22} {}\n", system.name, system.about);
    let systems: String = full.systems.iter().map(describe).collect();
    let works: Vec<String> = full.works.iter().map(Work::to_string).collect();
    format!(
        "\
Echo servers, servers of calls and key-value servers side by side: server CPU per
message, rates, latencies and memory.

Usage: benchmarks run [OPTIONS]
       benchmarks report FILE [--html PAGE]
       benchmarks compare A B [--fail-on-worse]

Server and client are processes on processors of their own, fresh for each
measurement. The systems take turns in every round. Figures are medians over the
rounds; ratios are medians of the ratios within the rounds.

`report` shows what `run --json` has kept, and `compare` what became better or
worse from A to B by more than the scatter; with --fail-on-worse it exits with 3
if something became worse.

Options of `run`:
  --quick          only what tells the most in less than two minutes
  --only PATTERN   only works whose name contains PATTERN, or, if it has a `*`,
                   whose whole name it matches
  --systems A,B    only these systems
  --rounds N       how often everything is measured, 1 to {MOST_ROUNDS} [default: {}]
  --seconds S      how long each echo is measured, {} to {} [default: {}]
  --json FILE      keep the report in FILE
  --html PAGE      write the report as a page, with charts and the method
  -h, --help       print this

Works: {}
Systems:
{}",
        full.rounds,
        MEASURED_SECONDS.start(),
        MEASURED_SECONDS.end(),
        full.measured.as_secs(),
        works.join(" "),
        systems,
    )
}

fn parse_run(mut arguments: lexopt::Parser) -> Result<Command, UsageError> {
    let (mut quick, mut only, mut systems, mut rounds, mut measured) =
        (false, None, None, None, None);
    let (mut json, mut html) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("quick") => quick = true,
            Long("only") => only = Some(arguments.value()?.string()?),
            Long("systems") => systems = Some(parse_systems(&arguments.value()?.string()?)?),
            Long("rounds") => rounds = Some(parse_rounds(&arguments.value()?.string()?)?),
            Long("seconds") => measured = Some(parse_seconds(&arguments.value()?.string()?)?),
            Long("json") => json = Some(PathBuf::from(arguments.value()?)),
            Long("html") => html = Some(PathBuf::from(arguments.value()?)),
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut plan = if quick { Plan::quick() } else { Plan::full() };
    if let Some(pattern) = only {
        keep_only(&pattern, &mut plan.works)?;
    }
    plan.systems = systems.unwrap_or(plan.systems);
    drop_idle(&mut plan)?;
    plan.rounds = rounds.unwrap_or(plan.rounds);
    plan.measured = measured.unwrap_or(plan.measured);
    Ok(Command::Run { plan, json, html })
}

fn parse_report(mut arguments: lexopt::Parser) -> Result<Command, UsageError> {
    let mut files = Vec::new();
    let mut html = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(file) => files.push(PathBuf::from(file)),
            Long("html") => html = Some(PathBuf::from(arguments.value()?)),
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    let [json] = exactly("report", files)?;
    Ok(Command::Report { json, html })
}

fn parse_compare(mut arguments: lexopt::Parser) -> Result<Command, UsageError> {
    let mut files = Vec::new();
    let mut fail_on_worse = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(file) => files.push(PathBuf::from(file)),
            Long("fail-on-worse") => fail_on_worse = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Compare {
        files: exactly("compare", files)?,
        fail_on_worse,
    })
}

/// As many reports as the command shows.
fn exactly<const N: usize>(command: &str, files: Vec<PathBuf>) -> Result<[PathBuf; N], UsageError> {
    files.try_into().map_err(|files: Vec<PathBuf>| {
        UsageError(format!(
            "`{command}` expects {N} of the files that `run --json` writes, got {}",
            files.len()
        ))
    })
}

fn keep_only(pattern: &str, works: &mut Vec<Work>) -> Result<(), UsageError> {
    let names: Vec<String> = works.iter().map(Work::to_string).collect();
    works.retain(|work| work.matches(pattern));
    if works.is_empty() {
        return Err(UsageError(format!(
            "--only {pattern:?} matches no work, expected a part of one of: {}",
            names.join(" ")
        )));
    }
    Ok(())
}

/// Leaves out works that none of the systems does, and systems that do none of the works.
fn drop_idle(plan: &mut Plan) -> Result<(), UsageError> {
    let (works, systems) = (&plan.works, &plan.systems);
    let works: Vec<Work> = (works.iter().copied())
        .filter(|&work| systems.iter().any(|system| system.does(work)))
        .collect();
    if works.is_empty() {
        let names: Vec<&str> = systems.iter().map(|system| system.name).collect();
        let wanted: Vec<String> = plan.works.iter().map(Work::to_string).collect();
        return Err(UsageError(format!(
            "{} can do none of: {}",
            names.join(","),
            wanted.join(" ")
        )));
    }
    plan.systems
        .retain(|system| works.iter().any(|&work| system.does(work)));
    plan.works = works;
    Ok(())
}

fn parse_systems(names: &str) -> Result<Vec<&'static System>, UsageError> {
    let mut chosen: Vec<&'static System> = Vec::new();
    for name in names.split(',') {
        let system = find_system(name)?;
        if chosen.iter().any(|other| other.name == name) {
            return Err(UsageError(format!(
                "--systems names {name:?} twice, expected it once"
            )));
        }
        chosen.push(system);
    }
    Ok(chosen)
}

fn parse_rounds(text: &str) -> Result<usize, UsageError> {
    text.parse::<NonZeroUsize>()
        .ok()
        .map(NonZeroUsize::get)
        .filter(|&rounds| rounds <= MOST_ROUNDS)
        .ok_or_else(|| {
            UsageError(format!(
                "--rounds {text:?}: expected a number from 1 to {MOST_ROUNDS}"
            ))
        })
}

fn parse_seconds(text: &str) -> Result<Duration, UsageError> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| MEASURED_SECONDS.contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| {
            let (least, most) = (MEASURED_SECONDS.start(), MEASURED_SECONDS.end());
            UsageError(format!(
                "--seconds {text:?}: expected a number from {least} to {most}"
            ))
        })
}

fn find_system(name: &str) -> Result<&'static System, UsageError> {
    systems::find(name).ok_or_else(|| {
        UsageError(format!(
            "unknown system {name:?}, expected some of: {}",
            system_names()
        ))
    })
}

fn system_names() -> String {
    let names: Vec<&str> = SYSTEMS.iter().map(|system| system.name).collect();
    names.join(",")
}

fn parse_serve(mut arguments: lexopt::Parser) -> Result<Command, UsageError> {
    let system = find_system(&arguments.value()?.string()?)?;
    let work = find_work(&arguments.value()?.string()?)?;
    let start = (system.server(work))
        .ok_or_else(|| UsageError(format!("{} cannot do {work}", system.name)))?;
    Ok(Command::Serve {
        start,
        placement: arguments.value()?.parse()?,
    })
}

fn find_work(name: &str) -> Result<Work, UsageError> {
    Work::find(name).ok_or_else(|| UsageError(format!("unknown work {name:?}")))
}

fn parse_drive(mut arguments: lexopt::Parser) -> Result<Command, UsageError> {
    let placement = arguments.value()?.parse()?;
    let address = arguments.value()?.parse()?;
    let system = find_system(&arguments.value()?.string()?)?;
    let work = find_work(&arguments.value()?.string()?)?;
    let mut milliseconds = || -> Result<Duration, UsageError> {
        Ok(Duration::from_millis(
            arguments.value()?.parse_with(u64::from_str)?,
        ))
    };
    let (warm_up, measured) = (milliseconds()?, milliseconds()?);
    let rate = arguments.value()?;
    let rate = if rate == ANY_RATE {
        None
    } else {
        Some(rate.parse_with(NonZeroU32::from_str)?)
    };
    Ok(Command::Drive(Drive {
        placement,
        address,
        system,
        work,
        warm_up,
        measured,
        rate,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, UsageError> {
        Command::parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    fn parse_plan(line: &str) -> Plan {
        match parse(line) {
            Ok(Command::Run { plan, .. }) => plan,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_default_is_everything() {
        let plan = parse_plan("run");
        assert_eq!(plan.works, Work::all());
        assert_eq!(plan.systems.len(), SYSTEMS.len());
        assert_eq!(plan.rounds, 5);
        assert_eq!(plan.measured, Duration::from_secs(1));
    }

    #[test]
    fn options_are_taken() {
        let line =
            "run --only echo/64B/1x1 --systems protosocket-2.0.2,loop --rounds=7 --seconds 0.5";
        let plan = parse_plan(line);
        let works: Vec<String> = plan.works.iter().map(Work::to_string).collect();
        assert_eq!(works, ["echo/64B/1x1", "echo/64B/1x1024"]);
        let systems: Vec<&str> = plan.systems.iter().map(|system| system.name).collect();
        assert_eq!(systems, ["protosocket-2.0.2", "loop"]);
        assert_eq!(plan.rounds, 7);
        assert_eq!(plan.measured, Duration::from_millis(500));
        let plan = parse_plan("run --only idle --rounds 3 --quick");
        assert_eq!(plan.works.len(), 1);
        assert!(plan.systems.iter().all(|system| system.does(plan.works[0])));
        assert_eq!(plan.rounds, 3);
        assert_eq!(plan.measured, Plan::quick().measured);
        let plan = parse_plan("run --systems tonic,loop");
        assert!(plan.works.iter().any(|work| SYSTEMS[0].does(*work)));
        assert!(
            !parse_plan("run --systems tonic")
                .works
                .contains(&Work::all()[0])
        );
        let Ok(Command::Run { json, html, .. }) = parse("run --json a.json --html a.html") else {
            panic!("files are expected");
        };
        assert_eq!(json, Some(PathBuf::from("a.json")));
        assert_eq!(html, Some(PathBuf::from("a.html")));
    }

    #[test]
    fn reports_are_compared_in_their_order() {
        let Ok(Command::Compare {
            files,
            fail_on_worse,
        }) = parse("compare b.json --fail-on-worse a.json")
        else {
            panic!("a comparison is expected");
        };
        assert_eq!(files, ["b.json", "a.json"].map(PathBuf::from));
        assert!(fail_on_worse);
    }

    #[test]
    fn help_is_no_error() {
        assert!(matches!(parse("--help"), Ok(Command::Help)));
        assert!(matches!(parse("run -h"), Ok(Command::Help)));
        assert!(matches!(parse("report -h"), Ok(Command::Help)));
        assert!(help().contains("echo/64B/1x1024"));
        for system in SYSTEMS {
            assert!(help().contains(system.name), "{}", system.name);
        }
    }

    #[test]
    fn errors_say_what_is_expected() {
        for (line, expected) in [
            ("", "expected `run`"),
            ("walk", "expected `run`"),
            ("run --only nothing", "echo/64B/1x1"),
            ("run --quick --only 64B/1x1*1", "echo/64B/1x1024"),
            ("run --only", "missing argument"),
            ("run --systems loop,2.0.2", "some of: loop"),
            ("run --systems loop,loop", "twice"),
            ("run --systems=", "unknown system"),
            (
                "run --systems tonic --only echo/64B/1x1",
                "tonic can do none of",
            ),
            ("run --rounds 0", "1 to 1000"),
            ("run --rounds 1001", "1 to 1000"),
            ("run --rounds five", "1 to 1000"),
            ("run --seconds -1", "0.01 to 60"),
            ("run --seconds nan", "0.01 to 60"),
            ("run --seconds 61", "0.01 to 60"),
            ("run --fast", "--fast"),
            ("run everything", "everything"),
            ("report", "1 of the files that `run --json` writes, got 0"),
            ("report a.json b.json", "got 2"),
            ("report --fast", "--fast"),
            (
                "compare a.json",
                "2 of the files that `run --json` writes, got 1",
            ),
            ("compare a.json b.json c.json", "got 3"),
            ("compare a.json b.json --fail", "--fail"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn orders_survive_the_command_line() {
        for rate in [None, NonZeroU32::new(700_000)] {
            let orders = Drive {
                placement: Placement::Processor(1),
                address: "127.0.0.1:4321".parse().expect("an address"),
                system: &SYSTEMS[0],
                work: Work::find("rpc-latency/64B/70%").expect("a load"),
                warm_up: Duration::from_millis(200),
                measured: Duration::from_millis(1_500),
                rate,
            };
            let line = format!("drive {}", orders.to_arguments().join(" "));
            match parse(&line) {
                Ok(Command::Drive(parsed)) => assert_eq!(parsed, orders),
                other => panic!("{other:?}"),
            }
        }
    }
}
