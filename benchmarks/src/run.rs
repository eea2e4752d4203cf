//! The measurement: rounds in which every system does every work once.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use crate::child::Child;
use crate::figure::{Figure, Sample};
use crate::machine;
use crate::progress::Progress;
use crate::roles::{Drive, EchoReport, OPEN, Question, READY};
use crate::stats::ENOUGH_ROUNDS;
use crate::systems::{SYSTEMS, System};
use crate::work::Work;

/// How long a child may take for what it does at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shortest warm-up: branch predictors and buffers settle in less.
const SHORTEST_WARM_UP: Duration = Duration::from_millis(200);

/// The warm-up is the measured time divided by this.
const WARM_UP_DIVISOR: u32 = 5;

/// How long an echo is measured when there is little time.
const QUICKLY_MEASURED: Duration = Duration::from_millis(300);

/// Estimate of what starting and ending two processes takes.
const PROCESSES: Duration = Duration::from_millis(50);

/// Estimate of what opening the idle connections and reading the memory twice takes.
const CONNECTING: Duration = Duration::from_millis(400);

/// What to measure.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The loads.
    pub(crate) works: Vec<Work>,
    /// The servers.
    pub(crate) systems: Vec<&'static System>,
    /// How often.
    pub(crate) rounds: usize,
    /// How long an echo is measured, each time.
    pub(crate) measured: Duration,
}

impl Plan {
    /// Everything: some minutes.
    pub(crate) fn full() -> Self {
        Self {
            works: Work::all(),
            systems: SYSTEMS.iter().collect(),
            rounds: ENOUGH_ROUNDS,
            measured: Duration::from_secs(1),
        }
    }

    /// What tells the most in less than two minutes.
    pub(crate) fn quick() -> Self {
        let mut plan = Self::full();
        plan.works.retain(|work| work.is_quick());
        plan.measured = QUICKLY_MEASURED;
        plan
    }

    /// How often a system does a work.
    fn measurements(&self) -> usize {
        self.works.len() * self.systems.len() * self.rounds
    }

    /// How long the run takes, more or less.
    pub(crate) fn estimate(&self) -> Duration {
        let round: Duration = self.works.iter().map(|&work| self.estimate_of(work)).sum();
        let turns = u32::try_from(self.systems.len() * self.rounds);
        turns.map_or(Duration::MAX, |turns| round.saturating_mul(turns))
    }

    /// How long one system is busy with a work in one round.
    fn estimate_of(&self, work: Work) -> Duration {
        PROCESSES
            + match work {
                Work::Echo(_) => self.warm_up() + self.measured,
                Work::Idle { .. } => CONNECTING,
            }
    }

    fn warm_up(&self) -> Duration {
        (self.measured / WARM_UP_DIVISOR).max(SHORTEST_WARM_UP)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (works, systems, rounds) = (self.works.len(), self.systems.len(), self.rounds);
        let seconds = self.estimate().as_secs_f64().ceil();
        write!(
            f,
            "works: {works}, systems: {systems}, rounds: {rounds}; about {seconds} s"
        )
    }
}

/// What one system did with one load, round by round.
#[derive(Debug)]
pub(crate) struct Series {
    /// The load.
    pub(crate) work: Work,
    /// The name of the system.
    pub(crate) system: &'static str,
    /// A sample per round.
    pub(crate) samples: Vec<Sample>,
}

/// Measures everything. Systems take turns within a round, and the first of a round is the second
/// of the one before it, so that what drifts meets all of them.
///
/// # Errors
///
/// The first child that fails ends the run; the error says which work and which system.
pub(crate) fn run(plan: &Plan) -> io::Result<Vec<Series>> {
    let [server_processor, client_processor] = machine::two_processors()?;
    let mut series: Vec<Series> = plan
        .works
        .iter()
        .flat_map(|&work| plan.systems.iter().map(move |system| (work, system.name)))
        .map(|(work, system)| Series {
            work,
            system,
            samples: Vec::new(),
        })
        .collect();
    let mut progress = Progress::new(plan.measurements(), plan.estimate());
    let count = plan.systems.len();
    for round in 0..plan.rounds {
        for (row, &work) in plan.works.iter().enumerate() {
            for turn in 0..count {
                let column = (round + turn) % count;
                let system = plan.systems[column];
                progress.show(format_args!("{work} {}", system.name));
                let sample = Bout::start(work, system, plan, server_processor)
                    .and_then(|bout| bout.finish(client_processor))
                    .map_err(|error| {
                        io::Error::other(format!("{work} with {}: {error}", system.name))
                    })?;
                progress.advance(plan.estimate_of(work));
                series[row * count + column].samples.push(sample);
            }
        }
    }
    Ok(series)
}

