//! An observer that remembers what it was told, and whose knowledge can be waited for.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
};

use protosocket::{
    CloseReason, ConnectionObserver, ConnectionStats, DecodeError, EncodeError, EstablishError,
    PeerAddress, Refusal,
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
    /// The reason, as it is told to people; why the handshake failed, if one did.
    pub text: String,
    /// What it had done.
    pub stats: ConnectionStats,
}

/// The name of an end in tests: [`CloseReason::name`], and which error it was if a codec
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

/// Remembers what happened to connections, and lets a test wait for it.
#[derive(Debug)]
pub struct Recorder {
    recorded: Mutex<Recorded>,
    /// How many were opened, and how many have ended or were refused.
    count: watch::Sender<(usize, usize)>,
}

#[derive(Debug, Default)]
struct Recorded {
    closed: Vec<&'static str>,
    endings: Vec<Ending>,
    traffic: ConnectionStats,
    /// Why handshakes failed whose refusal has not been told yet.
    failures: Vec<(PeerAddress, String)>,
}

impl Recorder {
    /// One that has heard of nothing.
    pub fn new() -> Self {
        Self {
            recorded: Mutex::default(),
            count: watch::Sender::new((0, 0)),
        }
    }

    /// How many were opened.
    pub fn opened(&self) -> usize {
        self.count.borrow().0
    }

    /// The reason of every end, by [`CloseReason::name`], in order. Who was refused has none.
    pub fn closed(&self) -> Vec<&'static str> {
        self.lock().closed.clone()
    }

    /// Every end, and every refusal of a peer that is known, that nobody has
    /// [waited for](Self::ending_of), in order.
    pub fn endings(&self) -> Vec<Ending> {
        self.lock().endings.clone()
    }

    /// The sum of all reports.
    pub fn traffic(&self) -> ConnectionStats {
        self.lock().traffic
    }

    /// Wait until a connection has been opened.
    pub async fn until_opened(&self) {
        let mut count = self.count.subscribe();
        // An error is impossible: the sender is this very observer's.
        let _ = count.wait_for(|count| count.0 > 0).await;
    }

    /// Wait until so many have ended, or were refused though their peers are known.
    pub async fn until_ended(&self, many: usize) {
        let mut ended = self.count.subscribe();
        // As above.
        let _ = ended.wait_for(|count| count.1 >= many).await;
    }

    /// Wait for the end of the connection whose peer has this address, and forget it: the next
    /// connection may have the same.
    pub async fn ending_of(&self, peer: SocketAddr) -> Ending {
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
        let endings = &mut self.lock().endings;
        let index = endings.iter().position(|ending| ending.peer == *peer)?;
        Some(endings.remove(index))
    }

    fn add(&self, ending: Ending, name: Option<&'static str>) {
        let mut recorded = self.lock();
        recorded.closed.extend(name);
        recorded.endings.push(ending);
        drop(recorded);
        self.count.send_modify(|count| count.1 += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.recorded
            .lock()
            .expect("no code that panics runs under it")
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl ConnectionObserver for Recorder {
    fn opened(&self, _peer: &PeerAddress) {
        self.count.send_modify(|count| count.0 += 1);
    }

    fn traffic(&self, delta: &ConnectionStats) {
        let sum = &mut self.lock().traffic;
        sum.bytes_in += delta.bytes_in;
        sum.bytes_out += delta.bytes_out;
        sum.messages_in += delta.messages_in;
        sum.messages_out += delta.messages_out;
        sum.unsent += delta.unsent;
        sum.cut += delta.cut;
        sum.unanswered += delta.unanswered;
        sum.refused += delta.refused;
    }

    fn closed(&self, peer: &PeerAddress, reason: &CloseReason, stats: &ConnectionStats) {
        let ending = Ending {
            peer: peer.clone(),
            end: end_name(reason).to_owned(),
            text: reason.to_string(),
            stats: *stats,
        };
        self.add(ending, Some(reason.name()));
    }

    fn handshake_failed(&self, peer: &PeerAddress, error: &EstablishError) {
        let failure = (peer.clone(), error.to_string());
        self.lock().failures.push(failure);
    }

    fn refused(&self, peer: Option<&PeerAddress>, refusal: Refusal) {
        let Some(peer) = peer else { return };
        // Told right before, in the same poll: those of one peer are in order.
        let failure = {
            let failures = &mut self.lock().failures;
            let index = failures.iter().position(|(failed, _)| failed == peer);
            index.map(|index| failures.remove(index).1)
        };
        let ending = Ending {
            peer: peer.clone(),
            end: format!("refused/{}", refusal.name()),
            text: failure.unwrap_or_else(|| "the connection was refused".to_owned()),
            stats: ConnectionStats::default(),
        };
        self.add(ending, None);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn an_end_is_waited_for_and_taken_once_and_stays_in_the_account() {
        let recorder = Recorder::new();
        let address = SocketAddr::from(([127, 0, 0, 1], 7));
        let peer = PeerAddress::Ip(address);
        let other = PeerAddress::Ip(SocketAddr::from(([127, 0, 0, 1], 8)));
        let mut cx = Context::from_waker(Waker::noop());
        let mut opened = pin!(recorder.until_opened());
        let mut ending = pin!(recorder.ending_of(address));
        assert!(opened.as_mut().poll(&mut cx).is_pending());
        assert!(ending.as_mut().poll(&mut cx).is_pending());

        ConnectionObserver::opened(&recorder, &peer);
        assert!(opened.as_mut().poll(&mut cx).is_ready());
        let stats = ConnectionStats::default();
        ConnectionObserver::closed(&recorder, &other, &CloseReason::Dropped, &stats);
        assert!(ending.as_mut().poll(&mut cx).is_pending(), "somebody else");
        let reason = CloseReason::Decode(DecodeError::malformed("odd"));
        ConnectionObserver::closed(&recorder, &peer, &reason, &stats);
        let Poll::Ready(ending) = ending.as_mut().poll(&mut cx) else {
            panic!("it has ended");
        };
        assert_eq!(ending.end, "decode/malformed");
        assert!(pin!(recorder.ending_of(address)).poll(&mut cx).is_pending());

        recorder.refused(Some(&peer), Refusal::Overload);
        let ends: Vec<_> = recorder.endings().into_iter().map(|end| end.end).collect();
        assert_eq!(ends, ["dropped", "refused/overload"]);
        assert_eq!(recorder.closed(), ["dropped", "decode"]);
        assert_eq!(recorder.opened(), 1);
    }
}
