//! Callers on several threads.

use std::{
    future::pending,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use protosocket::{Backoff, ConnectError, Reconnect, SocketConnector, Transport};
use protosocket_pipeline::{PipelineConfig, connect};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use crate::echoes::Echoes;

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
