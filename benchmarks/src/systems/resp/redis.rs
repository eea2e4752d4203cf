//! `redis-server`: the program that is installed, as a process of its own. It runs where this process
//! may run and ends with it.

use std::future::pending;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::super::{REDIS, Server};
use crate::machine::{self, Process};

pub(in super::super) const PROGRAMS: &[&str] = &[machine::BOUND_TO_ITS_PARENT, REDIS];

/// What it says when clients can connect.
const READY: &str = "Ready to accept connections";

pub(in super::super) fn start() -> io::Result<Server> {
    // It cannot be told to choose a port.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut program = machine::program(REDIS)
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--save", "", "--appendonly", "no", "--io-threads", "1"])
        .spawn()?;
    let output = program.stdout.take().expect("it was just piped");
    let mut lines = BufReader::new(output).lines();
    while !lines
        .next()
        .ok_or_else(|| io::Error::other("redis-server has ended before it was ready"))??
        .contains(READY)
    {}
    Ok(Server {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        process: Process::Other(program.id()),
        run: Box::pin(async move {
            // It would be a nuisance to it if nobody held the other end of its output.
            let _held = lines;
            pending().await
        }),
    })
}
