//! The report of a run: one model, which is kept as JSON and shown as a table or a page.
//!
//! A report describes its own figures and systems, so that a kept one can be shown by a program that
//! knows others.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::figure::{Better, Figure, Sample};
use crate::provenance::Provenance;
use crate::run::{Plan, Series};
use crate::stats::{Spread, ratios};
use crate::systems::REFERENCE;

mod chart;
mod compare;
mod html;
mod json;
mod table;
mod text;

pub(crate) use compare::Comparison;
pub(crate) use html::write_html;
pub(crate) use json::{read, write};
pub(crate) use table::write_table;

/// Blanks in front of what belongs to a work, on a terminal.
const INDENT: &str = "  ";

/// What a run has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The version of this structure, [`json::FORMAT`].
    format: u64,
    provenance: Provenance,
    rounds: usize,
    /// How long an echo was measured, each time.
    seconds: f64,
    /// The system that ratios refer to.
    reference: String,
    /// In the order of the rows.
    systems: Vec<SystemFacts>,
    /// In the order of the columns.
    figures: Vec<FigureFacts>,
    works: Vec<WorkReport>,
}

/// What a system is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SystemFacts {
    name: String,
    about: String,
}

/// What a figure is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FigureFacts {
    name: String,
    /// The heading for people, with the unit.
    label: String,
    better: Better,
}

/// What all systems did with one work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct WorkReport {
    name: String,
    /// The name of the figure by which systems are compared.
    headline: String,
    /// The system that its ratios refer to, where it is not that of the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// Those that were measured.
    systems: Vec<SystemReport>,
}

/// What one system did with one work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SystemReport {
    name: String,
    /// By name.
    figures: BTreeMap<String, Measured>,
    /// What a reader of the figures must know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// One figure of one system and work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Measured {
    #[serde(flatten)]
    spread: Spread,
    /// To the reference in the same round. `None` if that was not measured.
    ratio: Option<Spread>,
    /// One per round, `None` where a round lacks the figure.
    samples: Vec<Option<f64>>,
}

impl Report {
    /// Summarises a run.
    pub(crate) fn new(provenance: Provenance, plan: &Plan, all: &[Series]) -> Self {
        let has_something = |it: &&Series| !it.samples.is_empty() || !it.notes.is_empty();
        let measured: Vec<&Series> = all.iter().filter(has_something).collect();
        let figures: BTreeSet<Figure> = measured
            .iter()
            .flat_map(|series| &series.samples)
            .flat_map(Sample::figures)
            .map(|(figure, _)| figure)
            .collect();
        let works = plan.works.iter().map(|&work| {
            let series: Vec<&Series> = measured
                .iter()
                .copied()
                .filter(|it| it.work == work)
                .collect();
            let reference = series.iter().find(|it| it.system == work.reference());
            WorkReport {
                name: work.to_string(),
                headline: work.headline().name().to_owned(),
                reference: Some(work.reference())
                    .filter(|&name| name != REFERENCE)
                    .map(str::to_owned),
                systems: series
                    .iter()
                    .map(|series| SystemReport::new(series, reference.copied()))
                    .collect(),
            }
        });
        Self {
            format: json::FORMAT,
            provenance,
            rounds: plan.rounds,
            seconds: plan.measured.as_secs_f64(),
            reference: REFERENCE.to_owned(),
            systems: plan
                .systems
                .iter()
                .map(|system| SystemFacts {
                    name: system.name.to_owned(),
                    about: system.about.to_owned(),
                })
                .collect(),
            figures: figures
                .into_iter()
                .map(|figure| FigureFacts {
                    name: figure.name().to_owned(),
                    label: figure.label().to_owned(),
                    better: figure.better(),
                })
                .collect(),
            works: works.filter(|work| !work.systems.is_empty()).collect(),
        }
    }

    /// The figures that the work has, its headline first.
    fn figures_of(&self, work: &WorkReport) -> Vec<&FigureFacts> {
        let mut figures: Vec<&FigureFacts> = self
            .figures
            .iter()
            .filter(|figure| {
                work.systems
                    .iter()
                    .any(|it| it.figures.contains_key(&figure.name))
            })
            .collect();
        // A stable sort keeps the others in their order.
        figures.sort_by_key(|figure| figure.name != work.headline);
        figures
    }

    /// The figure by which systems are compared at the work.
    fn headline_of(&self, work: &WorkReport) -> Option<&FigureFacts> {
        self.figures
            .iter()
            .find(|figure| figure.name == work.headline)
    }

    /// The system that the ratios of the work refer to.
    fn reference_of<'a>(&'a self, work: &'a WorkReport) -> &'a str {
        work.reference.as_deref().unwrap_or(&self.reference)
    }

    /// The figures whose ratio to the reference is worth a column: the headline and the rate.
    fn is_compared(work: &WorkReport, figure: &FigureFacts) -> bool {
        figure.name == work.headline || figure.name == Figure::Rate.name()
    }
}

impl SystemReport {
    fn new(series: &Series, reference: Option<&Series>) -> Self {
        let figures = Figure::ALL.iter().filter_map(|&figure| {
            let samples = samples(series, figure);
            let ratio = reference
                .map(|reference| self::samples(reference, figure))
                .and_then(|references| Spread::of(ratios(&samples, &references)));
            let measured = Measured {
                spread: Spread::of(samples.iter().copied().flatten())?,
                ratio,
                samples,
            };
            Some((figure.name().to_owned(), measured))
        });
        Self {
            name: series.system.to_owned(),
            figures: figures.collect(),
            notes: series.notes.clone(),
        }
    }
}

