//! Plays a script on a socket.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep, sleep_until},
};

use super::script::Step;

/// A hostile peer's end of a connection.
pub(super) struct Player {
    /// `None` once it has been reset.
    stream: Option<TcpStream>,
    reads: bool,
    slow: Option<(usize, Duration)>,
    /// Bytes that have come, and that no step has asked for.
    unclaimed: u64,
    end: Option<PeerEnd>,
}

/// How the other end finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerEnd {
    Finished,
    Reset,
}

impl Player {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: Some(stream),
            reads: true,
            slow: None,
            unclaimed: 0,
            end: None,
        }
    }

    /// Play the steps, and then wait for as long as this is polled.
    ///
    /// # Errors
    /// The other end did what the script does not allow it.
    pub(super) async fn play(&mut self, steps: &[Step]) -> Result<(), String> {
        for (index, step) in steps.iter().enumerate() {
            let played = self.step(step).await;
            played.map_err(|error| format!("step {} of the script: {error}", index + 1))?;
        }
        Ok(())
    }

    /// Read, or do not, for as long as this is polled.
    pub(super) async fn linger(&mut self) -> Infallible {
        if let Some((most, every)) = self.slow {
            while self.end.is_none() && self.stream.is_some() {
                self.read_once(most).await;
                sleep(every).await;
            }
        }
        while self.reads && self.end.is_none() && self.stream.is_some() {
            self.read_once(usize::MAX).await;
        }
        std::future::pending().await
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Send(bytes) => self.send(bytes).await,
            Step::Dribble(bytes, every) => {
                for byte in bytes.iter() {
                    self.send(&Bytes::copy_from_slice(&[*byte])).await;
                    self.read_for(*every).await;
                }
            }
            Step::Pause(time) => self.read_for(*time).await,
            Step::ShutDown => self.shut_down(),
            Step::Reset => self.reset(),
            Step::NeverRead => self.reads = false,
            Step::SlowRead(most, every) => {
                self.reads = false;
                self.slow = Some((*most, *every));
            }
            Step::Read(count) => self.read(*count).await?,
            Step::ReadEnd => self.read_end().await?,
        }
        Ok(())
    }

    /// Send, and read what comes meanwhile: both ends may have more to say than fits between them.
    async fn send(&mut self, bytes: &[u8]) {
        let mut sent = 0;
        while sent < bytes.len() {
            let Some(stream) = &self.stream else { return };
            let interest = match self.reads && self.end.is_none() {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::WRITABLE,
            };
            let Ok(ready) = stream.ready(interest).await else {
                return;
            };
            if ready.is_writable() {
                match stream.try_write(&bytes[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // The other end has closed, and does not want to hear the rest.
                    Err(_) => {
                        self.end = Some(PeerEnd::Reset);
                        return;
                    }
                }
            }
            if ready.is_readable() {
                self.try_read(usize::MAX);
            }
        }
    }

    fn shut_down(&mut self) {
        if let Some(stream) = &self.stream {
            // An error says that the other end is gone already.
            let _ = SockRef::from(stream).shutdown(std::net::Shutdown::Write);
        }
    }

    fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            // As above.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }

    async fn read(&mut self, count: u64) -> Result<(), String> {
        while self.unclaimed < count {
            if let Some(end) = self.end {
                let unclaimed = self.unclaimed;
                return Err(format!(
                    "expected {count} bytes, there were {unclaimed} before the end ({end:?})"
                ));
            }
            self.read_once(usize::MAX).await;
        }
        self.unclaimed -= count;
        Ok(())
    }

    async fn read_end(&mut self) -> Result<(), String> {
        while self.end.is_none() {
            self.read_once(usize::MAX).await;
        }
        match (self.end, self.unclaimed) {
            (Some(PeerEnd::Reset), _) => Err("expected an end in order, it was a reset".to_owned()),
            (_, 0) => Ok(()),
            (_, more) => Err(format!(
                "expected the end, there were {more} bytes before it"
            )),
        }
    }

    async fn read_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if !self.reads || self.end.is_some() || self.stream.is_none() {
                return sleep_until(until).await;
            }
            // Running out of time is what this waits for.
            let _ = tokio::time::timeout_at(until, self.read_once(usize::MAX)).await;
        }
    }

    async fn read_once(&mut self, most: usize) {
        let Some(stream) = &self.stream else { return };
        if stream.readable().await.is_ok() {
            self.try_read(most);
        }
    }

    fn try_read(&mut self, most: usize) {
        let Some(stream) = &self.stream else { return };
        let mut buffer = [0; 64 * 1024];
        let most = most.min(buffer.len());
        match stream.try_read(&mut buffer[..most]) {
            Ok(0) => self.end = Some(PeerEnd::Finished),
            Ok(count) => self.unclaimed += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.end = Some(PeerEnd::Reset),
        }
    }
}
