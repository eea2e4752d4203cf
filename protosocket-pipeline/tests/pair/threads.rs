//! Callers on several threads.

use std::{
    future::{pending, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use protosocket::{
    Backoff, ConnectError, Reconnect, SocketConnector, SocketListener, Transport, memory_listener,
};
use protosocket_pipeline::{Error, Execution, PipelineClient, PipelineConfig, connect};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use crate::echoes::{Echoes, Heard, serve};

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

/// Connects once.
struct Once(Mutex<Option<Counted>>);

impl SocketConnector for Once {
    type Stream = Counted;

    async fn connect(&self) -> Result<Counted, ConnectError> {
        let stream = self.0.lock().unwrap().take();
        match stream {
            Some(stream) => Ok(stream),
            None => pending().await,
        }
    }
}

/// This runtime runs the task that was woken last first, which is the driver, as soon as the first of
/// many callers has made its next request. The others are waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_of_callers_that_were_answered_together_are_written_together() {
    const CALLERS: usize = 64;
    const REQUESTS: usize = 100;
    let (near, far) = tokio::io::duplex(1 << 20);
    let writes = Arc::new(AtomicUsize::new(0));
    let near = Counted {
        pipe: near,
        writes: writes.clone(),
    };
    let once = Once(Mutex::new(Some(near)));
    let reconnect = Reconnect::new(once, Backoff::new()).unwrap();
    let (client, driver) = connect(reconnect, Echoes, &PipelineConfig::new());
    let driver = tokio::spawn(driver);
    tokio::spawn(async move {
        // Answers all callers at once, with what they have asked.
        let mut far = far;
        let mut bytes = vec![0; CALLERS * "again\n".len()];
        for _ in 0..REQUESTS {
            far.read_exact(&mut bytes).await.unwrap();
            far.write_all(&bytes).await.unwrap();
        }
    });
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..REQUESTS {
                    assert_eq!(client.request("again".into()).await.unwrap(), "again");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    drop(client);
    driver.await.unwrap().unwrap();
    let writes = writes.load(Ordering::Relaxed);
    assert!(
        writes <= 4 * REQUESTS,
        "{writes} writes for {REQUESTS} requests of {CALLERS} callers each"
    );
}

/// Ask so many times, and tell how often the connection was lost meanwhile.
async fn ask(
    client: PipelineClient<Echoes>,
    caller: usize,
    requests: usize,
) -> Vec<(String, Error)> {
    let mut lost = Vec::new();
    let mut held = Vec::new();
    for n in 0..requests {
        let kind = if n % 5 == 4 { "quiet" } else { "ask" };
        let text = format!("{kind} {caller}.{n}");
        let response = client.reserve().await.unwrap().request(text.clone());
        if n % 7 == 0 {
            // Given up: it may be sent or not.
            drop(response);
            continue;
        }
        held.push((text, response));
        if held.len() > n % 4 || n + 1 == requests {
            for (text, response) in held.drain(..) {
                match response.await {
                    Ok(reply) => assert_eq!(reply, text),
                    Err(error) => lost.push((text, error)),
                }
            }
        }
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_from_all_threads_end_as_they_should_while_servers_come_and_go() {
    let heard = Arc::new(Mutex::new(Heard::new()));
    let (mut listener, connector) = memory_listener(4096);
    let hears = heard.clone();
    let server = tokio::spawn(async move {
        for number in 0.. {
            let accepted = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
            let stream = accepted.establish.await.unwrap();
            let hears = hears.clone();
            tokio::spawn(async move {
                let hear = |line| *hears.lock().unwrap().entry(line).or_default() += 1;
                // The first ones close in the midst of it.
                let most = if number < 5 { 1000 } else { usize::MAX };
                let _ = serve(stream, most, hear).await;
            });
        }
    });
    // So few that callers wait for each other, but more than all of them hold while they wait.
    let config = PipelineConfig::new()
        .max_in_flight(64)
        .and_then(|config| config.max_queued(32))
        .unwrap();
    let reconnect = Reconnect::new(connector, Backoff::new()).unwrap();
    let (client, driver) = connect(reconnect, Echoes, &config);
    let driver = tokio::spawn(driver);
    let callers: Vec<_> = (0..20)
        .map(|caller| tokio::spawn(ask(client.clone(), caller, 500)))
        .collect();
    let mut lost = Vec::new();
    for caller in callers {
        lost.extend(caller.await.unwrap());
    }
    drop(client);
    driver.await.unwrap().unwrap();
    server.abort();
    let heard = heard.lock().unwrap();
    assert!(heard.values().all(|times| *times == 1), "each once");
    assert!(heard.len() > 5000, "{}", heard.len());
    for (text, error) in lost {
        let Error::ConnectionLost { execution, .. } = &error else {
            panic!("{text}: {error}");
        };
        assert_eq!(*execution, Execution::MaybeExecuted, "{text}: {error}");
    }
}