/// One system doing one work, in fresh processes.
struct Bout<'a> {
    work: Work,
    plan: &'a Plan,
    server: Child,
    address: String,
}

impl<'a> Bout<'a> {
    fn start(work: Work, system: &System, plan: &'a Plan, processor: usize) -> io::Result<Self> {
        let mut server = Child::spawn("serve", [system.name, &processor.to_string()])?;
        let address = server.hear(PATIENCE)?;
        Ok(Self {
            work,
            plan,
            server,
            address,
        })
    }

    fn finish(mut self, processor: usize) -> io::Result<Sample> {
        let orders = Drive {
            processor,
            address: parse(&self.address)?,
            work: self.work,
            warm_up: self.plan.warm_up(),
            measured: self.plan.measured,
        };
        let mut client = Child::spawn("drive", orders.to_arguments())?;
        let ready = client.hear(PATIENCE + orders.warm_up)?;
        expect(&ready, READY)?;
        match self.work {
            Work::Echo(_) => self.echo(&mut client),
            Work::Idle { connections } => self.idle(&mut client, connections),
        }
    }

    fn echo(&mut self, client: &mut Child) -> io::Result<Sample> {
        let before = self.ask(Question::Cpu)?;
        client.tell("go")?;
        let report = client.hear(PATIENCE + self.plan.measured)?;
        let after = self.ask(Question::Cpu)?;
        let report: EchoReport = serde_json::from_str(&report)?;
        Ok(echo_sample(&report, after.saturating_sub(before)))
    }

    fn idle(&mut self, client: &mut Child, connections: usize) -> io::Result<Sample> {
        let before = self.ask(Question::Memory)?;
        client.tell("go")?;
        let open = client.hear(PATIENCE)?;
        expect(&open, OPEN)?;
        let after = self.ask(Question::Memory)?;
        let bytes = after.saturating_sub(before) as f64 / connections as f64;
        Ok(Sample::default().with(Figure::Rss, bytes))
    }

    fn ask(&mut self, question: Question) -> io::Result<u64> {
        self.server.tell(question.line())?;
        parse(&self.server.hear(PATIENCE)?)
    }
}

fn echo_sample(report: &EchoReport, server_cpu_ns: u64) -> Sample {
    let messages = report.messages as f64;
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    Sample::default()
        .with(Figure::Rate, messages * 1e9 / report.elapsed_ns as f64)
        .with(Figure::ServerCpu, server_cpu_ns as f64 / messages)
        .with(Figure::ClientCpu, report.cpu_ns as f64 / messages)
        .with(Figure::P50, microseconds(report.p50_ns))
        .with(Figure::P99, microseconds(report.p99_ns))
        .with(Figure::P999, microseconds(report.p999_ns))
}

fn parse<T>(line: &str) -> io::Result<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    line.parse()
        .map_err(|error| io::Error::other(format!("a child said {line:?}: {error}")))
}

fn expect(line: &str, expected: &str) -> io::Result<()> {
    if line == expected {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "a child said {line:?} instead of {expected:?}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_plan_ends_within_two_minutes() {
        let plan = Plan::quick();
        assert!(plan.estimate() < Duration::from_secs(120), "{plan}");
        assert_eq!(plan.systems.len(), SYSTEMS.len());
        assert!(plan.works.len() > 1, "{plan}");
        assert!(plan.works.iter().all(|work| work.is_quick()), "{plan}");
    }

    #[test]
    fn the_estimate_counts_every_measurement() {
        let mut plan = Plan::full();
        plan.works = vec![
            Work::find("echo/64B/1x1").expect("a load"),
            Work::find("idle/1000").expect("a load"),
        ];
        plan.systems.truncate(2);
        plan.rounds = 3;
        plan.measured = Duration::from_secs(10);
        let round = PROCESSES * 2 + Duration::from_secs(12) + CONNECTING;
        assert_eq!(plan.measurements(), 12);
        assert_eq!(plan.estimate(), round * 6);
        assert_eq!(
            plan.to_string(),
            "works: 2, systems: 2, rounds: 3; about 75 s"
        );
    }

    #[test]
    fn a_sample_is_per_message() {
        let report = EchoReport {
            messages: 2_000,
            elapsed_ns: 500_000_000,
            cpu_ns: 100_000,
            p50_ns: 1_500,
            p99_ns: 2_000,
            p999_ns: 30_000,
        };
        let sample = echo_sample(&report, 300_000);
        let expected = Sample::default()
            .with(Figure::Rate, 4_000.0)
            .with(Figure::ServerCpu, 150.0)
            .with(Figure::ClientCpu, 50.0)
            .with(Figure::P50, 1.5)
            .with(Figure::P99, 2.0)
            .with(Figure::P999, 30.0);
        assert_eq!(sample, expected);
    }
}
