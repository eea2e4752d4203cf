//! What each case does.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

use super::{
    Case, ServerDid, Target,
    case::{Expected, Garbage},
    conversation::Search,
    payload,
    peer::{End, Output, Peer, Reading, Role, Window},
    system,
};
use crate::Random;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) did: ServerDid,
    pub(super) notes: Vec<String>,
    /// What this process or this machine ran out of, because of which a peer did not get in.
    pub(super) unable: Option<String>,
    /// How many peers held the conversation to its end.
    conversations: usize,
    /// Peers that the server has kept. They stay until the last of the others who came beside them
    /// has been served: one who is served when they have gone was not served beside them.
    pub(super) kept: Vec<Peer>,
}

/// How many connections are being opened at the same time.
const OPENING: usize = 64;

/// How many connections of cases that go through a list are there at the same time.
const BESIDE: usize = 16;

/// After an answer, how long to wait for more of it.
const QUIET: Duration = Duration::from_millis(500);

/// Do it to the target. The error says why it cannot be done here.
pub(super) async fn attack(case: Case, target: &Target) -> Result<Outcome, String> {
    if case.needs_request() && !target.conversation.has_request() {
        return Err("it needs a request of the server's protocol".into());
    }
    let mut random = Random::new(target.seed);
    let said = target.conversation.said();
    match case {
        Case::NeverSends => one(case, target, Window::Normal, Output::nothing).await,
        Case::Dribble => {
            let bytes = dribbled(target.conversation.first_said());
            let pieces = u32::try_from(bytes.len()).unwrap_or(u32::MAX).max(1);
            let every = target.dribble_interval.max(target.patience / pieces);
            let output = move || Output::dribble(bytes, every);
            one(case, target, Window::Normal, output).await
        }
        Case::NeverReads => one(case, target, Window::Normal, || endless(&said, target)).await,
        Case::ZeroWindow => one(case, target, Window::Small, || endless(&said, target)).await,
        Case::TinyWindow => one(case, target, Window::Tiny, || endless(&said, target)).await,
        Case::Garbage(Garbage::Mutated) => mutated(case, target, &said, &mut random).await,
        Case::Garbage(shape) => {
            let bytes = payload::garbage(shape, &said, &mut random);
            one(case, target, Window::Normal, || Output::once(bytes)).await
        }
        Case::GiantLength(framing) => {
            let bytes = payload::giant_length(framing);
            one(case, target, Window::Normal, || Output::once(bytes)).await
        }
        Case::TlsHalfHello => {
            let mut hello = payload::client_hello(&mut random);
            hello.truncate(hello.len() / 2);
            one(case, target, Window::Normal, || Output::once(hello)).await
        }
        Case::TlsHello => {
            let hello = payload::client_hello(&mut random);
            one(case, target, Window::Normal, || Output::once(hello)).await
        }
        Case::Reset | Case::Fin => leave_everywhere(case, target, &mut random).await,
        Case::HalfOpen => vanish(target).await,
        Case::ConnectFlood => flood(target).await,
        Case::Churn => churn(target).await,
        Case::Pipelining => pipeline(target, &said).await,
    }
}

/// All of the first request but its last byte; without one, what is the beginning of a line and of an
/// enormous message.
fn dribbled(said: &[u8]) -> Bytes {
    match said.split_last() {
        None => Bytes::from_static(&[b'a'; 4096]),
        Some((_, [])) => Bytes::new(),
        Some((_, most)) => Bytes::copy_from_slice(most),
    }
}

/// As many requests as may be sent.
fn endless(said: &[u8], target: &Target) -> Output {
    Output::repeated(said, (target.max_bytes / said.len() as u64).max(1))
}

