//! Sets a key, counts, and asks for several things at once.
//!
//! `cargo run -p protosocket-resp --example resp-client -- 127.0.0.1:6379`

#![expect(
    clippy::print_stdout,
    reason = "it tells its user what it was answered"
)]

use protosocket::{Backoff, Reconnect, TcpConnector};
use protosocket_resp::{ClientConfig, Command, connect};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:6379".into());
    let connector = TcpConnector::new(address.parse()?);
    let reconnect = Reconnect::new(connector, Backoff::new())?;
    let (client, _pushes, driver) = connect(reconnect, &ClientConfig::new());
    let driver = tokio::spawn(driver);

    let set = Command::new("SET")
        .arg("greeting")
        .arg("hello")
        .arg("EX")
        .number(60);
    println!("SET: {:?}", client.call(set).await?);
    // Both are on their way before the first is answered.
    let get = client.call(Command::new("GET").arg("greeting"));
    let count = client.call(Command::new("INCR").arg("visits"));
    println!(
        "GET: {:?}, INCR: {:?}",
        get.await?.as_str(),
        count.await?.as_integer()
    );
    if let Err(error) = client.call(Command::new("INCR").arg("greeting")).await {
        println!("INCR of a text: {error}");
    }

    // With the last client, the connection ends in order.
    drop(client);
    driver.await??;
    Ok(())
}
