//! Traffic of every kind at once, with faults, after which everything is given back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use protosocket_testkit::{FaultStream, Faults, Random};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Context;
use crate::beside::{self, Beside};
use crate::child::Server;
use crate::client::{Link, connect, within};
use crate::protocol::{Operation, Request};
use crate::server::Addresses;
use crate::verdict::{Verdict, slowest_beside_a_flood};

/// Parts of the time, each with a canary of its own. How long that waits is judged in the best of
/// them, because other programs on the machine make it wait as well; what it loses, in all.
const WINDOWS: u32 = 3;

/// Clients at a time.
const CLIENTS: usize = 32;

/// What a client does with its next connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// Some requests of every answered kind, one after the other, and an end in order.
    Polite,
    /// Many requests before the first answer is read.
    Pipelined,
    /// As polite, over a stream with faults.
    Faulty,
    /// Says that no request follows while answers are outstanding.
    HalfClose,
    /// A large message, echoed.
    Big,
    /// Large answers, read slowly.
    SlowReader,
    /// A request byte by byte.
    Dribble,
    /// Ends with a reset somewhere.
    Reset,
    /// Goes away with requests in flight.
    Leave,
    /// Bytes that are no protocol.
    Garbage,
    /// Connects, and that is it.
    Drop,
    /// Makes the server abort.
    ServerAbort,
    /// Makes the server's reactor panic.
    ServerPanic,
    /// Makes the server end in order.
    ServerGoodbye,
    /// Stays on a connection that reaches its age, and is drained.
    Aged,
    /// Does not read large answers on a connection with a short write deadline.
    NeverReads,
    /// Says nothing on a connection with short deadlines.
    Silent,
}

const BEHAVIOURS: [Behaviour; 17] = [
    Behaviour::Polite,
    Behaviour::Pipelined,
    Behaviour::Faulty,
    Behaviour::HalfClose,
    Behaviour::Big,
    Behaviour::SlowReader,
    Behaviour::Dribble,
    Behaviour::Reset,
    Behaviour::Leave,
    Behaviour::Garbage,
    Behaviour::Drop,
    Behaviour::ServerAbort,
    Behaviour::ServerPanic,
    Behaviour::ServerGoodbye,
    Behaviour::Aged,
    Behaviour::NeverReads,
    Behaviour::Silent,
];

/// What the clients have seen.
#[derive(Debug, Default)]
struct Seen {
    /// Connections by behaviour.
    connections: [u64; BEHAVIOURS.len()],
    /// Answers that came where they had to.
    answered: u64,
    /// Connections on which something did not come as it had to.
    broken: u64,
    first_broken: Option<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        for (sum, count) in self.connections.iter_mut().zip(other.connections) {
            *sum += count;
        }
        self.answered += other.answered;
        self.broken += other.broken;
        self.first_broken = self.first_broken.take().or(other.first_broken);
    }
}

pub(super) async fn run(context: &Context, verdict: &mut Verdict) -> io::Result<()> {
    let warm = Duration::from_millis(context.form.choose(1_000, 4_000, 20_000));
    let time = Duration::from_millis(context.form.choose(1_500, 15_000, 300_000));
    let mut server = context.server()?;
    let addresses = server.addresses();
    let idle = context.idle_server()?;

    let mut random = context.random();
    context.say(format_args!("warming up"), "mixed");
    let mut seen = traffic(addresses, warm, &mut random).await?;
    let baseline = server.settle(None, context.settling()).await?;
    let own_baseline = context.holding()?;

    let (mut heard, mut quiet) = (Vec::new(), Vec::new());
    for window in 1..=WINDOWS {
        context.say(
            format_args!("{time:?} of traffic, part {window} of {WINDOWS}"),
            "mixed",
        );
        let quiet_canary = Beside::start(idle.addresses().patient)?;
        let canary = Beside::start(addresses.patient)?;
        seen.add(traffic(addresses, time / WINDOWS, &mut random).await?);
        heard.push(canary.stop()?);
        quiet.push(quiet_canary.stop()?);
    }
    beside::judge("beside it", &heard, verdict);
    verdict.time_at_most(
        "beside it: canary p99, the best part",
        slowest_beside_a_flood(beside::best_p99(&quiet)),
        beside::best_p99(&heard),
    );
    verdict.count("connections made", seen.connections.iter().sum());
    verdict.count("answers that had to come and came", seen.answered);
    verdict.exactly("connections on which something was lost", 0, seen.broken);
    if let Some(broken) = seen.first_broken {
        verdict.note(format!("the first of these: {broken}"));
    }
    let unused = seen.connections.iter().filter(|count| **count == 0).count();
    verdict.exactly("kinds of traffic that did not occur", 0, unused as u64);

    context.say(format_args!("settling"), "mixed");
    judge(context, &mut server, verdict).await?;
    server
        .settle(Some(&baseline), context.settling())
        .await?
        .judge("server", &baseline, verdict);
    context
        .settle(&own_baseline)
        .await?
        .judge("client", &own_baseline, verdict);
    Ok(())
}

