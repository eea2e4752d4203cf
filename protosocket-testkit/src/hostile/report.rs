//! What became of a case, and whether that is what should.

use std::{fmt, time::Duration};

use super::{
    Case, Neighbour, ProbeOutcome, ProbeSummary, Target,
    case::Expected,
    peer::{End, Peer},
};

/// What became of a case.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CaseReport {
    /// What was done.
    pub case: Case,
    /// What came of it.
    pub verdict: Verdict,
    /// What the server did with the hostile connections.
    pub server: ServerDid,
    /// A probe before anything was done.
    pub before: Option<ProbeOutcome>,
    /// Probes beside it.
    pub during: ProbeSummary,
    /// Who was there before, if the server holds several conversations on one connection.
    pub neighbour: Option<Neighbour>,
    /// A probe when the hostile connections were gone.
    pub after: Option<ProbeOutcome>,
    /// The resident memory of the server's process, if it is known and alive.
    pub memory: Option<Memory>,
    /// What else is worth to be known, in sentences.
    pub notes: Vec<String>,
    /// How long it took, probes included.
    pub took: Duration,
    /// What everything random came from.
    pub seed: u64,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// As it should be, as far as it is judged.
    Passed,
    /// Not as it should be, for each of these reasons.
    Failed(Vec<Failure>),
    /// It could not be run, and says nothing.
    Skipped(String),
}

/// What the server did with the hostile connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerDid {
    /// How many connections there were.
    pub opened: usize,
    /// How many did not get in: refused, or not within the time.
    pub refused: usize,
    /// How many the server closed (FIN).
    pub closed: usize,
    /// How many it reset, or let go unseen while the peer did not read.
    pub reset: usize,
    /// How many it kept until the peer's patience was at its end.
    pub kept: usize,
    /// How many the peer ended by itself.
    pub left: usize,
    /// The longest time that it took to close or reset one.
    pub slowest: Option<Duration>,
    /// The longest time for which one was seen to be kept.
    pub kept_for: Option<Duration>,
    /// How many bytes the peers sent, or gave to their system to send.
    pub sent: u64,
    /// How many bytes came back.
    pub answered: u64,
    /// How many connections were kept without a byte of an answer, but for a greeting.
    pub kept_unanswered: usize,
}

/// Resident memory of the server's process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Before the case.
    pub before: u64,
    /// The most that was seen during the case.
    pub peak: u64,
    /// After the case.
    pub after: u64,
}

/// Why a case failed. It is the server that is to blame, or what the target was said to speak.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// A probe was lost before anything was done.
    UnwellBefore(String),
    /// Others were not served while the case went on.
    OthersUnserved {
        /// How many probes were lost.
        lost: usize,
        /// Of how many.
        asked: usize,
        /// What went wrong first.
        problem: String,
    },
    /// One of the others was served, but too late.
    OthersWaited {
        /// The longest that one of them waited.
        waited: Duration,
        /// For how long one may.
        allowed: Duration,
    },
    /// The connection of one who was there before was not served any more.
    NeighbourLost(String),
    /// The server let nobody in when the case was over.
    NotAccepting(String),
    /// The server did not answer when the case was over.
    UnwellAfter(String),
    /// The server's process has ended.
    ProcessEnded(u32),
    /// The server's process took more memory than it may.
    MemoryGrew {
        /// In bytes, before the case.
        before: u64,
        /// In bytes, at most.
        peak: u64,
        /// By how many bytes it may grow.
        allowed: u64,
    },
    /// The server's process has more memory after several cases than it may.
    MemoryKept {
        /// In bytes, before the first case.
        before: u64,
        /// In bytes, after the last case.
        after: u64,
        /// By how many bytes it may grow.
        allowed: u64,
    },
    /// The server took requests and answered none of them.
    Unanswered {
        /// For how long an answer was waited for.
        patience: Duration,
    },
    /// The server kept connections that it should have closed.
    Kept {
        /// How many.
        connections: usize,
        /// For how long they were watched.
        patience: Duration,
    },
}

