//! What a server has counted: through its observer, and in its reactors.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use protosocket::{CloseReason, ConnectionObserver, ConnectionStats, PeerAddress, Refusal};
use serde::{Deserialize, Serialize};

/// The counters of a running server.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    opened: AtomicU64,
    closed: AtomicU64,
    told: AtomicU64,
    given_up: AtomicU64,
    heard: AtomicU64,
    answered: AtomicU64,
    sums: Mutex<Sums>,
}

/// What connections that have ended say of themselves, added up.
#[derive(Debug, Default)]
struct Sums {
    stats: Totals,
    reasons: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<&'static str, u64>,
}

/// [`ConnectionStats`], added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) unsent: u64,
    pub(crate) unanswered: u64,
    pub(crate) refused: u64,
}

/// A ledger at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Connections that were established.
    pub(crate) opened: u64,
    /// Connections that have ended.
    pub(crate) closed: u64,
    /// Reactors that were told of their end.
    pub(crate) told: u64,
    /// Messages that a reactor took and then panicked or aborted over: they have no answer, and
    /// that is as it was asked.
    pub(crate) given_up: u64,
    /// Messages that reached a reactor, as the connections report them while they live.
    pub(crate) heard: u64,
    /// Messages that left for the peer, as the connections report them while they live.
    pub(crate) answered: u64,
    /// What connections that have ended say of themselves.
    pub(crate) ended: Totals,
    /// How connections ended, by name.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Why connections were refused, by name.
    pub(crate) refusals: BTreeMap<String, u64>,
}

impl Ledger {
    /// A reactor gives up the message that it has been given.
    pub(crate) fn give_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    /// A reactor was told that its connection has ended.
    pub(crate) fn tell_end(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn account(&self) -> Account {
        let named = |counts: &BTreeMap<&'static str, u64>| {
            let counts = counts.iter();
            counts
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        let sums = self.lock();
        // Before what was heard: an answer whose request is not counted yet would be one too many.
        let answered = self.answered.load(Ordering::Relaxed);
        Account {
            opened: self.opened.load(Ordering::Relaxed),
            closed: self.closed.load(Ordering::Relaxed),
            told: self.told.load(Ordering::Relaxed),
            given_up: self.given_up.load(Ordering::Relaxed),
            heard: self.heard.load(Ordering::Relaxed),
            answered,
            ended: sums.stats,
            reasons: named(&sums.reasons),
            refusals: named(&sums.refusals),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sums> {
        self.sums.lock().expect("no code that panics runs under it")
    }
}

impl Account {
    /// Connections that were refused, for whatever reason.
    pub(crate) fn refused(&self) -> u64 {
        self.refusals.values().sum()
    }

    /// Connections that ended for this reason.
    pub(crate) fn ended_by(&self, reason: &str) -> u64 {
        self.reasons.get(reason).copied().unwrap_or(0)
    }

    /// Messages that were heard and not answered so far. Every request has one answer.
    pub(crate) fn in_flight(&self) -> u64 {
        self.heard.saturating_sub(self.answered)
    }

    /// Messages of ended connections that were answered, or counted for what became of them. Every
    /// request has one answer, so that these are as many as came in.
    pub(crate) fn accounted_for(&self) -> u64 {
        let Totals {
            messages_out,
            unsent,
            unanswered,
            refused,
            ..
        } = self.ended;
        messages_out + unsent + unanswered + refused + self.given_up
    }
}

impl ConnectionObserver for Ledger {
    fn opened(&self, _: &PeerAddress) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn traffic(&self, delta: &ConnectionStats) {
        self.heard.fetch_add(delta.messages_in, Ordering::Relaxed);
        self.answered
            .fetch_add(delta.messages_out, Ordering::Relaxed);
    }

    fn closed(&self, _: &PeerAddress, reason: &CloseReason, stats: &ConnectionStats) {
        let mut sums = self.lock();
        let totals = &mut sums.stats;
        totals.bytes_in += stats.bytes_in;
        totals.bytes_out += stats.bytes_out;
        totals.messages_in += stats.messages_in;
        totals.messages_out += stats.messages_out;
        totals.unsent += stats.unsent;
        totals.unanswered += stats.unanswered;
        totals.refused += stats.refused;
        *sums.reasons.entry(reason.name()).or_default() += 1;
        drop(sums);
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self, _: Option<&PeerAddress>, refusal: Refusal) {
        *self.lock().refusals.entry(refusal.name()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_nobody_counts_is_missed() {
        let mut account = Account {
            given_up: 1,
            ended: Totals {
                messages_in: 15,
                messages_out: 8,
                unsent: 1,
                unanswered: 2,
                refused: 3,
                ..Totals::default()
            },
            ..Account::default()
        };
        assert_eq!(account.accounted_for(), account.ended.messages_in);
        account.ended.unanswered -= 1;
        assert_ne!(account.accounted_for(), account.ended.messages_in);
    }

    #[test]
    fn ends_are_counted_by_name() {
        let ledger = Ledger::default();
        let peer = PeerAddress::Unknown;
        ledger.opened(&peer);
        ledger.closed(&peer, &CloseReason::Aborted, &ConnectionStats::default());
        ledger.refused(None, Refusal::Resources);
        ledger.refused(None, Refusal::Accept);
        let account = ledger.account();
        assert_eq!((account.opened, account.closed), (1, 1));
        assert_eq!(account.ended_by("aborted"), 1);
        assert_eq!(account.ended_by("drained"), 0);
        assert_eq!(account.refused(), 2);
    }
}
