//! Others beside the hostile peer, and what the server does for them.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    Target,
    peer::{End, Output, Peer, Reading, Role, Window},
    system,
};

/// One attempt of a well-behaved client: connect, hold the conversation, close.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeOutcome {
    /// The server answered after this time, from the connect on.
    Answered(Duration),
    /// There was no connection.
    Refused(String),
    /// There was a connection, and no answer or another one than expected.
    Unanswered(String),
}

impl ProbeOutcome {
    /// Whether the server did what it should.
    pub fn is_answered(&self) -> bool {
        matches!(self, Self::Answered(_))
    }

    /// What went wrong, if something did.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Answered(_) => None,
            Self::Refused(problem) | Self::Unanswered(problem) => Some(problem),
        }
    }
}

/// How well-behaved clients fared while a case went on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeSummary {
    /// How many the server answered.
    pub answered: usize,
    /// How many it did not.
    pub lost: usize,
    /// The time that half of those that were answered stayed below.
    pub median: Option<Duration>,
    /// The longest time until an answer.
    pub slowest: Option<Duration>,
    /// What went wrong first.
    pub problem: Option<String>,
}

/// A well-behaved client that was there before, and stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Neighbour {
    /// How many conversations it held on its one connection while the case went on.
    pub conversations: usize,
    /// The longest of them.
    pub slowest: Option<Duration>,
    /// What put an end to them, if something did.
    pub problem: Option<String>,
}

/// Ask once.
///
/// Without a conversation it is enough to be let in, and not to be thrown out at once.
pub(super) async fn probe(target: &Target) -> ProbeOutcome {
    /// How long "at once" is.
    const AT_ONCE: Duration = Duration::from_millis(50);

    let begun = Instant::now();
    let opened = Peer::open(
        Role::Other,
        target.address,
        Window::Normal,
        target.probe_patience,
    )
    .await;
    let mut peer = match opened {
        Ok(peer) => peer,
        Err(error) if system::is_our_own(&error) => {
            return ProbeOutcome::Refused(format!(
                "{error}: this is a limit of the attacking process, not of the server"
            ));
        }
        Err(error) => return ProbeOutcome::Refused(error.to_string()),
    };
    let open = begun.elapsed();
    if let Err(error) = peer.will_close() {
        return ProbeOutcome::Refused(error.to_string());
    }
    if target.conversation.steps().is_empty() {
        let until = Instant::now() + AT_ONCE;
        let thrown_out = peer
            .play_until(&mut Output::nothing(), Reading::All, until, |_| true, None)
            .await;
        return match thrown_out {
            None => ProbeOutcome::Answered(open),
            Some(End::Closed) => ProbeOutcome::Unanswered("the server closed it at once".into()),
            Some(End::Reset) => ProbeOutcome::Unanswered("the server reset it at once".into()),
        };
    }
    for step in target.conversation.steps() {
        if let Err(problem) = peer.converse(step, target.probe_patience).await {
            return ProbeOutcome::Unanswered(problem);
        }
    }
    ProbeOutcome::Answered(begun.elapsed())
}

/// Ask again and again until told to stop, and at least once.
pub(super) async fn probe_until(target: Target, mut stop: watch::Receiver<bool>) -> ProbeSummary {
    let mut summary = ProbeSummary::default();
    let mut times = Vec::new();
    loop {
        match probe(&target).await {
            ProbeOutcome::Answered(time) => times.push(time),
            lost => {
                summary.lost += 1;
                summary.problem = summary
                    .problem
                    .or_else(|| lost.problem().map(str::to_owned));
            }
        }
        if *stop.borrow() {
            break;
        }
        let told = timeout(target.probe_interval, stop.wait_for(|stop| *stop)).await;
        if matches!(told, Ok(Err(_))) {
            break; // nobody is there to tell the end
        }
    }
    times.sort_unstable();
    summary.answered = times.len();
    summary.median = times.get(times.len() / 2).copied();
    summary.slowest = times.last().copied();
    summary
}

/// Move in: a connection on which the conversation was held twice. `None` if the server does not
/// hold it twice on one connection, or there is none to be held.
pub(super) async fn move_in(target: &Target) -> Option<Peer> {
    if !target.conversation.has_request() {
        return None;
    }
    let opened = Peer::open(
        Role::Other,
        target.address,
        Window::Normal,
        target.probe_patience,
    )
    .await;
    let mut peer = opened.ok()?;
    peer.will_close().ok()?;
    for step in target.conversation.steps() {
        peer.converse(step, target.probe_patience).await.ok()?;
    }
    stays_open(&mut peer).await.then_some(())?;
    ask_again(&mut peer, target).await.ok()?;
    stays_open(&mut peer).await.then_some(peer)
}

/// Whether the server leaves a connection open on which it has answered.
async fn stays_open(peer: &mut Peer) -> bool {
    /// Longer than a server takes to close behind its answer.
    const BEHIND_ANSWER: Duration = Duration::from_millis(100);
    let until = Instant::now() + BEHIND_ANSWER;
    let mut silence = Output::nothing();
    let end = peer.play(&mut silence, Reading::All, until).await;
    end.is_none()
}

/// Hold the conversation again and again until told to stop, and once more then.
pub(super) async fn stay(
    mut peer: Peer,
    target: Target,
    mut stop: watch::Receiver<bool>,
) -> Neighbour {
    let mut neighbour = Neighbour::default();
    let mut stopped = false;
    while neighbour.problem.is_none() {
        let begun = Instant::now();
        match ask_again(&mut peer, &target).await {
            Ok(()) => {
                neighbour.conversations += 1;
                neighbour.slowest = neighbour.slowest.max(Some(begun.elapsed()));
            }
            Err(problem) => neighbour.problem = Some(problem),
        }
        if stopped {
            break;
        }
        stopped = timeout(target.probe_interval, stop.wait_for(|stop| *stop))
            .await
            .is_ok();
    }
    neighbour
}

/// What a server says by itself, it says only once.
async fn ask_again(peer: &mut Peer, target: &Target) -> Result<(), String> {
    peer.forget_unread();
    let steps = target.conversation.steps().iter();
    for step in steps.filter(|step| !step.say.is_empty()) {
        peer.converse(step, target.probe_patience).await?;
    }
    Ok(())
}