/// One connection, which says something and is watched.
async fn one(
    case: Case,
    target: &Target,
    window: Window,
    output: impl FnOnce() -> Output,
) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let Some(mut peer) = open(target, window, &mut outcome).await else {
        return Ok(outcome);
    };
    let reading = match case {
        Case::NeverReads | Case::ZeroWindow => Reading::Nothing,
        Case::TinyWindow => Reading::Every(target.dribble_interval),
        _ => Reading::All,
    };
    // What a server says to everybody is no answer.
    if case.expected() == Expected::DeadlineOrAnswer
        && let Err(problem) = peer
            .hear_greeting(&target.conversation, target.probe_patience)
            .await
    {
        outcome.notes.push(format!("no greeting: {problem}"));
    }
    let mut output = output();
    let end = play(case, target, &mut peer, &mut output, reading).await;
    if reading != Reading::All {
        peer.count_unread();
    }
    if end.is_none() && reading != Reading::All && output.is_done() {
        outcome.notes.push(
            "the server took every request and could get rid of all answers: more bytes to send \
             would show more"
                .into(),
        );
    }
    let after = peer.opened.elapsed();
    outcome.count(peer, end, after);
    Ok(outcome)
}

async fn play(
    case: Case,
    target: &Target,
    peer: &mut Peer,
    output: &mut Output,
    reading: Reading,
) -> Option<End> {
    let until = Instant::now() + target.patience;
    // A server that has answered has taken what came for a request, and may wait for the next.
    let quiet = (case.expected() == Expected::DeadlineOrAnswer).then_some(QUIET);
    peer.play_until(output, reading, until, |_| false, quiet)
        .await
}

async fn open(target: &Target, window: Window, outcome: &mut Outcome) -> Option<Peer> {
    outcome.count_opened(
        Peer::open(Role::Hostile, target.address, window, target.probe_patience).await,
    )
}

/// Do all of these, a bounded number at the same time.
async fn all<F>(tasks: impl IntoIterator<Item = F>) -> Outcome
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut total = Outcome::default();
    let mut running = JoinSet::new();
    for task in tasks {
        if running.len() >= BESIDE {
            total.add(running.join_next().await);
        }
        running.spawn(task);
    }
    while !running.is_empty() {
        total.add(running.join_next().await);
    }
    total
}

impl Outcome {
    fn count_opened(&mut self, opened: io::Result<Peer>) -> Option<Peer> {
        if let Err(error) = &opened {
            self.did.refused += 1;
            if self.unable.is_none() && system::is_our_own(error) {
                self.unable = Some(error.to_string());
            }
            if self.notes.is_empty() {
                self.notes.push(format!("not let in: {error}"));
            }
        }
        opened.ok()
    }

    fn count(&mut self, peer: Peer, end: Option<End>, after: Duration) {
        self.did.count(&peer, end, after);
        if end.is_none() {
            self.kept.push(peer);
        }
    }

    fn add(&mut self, joined: Option<Result<Self, tokio::task::JoinError>>) {
        let Some(Ok(other)) = joined else {
            self.notes.push("a peer of this program failed".into());
            return;
        };
        self.did.add(&other.did);
        self.conversations += other.conversations;
        self.unable = self.unable.take().or(other.unable);
        self.kept.extend(other.kept);
        for note in other.notes {
            if !self.notes.contains(&note) && self.notes.len() < 4 {
                self.notes.push(note);
            }
        }
    }
}

async fn mutated(
    case: Case,
    target: &Target,
    said: &[u8],
    random: &mut Random,
) -> Result<Outcome, String> {
    const CONNECTIONS: usize = 32;
    let requests: Vec<Vec<u8>> = (0..CONNECTIONS)
        .map(|_| payload::garbage(Garbage::Mutated, said, random))
        .collect();
    let peers = requests.into_iter().map(|request| {
        let target = target.clone();
        async move {
            let output = move || Output::once(request);
            let outcome = one(case, &target, Window::Normal, output).await;
            outcome.unwrap_or_default()
        }
    });
    Ok(all(peers).await)
}

/// A place in the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In this step, after so many bytes of what is said.
    Said(usize, usize),
    /// When this step has been answered.
    Heard(usize),
}

