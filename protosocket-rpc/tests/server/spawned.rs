use std::{convert::Infallible, pin::Pin, sync::Arc};

use futures_core::Stream;
use protosocket::{Connection, ConnectionConfig, channel};
use protosocket_rpc::{
    Message, RpcServerConfig,
    server::{ConnectionService, RpcKind, RpcReactor, Spawned},
};
use protosocket_testkit::{ScriptedPeer, within};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{Notify, mpsc},
    task::{JoinHandle, LocalSet},
};

use crate::common::{Text, TextCodec, describe};

/// Spawns every rpc, which tells when it begins and when it is dropped.
struct Spawns {
    spawn: fn(Work) -> Spawned<Text>,
    tell: mpsc::UnboundedSender<&'static str>,
    go: Arc<Notify>,
}

type Work = Pin<Box<dyn Future<Output = Text> + Send>>;

/// There are no streams.
type Never = Pin<Box<dyn Stream<Item = Text> + Send>>;

struct Tell(mpsc::UnboundedSender<&'static str>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

impl ConnectionService for Spawns {
    type Codec = TextCodec;
    type Request = Text;
    type Response = Text;
    type UnaryFutureType = Spawned<Text>;
    type StreamType = Never;

    fn new_rpc(&mut self, request: Text) -> RpcKind<Spawned<Text>, Never> {
        let (tell, go) = (self.tell.clone(), self.go.clone());
        RpcKind::Unary((self.spawn)(Box::pin(async move {
            let _dropped = Tell(tell.clone());
            let _ = tell.send("begun");
            if request.text == "wait" {
                go.notified().await;
            }
            assert_ne!(request.text, "panic", "as it was asked");
            request
        })))
    }
}

struct Served {
    client: ScriptedPeer<DuplexStream, TextCodec>,
    told: mpsc::UnboundedReceiver<&'static str>,
    go: Arc<Notify>,
    connection: JoinHandle<()>,
}

impl Served {
    fn new(
        spawn: fn(Work) -> Spawned<Text>,
        run: impl FnOnce(Connection<DuplexStream, RpcReactor<Spawns>>) -> JoinHandle<()>,
    ) -> Self {
        let (near, far) = duplex(1024);
        let (tell, told) = mpsc::unbounded_channel();
        let go = Arc::new(Notify::new());
        let service = Spawns {
            spawn,
            tell,
            go: go.clone(),
        };
        let reactor = RpcReactor::new(service, &RpcServerConfig::default()).expect("it is valid");
        let (_, outbound) = channel::<Infallible>(1);
        let config = ConnectionConfig::default();
        let connection = Connection::new(far, TextCodec, reactor, outbound, &config);
        Self {
            client: ScriptedPeer::new(near, TextCodec),
            told,
            go,
            connection: run(connection),
        }
    }

    async fn call(&mut self, id: u64, text: &str) {
        within(self.client.send(Text::new(id, 0, text))).await;
        assert_eq!(within(self.told.recv()).await, Some("begun"));
    }

    async fn said(&mut self) -> String {
        describe(within(self.client.receive()).await.expect("it goes on"))
    }

    async fn play(mut self) {
        self.call(1, "wait").await;
        self.call(2, "hello").await;
        assert_eq!(self.said().await, "2:hello");
        assert_eq!(within(self.told.recv()).await, Some("dropped"));
        self.go.notify_one();
        assert_eq!(self.said().await, "1:wait");
        assert_eq!(within(self.told.recv()).await, Some("dropped"));

        self.call(3, "panic").await;
        assert_eq!(self.said().await, "3:cancelled");
        assert_eq!(within(self.told.recv()).await, Some("dropped"));

        // What nobody wants any more is stopped wherever it runs.
        self.call(4, "wait").await;
        within(self.client.send(Text::cancelled(4))).await;
        assert_eq!(within(self.told.recv()).await, Some("dropped"));
        self.call(5, "wait").await;
        self.connection.abort();
        assert_eq!(within(self.told.recv()).await, Some("dropped"));
        assert_eq!(self.told.try_recv().ok(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_spawned_rpc_answers_panics_and_is_aborted() {
    let run = |connection| {
        tokio::spawn(async move {
            let _: protosocket::ConnectionEnd<_, _> = connection.await;
        })
    };
    within(Served::new(Spawned::new, run).play()).await;
}

#[tokio::test(start_paused = true)]
async fn and_so_does_one_on_the_same_thread() {
    let set = LocalSet::new();
    let run = |connection: Connection<_, _>| {
        tokio::task::spawn_local(async move {
            connection.await;
        })
    };
    set.run_until(async { Served::new(Spawned::local, run).play().await })
        .await;
}
