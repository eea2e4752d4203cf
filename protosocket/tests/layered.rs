//! Connectors with an establisher on their streams. Listeners with one are tested with the server.

use std::{future::Future, io, pin::Pin, time::Duration};

use protosocket::{
    Establisher, Layered, MemoryConnector, MemoryListener, PeerAddress, SocketConnector,
    SocketListener, Transport, memory_listener,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Says a byte, and wants to hear the same.
#[derive(Debug)]
struct Password(u8);

impl<S: Transport + Send> Establisher<S> for Password {
    type Stream = S;
    type Establish = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

    fn establish(&self, mut stream: S) -> Self::Establish {
        let password = self.0;
        Box::pin(async move {
            stream.write_u8(password).await?;
            match stream.read_u8().await? {
                said if said == password => Ok(stream),
                said => Err(io::Error::other(format!("expected {password}, got {said}"))),
            }
        })
    }
}

fn pair() -> (MemoryListener, MemoryConnector) {
    memory_listener(64)
}

/// The stream that the listener takes next.
async fn accept<L: SocketListener>(listener: &mut L) -> io::Result<L::Stream> {
    let accepted = std::future::poll_fn(|cx| listener.poll_accept(cx)).await?;
    accepted.establish.await
}

#[tokio::test]
async fn establishers_of_both_sides_meet() {
    let (listener, connector) = pair();
    let mut listener = Layered::new(Layered::new(listener, Password(1)), Password(2));
    let connector = Layered::new(Layered::new(connector, Password(1)), Password(2));

    let (accepted, connected) = tokio::join!(accept(&mut listener), connector.connect());
    let mut accepted = accepted.expect("the passwords are the same");
    let mut connected = connected.expect("the passwords are the same");
    connected.write_u8(7).await.expect("the pipe has room");
    assert_eq!(accepted.read_u8().await.expect("it was sent"), 7);
}

#[tokio::test]
async fn an_establisher_that_fails_is_an_error_with_the_address() {
    let (listener, connector) = pair();
    let mut listener = Layered::new(listener, Password(1));
    let connector = Layered::new(connector, Password(2));

    let (accepted, connected) = tokio::join!(accept(&mut listener), connector.connect());
    let error = accepted.expect_err("the passwords differ").to_string();
    assert_eq!(error, "expected 1, got 2");
    let error = connected.expect_err("the passwords differ");
    assert_eq!(error.address, PeerAddress::Memory);
    assert_eq!(error.source.to_string(), "expected 2, got 1");
}

#[tokio::test(start_paused = true)]
async fn an_establisher_that_takes_too_long_is_cut() {
    let (mut listener, connector) = pair();
    let connector = Layered::new(connector, Password(1)).timeout(Duration::from_secs(3));

    let begun = tokio::time::Instant::now();
    let (accepted, connected) = tokio::join!(accept(&mut listener), connector.connect());
    let mut peer = accepted.expect("a pipe is open at once");
    let error = connected.expect_err("nobody answers");
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
    let error = error.to_string();
    assert!(error.contains("handshake_timeout"), "{error}");
    // The stream is closed, so that the peer does not wait.
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard)
        .await
        .expect("the end is clean");
    assert_eq!(heard, [1]);
}
