//! A server in a process of its own, which a test can starve or stop.

use std::{
    io::{self, Read},
    net::SocketAddr,
};

use protosocket::TcpSocketListener;
use protosocket_server::ProtosocketServerConfig;

use crate::common::Connector;

/// Tell the process of the test, a word per line.
#[expect(clippy::print_stdout, reason = "this is how the two processes talk")]
pub(crate) fn tell(what: &str) {
    println!("\n@{what}");
}

/// Tell the address, and serve until the process of the test is gone.
pub(crate) fn serve(config: ProtosocketServerConfig) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .expect("there are descriptors for a runtime");
    runtime.block_on(async {
        let server = config
            .bind_tcp(
                SocketAddr::from(([127, 0, 0, 1], 0)),
                Connector::<TcpSocketListener>::new(),
            )
            .expect("a port is free");
        let address = server.listener().map(TcpSocketListener::local_address);
        let address = address.expect("it listens").expect("it is bound");
        tell(&address.to_string());
        let server = tokio::spawn(server);
        let end = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
        tokio::select! {
            _ = end => {}
            ended = server => panic!("the server has ended: {ended:?}"),
        }
    });
}
