//! An observer whose knowledge of ends can be waited for.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
};

use protosocket::{
    CloseReason, ConnectionObserver, ConnectionStats, DecodeError, EncodeError, PeerAddress,
    Refusal,
};
use tokio::sync::watch;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending {
    /// Whose connection it was.
    pub peer: PeerAddress,
    /// The reason's name, see [`end_name`]; `refused/…` if it was never established.
    pub end: String,
    /// The reason, as it is told to people.
    pub text: String,
    /// What it had done.
    pub stats: ConnectionStats,
}

/// An observer that remembers how connections ended, and lets a test wait for it.
#[derive(Debug)]
pub struct Endings {
    endings: Mutex<Vec<Ending>>,
    /// How many were opened and how many have ended.
    count: watch::Sender<(usize, usize)>,
}

/// Every name of an end that a case may expect.
pub(super) const ENDS: &[&str] = &[
    "end_of_input",
    "no_senders",
    "disconnect",
    "handover",
    "drained",
    "age",
    "decode/malformed",
    "decode/too_large",
    "decode/truncated",
    "decode/no_progress",
    "decode/overrun",
    "decode/other",
    "protocol",
    "encode/too_large",
    "encode/invalid",
    "encode/shrunk",
    "encode/other",
    "send_buffer_full",
    "output_finished",
    "io",
    "connect_timeout",
    "handshake_timeout",
    "first_message_timeout",
    "message_timeout",
    "idle_timeout",
    "write_timeout",
    "drain_timeout",
    "aborted",
    "panicked",
    "dropped",
];

/// The name of an end in corpus files: [`CloseReason::name`], and which error it was if a codec
/// failed, such as `decode/too_large`.
pub fn end_name(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::Decode(error) => match error {
            DecodeError::Malformed(_) => "decode/malformed",
            DecodeError::TooLarge { .. } => "decode/too_large",
            DecodeError::Truncated { .. } => "decode/truncated",
            DecodeError::NoProgress(_) => "decode/no_progress",
            DecodeError::Overrun { .. } => "decode/overrun",
            _ => "decode/other",
        },
        CloseReason::Encode(error) => match error {
            EncodeError::TooLarge { .. } => "encode/too_large",
            EncodeError::Invalid(_) => "encode/invalid",
            EncodeError::Shrunk(_) => "encode/shrunk",
            _ => "encode/other",
        },
        reason => reason.name(),
    }
}

impl Endings {
    /// One that has heard of nothing.
    pub fn new() -> Self {
        Self {
            endings: Mutex::default(),
            count: watch::Sender::new((0, 0)),
        }
    }

    /// Everything that has ended so far and that nobody has waited for, in order.
    pub fn all(&self) -> Vec<Ending> {
        self.lock().clone()
    }

    /// Wait until a connection has been opened.
    pub async fn opened(&self) {
        let mut count = self.count.subscribe();
        // An error is impossible: the sender is this very observer's.
        let _ = count.wait_for(|count| count.0 > 0).await;
    }

    /// Wait for the end of the connection whose peer has this address, and forget it: the next
    /// connection may have the same.
    pub async fn of(&self, peer: SocketAddr) -> Ending {
        let peer = PeerAddress::Ip(peer);
        let mut count = self.count.subscribe();
        loop {
            count.mark_unchanged();
            if let Some(ending) = self.take(&peer) {
                return ending;
            }
            // As above.
            let _ = count.changed().await;
        }
    }

    fn take(&self, peer: &PeerAddress) -> Option<Ending> {
        let mut endings = self.lock();
        let index = endings.iter().position(|ending| ending.peer == *peer)?;
        Some(endings.remove(index))
    }

    fn add(&self, ending: Ending) {
        self.lock().push(ending);
        self.count.send_modify(|count| count.1 += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ending>> {
        self.endings
            .lock()
            .expect("no code that panics runs under it")
    }
}

impl Default for Endings {
    fn default() -> Self {
        Self::new()
    }
}

impl ConnectionObserver for Endings {
    fn opened(&self, _peer: &PeerAddress) {
        self.count.send_modify(|count| count.0 += 1);
    }

    fn closed(&self, peer: &PeerAddress, reason: &CloseReason, stats: &ConnectionStats) {
        self.add(Ending {
            peer: peer.clone(),
            end: end_name(reason).to_owned(),
            text: reason.to_string(),
            stats: *stats,
        });
    }

    fn refused(&self, peer: Option<&PeerAddress>, refusal: Refusal) {
        let Some(peer) = peer else { return };
        self.add(Ending {
            peer: peer.clone(),
            end: format!("refused/{}", refusal.name()),
            text: "the connection was refused".to_owned(),
            stats: ConnectionStats::default(),
        });
    }
}