/// Judges the server's account.
async fn judge(context: &Context, server: &mut Server, verdict: &mut Verdict) -> io::Result<()> {
    let state = server
        .wait_until(context.settling(), |state| {
            state.connections == 0 && state.account.closed == state.account.opened
        })
        .await?;
    let account = &state.account;
    verdict.exactly("connections left at the server", 0, state.connections);
    verdict.exactly("connections closed", account.opened, account.closed);
    verdict.exactly("reactors told of their end", account.opened, account.told);
    verdict.exactly("connections refused by the server", 0, account.refused());
    verdict.exactly(
        "messages reported while connections lived",
        account.ended.messages_in,
        account.heard,
    );
    verdict.exactly(
        "messages answered or counted",
        account.ended.messages_in,
        account.accounted_for(),
    );
    verdict.count("of these, answered", account.ended.messages_out);
    verdict.count("of these, unsent", account.ended.unsent);
    verdict.count("of these, unanswered", account.ended.unanswered);
    verdict.count(
        "of these, given up by a panic or an abort",
        account.given_up,
    );
    let reasons: Vec<String> = account
        .reasons
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    verdict.note(format!("connections ended by: {}", reasons.join(", ")));
    // What the traffic is there for has happened.
    for reason in [
        "end_of_input",
        "disconnect",
        "age",
        "decode",
        "io",
        "aborted",
        "panicked",
        "write_timeout",
        "first_message_timeout",
    ] {
        verdict.at_least(
            format!("connections ended by {reason}"),
            1,
            account.ended_by(reason),
        );
    }
    Ok(())
}

/// Clients that do one thing after another for `time`.
async fn traffic(addresses: Addresses, time: Duration, random: &mut Random) -> io::Result<Seen> {
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for index in 0..CLIENTS {
        clients.spawn(client(addresses, index, until, random.fork()));
    }
    let mut seen = Seen::default();
    while let Some(client) = clients.join_next().await {
        seen.add(client.map_err(io::Error::other)?);
    }
    Ok(seen)
}

async fn client(addresses: Addresses, index: usize, until: Instant, mut random: Random) -> Seen {
    let mut seen = Seen::default();
    // Each begins with another behaviour, so that all occur however short the time is.
    let mut next = index % BEHAVIOURS.len();
    while Instant::now() < until {
        let behaviour = BEHAVIOURS[next];
        seen.connections[next] += 1;
        match behave(behaviour, addresses, index, random.fork()).await {
            Ok(answered) => seen.answered += answered,
            Err(error) => {
                seen.broken += 1;
                seen.first_broken
                    .get_or_insert_with(|| format!("{behaviour:?}: {error}"));
            }
        }
        next = random.below(BEHAVIOURS.len());
    }
    seen
}

