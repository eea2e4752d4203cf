//! Callers on several threads.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use protosocket::{MemoryListener, SocketListener, Transport, memory_listener};
use protosocket_rpc::{
    Error,
    client::{self, Configuration, RpcClient, StreamingCompletion, connect},
    server::{RpcConnection, RpcConnector, SocketRpcServer, SocketService},
};
use protosocket_server::ProtosocketServerConfig;
use protosocket_testkit::{Random, within};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use crate::{
    service::{Heard, Service},
    text::{NORMAL, Text, TextCodec},
};

struct Serving(Heard);

impl SocketService for Serving {
    type ConnectionService = Service;
    type SocketListener = MemoryListener;

    fn codec(&self) -> TextCodec {
        TextCodec
    }

    fn new_stream_service(&self, _: &<MemoryListener as SocketListener>::Stream) -> Service {
        Service::new(self.0.clone())
    }

    fn spawn_connection(&self, connection: RpcConnection<Self>) {
        tokio::spawn(connection);
    }
}

/// The next item of a stream; `futures_core` has no way to wait for it.
pub(crate) async fn next(
    stream: &mut StreamingCompletion<Text, Text>,
) -> Option<Result<Text, Error>> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

/// Make so many calls of all kinds, each of which must end as it should.
async fn call(client: RpcClient<Text, Text>, caller: usize, calls: usize) {
    let mut random = Random::new(caller as u64);
    let mut held = Vec::new();
    for n in 0..calls {
        let own = match random.below(4) {
            // No two callers choose the same id, nor one that clients are given.
            0 => 1 << 60 | (caller << 32 | n) as u64,
            _ => 0,
        };
        let about = format!("{caller}.{n}");
        let permit = client.reserve().await.unwrap();
        match random.below(6) {
            0 => {
                let text = format!("echo {about}");
                let answer = permit.send_unary(Text::new(own, NORMAL, &*text)).unwrap();
                assert_eq!(answer.await.unwrap().text, text);
            }
            1 => {
                let text = format!("later {} {about}", random.below(4));
                let answer = permit.send_unary(Text::new(own, NORMAL, &*text)).unwrap();
                held.push((text, answer));
            }
            2 | 3 => {
                let count = random.below(40);
                let text = format!("count {count} {about}");
                let request = Text::new(own, NORMAL, &*text);
                let mut stream = permit.send_streaming(request).unwrap();
                let until = match random.below(3) {
                    0 => random.below(count + 1),
                    _ => usize::MAX,
                };
                let mut seen = 0;
                while seen < until
                    && let Some(item) = next(&mut stream).await
                {
                    seen += 1;
                    assert_eq!(item.unwrap().text, format!("{seen} {text}"));
                }
                assert_eq!(seen, until.min(count), "{text}");
            }
            4 => {
                let request = Text::new(own, NORMAL, format!("never {about}"));
                let answer = permit.send_unary(request).unwrap();
                if random.below(2) == 0 {
                    tokio::task::yield_now().await;
                }
                drop(answer);
            }
            _ => {
                let request = Text::new(own, NORMAL, format!("reject {about}"));
                let error = permit.send_unary(request).unwrap().await.unwrap_err();
                assert!(matches!(error, Error::CancelledRemotely), "{error}");
            }
        }
        if held.len() >= 2 {
            for (text, answer) in held.drain(..) {
                assert_eq!(answer.await.unwrap().text, text);
            }
        }
    }
    for (text, answer) in held {
        assert_eq!(answer.await.unwrap().text, text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_mixed_calls_from_all_threads_all_end_as_they_should() {
    let heard = Heard::default();
    let (listener, connector) = memory_listener(4096);
    let rpcs = RpcConnector::new(Serving(heard.clone()));
    let server: SocketRpcServer<Serving> = ProtosocketServerConfig::default()
        .build_server(listener, rpcs)
        .unwrap();
    let handle = server.handle();
    tokio::spawn(server);

    // So few that callers wait for each other (but more than all of them hold while they wait), and so small a buffer that they pause each other.
    let configuration = Configuration::new()
        .max_concurrent_calls(48)
        .and_then(|configuration| configuration.max_buffered_items(5))
        .unwrap();
    let (client, connection) = within(connect(&connector, TextCodec, &configuration))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let callers: Vec<_> = (0..20)
        .map(|caller| tokio::spawn(call(client.clone(), caller, 500)))
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(client.is_alive());
    drop(client);
    let end = connection.await.unwrap();
    assert_eq!(end.reason.name(), "no_senders");
    assert_eq!((end.stats.unsent, end.stats.unanswered), (0, 0));
    let heard = heard.lock().unwrap().clone();
    assert!(heard.values().all(|times| *times == 1), "each once");
    let report = within(handle.drain(Duration::from_secs(10))).await;
    assert!(report.is_clean(), "{report}");
}

/// A pipe that counts how often it is written into.
struct Counted {
    pipe: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl Transport for Counted {}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// This runtime runs the task that was woken last first, which is the connection, as soon as the
/// first of many callers has begun its next call. The others are waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_of_callers_that_were_answered_together_are_written_together() {
    const CALLERS: usize = 64;
    const CALLS: usize = 100;
    let (near, far) = tokio::io::duplex(1 << 20);
    let writes = Arc::new(AtomicUsize::new(0));
    let near = Counted {
        pipe: near,
        writes: writes.clone(),
    };
    let (client, connection) = client::over(near, TextCodec, &Configuration::new());
    let connection = tokio::spawn(connection);
    tokio::spawn(async move {
        // Answers all callers at once, with what they have asked.
        let mut far = far;
        let mut bytes = vec![0; CALLERS * (2 + 9 + "again".len())];
        for _ in 0..CALLS {
            far.read_exact(&mut bytes).await.unwrap();
            far.write_all(&bytes).await.unwrap();
        }
    });
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    let request = Text::new(0, NORMAL, "again");
                    assert_eq!(
                        client.send_unary(request).unwrap().await.unwrap().text,
                        "again"
                    );
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    drop(client);
    connection.await.unwrap();
    let writes = writes.load(Ordering::Relaxed);
    assert!(
        writes <= 4 * CALLS,
        "{writes} writes for {CALLS} calls of {CALLERS} callers each"
    );
}
