//! The servers that are compared, one file each.
//!
//! To add one: write a file with `pub(super) fn start() -> io::Result<Server>` that listens on a
//! free port of the loopback address and answers every message of [`crate::frame`] that wants a
//! reply with the same message, through the public interface and the default configuration of its
//! library; name it in [`SYSTEMS`]. Those that answer calls are in [`rpc`], those that echo over TLS in
//! [`tls`], and key-value servers in [`resp`].

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;

use tokio::net::TcpStream;

use crate::drive::OwnClient;
use crate::machine::{self, Process};
use crate::work::Work;

mod framed;
mod hand_loop;
mod ours;
mod protosocket_v2;
mod resp;
mod rpc;
mod tls;

use rpc::Rpc;
use tls::Tls;
pub(crate) use tls::provider;

/// Every system, the reference of the ratios first.
pub(crate) const SYSTEMS: &[System] = &[
    System {
        name: REFERENCE,
        about: "tokio by hand: frames are copied from one read buffer into one out buffer; calls \
                are decoded and encoded by prost in between",
        echo: Some(hand_loop::start),
        rpc: Some(rpc::HAND_LOOP),
        tls: Some(tls::HAND_LOOP),
        ..System::IDLE
    },
    System {
        name: "ours",
        about: "this project; the reactor replies through its context; handlers of calls are ready",
        echo: Some(ours::start),
        rpc: Some(rpc::OURS),
        tls: Some(tls::OURS),
        resp: Some(resp::ours::start),
        ..System::IDLE
    },
    System {
        name: "ours-channel",
        about: "this project; the reactor replies through the sender of its connection",
        echo: Some(ours::start_channel),
        ..System::IDLE
    },
    System {
        name: "ours-machine",
        about: "this project; a machine behind the adapter replies",
        echo: Some(ours::start_machine),
        ..System::IDLE
    },
    System {
        name: "ours-pending",
        about: "this project; handlers of calls, and items of streams, are pending once",
        rpc: Some(rpc::OURS_PENDING),
        ..System::IDLE
    },
    System {
        name: "protosocket-2.0.2",
        about: "the published protosocket with its pooled encoder; the reactor replies through its channel",
        echo: Some(protosocket_v2::start),
        ..System::IDLE
    },
    System {
        name: "framed",
        about: "tokio-util's Framed with its LengthDelimitedCodec; a flush for all that was read",
        echo: Some(framed::start),
        tls: Some(tls::FRAMED),
        ..System::IDLE
    },
    System {
        name: YARDSTICK,
        about: "the published protosocket-rpc with protosocket-prost; handlers are ready",
        rpc: Some(rpc::PROTOSOCKET_V2),
        ..System::IDLE
    },
    System {
        name: "tarpc",
        about: "tarpc over TCP with bincode; it has no streams",
        rpc: Some(rpc::TARPC),
        ..System::IDLE
    },
    System {
        name: "tonic",
        about: "tonic with prost, over HTTP/2",
        rpc: Some(rpc::TONIC),
        ..System::IDLE
    },
    System {
        name: "tokio-rustls",
        about: "tokio-rustls alone: a task for each connection echoes from a few bytes of its own, without frames",
        tls: Some(tls::ALONE),
        ..System::IDLE
    },
    System {
        name: REDIS,
        about: "the redis-server that is installed, on one thread and without persistence",
        resp: Some(resp::redis::start),
        programs: resp::redis::PROGRAMS,
        ..System::IDLE
    },
];

/// The system that ratios refer to.
pub(crate) const REFERENCE: &str = "loop";

/// The system that ratios of key-value servers refer to.
pub(crate) const REDIS: &str = "redis-server";

/// The system whose highest rate of calls paces the open loops of calls.
pub(crate) const YARDSTICK: &str = "protosocket-rpc-2.0.2";

/// A server that can be started by name.
#[derive(Debug)]
pub(crate) struct System {
    /// What `--systems` and the reports call it.
    pub(crate) name: &'static str,
    /// What it is, in a line of the reports.
    pub(crate) about: &'static str,
    /// Starts the echo server, if it is one.
    echo: Option<Start>,
    /// How it answers calls, if it does.
    rpc: Option<Rpc>,
    /// How it echoes over TLS, if it does.
    tls: Option<Tls>,
    /// Starts the key-value server, if it is one.
    resp: Option<Start>,
    /// Programs that must be installed.
    programs: &'static [&'static str],
}

/// Starts listening. Called once per process, inside a tokio runtime of any kind.
pub(crate) type Start = fn() -> io::Result<Server>;

impl System {
    /// Does nothing.
    const IDLE: Self = Self {
        name: "",
        about: "",
        echo: None,
        rpc: None,
        tls: None,
        resp: None,
        programs: &[],
    };

    /// Whether it can do this work.
    pub(crate) fn does(&self, work: Work) -> bool {
        self.server(work).is_some()
    }

    /// The server that does this work, if it can.
    pub(crate) fn server(&self, work: Work) -> Option<Start> {
        match work {
            Work::Rpc(work) => self.rpc.filter(|rpc| rpc.does(work)).map(|rpc| rpc.start),
            Work::Tls(work) => self.tls.filter(|tls| tls.does(work)).map(|tls| tls.start),
            Work::Resp(_) => self.resp,
            _ => self.echo,
        }
    }

    /// A program that it cannot do this work without and that is not installed.
    pub(crate) fn missing_program(&self, work: Work) -> Option<&'static str> {
        let programs = self.programs.iter().chain(work.programs());
        programs
            .copied()
            .find(|program| !machine::has_program(program))
    }

    /// Its client for calls, if it has one of its own.
    pub(crate) fn own_client(&self) -> Option<OwnClient> {
        self.rpc.and_then(|rpc| rpc.own)
    }
}

/// A system is known by its name.
impl PartialEq for System {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for System {}

/// A system that listens.
pub(crate) struct Server {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// Accepts and serves connections for as long as it is polled.
    pub(crate) run: Pin<Box<dyn Future<Output = io::Result<()>>>>,
    /// Whose time and memory are those of the server.
    pub(crate) process: Process,
}

impl Server {
    /// One of this process.
    fn here(address: SocketAddr, run: impl Future<Output = io::Result<()>> + 'static) -> Self {
        Self {
            address,
            run: Box::pin(run),
            process: Process::This,
        }
    }
}

/// The system of that name.
pub(crate) fn find(name: &str) -> Option<&'static System> {
    SYSTEMS.iter().find(|system| system.name == name)
}

/// Listens with plain tokio, and spawns a task for each connection.
fn serve_tasks<S, F>(serve: S) -> io::Result<Server>
where
    S: Fn(TcpStream) -> F + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let accept = async move {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // A client that resets its connection is no concern of the other clients, so the
            // result of its task is left alone.
            tokio::spawn(serve(stream));
        }
    };
    Ok(Server::here(address, accept))
}
