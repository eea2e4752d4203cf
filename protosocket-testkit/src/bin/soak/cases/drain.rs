//! A drain with a thousand requests in flight.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use protosocket_testkit::Random;
use tokio::task::JoinSet;

use super::{Context, warm_up};
use crate::client::{Link, connect};
use crate::protocol::{Operation, Request};
use crate::verdict::Verdict;

/// Requests in flight on each connection.
const EACH: usize = 4;

/// Longer than any drain of this case.
const LONGEST: Duration = Duration::from_secs(60);

/// A drain and what is in flight when it begins.
struct Plan {
    what: &'static str,
    connections: usize,
    /// How many of the connections have one request that is never answered.
    never: usize,
    /// Answers come after this long.
    delay: std::ops::Range<Duration>,
    deadline: Duration,
}

pub(super) async fn run(context: &Context, verdict: &mut Verdict) -> io::Result<()> {
    let connections = context.form.choose(25, 250, 250);
    // Before the first answer is due, every request has arrived, also where the machine is busy:
    // whether that is so is judged.
    let first = Duration::from_millis(context.form.choose(1_500, 2_000, 2_000));
    let longest = first + Duration::from_millis(context.form.choose(100, 2_000, 18_000));
    let all_answered = Plan {
        what: "all answered",
        connections,
        never: 0,
        delay: first..longest,
        deadline: longest + Duration::from_secs(10),
    };
    let some_never = Plan {
        what: "some never",
        connections,
        never: connections / 7,
        delay: first..first + Duration::from_millis(400),
        // Longer than the answers take even where the machine is busy.
        deadline: Duration::from_millis(context.form.choose(5_000, 6_000, 10_000)),
    };
    drain(context, &all_answered, verdict).await?;
    drain(context, &some_never, verdict).await
}

async fn drain(context: &Context, plan: &Plan, verdict: &mut Verdict) -> io::Result<()> {
    let what = plan.what;
    let mut server = context.server()?;
    let address = server.addresses().patient;
    warm_up(address, 16).await?;
    let baseline = server.settle(None, context.settling()).await?;
    let heard_before = server.state()?.account.heard;

    context.say(format_args!("{what}: requests"), "drain");
    let mut random = context.random();
    let mut links = JoinSet::new();
    for index in 0..plan.connections {
        let never = index < plan.never;
        let random = random.fork();
        links.spawn(ask(address, index, never, plan.delay.clone(), random));
    }
    let links: Vec<Link> = links
        .join_all()
        .await
        .into_iter()
        .collect::<io::Result<_>>()?;
    let requests = (plan.connections * EACH) as u64;
    let state = server
        .wait_until(context.settling(), |state| {
            state.account.heard - heard_before == requests
        })
        .await?;
    verdict.exactly(
        format!("{what}: requests at the server"),
        requests,
        state.account.heard - heard_before,
    );

    context.say(format_args!("{what}: draining"), "drain");
    server.begin_drain(plan.deadline)?;
    let mut waiting = JoinSet::new();
    for link in links {
        waiting.spawn(answers(link));
    }
    let (mut answered, mut in_order, mut cut_off) = (0, 0, 0);
    for (answers, end) in waiting.join_all().await {
        answered += answers;
        match end {
            Ok(()) => in_order += 1,
            Err(_) => cut_off += 1,
        }
    }
    let report = server.drained(plan.deadline)?;
    let (connections, never) = (plan.connections as u64, plan.never as u64);
    verdict.exactly(
        format!("{what}: in flight when the drain begins"),
        requests,
        report.in_flight,
    );
    verdict.exactly(
        format!("{what}: answers that arrived"),
        requests - never,
        answered,
    );
    verdict.exactly(
        format!("{what}: reported finished"),
        connections - never,
        report.finished,
    );
    verdict.exactly(format!("{what}: reported forced"), never, report.forced);
    verdict.exactly(
        format!("{what}: reported unanswered"),
        never,
        report.unanswered,
    );
    verdict.exactly(
        format!("{what}: reported lost or ended otherwise"),
        0,
        report.unsent + report.failed + report.dropped + report.stuck,
    );
    verdict.exactly(
        format!("{what}: connections that the client saw end in order"),
        connections - never,
        in_order,
    );
    verdict.exactly(
        format!("{what}: connections that the client saw cut off"),
        never,
        cut_off,
    );
    verdict.time(
        format!("{what}: time to drain"),
        Duration::from_millis(report.milliseconds),
    );
    let refused = connect(address, 0).await;
    verdict.exactly(
        format!("{what}: connects afterwards that are not refused"),
        0,
        u64::from(!refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)),
    );
    server
        .settle(Some(&baseline), context.settling())
        .await?
        .judge(&format!("server, {what},"), &baseline, verdict);
    Ok(())
}

/// Connects and sends the requests.
async fn ask(
    address: SocketAddr,
    index: usize,
    never: bool,
    delay: std::ops::Range<Duration>,
    mut random: Random,
) -> io::Result<Link> {
    let mut link = Link::new(connect(address, index).await?);
    for number in 0..EACH {
        let milliseconds =
            random.within(delay.start.as_millis() as usize..delay.end.as_millis() as usize);
        let operation = match number {
            0 if never => Operation::Never,
            // Some answers come from the reactor, and some through the channel.
            _ => *random.one_of(&[Operation::Later, Operation::ByTask]),
        };
        let request = Request::new(operation, number as u64, milliseconds as u32);
        link.send(request, 64).await?;
    }
    Ok(link)
}

/// Counts the answers until the connection ends, and tells how it ended.
async fn answers(mut link: Link) -> (u64, io::Result<()>) {
    let mut answered = 0;
    loop {
        match tokio::time::timeout(LONGEST, link.next_answer()).await {
            Ok(Ok(Some(_))) => answered += 1,
            Ok(Ok(None)) => return (answered, Ok(())),
            Ok(Err(error)) => return (answered, Err(error)),
            Err(_) => return (answered, Err(io::ErrorKind::TimedOut.into())),
        }
    }
}
