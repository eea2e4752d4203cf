//! Level two: a live server, with a canary beside.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use protosocket::Limits;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::LocalSet,
    time::timeout,
};

use super::{
    Case, Corpus, Level,
    heartbeat::Heartbeat,
    play::Player,
    report::{Report, Watch, watched},
    script::Step,
};
use crate::{Canary, CanaryConfig, Ending, Exchange, Recorder};

/// What a server is to be made of for one case.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerSetup {
    /// The case.
    pub case: Case,
    /// The limits of its connections.
    pub limits: Limits,
    /// What must be told of its connections.
    pub observer: Arc<Recorder>,
}

impl Corpus {
    /// Play each case's script to a server on a socket, while a canary speaks with the same
    /// server. The connection must end as expected, and the canary must lose nothing: it has to be
    /// answered after the offence as well, and no answer may take longer than
    /// [`longest_wait`](Self::longest_wait).
    ///
    /// `serve` binds a server to 127.0.0.1 and returns its address and what drives it, which is
    /// dropped after the case. Everything runs on one thread, so a server that keeps it busy is
    /// noticed; tasks may be local.
    pub fn run_server<E, F>(
        &self,
        exchange: impl Fn() -> E + Send + 'static,
        serve: impl Fn(ServerSetup) -> (SocketAddr, F) + Send + 'static,
    ) -> Report
    where
        E: Exchange,
        F: Future + 'static,
    {
        let cases: Vec<Case> = self.at(Level::Server).cloned().collect();
        let (patience, longest_wait) = (self.patience, self.longest_wait);
        watched(Level::Server, patience, move |watch| {
            for case in &cases {
                watch.begin(case.id());
                on_one_thread(async {
                    let waits = (patience, longest_wait);
                    run(watch, case, waits, exchange(), &serve).await;
                });
            }
        })
    }
}

/// Run a future, and let everything that it has spawned go with it.
pub(super) fn on_one_thread(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .expect("there are descriptors for a runtime");
    LocalSet::new().block_on(&runtime, future);
}

async fn run<E, F>(
    watch: &Watch,
    case: &Case,
    (patience, longest_wait): (Duration, Duration),
    exchange: E,
    serve: &impl Fn(ServerSetup) -> (SocketAddr, F),
) where
    E: Exchange,
    F: Future + 'static,
{
    let observer = Arc::new(Recorder::new());
    let (address, server) = serve(ServerSetup {
        case: case.clone(),
        limits: case.limits(Limits::server()),
        observer: observer.clone(),
    });
    let server = tokio::task::spawn_local(server);
    let beside = Beside::start(address, exchange, patience, longest_wait).await;
    let canary = match beside {
        Ok(canary) => canary,
        Err(problem) => return watch.fail(case.id(), problem),
    };
    for (id, script) in case.scripts() {
        if let Err(problem) = attack(case, &script, address, &observer, patience).await {
            watch.fail(&id, problem);
        }
    }
    if let Err(problem) = canary.stop().await {
        watch.fail(case.id(), problem);
    }
    server.abort();
}

/// Play a script, and look at the end of its connection.
async fn attack(
    case: &Case,
    script: &[Step],
    address: SocketAddr,
    observer: &Recorder,
    patience: Duration,
) -> Result<(), String> {
    let stream = connect(address, case.receive_buffer).await;
    let stream = stream.map_err(|error| format!("the server takes no connection: {error}"))?;
    let local = stream.local_addr().map_err(|error| error.to_string())?;
    let mut player = Player::new(stream);
    let ending = play_to_end(&mut player, script, observer.ending_of(local), patience).await?;
    case.expect.check(&ending, None)
}

/// Play a script, and then wait for the end of the connection that it was played to.
pub(super) async fn play_to_end(
    player: &mut Player,
    script: &[Step],
    ended: impl Future<Output = Ending>,
    patience: Duration,
) -> Result<Ending, String> {
    let played = timeout(patience, player.play(script)).await;
    played.map_err(|_| format!("its script was not over within {patience:?}"))??;
    let mut ended = pin!(ended);
    let mut lingers = pin!(player.linger());
    let ended = poll_fn(|cx| {
        // It never ends; it reads.
        let _ = lingers.as_mut().poll(cx);
        ended.as_mut().poll(cx)
    });
    let ending = timeout(patience, ended).await;
    ending.map_err(|_| format!("its connection had not ended {patience:?} after the script"))
}

async fn connect(address: SocketAddr, receive_buffer: Option<usize>) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(u32::try_from(size).unwrap_or(u32::MAX))?;
    }
    socket.connect(address).await
}

/// A canary that must be answered before and after something.
pub(super) struct Beside {
    canary: Canary,
    answers: watch::Receiver<u64>,
    heartbeat: Heartbeat,
    longest_wait: Duration,
}

impl Beside {
    pub(super) async fn start(
        address: SocketAddr,
        exchange: impl Exchange,
        patience: Duration,
        longest_wait: Duration,
    ) -> Result<Self, String> {
        let heartbeat = Heartbeat::start();
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| format!("the canary is not let in: {error}"))?;
        let (count, answers) = watch::channel(0);
        let config = CanaryConfig {
            patience,
            ..CanaryConfig::default()
        };
        let canary = Canary::start(stream, Counting { exchange, count }, config);
        let mut beside = Self {
            canary,
            answers,
            heartbeat,
            longest_wait,
        };
        beside.is_answered().await;
        Ok(beside)
    }

    /// Stop it after another answer. What it lost, or waited for too long, is an error.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        self.is_answered().await;
        let report = self.canary.stop().await;
        let lost = self.heartbeat.stop().most_lost_in(report.max);
        let verdict = report.verdict();
        verdict.map_err(|verdict| format!("the canary beside it suffered: {verdict}"))?;
        match report.max <= self.longest_wait + lost {
            true => Ok(()),
            false => Err(format!(
                "the canary beside it waited too long: expected {:?} at most, it was {:?}, of \
                 which the machine took {lost:?}: {report}",
                self.longest_wait, report.max,
            )),
        }
    }

    /// Wait for two more answers: one may have been on its way. A canary that has ended has said
    /// all, and its report says why.
    async fn is_answered(&mut self) {
        let before = *self.answers.borrow_and_update();
        let _ = self.answers.wait_for(|count| *count >= before + 2).await;
    }
}

/// Counts the answers of an exchange.
struct Counting<E> {
    exchange: E,
    count: watch::Sender<u64>,
}

impl<E: Exchange> Exchange for Counting<E> {
    fn request(&mut self, sequence: u64) -> Bytes {
        self.exchange.request(sequence)
    }

    fn response(&mut self, unread: &mut BytesMut) -> Result<Option<u64>, String> {
        let response = self.exchange.response(unread)?;
        if response.is_some() {
            self.count.send_modify(|count| *count += 1);
        }
        Ok(response)
    }
}
