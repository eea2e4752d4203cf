//! One system doing one work, in fresh processes.

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::child::Child;
use crate::drive::{Drive, GO, READY, Report, STOP};
use crate::figure::{Figure, Sample};
use crate::machine::Process;
use crate::serve::Question;
use crate::systems::System;
use crate::work::Work;

/// How long a child may take for what it does at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the memory of the server is looked at while it is loaded.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The program whose allocator counts.
const COUNTING: &str = "benchmarks-counting";

/// What is measured, where, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bout {
    /// The load.
    pub(crate) work: Work,
    /// The server.
    pub(crate) system: &'static System,
    /// A processor for the server and one for the client.
    pub(crate) processors: [usize; 2],
    /// How long the load runs before it is measured.
    pub(crate) warm_up: Duration,
    /// How long it is measured.
    pub(crate) measured: Duration,
    /// Calls per second of an open loop whose rate depends on the run.
    pub(crate) rate: Option<NonZeroU32>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The figures.
    pub(crate) sample: Sample,
    /// What a reader of the figures must know.
    pub(crate) notes: Vec<String>,
}

impl Bout {
    /// Measures once.
    ///
    /// # Errors
    ///
    /// When one of the processes fails, when a reply is wrong or missing, and when the server grows
    /// without bounds; the error does not say which work and which system it was.
    pub(crate) fn measure(&self) -> io::Result<Outcome> {
        let program = std::env::current_exe()?;
        let has_heap = self.work.figures().contains(&Figure::Heap);
        let mut outcome = self.measure_with(&program, PLAIN)?;
        if has_heap {
            match counting(&program) {
                Ok(program) => {
                    let counted = self.measure_with(&program, COUNTED)?;
                    if let Some(heap) = counted.sample.get(Figure::Heap) {
                        outcome.sample = outcome.sample.with(Figure::Heap, heap);
                    }
                }
                Err(why) => outcome.notes.push(format!(
                    "the live heap is not known, for {why}; `cargo build --release -p benchmarks` \
                     builds both"
                )),
            }
        }
        Ok(outcome)
    }

    /// Asks the same before and after, and what disturbs another question outside of it: processor
    /// time is asked last before the load and first after it.
    fn measure_with(&self, program: &Path, questions: &[Question]) -> io::Result<Outcome> {
        let [serving, driving] = self.work.placements(self.processors);
        let [name, work] = [self.system.name.to_owned(), self.work.to_string()];
        let mut server = Child::spawn(program, "serve", [name, work, serving.to_string()])?;
        let orders = Drive {
            placement: driving,
            address: parse(&server.hear(PATIENCE)?)?,
            system: self.system,
            work: self.work,
            warm_up: self.warm_up,
            measured: self.measured,
            rate: self.rate,
        };
        let mut client = Child::spawn(program, "drive", orders.to_arguments())?;
        let mut notes = Vec::new();
        let ready = self.hear(&mut client, &server, &mut notes)?;
        if ready != READY {
            return Err(io::Error::other(format!(
                "the client said {ready:?} instead of {READY:?}"
            )));
        }
        let before = Readings::ask(&mut server, questions.iter())?;
        client.tell(GO)?;
        let report = self.hear(&mut client, &server, &mut notes)?;
        let after = Readings::ask(&mut server, questions.iter().rev())?;
        let report: Report = serde_json::from_str(&report)?;
        if report.count == 0 {
            return Err(io::Error::other("not a single message was answered"));
        }
        let sample = (self.work.figures().iter())
            .filter_map(|&figure| Some((figure, value(figure, &before, &report, &after)?)))
            .fold(Sample::default(), |sample, (figure, value)| {
                sample.with(figure, value)
            });
        Ok(Outcome { sample, notes })
    }

    /// Waits for a line of the client, and watches how the server grows meanwhile.
    fn hear(
        &self,
        client: &mut Child,
        server: &Child,
        notes: &mut Vec<String>,
    ) -> io::Result<String> {
        // A busy machine is no reason to give up.
        let patience = PATIENCE + 4 * self.work.estimate(self.warm_up, self.measured);
        let limit = self.work.memory_limit();
        let server = Process::Other(server.id());
        let mut stopped = false;
        client.hear_and(patience, LOOK_EVERY, |client| {
            let resident = server
                .about_resident_bytes()
                .map_err(|error| io::Error::other(format!("the server has ended: {error}")))?;
            if stopped || resident <= limit {
                return Ok(());
            }
            let what = format!(
                "the server held {} MiB, the limit is {} MiB",
                resident >> 20,
                limit >> 20
            );
            if !self.work.ends_at_the_memory_limit() {
                return Err(io::Error::other(what));
            }
            stopped = true;
            notes.push(format!("{what}: the load was stopped early"));
            client.tell(STOP)
        })
    }
}

/// What a server is asked whose time and memory are measured.
const PLAIN: &[Question] = &[Question::PeakMemory, Question::Memory, Question::Cpu];

/// What a server is asked that counts its allocations, which takes time.
const COUNTED: &[Question] = &[Question::Heap];

/// What a server has answered.
struct Readings(Vec<(Question, u64)>);