fn places(target: &Target, random: &mut Random) -> Vec<Place> {
    let steps = target.conversation.steps();
    let mut places = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let first = usize::from(number > 0);
        places.extend((first..=step.say.len()).map(|bytes| Place::Said(number, bytes)));
        places.push(Place::Heard(number));
    }
    if places.is_empty() {
        places.push(Place::Said(0, 0));
    }
    while places.len() > target.steps {
        places.remove(random.within(1..places.len() - 1));
    }
    places
}

/// End the connection at every place of the conversation.
async fn leave_everywhere(
    case: Case,
    target: &Target,
    random: &mut Random,
) -> Result<Outcome, String> {
    let places = places(target, random);
    let peers = places.into_iter().map(|place| {
        let target = target.clone();
        async move { leave_at(case, &target, place).await }
    });
    let mut outcome = all(peers).await;
    if case == Case::Fin && target.conversation.has_request() {
        let last = target.conversation.steps().len() - 1;
        outcome.notes.push(half_close(target, last).await);
    }
    Ok(outcome)
}

async fn leave_at(case: Case, target: &Target, place: Place) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(mut peer) = open(target, Window::Normal, &mut outcome).await else {
        return outcome;
    };
    if let Err(problem) = go_to(&mut peer, target, place).await {
        outcome.notes.push(problem);
    }
    if case == Case::Reset {
        outcome.did.count_left(&peer);
        return outcome;
    }
    let left = Instant::now();
    // If the server has ended the connection before, that is seen when it is read.
    let _ = peer.stream.shutdown().await;
    let until = left + target.patience;
    let end = peer.play(&mut Output::nothing(), Reading::All, until).await;
    outcome.count(peer, end, left.elapsed());
    outcome
}

/// Hold the conversation up to there.
async fn go_to(peer: &mut Peer, target: &Target, place: Place) -> Result<(), String> {
    let steps = target.conversation.steps();
    let (whole, said) = match place {
        Place::Said(step, bytes) => (step, bytes),
        Place::Heard(step) => (step + 1, 0),
    };
    for step in &steps[..whole] {
        peer.converse(step, target.probe_patience).await?;
    }
    let Some(step) = steps.get(whole) else {
        return Ok(());
    };
    let written = peer.stream.write_all(&step.say[..said]).await;
    peer.sent += said as u64;
    written.map_err(|error| format!("the server does not take the request: {error}"))
}

/// Whether a request is answered when the end of input follows it at once.
async fn half_close(target: &Target, last: usize) -> String {
    let step = &target.conversation.steps()[last];
    let mut search = Search::new(step.hear.as_ref());
    let opened = Peer::open(
        Role::Hostile,
        target.address,
        Window::Normal,
        target.probe_patience,
    )
    .await;
    if let Ok(mut peer) = opened
        && let place = Place::Said(last, step.say.len())
        && go_to(&mut peer, target, place).await.is_ok()
        && peer.stream.shutdown().await.is_ok()
    {
        let until = Instant::now() + target.patience;
        let enough = |bytes: &[u8]| {
            search.feed(bytes);
            search.found() > 0
        };
        peer.play_until(&mut Output::nothing(), Reading::All, until, enough, None)
            .await;
    }
    match search.found() {
        0 => "a request with a FIN right behind it was not answered".into(),
        _ => "a request with a FIN right behind it was answered".into(),
    }
}

