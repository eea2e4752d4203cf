//! Level one: decoders, by the contract alone and inside of a connection.

use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use protosocket::{Codec, Decoder, Limits, PeerAddress, channel};

use super::{
    Case, Corpus, Level,
    collect::{Collect, Describe, Received},
    expect::Messages,
    report::{Report, Watch, watched},
    script::Step,
};
use crate::{Ending, Random, Setup, Torture, Trace, TraceEnd, end_name};

/// Up to here, in bytes, every two-way split is tried in a connection as well.
const EVERY_SPLIT: usize = 1024;

/// Splits and random segmentations of longer input.
const SOME: usize = 64;

/// From here on, in bytes, input is given whole and in random segments only.
const LONG: usize = 64 * 1024;

impl Corpus {
    /// Give each case's bytes to a decoder, whole, byte by byte, cut in two everywhere, and in
    /// random segments, and expect its messages and its end each time. Done twice: by the contract
    /// of [`Decoder`] alone ([`Torture`]), and by a connection on a scripted stream.
    ///
    /// `codec` makes what a case's [`setting`](Case::setting) asks for; `describe` turns a message
    /// into the bytes that the file shows for it.
    pub fn run_decoder<C>(
        &self,
        codec: impl Fn(&Case) -> C + Send + 'static,
        describe: impl Fn(&<C as Decoder>::Message) -> Bytes + Send + Sync + 'static,
    ) -> Report
    where
        C: Codec + 'static,
        <C as Decoder>::Message: Debug + PartialEq,
    {
        let cases: Vec<Case> = self.at(Level::Decoder).cloned().collect();
        watched(Level::Decoder, self.patience, move |watch| {
            let describe: Describe<C> = Arc::new(describe);
            for case in &cases {
                watch.begin(case.id());
                for (id, script) in case.scripts() {
                    run(watch, &id, case, &script, &codec, &describe);
                }
            }
        })
    }
}

fn run<C>(
    watch: &Watch,
    id: &str,
    case: &Case,
    script: &[Step],
    codec: &dyn Fn(&Case) -> C,
    describe: &Describe<C>,
) where
    C: Codec + 'static,
    <C as Decoder>::Message: Debug + PartialEq,
{
    let [Step::Send(bytes), ..] = script else {
        return watch.fail(id, "its script is not one of bytes");
    };
    let panics = case.expect.ends.iter().any(|end| end == "panicked");
    if bytes.len() < LONG && !panics {
        let limit = case.limits(Limits::server()).message_size();
        let torture = Torture::new().max_message_size(limit).rounds(SOME);
        let traced = catch_unwind(AssertUnwindSafe(|| torture.run(bytes, || codec(case))));
        let checked = match traced {
            Ok(trace) => check_trace::<C>(case, &trace, describe),
            Err(panic) => Err(text_of(&*panic)),
        };
        if let Err(problem) = checked {
            return watch.fail(id, format!("by the contract alone: {problem}"));
        }
    }
    for (name, segments) in segmentations(bytes) {
        let driven = catch_unwind(AssertUnwindSafe(|| {
            drive(case, &segments, codec(case), describe)
        }));
        let checked = driven.unwrap_or_else(|panic| Err(text_of(&*panic)));
        if let Err(problem) = checked {
            // One segmentation is enough to look at.
            return watch.fail(id, format!("in a connection, {name}: {problem}"));
        }
    }
}

/// What the contract alone makes of the bytes.
fn check_trace<C: Codec>(
    case: &Case,
    trace: &Trace<<C as Decoder>::Message>,
    describe: &Describe<C>,
) -> Result<(), String> {
    let end = match trace.end {
        TraceEnd::Failed(name) => format!("decode/{name}"),
        _ => "end_of_input".to_owned(),
    };
    // A codec may fail otherwise than by decoding, and that is for the connection to show.
    let decodes = |end: &String| end.starts_with("decode/") || end == "end_of_input";
    if !case.expect.ends.iter().any(decodes) {
        return Ok(());
    }
    if !case.expect.ends.contains(&end) {
        let expected = case.expect.ends.join(" or ");
        return Err(format!("expected the end {expected}, it was {end}"));
    }
    let messages: Vec<Bytes> = trace.messages.iter().map(|m| describe(m)).collect();
    let as_expected = match &case.expect.messages {
        Messages::These(expected) => *expected == messages,
        Messages::Count(expected) => *expected == messages.len() as u64,
        Messages::Any => true,
    };
    match as_expected {
        true => Ok(()),
        false => Err(format!("the messages were {messages:?}")),
    }
}

fn drive<C: Codec + 'static>(
    case: &Case,
    segments: &[Bytes],
    codec: C,
    describe: &Describe<C>,
) -> Result<(), String> {
    let received = Received::default();
    let (sender, outbound) = channel(1);
    drop(sender);
    let reactor = Collect {
        describe: describe.clone(),
        received: received.clone(),
        open: None,
    };
    let mut connection =
        Setup::limits(case.limits(Limits::server())).drive(codec, reactor, outbound);
    for segment in segments {
        connection.settle();
        if connection.is_ended() {
            break;
        }
        connection.peer.send(segment);
    }
    connection.settle();
    connection.peer.end();
    // Nothing here takes time but what a limit cuts off.
    connection.pass(Duration::from_secs(3600));
    let end = connection.finish();
    let ending = Ending {
        peer: PeerAddress::Memory,
        end: end_name(&end.reason).to_owned(),
        text: end.reason.to_string(),
        stats: end.stats,
    };
    let received = received.lock().expect("no code that panics runs under it");
    case.expect.check(&ending, Some(&received))
}

/// Ways to cut `bytes`, by what they are called.
fn segmentations(bytes: &Bytes) -> Vec<(String, Vec<Bytes>)> {
    let length = bytes.len();
    let mut random = Random::new(length as u64);
    let mut all = vec![("whole".to_owned(), vec![bytes.clone()])];
    if length < LONG {
        let single = (0..length).map(|at| bytes.slice(at..at + 1)).collect();
        all.push(("byte by byte".to_owned(), single));
        let splits: Vec<usize> = match length {
            0..=EVERY_SPLIT => (1..length).collect(),
            _ => (0..SOME).map(|_| random.within(1..length)).collect(),
        };
        for at in splits {
            let halves = vec![bytes.slice(..at), bytes.slice(at..)];
            all.push((format!("split at {at}"), halves));
        }
    }
    // Each goes through all of it.
    let rounds = if length < LONG { 8 } else { 1 };
    for round in 0..rounds {
        let bound = *random.one_of(&[2, 16, 256, 16 * 1024, 128 * 1024]);
        // LIMIT: segments, so that long input is not cut into millions of them.
        let bound = bound.max(length / 4096 + 1);
        let mut segments = Vec::new();
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let count = (1 + random.below(bound)).min(rest.len());
            segments.push(rest.split_to(count));
        }
        let sizes = format!("random segments {round} of up to {bound} bytes (seed {length})");
        all.push((sizes, segments));
    }
    all
}

/// What a panic says.
pub(super) fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked".to_owned())
}
