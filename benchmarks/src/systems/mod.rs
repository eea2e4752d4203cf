//! The servers that are compared, one file each.
//!
//! To add one: write a file with `pub(super) fn start() -> io::Result<Server>` that listens on a
//! free port of the loopback address and answers every message of [`crate::frame`] that wants a
//! reply with the same message, through the public interface and the default configuration of its
//! library; name it in [`SYSTEMS`].

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;

use tokio::net::TcpStream;

mod framed;
mod hand_loop;
mod ours;
mod protosocket_v2;

/// Every system, the reference of the ratios first.
pub(crate) const SYSTEMS: &[System] = &[
    System {
        name: REFERENCE,
        about: "tokio by hand: frames are copied from one read buffer into one out buffer",
        start: hand_loop::start,
    },
    System {
        name: "ours",
        about: "this project; the reactor replies through its context",
        start: ours::start,
    },
    System {
        name: "ours-channel",
        about: "this project; the reactor replies through the sender of its connection",
        start: ours::start_channel,
    },
    System {
        name: "ours-machine",
        about: "this project; a machine behind the adapter replies",
        start: ours::start_machine,
    },
    System {
        name: "protosocket-2.0.2",
        about: "the published protosocket with its pooled encoder; the reactor replies through its channel",
        start: protosocket_v2::start,
    },
    System {
        name: "framed",
        about: "tokio-util's Framed with its LengthDelimitedCodec; a flush for all that was read",
        start: framed::start,
    },
];

/// The system that ratios refer to.
pub(crate) const REFERENCE: &str = "loop";

/// An echo server that can be started by name.
#[derive(Debug)]
pub(crate) struct System {
    /// What `--systems` and the reports call it.
    pub(crate) name: &'static str,
    /// What it is, in a line of the reports.
    pub(crate) about: &'static str,
    /// Starts listening. Called once per process, inside a tokio runtime of any kind.
    pub(crate) start: fn() -> io::Result<Server>,
}

/// A system that listens.
pub(crate) struct Server {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// Accepts and serves connections for as long as it is polled.
    pub(crate) run: Pin<Box<dyn Future<Output = io::Result<()>>>>,
}

/// The system of that name.
pub(crate) fn find(name: &str) -> Option<&'static System> {
    SYSTEMS.iter().find(|system| system.name == name)
}

/// Listens with plain tokio, and spawns a task for each connection.
fn serve_tasks<F>(serve: fn(TcpStream) -> F) -> io::Result<Server>
where
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
    Ok(Server {
        address,
        run: Box::pin(accept),
    })
}