impl CaseReport {
    pub(super) fn new(case: Case, seed: u64) -> Self {
        Self {
            case,
            verdict: Verdict::Passed,
            server: ServerDid::default(),
            before: None,
            during: ProbeSummary::default(),
            neighbour: None,
            after: None,
            memory: None,
            notes: Vec::new(),
            took: Duration::ZERO,
            seed,
        }
    }

    /// Whether it was run and nothing was wrong.
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }

    /// Why it failed: empty if it did not.
    pub fn failures(&self) -> &[Failure] {
        match &self.verdict {
            Verdict::Failed(failures) => failures,
            _ => &[],
        }
    }

    /// How many connections the server kept that it should have ended, which is a failure if the
    /// target is strict.
    pub fn overdue(&self) -> usize {
        match self.case.expected() {
            Expected::Prompt | Expected::Deadline => self.server.kept,
            Expected::DeadlineOrAnswer => self.server.kept_unanswered,
            Expected::Answer | Expected::Nothing => 0,
        }
    }

    /// The longest time until an answer that one of the others waited, beside the hostile peers or
    /// when they were gone. Those without an answer are counted elsewhere.
    pub fn longest_wait(&self) -> Option<Duration> {
        let neighbour = self.neighbour.as_ref();
        let after = match self.after {
            Some(ProbeOutcome::Answered(time)) => Some(time),
            _ => None,
        };
        self.during
            .slowest
            .max(neighbour.and_then(|neighbour| neighbour.slowest))
            .max(after)
    }

    /// Give the verdict. `alive` says whether the process still runs, if one is watched.
    pub(super) fn judge(&mut self, target: &Target, alive: Option<bool>) {
        let mut failures = Vec::new();
        if let (Some(pid), Some(false)) = (target.pid, alive) {
            failures.push(Failure::ProcessEnded(pid));
        }
        if let Some(problem) = self.before.as_ref().and_then(ProbeOutcome::problem) {
            failures.push(Failure::UnwellBefore(problem.into()));
        }
        if self.during.lost > 0 {
            failures.push(Failure::OthersUnserved {
                lost: self.during.lost,
                asked: self.during.lost + self.during.answered,
                problem: self.during.problem.clone().unwrap_or_default(),
            });
        }
        if let Some(waited) = self.longest_wait()
            && waited > target.max_wait
        {
            failures.push(Failure::OthersWaited {
                waited,
                allowed: target.max_wait,
            });
        }
        if let Some(Neighbour {
            problem: Some(problem),
            ..
        }) = &self.neighbour
        {
            failures.push(Failure::NeighbourLost(problem.clone()));
        }
        match &self.after {
            Some(ProbeOutcome::Refused(problem)) => {
                failures.push(Failure::NotAccepting(problem.clone()))
            }
            Some(ProbeOutcome::Unanswered(problem)) => {
                failures.push(Failure::UnwellAfter(problem.clone()));
            }
            Some(ProbeOutcome::Answered(_)) | None => {}
        }
        let unanswered =
            self.case.expected() == Expected::Answer && self.server.kept_unanswered > 0;
        if unanswered && target.strict {
            failures.push(Failure::Unanswered {
                patience: target.patience,
            });
        }
        let overdue = self.overdue();
        if overdue > 0 && (target.strict || self.case.expected() == Expected::Prompt) {
            failures.push(Failure::Kept {
                connections: overdue,
                patience: target.patience,
            });
        }
        if let Some(memory) = self.memory
            && memory.peak.saturating_sub(memory.before) > target.max_memory_growth
        {
            failures.push(Failure::MemoryGrew {
                before: memory.before,
                peak: memory.peak,
                allowed: target.max_memory_growth,
            });
        }
        if !failures.is_empty() {
            self.verdict = Verdict::Failed(failures);
        } else if self.server.opened == 0 {
            // Whoever was not there has done no harm, and shown nothing.
            self.verdict = Verdict::Skipped("no hostile peer was let in".into());
        }
    }
}

