//! The measurement: rounds in which every system does every work once.

use std::env;
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::bout::{Bout, Outcome};
use crate::figure::{Figure, Sample};
use crate::machine;
use crate::progress::Progress;
use crate::stats::ENOUGH_ROUNDS;
use crate::systems::{self, SYSTEMS, System, YARDSTICK};
use crate::work::Work;

/// The shortest warm-up: branch predictors and buffers settle in less.
const SHORTEST_WARM_UP: Duration = Duration::from_millis(200);

/// The warm-up is the measured time divided by this.
const WARM_UP_DIVISOR: u32 = 5;

/// How long an echo is measured when there is little time.
const QUICKLY_MEASURED: Duration = Duration::from_millis(300);

/// Estimate of what starting and ending two processes takes.
const PROCESSES: Duration = Duration::from_millis(50);

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

    /// The systems that do a work.
    fn systems_for(&self, work: Work) -> impl Iterator<Item = &'static System> {
        let systems = self.systems.iter().copied();
        systems.filter(move |system| system.does(work))
    }

    /// How often a system does a work.
    fn measurements(&self) -> usize {
        let pairs = self
            .works
            .iter()
            .map(|&work| self.systems_for(work).count());
        pairs.sum::<usize>() * self.rounds
    }

    /// How long the run takes, more or less.
    pub(crate) fn estimate(&self) -> Duration {
        let works = self.works.iter();
        let round: Duration = works
            .map(|&work| {
                let turns = self.systems_for(work).count() + usize::from(work.percent().is_some());
                self.estimate_of(work) * u32::try_from(turns).unwrap_or(u32::MAX)
            })
            .sum();
        u32::try_from(self.rounds).map_or(Duration::MAX, |rounds| round.saturating_mul(rounds))
    }

    /// How long one system is busy with a work in one round.
    fn estimate_of(&self, work: Work) -> Duration {
        PROCESSES + work.estimate(self.warm_up(), self.measured)
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
    /// A sample per round, empty where the measurement failed.
    pub(crate) samples: Vec<Sample>,
    /// What a reader of the figures must know, with the round: failures, and loads that ended early.
    pub(crate) notes: Vec<String>,
}

impl Series {
    /// Whether every round has its figures.
    pub(crate) fn is_complete(&self) -> bool {
        let has_figures = |sample: &Sample| sample.figures().next().is_some();
        self.samples.iter().all(has_figures)
    }

    /// Whether it is known beforehand that it cannot be measured here.
    fn is_skipped(&self) -> bool {
        self.samples.is_empty() && !self.notes.is_empty()
    }

    fn add(&mut self, round: usize, measured: io::Result<Outcome>) {
        let outcome = measured.unwrap_or_else(|error| Outcome {
            sample: Sample::default(),
            notes: vec![format!("failed: {error}")],
        });
        self.samples.push(outcome.sample);
        let notes = outcome.notes.into_iter();
        self.notes
            .extend(notes.map(|note| format!("round {}: {note}", round + 1)));
    }
}

