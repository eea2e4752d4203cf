//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::ValueExt;
use lexopt::prelude::{Long, Short, Value};

use crate::cases::{CASES, Case};

/// What the program is to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Say how it is used.
    Help,
    /// Put load on servers and judge them.
    Run(Plan),
    /// Be such a server, for the run that has started this process.
    Serve(Orders),
}

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cases: Vec<&'static Case>,
    pub(crate) form: Form,
    pub(crate) seed: Option<u64>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) sabotage: Option<Sabotage>,
}

/// How much load, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Seconds in all: whether the program works, and nothing about servers.
    Tiny,
    /// A minute or so in all.
    Short,
    /// A quarter of an hour in all.
    Long,
}

/// What is wrong with the server, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Every connection leaves an allocation behind.
    Leak,
    /// A connection behind the warm-up leaves some MiB behind, in one allocation.
    Hoard,
    /// Every tenth connection leaves a descriptor behind.
    Clutch,
    /// One echo in some hundreds is not answered.
    Lose,
    /// When the server is drained, one answer that is due later is dropped.
    Forget,
    /// What is to be answered later is answered at once.
    Hurry,
    /// Half of the time, whoever hears a request stands still.
    Stall,
    /// The server's process ends after some hundreds of echoes.
    Die,
}

/// What a server is told when it is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// How many descriptors it may have open, if not as many as the system grants.
    pub(crate) descriptors: Option<u64>,
    pub(crate) sabotage: Option<Sabotage>,
}

/// Arguments that make no sense, and what would.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

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
        let mut plan = Plan {
            cases: Vec::new(),
            form: Form::Short,
            seed: None,
            json: None,
            sabotage: None,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(Self::Help),
                Long("long") => plan.form = Form::Long,
                Long("tiny") => plan.form = Form::Tiny,
                Long("seed") => plan.seed = Some(arguments.value()?.parse()?),
                Long("json") => plan.json = Some(PathBuf::from(arguments.value()?)),
                Long("sabotage") => plan.sabotage = Some(arguments.value()?.parse()?),
                Value(role) if role == "serve" && plan.cases.is_empty() => {
                    return parse_orders(arguments).map(Self::Serve);
                }
                Value(name) => {
                    let case = find_case(&name.string()?)?;
                    if !plan.cases.iter().any(|known| known.name == case.name) {
                        plan.cases.push(case);
                    }
                }
                other => return Err(other.unexpected().into()),
            }
        }
        if plan.cases.is_empty() {
            plan.cases = CASES.iter().collect();
        }
        Ok(Self::Run(plan))
    }
}

impl Form {
    /// Its name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Short => "short",
            Self::Long => "long",
        }
    }

    /// What this form takes.
    pub(crate) fn choose<T>(self, tiny: T, short: T, long: T) -> T {
        match self {
            Self::Tiny => tiny,
            Self::Short => short,
            Self::Long => long,
        }
    }
}

impl Sabotage {
    const ALL: [Self; 8] = [
        Self::Leak,
        Self::Hoard,
        Self::Clutch,
        Self::Lose,
        Self::Forget,
        Self::Hurry,
        Self::Stall,
        Self::Die,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::Hoard => "hoard",
            Self::Clutch => "clutch",
            Self::Lose => "lose",
            Self::Forget => "forget",
            Self::Hurry => "hurry",
            Self::Stall => "stall",
            Self::Die => "die",
        }
    }
}

impl FromStr for Sabotage {
    type Err = UsageError;

    fn from_str(name: &str) -> Result<Self, UsageError> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        let known = Self::ALL.map(Self::name).join(", ");
        found.ok_or_else(|| UsageError(format!("expected one of {known}, got {name:?}")))
    }
}

impl Orders {
    /// The arguments from which a server reads these orders, behind its role.
    pub(crate) fn to_arguments(self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(descriptors) = self.descriptors {
            arguments.push(format!("--descriptors={descriptors}"));
        }
        if let Some(sabotage) = self.sabotage {
            arguments.push(format!("--sabotage={}", sabotage.name()));
        }
        arguments
    }
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    let width = CASES.iter().map(|case| case.name.len()).max().unwrap_or(0);
    let cases: Vec<String> = CASES
        .iter()
        .map(|case| format!("  {:<width$}  {}\n", case.name, case.summary))
        .collect();
    format!(
        "\
Load and soak: whether a server of this project holds under it, on real sockets.

Usage: soak [CASE...] [OPTIONS]

Every case starts a server as a process of its own on 127.0.0.1, loads it, and
judges what came: all cases unless some are named.

{}
Options:
  --long          at full length, a quarter of an hour in all; without it, a minute
  --tiny          for seconds: whether this program works, nothing about the server
  --json FILE     write the figures to FILE as well
  --seed N        draw the same random traffic as the run that printed N
  --sabotage WHAT break the server, to see that it is noticed:
                  {}
  -h, --help      print this

Exit codes: 0 everything held, 1 something did not, 2 these arguments make no
sense or the report cannot be written, 3 the system lacks what a case needs, which then says what.
",
        cases.concat(),
        Sabotage::ALL.map(Sabotage::name).join(", "),
    )
}

fn find_case(name: &str) -> Result<&'static Case, UsageError> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        UsageError(format!(
            "unknown case {name:?}, expected some of: {}",
            known.join(" ")
        ))
    })
}

fn parse_orders(mut arguments: lexopt::Parser) -> Result<Orders, UsageError> {
    let mut orders = Orders::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("descriptors") => orders.descriptors = Some(arguments.value()?.parse()?),
            Long("sabotage") => orders.sabotage = Some(arguments.value()?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(orders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, UsageError> {
        Command::parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    fn parse_plan(line: &str) -> Plan {
        match parse(line) {
            Ok(Command::Run(plan)) => plan,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_default_is_everything_in_short() {
        let plan = parse_plan("");
        assert_eq!(plan.cases.len(), CASES.len());
        assert_eq!(plan.form, Form::Short);
        assert_eq!((plan.seed, plan.json, plan.sabotage), (None, None, None));
    }

    #[test]
    fn options_are_taken() {
        let plan = parse_plan("mixed --long --json out.json open open --seed=7 --sabotage leak");
        let names: Vec<&str> = plan.cases.iter().map(|case| case.name).collect();
        assert_eq!(names, ["mixed", "open"]);
        assert_eq!(plan.form, Form::Long);
        assert_eq!(plan.seed, Some(7));
        assert_eq!(plan.json, Some(PathBuf::from("out.json")));
        assert_eq!(plan.sabotage, Some(Sabotage::Leak));
    }

    #[test]
    fn help_names_every_case() {
        assert!(matches!(parse("--help"), Ok(Command::Help)));
        assert!(matches!(parse("open -h"), Ok(Command::Help)));
        for case in CASES {
            assert!(help().contains(case.name), "{}", case.name);
        }
    }

    #[test]
    fn errors_say_what_is_expected() {
        for (line, expected) in [
            ("walk", "some of: open"),
            ("--json", "missing argument"),
            ("--seed many", "many"),
            (
                "--sabotage all",
                "leak, hoard, clutch, lose, forget, hurry, stall, die",
            ),
            ("--fast", "--fast"),
            ("serve now", "now"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn orders_survive_the_command_line() {
        for orders in [
            Orders::default(),
            Orders {
                descriptors: Some(64),
                sabotage: Some(Sabotage::Stall),
            },
        ] {
            let line = format!("serve {}", orders.to_arguments().join(" "));
            match parse(&line) {
                Ok(Command::Serve(parsed)) => assert_eq!(parsed, orders),
                other => panic!("{other:?}"),
            }
        }
    }
}
