//! One listener per core.
//!
//! The listeners share a port (`SO_REUSEPORT`), and the kernel spreads connections over them. Each
//! has a thread with a runtime of its own, in which its connections stay: their reactors need no
//! lock, and need not be `Send`. One Ctrl-C drains all.

#![expect(clippy::print_stdout, reason = "it tells its user what to type next")]

use std::{
    cell::Cell, env, error::Error, io, net::SocketAddr, rc::Rc, sync::mpsc, thread, time::Duration,
};

use protosocket::{
    LinesCodec, MessageReactor, ReactorContext, ReactorStatus, SendError, Sender,
    StreamWithAddress, TcpSocketListener,
};
use protosocket_server::{
    DrainReport, ProtosocketServerConfig, ProtosocketSocketConfig, ServerConnection,
    ServerConnector, ServerHandle,
};
use tokio::{net::TcpStream, runtime, task};

/// Answers each line with how many lines this core has seen, from all its connections.
struct Counter {
    core: usize,
    lines: Rc<Cell<u64>>,
}

impl MessageReactor for Counter {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        _line: String,
    ) -> ReactorStatus {
        self.lines.set(self.lines.get() + 1);
        context.reply(format!("line {} of core {}", self.lines.get(), self.core))
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> Result<(), SendError<String>> {
        context.send(message)
    }
}

/// What one core has for itself.
struct Core {
    number: usize,
    lines: Rc<Cell<u64>>,
}

impl ServerConnector for Core {
    type Codec = LinesCodec;
    type Reactor = Counter;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new()
    }

    fn new_reactor(&self, _: Sender<String>, _: &StreamWithAddress<TcpStream>) -> Counter {
        Counter {
            core: self.number,
            lines: self.lines.clone(),
        }
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        task::spawn_local(connection);
    }
}

/// A core that serves: where, and how to drain it.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) handle: ServerHandle,
}

/// Serve `address` from as many threads as there are `cores`.
pub(crate) fn serve(mut address: SocketAddr, cores: usize) -> io::Result<Vec<Serving>> {
    let mut serving = Vec::new();
    for number in 0..cores {
        let (started, starts) = mpsc::channel();
        let thread = thread::spawn(move || run_core(address, number, &started));
        let Ok(core) = starts.recv() else {
            // It has ended before it served, and says why.
            let ended = thread.join().expect("nothing in it panics");
            return ended.map(|_report| serving);
        };
        // If the system chose the port, the first listener has told which.
        address = core.address;
        serving.push(core);
    }
    Ok(serving)
}

/// Serve on this thread until the server is drained.
fn run_core(
    address: SocketAddr,
    number: usize,
    started: &mpsc::Sender<Serving>,
) -> io::Result<DrainReport> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    task::LocalSet::new().block_on(&runtime, async {
        let lines = Rc::default();
        let server = ProtosocketServerConfig::default()
            .socket_config(ProtosocketSocketConfig::new().reuse_port(true))
            .bind_tcp(address, Core { number, lines })?;
        let listener = server.listener().ok_or(io::ErrorKind::NotConnected)?;
        let address = listener.local_address()?;
        let handle = server.handle();
        started
            .send(Serving { address, handle })
            .map_err(io::Error::other)?;
        Ok(server.await)
    })
}

/// Drain all of them at the same time.
pub(crate) async fn drain(cores: &[Serving], deadline: Duration) -> DrainReport {
    let mut drains = task::JoinSet::new();
    for core in cores {
        let handle = core.handle.clone();
        drains.spawn(async move { handle.drain(deadline).await });
    }
    drains.join_all().await.into_iter().sum()
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:9001".to_owned());
    let serving = serve(address.parse()?, thread::available_parallelism()?.get())?;
    let address = serving.first().ok_or("there is no core")?.address;
    println!(
        "{} listeners: type nc {} {} in several terminals, then some lines",
        serving.len(),
        address.ip(),
        address.port()
    );
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::signal::ctrl_c().await?;
        println!(
            "draining: {}",
            drain(&serving, Duration::from_secs(10)).await
        );
        Ok(())
    })
}
