//! A key-value server in memory that redis-cli, redis-benchmark and redis-py get along with.
//!
//! `cargo run --release -p protosocket-resp --example resp-server -- 127.0.0.1:6380`

#![expect(clippy::print_stdout, reason = "it tells its user where it listens")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use memory::{Session, Store};
use protosocket_resp::Connector;
use protosocket_server::ProtosocketServerConfig;

mod memory;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:6380".into());
    let store = Arc::<Mutex<Store>>::default();
    let shared = store.clone();
    let connector = Connector::new(move |_, _| Session::new(shared.clone()));
    let server = ProtosocketServerConfig::default().bind_tcp(address.parse()?, connector)?;
    let address = server.listener().ok_or("not listening")?.local_address()?;
    println!("listening: redis-cli -p {}", address.port());
    let handle = server.handle();
    tokio::spawn(server);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            store
                .lock()
                .expect("no code that panics runs under it")
                .sweep(Instant::now());
        }
    });
    tokio::signal::ctrl_c().await?;
    println!("draining: {}", handle.drain(Duration::from_secs(10)).await);
    Ok(())
}