impl Readings {
    fn ask<'a>(
        server: &mut Child,
        questions: impl Iterator<Item = &'a Question>,
    ) -> io::Result<Self> {
        questions
            .map(|&question| {
                server.tell(question.line())?;
                Ok((question, parse(&server.hear(PATIENCE)?)?))
            })
            .collect::<io::Result<_>>()
            .map(Self)
    }

    fn get(&self, question: Question) -> Option<f64> {
        let mut answers = self.0.iter();
        let (_, answer) = answers.find(|(asked, _)| *asked == question)?;
        Some(*answer as f64)
    }
}

/// `None` if it was not measured.
fn value(figure: Figure, before: &Readings, report: &Report, after: &Readings) -> Option<f64> {
    let count = report.count as f64;
    let increase = |from, to| Some((after.get(to)? - before.get(from)?).max(0.0));
    let each = |question| Some(increase(question, question)? / count);
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    let latency = report.latency;
    match figure {
        Figure::Rate => Some(count * 1e9 / report.elapsed_ns as f64),
        Figure::ServerCpu => each(Question::Cpu),
        Figure::ClientCpu => Some(report.cpu_ns as f64 / count),
        Figure::P50 => latency.map(|latency| microseconds(latency.p50_ns)),
        Figure::P99 => latency.map(|latency| microseconds(latency.p99_ns)),
        Figure::P999 => latency.map(|latency| microseconds(latency.p999_ns)),
        Figure::Max => latency.map(|latency| microseconds(latency.max_ns)),
        Figure::SendDelay => report.send_delay_p99_ns.map(microseconds),
        Figure::Rss => each(Question::Memory),
        Figure::Heap => each(Question::Heap),
        Figure::PeakRss => increase(Question::Memory, Question::PeakMemory),
        Figure::ClientPeakRss => report.peak_growth.map(|bytes| bytes as f64),
    }
}

/// How much older the program that counts may be than this one, which is linked after it or before it:
/// beyond that it has been left behind by an earlier build, and would count in other code.
const BUILT_TOGETHER: Duration = Duration::from_secs(120);

/// The program that counts, which is built beside this one.
///
/// # Errors
///
/// Why there is none that belongs to this one, for people.
fn counting(program: &Path) -> Result<PathBuf, String> {
    let counting = program.with_file_name(COUNTING);
    let built = |program: &Path| program.metadata()?.modified();
    let Ok(then) = built(&counting) else {
        return Err(format!("there is no {COUNTING} beside this program"));
    };
    let age = built(program)
        .ok()
        .and_then(|now| now.duration_since(then).ok());
    match age {
        Some(age) if age > BUILT_TOGETHER => Err(format!(
            "the {COUNTING} beside this program is of an earlier build"
        )),
        _ => Ok(counting),
    }
}

fn parse<T>(line: &str) -> io::Result<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    line.parse()
        .map_err(|error| io::Error::other(format!("a child said {line:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::Latency;

    #[test]
    fn figures_are_per_message_or_per_connection() {
        let report = Report {
            count: 2_000,
            elapsed_ns: 500_000_000,
            cpu_ns: 100_000,
            latency: Some(Latency {
                p50_ns: 1_500,
                p99_ns: 2_000,
                p999_ns: 30_000,
                max_ns: 31_000,
            }),
            send_delay_p99_ns: Some(7_000),
            peak_growth: Some(5_000),
        };
        let readings = |cpu, memory, peak, heap| {
            Readings(vec![
                (Question::Cpu, cpu),
                (Question::Memory, memory),
                (Question::PeakMemory, peak),
                (Question::Heap, heap),
            ])
        };
        let before = readings(100_000, 1_000_000, 1_500_000, 10_000);
        let after = readings(400_000, 3_000_000, 9_000_000, 30_000);
        let expected = [
            (Figure::Rate, 4_000.0),
            (Figure::ServerCpu, 150.0),
            (Figure::ClientCpu, 50.0),
            (Figure::P50, 1.5),
            (Figure::P99, 2.0),
            (Figure::P999, 30.0),
            (Figure::Max, 31.0),
            (Figure::SendDelay, 7.0),
            (Figure::Rss, 1_000.0),
            (Figure::Heap, 10.0),
            (Figure::PeakRss, 8_000_000.0),
            (Figure::ClientPeakRss, 5_000.0),
        ];
        assert_eq!(expected.len(), Figure::ALL.len());
        for (figure, expected) in expected {
            let value = value(figure, &before, &report, &after);
            assert_eq!(value, Some(expected), "{figure:?}");
        }
    }

    #[test]
    fn what_was_not_measured_has_no_value() {
        let report = Report {
            count: 1,
            elapsed_ns: 1,
            cpu_ns: 1,
            latency: None,
            send_delay_p99_ns: None,
            peak_growth: None,
        };
        let nothing = Readings(Vec::new());
        for figure in [
            Figure::P99,
            Figure::SendDelay,
            Figure::ServerCpu,
            Figure::Heap,
            Figure::ClientPeakRss,
        ] {
            assert_eq!(value(figure, &nothing, &report, &nothing), None);
        }
    }
}
