//! A server with a listener and a thread for each core.
//!
//! The listeners share a port (`SO_REUSEPORT`), and the kernel spreads connections over them. What a
//! core has for its calls needs no lock and is not `Send`, and neither are its rpcs. The messages are
//! MessagePack.
//!
//! `cargo run -p protosocket-rpc --example per_core` starts two cores, makes some calls, drains both
//! and ends.

#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::{
    cell::Cell, error::Error, future::Future, io, net::SocketAddr, pin::Pin, rc::Rc, sync::mpsc,
    thread, time::Duration,
};

use futures_core::Stream;
use protosocket::{StreamWithAddress, TcpConnector, TcpSocketListener};
use protosocket_messagepack::{ClientCodec, ServerCodec};
use protosocket_rpc::{
    client::{Configuration, connect},
    messages,
    server::{ConnectionService, RpcConnection, RpcConnector, RpcKind, SocketService},
};
use protosocket_server::{
    DrainReport, ProtosocketServerConfig, ProtosocketSocketConfig, ServerHandle,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, runtime, task};

/// A request says nothing; a response says whose it is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Count {
    id: u64,
    code: u8,
    core: usize,
    calls: u64,
}

messages! {
    Count { id, code }
}

/// What one core has for itself.
#[derive(Clone)]
struct Core {
    number: usize,
    calls: Rc<Cell<u64>>,
}

impl SocketService for Core {
    type ConnectionService = Self;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> ServerCodec<Count, Count> {
        ServerCodec::default()
    }

    fn new_stream_service(&self, _stream: &StreamWithAddress<TcpStream>) -> Self {
        self.clone()
    }

    fn spawn_connection(&self, connection: RpcConnection<Self>) {
        task::spawn_local(connection);
    }
}

impl ConnectionService for Core {
    type Codec = ServerCodec<Count, Count>;
    type Request = Count;
    type Response = Count;
    type UnaryFutureType = Pin<Box<dyn Future<Output = Count>>>;
    type StreamType = Pin<Box<dyn Stream<Item = Count>>>;

    fn new_rpc(&mut self, _request: Count) -> RpcKind<Self::UnaryFutureType, Self::StreamType> {
        let core = self.clone();
        RpcKind::Unary(Box::pin(async move {
            // Any other call of this core may go on here, and none on another thread.
            task::yield_now().await;
            core.calls.set(core.calls.get() + 1);
            Count {
                core: core.number,
                calls: core.calls.get(),
                ..Count::default()
            }
        }))
    }
}

type Started = (SocketAddr, ServerHandle);

/// Serve on this thread until the server is drained.
fn run_core(
    number: usize,
    address: SocketAddr,
    started: &mpsc::Sender<Started>,
) -> io::Result<DrainReport> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    task::LocalSet::new().block_on(&runtime, async {
        let core = Core {
            number,
            calls: Rc::default(),
        };
        let server = ProtosocketServerConfig::default()
            .socket_config(ProtosocketSocketConfig::new().reuse_port(true))
            .bind_tcp(address, RpcConnector::new(core))?;
        let listener = server.listener().ok_or(io::ErrorKind::NotConnected)?;
        let address = listener.local_address()?;
        let told = started.send((address, server.handle()));
        told.map_err(io::Error::other)?;
        Ok(server.await)
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut cores = Vec::new();
    for number in 0..2 {
        let (started, starts) = mpsc::channel();
        let thread = thread::spawn(move || run_core(number, address, &started));
        let (listens_on, handle) = starts.recv()?;
        // The system has chosen the port of the first, and the others share it.
        address = listens_on;
        println!("core {number} listens on {address}");
        cores.push((thread, handle));
    }

    for _ in 0..4 {
        let (connector, codec) = (TcpConnector::new(address), ClientCodec::default());
        let (client, connection) = connect(&connector, codec, &Configuration::new()).await?;
        tokio::spawn(connection);
        for _ in 0..2 {
            let Count { core, calls, .. } = client.send_unary(Count::default())?.await?;
            println!("core {core} has answered {calls} calls");
        }
    }

    for (thread, handle) in cores {
        println!("drained: {}", handle.drain(Duration::from_secs(10)).await);
        thread.join().map_err(|_| "a core has panicked")??;
    }
    Ok(())
}