/// One connection. Returns how many answers came that had to.
///
/// # Errors
///
/// When something did not come that had to.
async fn behave(
    behaviour: Behaviour,
    addresses: Addresses,
    index: usize,
    mut random: Random,
) -> io::Result<u64> {
    let connect = async |address: SocketAddr| connect(address, index).await.map(Link::new);
    let (patient, impatient) = (addresses.patient, addresses.impatient);
    match behaviour {
        Behaviour::Polite => polite(connect(patient).await?, &mut random).await,
        Behaviour::Pipelined => pipelined(connect(patient).await?, &mut random).await,
        Behaviour::Faulty => {
            let mut stream = connect(patient).await?.into_stream();
            stream.set_nodelay(true)?;
            faulty(&mut stream, &mut random).await
        }
        Behaviour::HalfClose => half_close(connect(patient).await?, &mut random).await,
        Behaviour::Big => {
            let mut link = connect(patient).await?;
            let size = random.within(100_000..2_000_000);
            link.exchange(1, size).await?;
            end(link, 1).await
        }
        Behaviour::SlowReader => slow_reader(connect(patient).await?, &mut random).await,
        Behaviour::Dribble => dribble(connect(patient).await?, &mut random).await,
        Behaviour::Reset => {
            let mut link = connect(patient).await?;
            let count = random.below(20);
            for number in 0..count {
                link.send(Request::echo(number as u64), random.within(64..5_000))
                    .await?;
            }
            let request = Request::echo(0).frame(1_000);
            let cut = request.slice(..random.below(request.len()));
            link.send_bytes(cut).await?;
            link.reset();
            Ok(0)
        }
        Behaviour::Leave => leave(connect(patient).await?, &mut random).await,
        Behaviour::Garbage => {
            let mut link = connect(patient).await?;
            let mut garbage = random.bytes(256);
            // A length that no message may have, so that it is garbage for certain.
            garbage[0] |= 0x80;
            link.send_bytes(garbage.into()).await?;
            link.expect_end().await.map(|()| 0)
        }
        Behaviour::Drop => connect(patient).await.map(|_| 0),
        Behaviour::ServerAbort => {
            let mut link = connect(patient).await?;
            link.exchange(1, 64).await?;
            link.send(Request::new(Operation::Abort, 2, 0), 64).await?;
            expect_reset(link, 1).await
        }
        Behaviour::ServerPanic => {
            let mut link = connect(patient).await?;
            link.exchange(1, 64).await?;
            link.send(Request::new(Operation::Panic, 2, 0), 64).await?;
            expect_reset(link, 1).await
        }
        Behaviour::ServerGoodbye => {
            let mut link = connect(patient).await?;
            link.exchange(1, 64).await?;
            link.send(Request::new(Operation::Goodbye, 2, 0), 64)
                .await?;
            link.expect(2, 64).await?;
            link.expect_end().await.map(|()| 2)
        }
        Behaviour::Aged => aged(connect(impatient).await?).await,
        Behaviour::NeverReads => {
            let mut link = connect(impatient).await?;
            for number in 0..8 {
                let request = Request::new(Operation::Large, number, 2_000_000);
                link.send(request, 64).await?;
            }
            // Longer than the server's deadline for that.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            Ok(0)
        }
        Behaviour::Silent => {
            let mut link = connect(impatient).await?;
            link.expect_end().await.map(|()| 0)
        }
    }
}

async fn end(mut link: Link, answered: u64) -> io::Result<u64> {
    link.finish().await?;
    link.expect_end().await.map(|()| answered)
}

async fn expect_reset(mut link: Link, answered: u64) -> io::Result<u64> {
    match link.expect_end().await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(answered),
        Err(error) => Err(error),
        Ok(()) => Err(io::Error::other("expected a reset, got an end in order")),
    }
}

/// A request that is answered, with the size of its payload and that of its answer.
fn answered_request(number: u64, random: &mut Random) -> (Request, usize, usize) {
    let size = match random.per_mille(50) {
        true => random.within(16_000..200_000),
        false => random.within(64..3_000),
    };
    match random.below(6) {
        0 => {
            let wait = random.below(30) as u32;
            (Request::new(Operation::Later, number, wait), size, 64)
        }
        1 => {
            let wait = random.below(30) as u32;
            (Request::new(Operation::ByTask, number, wait), size, 64)
        }
        2 => {
            let answer = random.within(64..50_000);
            let request = Request::new(Operation::Large, number, answer as u32);
            (request, size, answer)
        }
        _ => (Request::echo(number), size, size),
    }
}

async fn polite(mut link: Link, random: &mut Random) -> io::Result<u64> {
    let count = random.within(1..40) as u64;
    for number in 0..count {
        let (request, size, answer) = answered_request(number, random);
        link.send(request, size).await?;
        link.expect(number, answer).await?;
    }
    end(link, count).await
}

