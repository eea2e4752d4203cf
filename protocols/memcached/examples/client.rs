//! Talks to a memcached: `cargo run --example memcached-client -- [127.0.0.1:11211]`.

#![expect(clippy::print_stdout, reason = "it tells its user what came")]

use std::{env, error::Error, net::SocketAddr, time::Duration};

use protosocket::{Backoff, Reconnect, TcpConnector};
use protosocket_memcached::{
    Client, Expiration,
    client::{NewValue, PipelineConfig},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:11211".into());
    let address: SocketAddr = address.parse()?;
    let reconnect = Reconnect::new(TcpConnector::new(address), Backoff::default())?;
    let (client, driver) = Client::connect(reconnect, &PipelineConfig::new());
    tokio::spawn(driver);

    let in_a_minute = Expiration::after(Duration::from_secs(60))?;
    let greeting = NewValue::new("hello").flags(7).expiration(in_a_minute);
    // These three are sent together, in this order, and awaited afterwards.
    let (set, append, get) = (
        client.set("greeting", greeting),
        client.append("greeting", ", world"),
        client.get("greeting"),
    );
    set.await?;
    println!("appended: {}", append.await?);
    let item = get.await?.ok_or("it was evicted at once")?;
    println!(
        "greeting: {} (flags {})",
        item.value.escape_ascii(),
        item.flags
    );
    Ok(())
}
