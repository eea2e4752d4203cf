//! Level three: a client whose server is hostile, while another connection of the same process
//! goes on.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use protosocket::{
    Codec, Connection, ConnectionConfig, Decoder, Limits, LinesCodec, SocketConnector,
    SocketListener, TcpConnector, TcpOptions, TcpSocketListener, channel,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    Case, Corpus, Level,
    collect::{Collect, Describe, Received},
    play::Player,
    report::{Report, Watch, watched},
    script::Step,
    server::{Beside, on_one_thread, play_to_end},
};
use crate::{LineEcho, Probe, Recorder, echo};

/// What a client is to be made of for one case.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientSetup {
    /// The case.
    pub case: Case,
    /// Where the hostile server listens.
    pub address: SocketAddr,
    /// What its connection must be configured with: the case's limits, and the observer that tells
    /// the runner how it ended.
    pub config: ConnectionConfig,
}

impl Corpus {
    /// Play each case's script as a server on a socket to a client that connects to it, while
    /// another connection of this thread echoes to a canary. The client's connection must end as
    /// expected, and the canary must lose nothing and wait no
    /// longer than [`longest_wait`](Self::longest_wait).
    ///
    /// `client` connects and drives the client's connection. Everything runs on one thread, so a
    /// client that keeps it busy is noticed; tasks may be local.
    pub fn run_client<F>(&self, client: impl Fn(ClientSetup) -> F + Send + 'static) -> Report
    where
        F: Future + 'static,
    {
        self.run_collecting(move |setup| (client(setup), None))
    }

    /// As [`run_client`](Self::run_client), with a look at the messages of clients that keep them.
    fn run_collecting<F>(
        &self,
        client: impl Fn(ClientSetup) -> (F, Option<Received>) + Send + 'static,
    ) -> Report
    where
        F: Future + 'static,
    {
        let cases: Vec<Case> = self.at(Level::Client).cloned().collect();
        let (patience, longest_wait) = (self.patience, self.longest_wait);
        watched(Level::Client, patience, move |watch| {
            for case in &cases {
                watch.begin(case.id());
                on_one_thread(run(watch, case, (patience, longest_wait), &client));
            }
        })
    }

    /// [`run_client`](Self::run_client) with a client that has nothing but a codec: it listens to
    /// what the server says, compares that with the case, and says nothing.
    pub fn run_codec_client<C>(
        &self,
        codec: impl Fn(&Case) -> C + Send + 'static,
        describe: impl Fn(&<C as Decoder>::Message) -> Bytes + Send + Sync + 'static,
    ) -> Report
    where
        C: Codec + 'static,
    {
        let describe: Describe<C> = Arc::new(describe);
        self.run_collecting(move |setup| {
            let codec = codec(&setup.case);
            let describe = describe.clone();
            let received = Received::default();
            let kept = received.clone();
            let client = async move {
                let stream = TcpConnector::new(setup.address).connect().await;
                let stream = stream.expect("the hostile server listens");
                let (sender, outbound) = channel(1);
                let reactor = Collect {
                    describe,
                    received,
                    open: Some(sender),
                };
                Connection::over(stream, codec, reactor, outbound, &setup.config).await
            };
            (client, Some(kept))
        })
    }
}

async fn run<F>(
    watch: &Watch,
    case: &Case,
    (patience, longest_wait): (Duration, Duration),
    client: &impl Fn(ClientSetup) -> (F, Option<Received>),
) where
    F: Future + 'static,
{
    let (address, served) = healthy();
    let healthy = tokio::task::spawn_local(served);
    let canary = match Beside::start(address, LineEcho, patience, longest_wait).await {
        Ok(canary) => canary,
        Err(problem) => return watch.fail(case.id(), problem),
    };
    for (id, script) in case.scripts() {
        if let Err(problem) = attack(case, &script, client, patience).await {
            watch.fail(&id, problem);
        }
    }
    if let Err(problem) = canary.stop().await {
        watch.fail(case.id(), problem);
    }
    healthy.abort();
}

async fn attack<F>(
    case: &Case,
    script: &[Step],
    client: &impl Fn(ClientSetup) -> (F, Option<Received>),
    patience: Duration,
) -> Result<(), String>
where
    F: Future + 'static,
{
    let observer = Arc::new(Recorder::new());
    let config = ConnectionConfig::client(case.limits(Limits::client()));
    let config = config.map_err(|error| error.to_string())?;
    let (listener, address) =
        listen(case.receive_buffer).map_err(|error| format!("no port to listen on: {error}"))?;
    let (client, received) = client(ClientSetup {
        case: case.clone(),
        address,
        config: config.with_observer(observer.clone()),
    });
    let client = tokio::task::spawn_local(client);
    let accepted = timeout(patience, listener.accept()).await;
    let accepted = accepted.map_err(|_| "the client does not connect".to_owned())?;
    let (stream, _) = accepted.map_err(|error| format!("accepting failed: {error}"))?;
    if script.contains(&Step::Reset) {
        // A reset that comes while the client still connects is a failure to connect.
        let opened = timeout(patience, observer.until_opened()).await;
        opened.map_err(|_| "the client does not open its connection".to_owned())?;
    }
    let mut player = Player::new(stream);
    let ended = play_to_end(&mut player, script, observer.ending_of(address), patience).await;
    client.abort();
    let received = received.as_ref().map(|received| {
        received
            .lock()
            .expect("no code that panics runs under it")
            .clone()
    });
    case.expect.check(&ended?, received.as_deref())
}

fn listen(receive_buffer: Option<usize>) -> std::io::Result<(tokio::net::TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    if let Some(size) = receive_buffer {
        // What it accepts inherits this.
        socket.set_recv_buffer_size(u32::try_from(size).unwrap_or(u32::MAX))?;
    }
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listener = socket.listen(16)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A server of line echoes, and where it listens.
fn healthy() -> (SocketAddr, impl Future<Output = ()>) {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpSocketListener::listen(anywhere, TcpOptions::new());
    let mut listener = listener.expect("a port is free");
    let address = listener.local_address().expect("it is bound");
    let serve = async move {
        loop {
            let accepted = std::future::poll_fn(|cx| listener.poll_accept(cx)).await;
            let Ok(accepted) = accepted else { continue };
            let Ok(stream) = accepted.establish.await else {
                continue;
            };
            tokio::task::spawn_local(serve_one(stream));
        }
    };
    (address, serve)
}

async fn serve_one(stream: protosocket::StreamWithAddress<TcpStream>) {
    let (reactor, _knobs) = Probe::new(echo());
    let (_sender, outbound) = channel(1);
    let config = ConnectionConfig::default();
    Connection::over(stream, LinesCodec::new(), reactor, outbound, &config).await;
}