async fn pipelined(mut link: Link, random: &mut Random) -> io::Result<u64> {
    let count = random.within(10..300) as u64;
    for number in 0..count {
        link.send(Request::echo(number), 100).await?;
    }
    for number in 0..count {
        link.expect(number, 100).await?;
    }
    end(link, count).await
}

async fn faulty(stream: &mut TcpStream, random: &mut Random) -> io::Result<u64> {
    let faults = [
        Faults::none().one_byte(),
        Faults::none().slices(50),
        Faults::none().spurious_wakes(300).slices(1_000),
        Faults::none().latency(Duration::from_millis(3)),
        Faults::none().bandwidth(200_000),
    ];
    let faults = random.one_of(&faults).clone();
    let seed = random.next();
    let mut link = Link::new(FaultStream::new(stream, faults, seed));
    let count = random.within(1..6) as u64;
    for number in 0..count {
        link.exchange(number, random.within(64..600)).await?;
    }
    link.finish().await?;
    link.expect_end().await.map(|()| count)
}

async fn half_close(mut link: Link, random: &mut Random) -> io::Result<u64> {
    let count = random.within(1..10) as u64;
    for number in 0..count {
        let operation = *random.one_of(&[Operation::Later, Operation::ByTask]);
        let request = Request::new(operation, number, random.below(50) as u32);
        link.send(request, 64).await?;
    }
    link.finish().await?;
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(link.answer().await?.0);
    }
    numbers.sort_unstable();
    if !numbers.iter().copied().eq(0..count) {
        return Err(io::Error::other(format!("answered were {numbers:?}")));
    }
    link.expect_end().await.map(|()| count)
}

async fn slow_reader(mut link: Link, random: &mut Random) -> io::Result<u64> {
    const ANSWER: usize = 700_000;
    let count = random.within(1..4) as u64;
    for number in 0..count {
        let request = Request::new(Operation::Large, number, ANSWER as u32);
        link.send(request, 64).await?;
    }
    let mut left = (ANSWER + 4) * count as usize;
    let mut buffer = vec![0; 32 * 1024];
    while left > 0 {
        let read = within(link.stream().read(&mut buffer)).await?;
        if read == 0 {
            return Err(io::Error::other(format!("{left} bytes are missing")));
        }
        left -= read;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    end(link, count).await
}

async fn dribble(mut link: Link, random: &mut Random) -> io::Result<u64> {
    let frame: Bytes = Request::echo(1).frame(100);
    let pause = Duration::from_millis(random.below(4) as u64);
    for byte in &frame {
        link.stream().write_all(&[*byte]).await?;
        tokio::time::sleep(pause).await;
    }
    link.expect(1, 100).await?;
    end(link, 1).await
}

/// Goes away with requests in flight, which the server counts.
async fn leave(mut link: Link, random: &mut Random) -> io::Result<u64> {
    let count = random.within(1..30) as u64;
    let mut resets = random.per_mille(500);
    for number in 0..count {
        let kinds = [
            Operation::Later,
            Operation::ByTask,
            Operation::Never,
            Operation::Echo,
            Operation::Large,
        ];
        let operation = *random.one_of(&kinds);
        // A server that never answers does not find out that a peer has gone in order: to it, that
        // has said all and waits.
        resets |= operation == Operation::Never;
        let argument = match operation {
            Operation::Large => 100_000,
            _ => random.below(100) as u32,
        };
        link.send(Request::new(operation, number, argument), 64)
            .await?;
    }
    match resets {
        true => link.reset(),
        false => drop(link),
    }
    Ok(0)
}

/// Exchanges messages until the server says goodbye, which it does between messages.
async fn aged(mut link: Link) -> io::Result<u64> {
    let mut answered = 0;
    loop {
        let exchanged = match link.send(Request::echo(answered), 64).await {
            Ok(()) => link.answer().await,
            Err(error) => Err(error),
        };
        match exchanged {
            Ok(answer) if answer == (answered, 64) => answered += 1,
            Ok(answer) => return Err(io::Error::other(format!("got the answer {answer:?}"))),
            // The request was sent when the server had read its last. Only then may it go unanswered.
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe => Ok(answered),
                    _ => Err(error),
                };
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
