//! A memcached in memory: `cargo run --example memcached-server -- [--port 11211] [--memory 64]`.
//!
//! `--memory` is in MiB: above it, the items that were used longest ago are evicted. Ctrl-C drains.

#![expect(clippy::print_stdout, reason = "it tells its user what to type next")]

use std::{
    env,
    error::Error,
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use protosocket_memcached::server::Connector;
use protosocket_server::ProtosocketServerConfig;

mod memory;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut port, mut memory) = (11211, 64);
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or("each option has a value")?;
        match name.as_str() {
            "--port" => port = value.parse()?,
            "--memory" => memory = value.parse()?,
            _ => return Err("the options are --port PORT and --memory MIB".into()),
        }
    }
    let max_bytes = memory * 1024 * 1024;
    let cache = memory::Memory::new(max_bytes, SystemTime::now);
    let connector = Connector::new(move |_| cache.clone());
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let server = ProtosocketServerConfig::default().bind_tcp(address, connector)?;
    let address = server.listener().ok_or("not listening")?.local_address()?;
    println!(
        "listening: telnet {} {}, then type stats",
        address.ip(),
        address.port()
    );
    let handle = server.handle();
    tokio::spawn(server);
    tokio::signal::ctrl_c().await?;
    println!("draining: {}", handle.drain(Duration::from_secs(10)).await);
    Ok(())
}