/// Vanish inside a request, and after the conversation.
async fn vanish(target: &Target) -> Result<Outcome, String> {
    if !system::CAN_VANISH {
        return Err("only Linux lets a connection vanish without privileges".into());
    }
    let steps = target.conversation.steps();
    let mut places = Vec::new();
    if let Some(first) = steps.iter().position(|step| step.say.len() > 1) {
        places.push(Place::Said(first, steps[first].say.len() / 2));
    }
    places.push(match steps.len() {
        0 => Place::Said(0, 0),
        count => Place::Heard(count - 1),
    });
    let mut peers = JoinSet::new();
    for place in places {
        let target = target.clone();
        peers.spawn(async move {
            let mut outcome = Outcome::default();
            let Some(mut peer) = open(&target, Window::Normal, &mut outcome).await else {
                return Ok(outcome);
            };
            if let Err(problem) = go_to(&mut peer, &target, place).await {
                outcome.notes.push(problem);
            }
            let gone = Instant::now();
            let end = peer.vanish(gone + target.patience).await;
            let end =
                end.map_err(|error| format!("this system lets no connection vanish: {error}"));
            outcome.count(peer, end?, gone.elapsed());
            Ok::<_, String>(outcome)
        });
    }
    let mut total = Outcome::default();
    while let Some(joined) = peers.join_next().await {
        match joined {
            Ok(Err(why)) => return Err(why),
            Ok(Ok(outcome)) => total.add(Some(Ok(outcome))),
            Err(error) => total.add(Some(Err(error))),
        }
    }
    Ok(total)
}

/// Open many connections and hold them.
async fn flood(target: &Target) -> Result<Outcome, String> {
    /// Descriptors that probes and the program itself need.
    const RESERVE: usize = 32;
    let mut total = Outcome::default();
    let mut connections = target.connections;
    if let Some(left) = system::files_left() {
        // A server under test in the same process needs as many again.
        connections = connections.min((left / 2).saturating_sub(RESERVE).max(1));
    }
    if connections < target.connections {
        total.notes.push(format!(
            "only {connections} of {} connections: this process may open no more files (ulimit -n)",
            target.connections
        ));
    }
    let until = Instant::now() + target.patience;
    let opening = Arc::new(Semaphore::new(OPENING));
    let mut peers = JoinSet::new();
    for _ in 0..connections {
        let (target, opening) = (target.clone(), opening.clone());
        peers.spawn(async move {
            let mut outcome = Outcome::default();
            // Who has to wait too long has not got in either.
            let opened = timeout_at(until, async {
                let _permit = opening.acquire_owned().await;
                Peer::open(
                    Role::Hostile,
                    target.address,
                    Window::Normal,
                    target.probe_patience,
                )
                .await
            });
            let opened = opened.await.unwrap_or_else(|elapsed| Err(elapsed.into()));
            if let Some(mut peer) = outcome.count_opened(opened) {
                let end = peer.play(&mut Output::nothing(), Reading::All, until).await;
                let after = peer.opened.elapsed();
                outcome.count(peer, end, after);
            }
            outcome
        });
    }
    while !peers.is_empty() {
        total.add(peers.join_next().await);
    }
    if total.did.refused > 0 {
        total.notes.push(format!(
            "{} of {connections} did not get in while the flood lasted",
            total.did.refused
        ));
    }
    Ok(total)
}

/// How a connection of the churn goes.
#[derive(Debug, Clone, Copy)]
enum Going {
    Close,
    Reset,
    AfterConversation,
}

/// Connect and go.
async fn churn(target: &Target) -> Result<Outcome, String> {
    let mut pace = interval(Duration::from_secs(1) / u32::try_from(target.churn_rate).unwrap_or(1));
    // Never faster than asked for, even when this process was held up.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut total = Outcome::default();
    let mut peers = JoinSet::new();
    for number in 0..target.churn {
        pace.tick().await;
        if peers.len() >= OPENING {
            total.add(peers.join_next().await);
        }
        let going = match number % 3 {
            0 => Going::Close,
            1 => Going::Reset,
            _ => Going::AfterConversation,
        };
        let target = target.clone();
        peers.spawn(async move { come_and_go(&target, going).await });
    }
    while !peers.is_empty() {
        total.add(peers.join_next().await);
    }
    if target.conversation.has_request() {
        total.notes.push(format!(
            "{} of {} that wanted to hold the conversation could",
            total.conversations,
            target.churn / 3
        ));
    }
    Ok(total)
}