/// Whether the server's process has kept too much: its memory after the last of these cases, in the
/// order in which they were run, is more than [`Target::max_memory_growth`] above what it was
/// before the first.
///
/// A server that leaves a little behind in each case passes each of them, and fails this. `None` if
/// it has not, or if its memory is not known.
pub fn memory_kept(reports: &[CaseReport], target: &Target) -> Option<Failure> {
    let mut memories = reports.iter().filter_map(|report| report.memory);
    let first = memories.next()?;
    let (before, after) = (first.before, memories.next_back().unwrap_or(first).after);
    let allowed = target.max_memory_growth;
    let grown = after.saturating_sub(before);
    (grown > allowed).then_some(Failure::MemoryKept {
        before,
        after,
        allowed,
    })
}

impl ServerDid {
    /// What became of a connection: `None` if the server kept it, and how long that took.
    pub(super) fn count(&mut self, peer: &Peer, end: Option<End>, after: Duration) {
        self.count_bytes(peer);
        match end {
            Some(End::Closed) => self.closed += 1,
            Some(End::Reset) => self.reset += 1,
            None => {
                self.kept += 1;
                self.kept_unanswered += usize::from(!peer.is_answered());
                self.kept_for = self.kept_for.max(Some(after));
            }
        }
        if end.is_some() {
            self.slowest = self.slowest.max(Some(after));
        }
    }

    /// The peer ended it.
    pub(super) fn count_left(&mut self, peer: &Peer) {
        self.count_bytes(peer);
        self.left += 1;
    }

    fn count_bytes(&mut self, peer: &Peer) {
        self.opened += 1;
        self.sent += peer.sent;
        self.answered += peer.answered;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.refused += other.refused;
        self.closed += other.closed;
        self.reset += other.reset;
        self.kept += other.kept;
        self.left += other.left;
        self.slowest = self.slowest.max(other.slowest);
        self.kept_for = self.kept_for.max(other.kept_for);
        self.sent += other.sent;
        self.answered += other.answered;
        self.kept_unanswered += other.kept_unanswered;
    }
}

/// `closed`, or how many of each if there are several: `480 closed, 20 kept`.
impl fmt::Display for ServerDid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.closed, "closed"),
            (self.reset, "reset"),
            (self.kept, "kept"),
            (self.refused, "not let in"),
            (self.left, "left"),
        ];
        let mut parts = Vec::new();
        for (count, what) in all {
            match count {
                0 => {}
                1 if self.opened + self.refused == 1 => parts.push(what.to_owned()),
                _ => parts.push(format!("{count} {what}")),
            }
        }
        f.pad(&match parts.is_empty() {
            true => "-".to_owned(),
            false => parts.join(", "),
        })
    }
}

impl Failure {
    /// A short name for machines, which stays.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnwellBefore(_) => "unwell-before",
            Self::OthersUnserved { .. } => "others-unserved",
            Self::OthersWaited { .. } => "others-waited",
            Self::NeighbourLost(_) => "neighbour-lost",
            Self::NotAccepting(_) => "not-accepting",
            Self::UnwellAfter(_) => "unwell-after",
            Self::ProcessEnded(_) => "process-ended",
            Self::MemoryGrew { .. } => "memory-grew",
            Self::MemoryKept { .. } => "memory-kept",
            Self::Unanswered { .. } => "unanswered",
            Self::Kept { .. } => "kept",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnwellBefore(problem) => {
                write!(f, "not served before anything was done: {problem}")
            }
            Self::OthersUnserved {
                lost,
                asked,
                problem,
            } => write!(f, "{lost} of {asked} others were not served: {problem}"),
            Self::OthersWaited { waited, allowed } => write!(
                f,
                "one of the others waited for {waited:.1?}, and may wait for {allowed:?}"
            ),
            Self::NeighbourLost(problem) => {
                write!(f, "a connection that was there before was lost: {problem}")
            }
            Self::NotAccepting(problem) => write!(f, "nobody is let in any more: {problem}"),
            Self::UnwellAfter(problem) => write!(f, "not served afterwards: {problem}"),
            Self::ProcessEnded(pid) => write!(f, "process {pid} has ended"),
            Self::MemoryGrew {
                before,
                peak,
                allowed,
            } => write!(
                f,
                "memory grew by {} to {}, and may grow by {}",
                Bytes(peak.saturating_sub(*before)),
                Bytes(*peak),
                Bytes(*allowed)
            ),
            Self::MemoryKept {
                before,
                after,
                allowed,
            } => write!(
                f,
                "memory is {} after the last case, {} more than before the first, and may be {} more",
                Bytes(*after),
                Bytes(after.saturating_sub(*before)),
                Bytes(*allowed)
            ),
            Self::Unanswered { patience } => {
                write!(f, "no request was answered within {patience:?}")
            }
            Self::Kept {
                connections: 1,
                patience,
            } => write!(f, "the connection was still open after {patience:?}"),
            Self::Kept {
                connections,
                patience,
            } => write!(
                f,
                "{connections} connections were still open after {patience:?}"
            ),
        }
    }
}

