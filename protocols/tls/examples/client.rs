//! A client that says a line over TLS and prints the answer: `cargo run -p protosocket-tls
//! --example tls-client -- 127.0.0.1:8443 authority.pem hello`, with a server of the example `tls-server`.

#![expect(clippy::print_stdout, reason = "it shows what was answered")]

use std::{env, error::Error, net::SocketAddr};

use protosocket::{
    Connection, ConnectionConfig, Layered, Limits, LinesCodec, MessageReactor, ReactorContext,
    ReactorStatus, SendError, SocketConnector, TcpConnector, channel,
};
use protosocket_tls::{Connector, Roots, ring};

/// Prints the first line that comes, and is done.
struct Print;

impl MessageReactor for Print {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, LinesCodec>,
        line: String,
    ) -> ReactorStatus {
        println!("{line}");
        ReactorStatus::Disconnect
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        line: String,
    ) -> Result<(), SendError<String>> {
        context.send(line)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, authority, text] = &arguments[..] else {
        return Err("three arguments are wanted: ADDRESS AUTHORITY.pem TEXT".into());
    };
    let address: SocketAddr = address.parse()?;
    let connector = Connector::builder(ring())
        .server_name("localhost")
        .roots(Roots::from_pem_file(authority)?)
        .alpn_protocols(["echo"])
        .key_log_from_environment()
        .build()?;
    let connector = Layered::new(TcpConnector::new(address), connector);
    let stream = connector.connect().await?;
    println!("connected: {stream:?}");

    let (sender, outbound) = channel(1);
    let config = ConnectionConfig::client(Limits::client())?;
    let connection = Connection::over(stream, LinesCodec::new(), Print, outbound, &config);
    sender
        .send(text.clone())
        .await
        .map_err(|error| error.to_string())?;
    println!("ended: {}", connection.await.reason);
    Ok(())
}