async fn come_and_go(target: &Target, going: Going) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(mut peer) = open(target, Window::Normal, &mut outcome).await else {
        return outcome;
    };
    if matches!(going, Going::AfterConversation)
        && let Some(last) = target.conversation.steps().len().checked_sub(1)
    {
        match go_to(&mut peer, target, Place::Heard(last)).await {
            Ok(()) => outcome.conversations += 1,
            Err(problem) => outcome.notes.push(problem),
        }
    }
    if !matches!(going, Going::Reset) {
        // A failure means a reset instead of a FIN, which a server survives as well.
        let _ = peer.will_close();
    }
    outcome.did.count_left(&peer);
    outcome
}

/// Many conversations in few writes.
async fn pipeline(target: &Target, said: &[u8]) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let Some(mut peer) = open(target, Window::Normal, &mut outcome).await else {
        return Ok(outcome);
    };
    let times = (target.pipelined as u64).min((target.max_bytes / said.len() as u64).max(1));
    let mut output = Output::repeated(said, times);
    let expected = target.conversation.last_heard();
    let mut search = Search::new(expected);
    let countable = expected.is_some_and(|expected| !expected.is_empty());
    let enough = |bytes: &[u8]| {
        search.feed(bytes);
        countable && search.found() >= times
    };
    // What a server says to everybody is no answer.
    if let Err(problem) = peer
        .hear_greeting(&target.conversation, target.probe_patience)
        .await
    {
        outcome.notes.push(format!("no greeting: {problem}"));
    }
    let until = Instant::now() + target.patience;
    let end = peer
        .play_until(&mut output, Reading::All, until, enough, Some(QUIET))
        .await;
    outcome.notes.push(match countable {
        true => format!("{} of {times} requests were answered", search.found()),
        false => format!("{times} requests"),
    });
    let after = peer.opened.elapsed();
    match end {
        Some(_) => outcome.count(peer, end, after),
        // Every request of a conversation has an answer, be it any.
        None if !peer.is_answered() => {
            outcome.notes.push(format!(
                "{} of {} bytes of requests were taken, and the connection was kept without an answer",
                peer.sent,
                said.len() as u64 * times
            ));
            outcome.count(peer, end, after);
        }
        None => outcome.did.count_left(&peer),
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::Conversation;

    fn target(conversation: Conversation) -> Target {
        let address = "127.0.0.1:1".parse().expect("an address");
        Target::new(address)
            .expect("loopback")
            .conversation(conversation)
    }

    #[test]
    fn a_conversation_is_left_after_each_byte_and_answer() {
        let conversation = Conversation::new().say("ab").say("c");
        let expected = [
            Place::Said(0, 0),
            Place::Said(0, 1),
            Place::Said(0, 2),
            Place::Heard(0),
            Place::Said(1, 1),
            Place::Heard(1),
        ];
        let mut random = Random::new(0);
        assert_eq!(places(&target(conversation), &mut random), expected);
        let silent = places(&target(Conversation::new()), &mut random);
        assert_eq!(silent, [Place::Said(0, 0)]);
    }

    #[test]
    fn of_many_places_the_first_and_the_last_are_taken() {
        let target = target(Conversation::new().say(vec![b'x'; 10_000]));
        let target = target.steps(10).expect("within bounds");
        let places = places(&target, &mut Random::new(0));
        assert_eq!(places.len(), 10);
        assert_eq!(places[0], Place::Said(0, 0));
        assert_eq!(places[9], Place::Heard(0));
    }

    #[test]
    fn what_dribbles_is_never_a_whole_request() {
        assert_eq!(dribbled(b"hello\n"), "hello");
        assert_eq!(dribbled(b"x"), "");
        let steps = Conversation::new().hear("220").say("HELO\n").say("MAIL\n");
        assert_eq!(dribbled(steps.first_said()), "HELO");
        assert!(!dribbled(b"").is_empty());
    }
}
