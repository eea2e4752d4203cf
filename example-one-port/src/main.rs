//! Several protocols on one port: telnet lines, RESP, and TLS with both of these inside.
//!
//! The first bytes say what a client speaks. Inside of TLS the protocol is the one that was agreed
//! on (ALPN `resp` or `lines`), and without any the first bytes say so again. A proxy on this machine
//! may send a PROXY header first, and clients are then those that it names. Whoever speaks HTTP or SSH
//! is refused, and the server prints why. Ctrl-C drains all of them.

#![expect(clippy::print_stdout, reason = "it tells its user what to type next")]

mod lines;
mod port;
mod resp;

#[cfg(test)]
mod tests;

use std::{error::Error, time::Duration};

use port::Bound;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9000".into());
    let Bound {
        server,
        certificate,
    } = port::bind(address.parse()?)?;
    let listener = server.listener().ok_or("not listening")?;
    let address = listener.get_ref().get_ref().local_address()?;
    let (ip, port) = (address.ip(), address.port());
    println!("listening: telnet {ip} {port}");
    println!("       or: redis-cli -h {ip} -p {port} echo hello");
    println!("       or: openssl s_client -quiet -connect {address}");
    println!("       or: redis-cli -h {ip} -p {port} --tls --insecure echo hello");
    println!(
        "its certificate, for who wants to check it:\n{}",
        certificate.pem
    );
    let handle = server.handle();
    tokio::spawn(server);
    tokio::signal::ctrl_c().await?;
    println!("draining: {}", handle.drain(Duration::from_secs(10)).await);
    Ok(())
}
