//! An observer that remembers what it was told.

use std::sync::Mutex;

use protosocket::{CloseReason, ConnectionObserver, ConnectionStats, PeerAddress};

/// Remembers what happened to connections.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Recorded>);

#[derive(Debug, Default)]
struct Recorded {
    opened: usize,
    closed: Vec<&'static str>,
    traffic: ConnectionStats,
}

impl Recorder {
    /// How many were opened.
    pub fn opened(&self) -> usize {
        self.0.lock().unwrap().opened
    }

    /// The reason of every end.
    pub fn closed(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().closed.clone()
    }

    /// The sum of all reports.
    pub fn traffic(&self) -> ConnectionStats {
        self.0.lock().unwrap().traffic
    }
}

impl ConnectionObserver for Recorder {
    fn opened(&self, _peer: &PeerAddress) {
        self.0.lock().unwrap().opened += 1;
    }

    fn traffic(&self, delta: &ConnectionStats) {
        let sum = &mut self.0.lock().unwrap().traffic;
        sum.bytes_in += delta.bytes_in;
        sum.bytes_out += delta.bytes_out;
        sum.messages_in += delta.messages_in;
        sum.messages_out += delta.messages_out;
        sum.unsent += delta.unsent;
        sum.unanswered += delta.unanswered;
        sum.refused += delta.refused;
    }

    fn closed(&self, _peer: &PeerAddress, reason: &CloseReason, _stats: &ConnectionStats) {
        self.0.lock().unwrap().closed.push(reason.name());
    }
}