/// JSON has no infinity; a figure that is one was not measured.
fn samples(series: &Series, figure: Figure) -> Vec<Option<f64>> {
    let finite = |value: &f64| value.is_finite();
    series
        .samples
        .iter()
        .map(|sample| sample.get(figure).filter(finite))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provenance::Machine;
    use crate::systems;
    use crate::work::Work;

    /// Of a machine that does not exist.
    pub(super) fn provenance() -> Provenance {
        Provenance {
            time: "2026-01-31T12:00:00Z".to_owned(),
            commit: "c0ffee".to_owned(),
            compiler: "rustc 1.95.0".to_owned(),
            profile: "release, opt-level 3".to_owned(),
            allocator: "system".to_owned(),
            libraries: vec!["peer 2.0.2".to_owned()],
            machine: Machine {
                processor: Some("Chip 7".to_owned()),
                processors: Some(2),
                kernel: Some("6.1.0".to_owned()),
                memory_bytes: Some(4 << 30),
                governor: None,
                virtualised: true,
                load_average: Some(0.25),
            },
        }
    }

    pub(super) fn series(work: &str, system: &str, samples: &[Sample]) -> Series {
        Series {
            work: Work::find(work).expect("a load"),
            system: systems::find(system).expect("a system").name,
            samples: samples.to_vec(),
            notes: Vec::new(),
        }
    }

    /// Processor times, with the rates that belong to them.
    pub(super) fn echo(system: &str, server_cpu_ns: &[f64]) -> Series {
        let sample = |&value| {
            Sample::default()
                .with(Figure::Rate, 1e9 / value)
                .with(Figure::ServerCpu, value)
        };
        let samples: Vec<Sample> = server_cpu_ns.iter().map(sample).collect();
        series("echo/64B/1x64", system, &samples)
    }

    pub(super) fn idle(system: &str, bytes: &[f64]) -> Series {
        let sample = |&value| Sample::default().with(Figure::Rss, value);
        let samples: Vec<Sample> = bytes.iter().map(sample).collect();
        series("idle/1000", system, &samples)
    }

    pub(super) fn report(all: &[Series]) -> Report {
        Report::new(provenance(), &Plan::full(), all)
    }

    fn spread(min: f64, median: f64, max: f64) -> Spread {
        Spread { min, median, max }
    }

    #[test]
    fn ratios_are_within_rounds_and_within_works() {
        let report = report(&[
            echo("loop", &[1.0, 10.0, 2.0]),
            echo("ours", &[2.0, 30.0, 3.0]),
            idle("ours", &[5.0]),
        ]);
        let [echo, idle] = &report.works[..] else {
            panic!("{report:?}");
        };
        let cpu = |system: usize| &echo.systems[system].figures["server_cpu_ns"];
        assert_eq!(cpu(0).ratio, Some(spread(1.0, 1.0, 1.0)));
        assert_eq!(cpu(1).spread, spread(2.0, 3.0, 30.0));
        assert_eq!(cpu(1).ratio, Some(spread(1.5, 2.0, 3.0)));
        assert_eq!(cpu(1).samples, [Some(2.0), Some(30.0), Some(3.0)]);
        assert_eq!(idle.systems[0].figures["rss_per_connection"].ratio, None);
    }

    #[test]
    fn a_work_may_refer_to_a_system_of_its_own() {
        let cpu = |value| Sample::default().with(Figure::ServerCpu, value);
        let work = "resp/GET/50x1";
        let all = [
            echo("loop", &[4.0]),
            series(work, "ours", &[cpu(3.0)]),
            series(work, "redis-server", &[cpu(2.0)]),
        ];
        let report = report(&all);
        let references = report.works.iter().map(|work| report.reference_of(work));
        assert_eq!(references.collect::<Vec<_>>(), ["loop", "redis-server"]);
        let ours = &report.works[1].systems[0].figures["server_cpu_ns"];
        assert_eq!(ours.ratio, Some(spread(1.5, 1.5, 1.5)));
    }

    #[test]
    fn what_was_skipped_is_told() {
        let mut skipped = series("resp/GET/50x1", "redis-server", &[]);
        let note = "skipped: redis-server is not installed".to_owned();
        skipped.notes = vec![note.clone()];
        assert_eq!(report(&[skipped]).works[0].systems[0].notes, [note]);
    }

    #[test]
    fn a_round_that_lacks_a_figure_leaves_the_others_in_their_place() {
        let cpu = |value| Sample::default().with(Figure::ServerCpu, value);
        let work = "echo/64B/1x64";
        let report = report(&[
            series(work, "loop", &[cpu(1.0), cpu(10.0), cpu(100.0)]),
            series(work, "ours", &[cpu(2.0), cpu(f64::INFINITY), cpu(300.0)]),
        ]);
        let measured = &report.works[0].systems[1].figures["server_cpu_ns"];
        assert_eq!(measured.samples, [Some(2.0), None, Some(300.0)]);
        assert_eq!(measured.ratio, Some(spread(2.0, 2.5, 3.0)));
    }

    #[test]
    fn what_was_not_measured_is_not_in_the_report() {
        let report = report(&[echo("loop", &[4.0]), echo("ours", &[]), idle("loop", &[])]);
        assert_eq!(report.works.len(), 1);
        let systems = report.works[0].systems.iter().map(|it| &it.name);
        assert_eq!(systems.collect::<Vec<_>>(), ["loop"]);
        let figures = report.figures.iter().map(|it| &it.name);
        assert_eq!(figures.collect::<Vec<_>>(), ["rate", "server_cpu_ns"]);
    }

    #[test]
    fn the_headline_comes_first() {
        let report = report(&[echo("loop", &[4.0]), idle("loop", &[5.0])]);
        let names = |work| {
            let figures = report.figures_of(&report.works[work]);
            figures
                .iter()
                .map(|it| it.name.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["server_cpu_ns", "rate"]);
        assert_eq!(names(1), ["rss_per_connection"]);
    }
}
