//! The measurement: rounds in which every system does every work once.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::bout::{Bout, Outcome};
use crate::figure::Sample;
use crate::machine;
use crate::progress::Progress;
use crate::stats::ENOUGH_ROUNDS;
use crate::systems::{SYSTEMS, System};
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
/// of the one before it, so that what drifts meets all of them.
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
        .flat_map(|&work| plan.systems.iter().map(move |system| (work, system.name)))
        .map(|(work, system)| Series {
            work,
            system,
            samples: Vec::new(),
            notes: Vec::new(),
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
                let bout = Bout {
                    work,
                    system,
                    processors,
                    warm_up: plan.warm_up(),
                    measured: plan.measured,
                };
                series[row * count + column].add(round, bout.measure());
                progress.advance(plan.estimate_of(work));
            }
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Figure;

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