/// A report for an assertion that failed.
impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.case)?;
        match &self.verdict {
            Verdict::Passed => f.write_str("ok")?,
            Verdict::Skipped(why) => return write!(f, "skipped: {why}"),
            Verdict::Failed(failures) => {
                let failures: Vec<String> = failures.iter().map(Failure::to_string).collect();
                write!(f, "FAILED: {}", failures.join("; "))?;
            }
        }
        write!(
            f,
            "\n  hostile connections: {}, {} sent, {} answered\n  others: {} served, {} not\n  \
             seed {}",
            self.server,
            Bytes(self.server.sent),
            Bytes(self.server.answered),
            self.during.answered,
            self.during.lost,
            self.seed
        )?;
        self.notes
            .iter()
            .try_for_each(|note| write!(f, "\n  {note}"))
    }
}

/// A number of bytes as people say it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            bytes @ 0..1024 => format!("{bytes} B"),
            bytes @ 1024..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
            bytes => format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0)),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        let address = "127.0.0.1:1".parse().expect("an address");
        Target::new(address).expect("loopback")
    }

    fn judged(case: Case, target: &Target, change: impl FnOnce(&mut CaseReport)) -> Vec<Failure> {
        let mut report = CaseReport::new(case, 0);
        report.before = Some(ProbeOutcome::Answered(Duration::ZERO));
        report.after = Some(ProbeOutcome::Answered(Duration::ZERO));
        report.server.opened = 1;
        change(&mut report);
        report.judge(target, None);
        report.failures().to_vec()
    }

    fn names(failures: &[Failure]) -> Vec<&'static str> {
        failures.iter().map(Failure::name).collect()
    }

    #[test]
    fn all_well_passes() {
        for case in Case::all() {
            assert_eq!(judged(case, &target().strict(true), |_| {}), []);
        }
    }

    #[test]
    fn memory_is_judged_by_its_growth() {
        let grown = |by: u64| {
            judged(Case::NeverReads, &target(), |report| {
                report.memory = Some(Memory {
                    before: 1 << 30,
                    peak: (1 << 30) + by,
                    after: 1 << 30,
                });
            })
        };
        let allowed = 64 * 1024 * 1024;
        assert_eq!(grown(allowed), []);
        assert_eq!(names(&grown(allowed + 1)), ["memory-grew"]);
        let text = grown(2 * allowed)[0].to_string();
        assert!(text.contains("by 128.0 MiB to 1152.0 MiB"), "{text}");
    }

    #[test]
    fn memory_that_is_left_behind_adds_up() {
        let mib = 1024 * 1024;
        let kept = |befores_and_afters: &[(u64, u64)]| {
            let mut reports = vec![CaseReport::new(Case::Fin, 0)];
            for (before, after) in befores_and_afters {
                let mut report = CaseReport::new(Case::Churn, 0);
                report.memory = Some(Memory {
                    before: before * mib,
                    peak: after * mib,
                    after: after * mib,
                });
                reports.push(report);
            }
            reports.push(CaseReport::new(Case::Fin, 0));
            memory_kept(&reports, &target()).map(|failure| failure.to_string())
        };
        assert_eq!(kept(&[]), None);
        assert_eq!(kept(&[(10, 40), (40, 74)]), None);
        assert_eq!(kept(&[(10, 200), (200, 9)]), None);
        let text = kept(&[(10, 40), (40, 75)]).expect("one more than 64 MiB");
        assert!(
            text.contains("75.0 MiB after the last case, 65.0 MiB more"),
            "{text}"
        );
        assert!(kept(&[(10, 75)]).is_some());
    }

    #[test]
    fn the_wait_of_each_of_the_others_is_judged() {
        let limit = Duration::from_millis(700);
        let target = target().max_wait(limit).expect("within bounds");
        let slow = Some(limit + Duration::from_millis(1));
        let changes: [fn(&mut CaseReport, Option<Duration>); 3] = [
            |report, time| report.during.slowest = time,
            |report, slowest| {
                report.neighbour = Some(Neighbour {
                    slowest,
                    ..Neighbour::default()
                });
            },
            |report, time| report.after = time.map(ProbeOutcome::Answered),
        ];
        for change in changes {
            let failures = judged(Case::Churn, &target, |report| change(report, Some(limit)));
            assert_eq!(failures, []);
            let failures = judged(Case::Churn, &target, |report| change(report, slow));
            assert_eq!(names(&failures), ["others-waited"]);
            let text = failures[0].to_string();
            assert!(text.contains("701.0ms, and may wait for 700ms"), "{text}");
        }
    }

    #[test]
    fn probes_are_judged_before_during_and_after() {
        let failures = judged(Case::Churn, &target(), |report| {
            report.before = Some(ProbeOutcome::Unanswered("cold".into()));
            report.during.lost = 2;
            report.during.answered = 3;
            report.after = Some(ProbeOutcome::Unanswered("warm".into()));
        });
        let expected = ["unwell-before", "others-unserved", "unwell-after"];
        assert_eq!(names(&failures), expected);
        assert!(failures[1].to_string().starts_with("2 of 5"));
        let failures = judged(Case::Churn, &target(), |report| {
            report.after = Some(ProbeOutcome::Refused("gone".into()));
        });
        assert_eq!(names(&failures), ["not-accepting"]);
    }

    #[test]
    fn a_case_whose_peer_was_not_let_in_says_nothing() {
        let verdict = |after| {
            let mut report = CaseReport::new(Case::NeverSends, 0);
            report.server.refused = 1;
            report.after = Some(after);
            report.judge(&target(), None);
            report.verdict
        };
        let passed = verdict(ProbeOutcome::Answered(Duration::ZERO));
        assert!(matches!(passed, Verdict::Skipped(_)), "{passed:?}");
        let failed = verdict(ProbeOutcome::Refused("gone".into()));
        assert!(matches!(failed, Verdict::Failed(_)), "{failed:?}");
    }

    #[test]
    fn a_process_that_ended_is_the_first_thing_told() {
        let mut report = CaseReport::new(Case::Churn, 0);
        report.after = Some(ProbeOutcome::Refused("gone".into()));
        report.judge(&target().pid(7), Some(false));
        let expected = ["process-ended", "not-accepting"];
        assert_eq!(names(report.failures()), expected);
        assert!(report.to_string().contains("process 7 has ended"));
    }

    #[test]
    fn what_is_kept_is_judged_where_a_close_is_due() {
        let kept = |case, strict, answered: bool| {
            let failures = judged(case, &target().strict(strict), |report| {
                report.server.kept = 1;
                report.server.kept_unanswered = usize::from(!answered);
            });
            names(&failures)
        };
        let garbage = Case::select("garbage-zeros")[0];
        assert_eq!(kept(Case::Fin, false, true), ["kept"]);
        assert_eq!(kept(Case::NeverSends, false, false), [""; 0]);
        assert_eq!(kept(Case::NeverSends, true, true), ["kept"]);
        assert_eq!(kept(garbage, false, false), [""; 0]);
        assert_eq!(kept(garbage, true, false), ["kept"]);
        assert_eq!(kept(garbage, true, true), [""; 0]);
        assert_eq!(kept(Case::Pipelining, true, false), ["unanswered"]);
        assert_eq!(kept(Case::Pipelining, false, false), [""; 0]);
        assert_eq!(kept(Case::Pipelining, true, true), [""; 0]);
    }

    #[test]
    fn what_the_server_did_reads_well() {
        let mut did = ServerDid::default();
        assert_eq!(did.to_string(), "-");
        did.opened = 1;
        did.closed = 1;
        assert_eq!(did.to_string(), "closed");
        did.opened = 9;
        did.kept = 8;
        assert_eq!(did.to_string(), "1 closed, 8 kept");
        assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
    }
}