/// Measures everything. Systems take turns within a round, and the first of a round is the second
/// of the one before it, so that what drifts meets all of them. Where the rate of a work depends on
/// that of the [`YARDSTICK`], that one is measured first in each round, as fast as it can.
///
/// A measurement that fails is noted and leaves its sample empty: a system that breaks under one
/// load says nothing about the others.
///
/// # Errors
///
/// When there are not two processors.
pub(crate) fn run(plan: &Plan) -> io::Result<Vec<Series>> {
    let processors = machine::two_processors()?;
    let mut series: Vec<Series> = plan
        .works
        .iter()
        .flat_map(|&work| plan.systems_for(work).map(move |system| (work, system)))
        .map(|(work, system)| Series {
            work,
            system: system.name,
            samples: Vec::new(),
            notes: skipped(system, work).into_iter().collect(),
        })
        .collect();
    let mut progress = Progress::new(plan.measurements(), plan.estimate());
    for round in 0..plan.rounds {
        let mut row = 0;
        for &work in &plan.works {
            let systems: Vec<&'static System> = plan.systems_for(work).collect();
            let bout = |system, rate| Bout {
                work,
                system,
                processors,
                warm_up: plan.warm_up(),
                measured: plan.measured,
                rate,
            };
            let rate = work.percent().map(|percent| {
                let yardstick = systems::find(YARDSTICK).expect("it is one of the systems");
                progress.show(format_args!("{work}, the highest rate of {YARDSTICK}"));
                pace(bout(yardstick, None).measure()?, percent)
            });
            for turn in 0..systems.len() {
                let column = (round + turn) % systems.len();
                let system = systems[column];
                if series[row + column].is_skipped() {
                    progress.advance(plan.estimate_of(work));
                    continue;
                }
                progress.show(format_args!("{work} {}", system.name));
                let measured = match &rate {
                    None => bout(system, None).measure(),
                    Some(Ok(rate)) => bout(system, Some(*rate)).measure(),
                    Some(Err(error)) => Err(io::Error::other(format!("{YARDSTICK}: {error}"))),
                };
                series[row + column].add(round, measured);
                progress.advance(plan.estimate_of(work));
            }
            row += systems.len();
        }
    }
    Ok(series)
}

/// Why a system cannot do a work here although it can elsewhere. Where the environment variable `CI` is
/// set it is no excuse: the measurement fails.
fn skipped(system: &System, work: Work) -> Option<String> {
    let program = system.missing_program(work)?;
    let excused = env::var_os("CI").is_none();
    excused.then(|| format!("skipped: {program} is not installed"))
}

/// A share of the rate that was reached.
fn pace(yardstick: Outcome, percent: u32) -> io::Result<NonZeroU32> {
    let rate = yardstick.sample.get(Figure::Rate).unwrap_or(0.0) * f64::from(percent) / 100.0;
    NonZeroU32::new(rate as u32).ok_or_else(|| io::Error::other("it has no rate"))
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
            Work::find("stream/64B").expect("a load"),
        ];
        plan.systems.truncate(2);
        plan.rounds = 3;
        plan.measured = Duration::from_secs(10);
        let round = (PROCESSES + Duration::from_secs(12)) * 2;
        assert_eq!(plan.measurements(), 12);
        assert_eq!(plan.estimate(), round * 6);
        assert_eq!(
            plan.to_string(),
            "works: 2, systems: 2, rounds: 3; about 145 s"
        );
        // One of the two systems does no calls, and the yardstick is measured first.
        plan.works = vec![Work::find("rpc-latency/64B/70%").expect("a load")];
        plan.systems = vec![&SYSTEMS[0], systems::find("framed").expect("a system")];
        assert_eq!(plan.measurements(), 3);
        assert_eq!(plan.estimate(), round * 3);
    }

    #[test]
    fn an_open_loop_is_paced_by_a_share_of_the_rate_that_was_reached() {
        let reached = |rate| Outcome {
            sample: Sample::default().with(Figure::Rate, rate),
            notes: Vec::new(),
        };
        let rate = pace(reached(1_000_000.0), 70).expect("a rate");
        assert_eq!(rate.get(), 700_000);
        assert!(pace(reached(0.5), 70).is_err());
        assert!(pace(Outcome::default(), 70).is_err());
    }

    #[test]
    fn a_failure_is_noted_and_leaves_its_round_empty() {
        let mut series = Series {
            work: Work::find("echo/64B/1x1").expect("a load"),
            system: "other",
            samples: Vec::new(),
            notes: Vec::new(),
        };
        let good = || Outcome {
            sample: Sample::default().with(Figure::Rate, 1.0),
            notes: Vec::new(),
        };
        series.add(0, Ok(good()));
        assert!(series.is_complete());
        series.add(1, Err(io::Error::other("no reply")));
        series.add(2, Ok(good()));
        assert!(!series.is_complete());
        let rates: Vec<Option<f64>> = (series.samples.iter())
            .map(|sample| sample.get(Figure::Rate))
            .collect();
        assert_eq!(rates, [Some(1.0), None, Some(1.0)]);
        assert_eq!(series.notes, ["round 2: failed: no reply"]);
    }
}
