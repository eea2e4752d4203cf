//! Bound to a listener, with limits, drain and panics of `protosocket-server`.

use std::{cell::Cell, rc::Rc, time::Duration};

use protosocket::{
    MemoryConnector, MemoryListener, SocketConnector, SocketListener, memory_listener,
};
use protosocket_rpc::{
    RpcServerConfig,
    server::{RpcConnection, RpcConnector, SocketRpcServer, SocketService},
};
use protosocket_server::ProtosocketServerConfig;
use protosocket_testkit::{ScriptedPeer, within};
use tokio::task::LocalSet;

use crate::common::{Service, Stage, Text, TextCodec, describe, limit};

/// Its services are not `Send`.
struct PerCore {
    stage: Stage,
    connections: Rc<Cell<usize>>,
}

impl SocketService for PerCore {
    type ConnectionService = Service;
    type SocketListener = MemoryListener;

    fn codec(&self) -> TextCodec {
        TextCodec
    }

    fn new_stream_service(&self, _: &<MemoryListener as SocketListener>::Stream) -> Service {
        self.connections.set(self.connections.get() + 1);
        assert_ne!(self.connections.get(), 2, "the second has no service");
        Service::new(self.stage.clone())
    }

    fn spawn_connection(&self, connection: RpcConnection<Self>) {
        tokio::task::spawn_local(connection);
    }
}

async fn connect(
    connector: &MemoryConnector,
) -> ScriptedPeer<<MemoryListener as SocketListener>::Stream, TextCodec> {
    let stream = within(connector.connect()).await.expect("it listens");
    ScriptedPeer::new(stream, TextCodec)
}

#[tokio::test(start_paused = true)]
async fn d16_a_server_of_a_core_serves_survives_a_panic_and_is_drained() {
    LocalSet::new()
        .run_until(async {
            let (listener, connector) = memory_listener(1024);
            let stage = Stage::default();
            let service = PerCore {
                stage: stage.clone(),
                connections: Rc::default(),
            };
            let rpcs = RpcConnector::with_config(service, limit(1)).expect("it is valid");
            let server: SocketRpcServer<PerCore> = ProtosocketServerConfig::default()
                .build_server(listener, rpcs)
                .expect("the defaults are valid");
            let handle = server.handle();
            tokio::task::spawn_local(server);

            let mut first = connect(&connector).await;
            first.send(Text::new(1, 0, "wait")).await;
            first.send(Text::new(2, 0, "wait")).await;
            let answer = within(first.receive()).await.map(describe);
            assert_eq!(answer.as_deref(), Some("2:cancelled"), "the limit is one");

            let mut second = connect(&connector).await;
            assert_eq!(within(second.receive()).await, None, "its factory panicked");

            let mut third = connect(&connector).await;
            third.send(Text::new(1, 0, "echo hello")).await;
            let answer = within(third.receive()).await.map(describe);
            assert_eq!(answer.as_deref(), Some("1:hello"));

            let drained = handle.drain(Duration::from_secs(10));
            stage.give(1, "one");
            let answer = within(first.receive()).await.map(describe);
            assert_eq!(answer.as_deref(), Some("1:one"));
            let report = within(drained).await;
            assert!(report.is_clean(), "{report}");
        })
        .await;
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let service = PerCore {
        stage: Stage::default(),
        connections: Rc::default(),
    };
    let config = RpcServerConfig::default().max_concurrent_rpcs(0);
    let error = RpcConnector::with_config(service, config).unwrap_err();
    assert!(
        error.to_string().starts_with("max_concurrent_rpcs"),
        "{error}"
    );
}
