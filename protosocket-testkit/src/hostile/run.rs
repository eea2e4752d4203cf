//! A case from its beginning to its verdict.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval},
};

use super::{
    Case, CaseReport, Memory, ProbeOutcome, ProbeSummary, Target, Verdict, attack::attack,
    probe as others, system,
};

/// How often the memory of the server's process is looked at.
const SAMPLE: Duration = Duration::from_millis(20);

/// Do this to the server, while others ask it for service, and report.
///
/// Must be called in a tokio runtime with I/O and time; the clock must not be paused. It takes as
/// long as the server keeps the hostile connections, at most [`Target::patience`] and the time that
/// probes take. Whatever is open is reset when this returns or is dropped.
pub async fn run(case: Case, target: &Target) -> CaseReport {
    let begun = Instant::now();
    let mut report = CaseReport::new(case, target.seed);
    if case.needs_request() && !target.conversation.has_request() {
        report.verdict = Verdict::Skipped("it needs a request of the server's protocol".into());
        return report;
    }
    let memory_before = target.pid.and_then(system::resident_memory);
    let before = probe(target).await;
    let well = before.is_answered();
    report.before = Some(before);
    if well {
        let peak = Arc::new(AtomicU64::new(memory_before.unwrap_or(0)));
        if let Err(why) = attack_beside_others(&mut report, target, &peak).await {
            report.verdict = Verdict::Skipped(why);
            report.took = begun.elapsed();
            return report;
        }
        report.after = Some(probe(target).await);
        let after = target.pid.and_then(system::resident_memory);
        if let (Some(before), Some(after)) = (memory_before, after) {
            report.memory = Some(Memory {
                before,
                peak: peak.load(Ordering::Relaxed).max(after),
                after,
            });
        }
    }
    let watched = memory_before.and(target.pid);
    let alive = watched.map(|pid| system::resident_memory(pid).is_some());
    report.judge(target, alive);
    report.took = begun.elapsed();
    report
}

/// Ask once as a well-behaved client: connect, hold the conversation, close.
pub async fn probe(target: &Target) -> ProbeOutcome {
    others::probe(target).await
}

async fn attack_beside_others(
    report: &mut CaseReport,
    target: &Target,
    peak: &Arc<AtomicU64>,
) -> Result<(), String> {
    let (stop_probes, probes_stopped) = watch::channel(false);
    let (stop_neighbour, neighbour_stopped) = watch::channel(false);
    // Tasks, because their figures must not depend on what the hostile peer does meanwhile.
    let mut neighbours = JoinSet::new();
    if let Some(peer) = others::move_in(target).await {
        neighbours.spawn(others::stay(peer, target.clone(), neighbour_stopped));
    }
    let mut probes: JoinSet<ProbeSummary> = JoinSet::new();
    probes.spawn(others::probe_until(target.clone(), probes_stopped));
    let mut samples = JoinSet::new();
    if let Some(pid) = target.pid {
        samples.spawn(sample(pid, peak.clone()));
    }
    let outcome = attack(report.case, target).await;
    // Whoever came while these were there is served beside them, or not at all.
    stop_probes.send_replace(true);
    if let Some(Ok(during)) = probes.join_next().await {
        report.during = during;
    }
    stop_neighbour.send_replace(true);
    if let Some(Ok(neighbour)) = neighbours.join_next().await {
        report.neighbour = Some(neighbour);
    }
    let outcome = outcome?;
    drop(outcome.kept);
    report.server = outcome.did;
    report.notes = outcome.notes;
    // Who could not be there has shown nothing, and others may have been missing for the same reason.
    if let Some(what) = outcome.unable {
        return Err(format!(
            "{what}: this is a limit of the attacking process, not of the server"
        ));
    }
    Ok(())
}

async fn sample(pid: u32, peak: Arc<AtomicU64>) {
    let mut tick = interval(SAMPLE);
    loop {
        tick.tick().await;
        if let Some(bytes) = system::resident_memory(pid) {
            peak.fetch_max(bytes, Ordering::Relaxed);
        }
    }
}
