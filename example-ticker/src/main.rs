//! Streams of responses: a server that tells prices, and a client that subscribes to them. The
//! messages are generated from `proto/ticker.proto` by `build.rs`.
//!
//! `cargo run -p example-ticker` reads a stream to its end, gives one up, drains the server and ends.

#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::{
    error::Error,
    future::Pending,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use futures_util::StreamExt;
use protosocket::{StreamWithAddress, TcpConnector, TcpSocketListener};
use protosocket_prost::{ClientCodec, ServerCodec};
use protosocket_rpc::{
    client::{Configuration, connect},
    messages,
    server::{ConnectionService, RpcConnection, RpcConnector, RpcKind, SocketService},
};
use protosocket_server::ProtosocketServerConfig;
use tokio::{
    net::TcpStream,
    time::{Interval, interval},
};

#[expect(unreachable_pub, reason = "it is generated for any module")]
mod ticker {
    include!(concat!(env!("OUT_DIR"), "/ticker.rs"));
}
use ticker::{Price, Subscribe};

messages! {
    Subscribe { id, code }
    Price { id, code }
}

/// Accepts connections, and makes a service for each.
struct Exchange;

impl SocketService for Exchange {
    type ConnectionService = Ticker;
    type SocketListener = TcpSocketListener;

    fn codec(&self) -> ServerCodec<Subscribe, Price> {
        ServerCodec::default()
    }

    fn new_stream_service(&self, _stream: &StreamWithAddress<TcpStream>) -> Ticker {
        Ticker
    }

    fn spawn_connection(&self, connection: RpcConnection<Self>) {
        tokio::spawn(connection);
    }
}

/// Answers the calls of one connection.
struct Ticker;

impl ConnectionService for Ticker {
    type Codec = ServerCodec<Subscribe, Price>;
    type Request = Subscribe;
    type Response = Price;
    type UnaryFutureType = Pending<Price>;
    type StreamType = Prices;

    fn new_rpc(&mut self, request: Subscribe) -> RpcKind<Pending<Price>, Prices> {
        RpcKind::Streaming(Prices {
            told: 0,
            ticks: interval(Duration::from_millis(20)),
            request,
        })
    }
}

/// A price per tick. Dropped when its client has heard enough.
struct Prices {
    request: Subscribe,
    ticks: Interval,
    told: u32,
}

impl Stream for Prices {
    type Item = Price;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Price>> {
        if self.told > 0 && self.told == self.request.count {
            return Poll::Ready(None);
        }
        ready!(self.ticks.poll_tick(cx));
        self.told += 1;
        Poll::Ready(Some(Price {
            symbol: self.request.symbol.clone(),
            cents: 10_000 + i64::from(self.told),
            ..Price::default()
        }))
    }
}

impl Drop for Prices {
    fn drop(&mut self) {
        println!("{}: {} prices were told", self.request.symbol, self.told);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server =
        ProtosocketServerConfig::default().bind_tcp(address, RpcConnector::new(Exchange))?;
    let listener = server.listener().ok_or("it has just been bound")?;
    let address = listener.local_address()?;
    let handle = server.handle();
    tokio::spawn(server);
    println!("the server listens on {address}");

    let (connector, codec) = (
        TcpConnector::new(address),
        ClientCodec::<Subscribe, Price>::default(),
    );
    let (client, connection) = connect(&connector, codec, &Configuration::new()).await?;
    tokio::spawn(connection);
    let subscribe = |symbol: &str, count| {
        client.send_streaming(Subscribe {
            symbol: symbol.to_owned(),
            count,
            ..Subscribe::default()
        })
    };

    let mut five = subscribe("FIVE", 5)?;
    while let Some(price) = five.next().await {
        let Price { symbol, cents, .. } = price?;
        println!("{symbol} is at {cents} cents");
    }
    println!("FIVE is complete");

    let mut endless = subscribe("MORE", 0)?;
    for _ in 0..3 {
        let Price { symbol, cents, .. } = endless.next().await.ok_or("it has no end")??;
        println!("{symbol} is at {cents} cents");
    }
    drop(endless);
    println!("MORE is enough, and the server is told");

    println!(
        "the server is drained: {}",
        handle.drain(Duration::from_secs(10)).await
    );
    Ok(())
}
