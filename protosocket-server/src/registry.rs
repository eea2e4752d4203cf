use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use protosocket::{
    CloseReason, ConnectionConfig, ConnectionHandle, ConnectionStats, PeerAddress, Refusal,
};
use slab::Slab;
use tokio::sync::watch;

use crate::{
    DrainReport,
    rate::{Buckets, Rate, client_of},
};

/// Places of the tables that are worth no tidying up.
const SPARE: usize = 64;

/// How many connections a server has, in all, per address and in handshakes.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) per_address: Option<usize>,
    pub(crate) rate: Option<Rate>,
    pub(crate) handshakes: usize,
    pub(crate) admit: Option<Admit>,
}

/// Whether the program takes a new connection.
#[derive(Clone)]
pub(crate) struct Admit(pub(crate) Arc<dyn Fn(&PeerAddress) -> bool + Send + Sync>);

impl fmt::Debug for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admit")
    }
}

/// What the server, its handles and its connections know in common.
#[derive(Debug)]
pub(crate) struct Registry {
    config: ConnectionConfig,
    bounds: Bounds,
    table: Mutex<Table>,
    /// Set when a drain begins, so that the accept loop stops.
    draining: watch::Sender<bool>,
    /// Set when it is done.
    report: watch::Sender<Option<DrainReport>>,
}

#[derive(Debug, Default)]
struct Table {
    connections: Slab<Entry>,
    per_address: HashMap<IpAddr, usize>,
    buckets: Buckets,
    /// Connections in the order of their coming that may not have said anything yet.
    silent: VecDeque<(usize, ConnectionHandle)>,
    /// Connections in the order of their coming that are being established and were not told to
    /// make room.
    handshakes: VecDeque<ConnectionHandle>,
    /// INVARIANT: as many entries are evicted.
    evicted: usize,
    drain: Option<Drain>,
    listening: bool,
}

#[derive(Debug)]
struct Entry {
    handle: ConnectionHandle,
    /// It was told to make room for another. It may still receive a message before it obeys.
    evicted: bool,
}

#[derive(Debug)]
struct Drain {
    since: Instant,
    deadline: Instant,
    report: DrainReport,
}

impl Registry {
    pub(crate) fn new(config: ConnectionConfig, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            config,
            bounds,
            table: Mutex::new(Table {
                listening: true,
                ..Table::default()
            }),
            draining: watch::Sender::new(false),
            report: watch::Sender::new(None),
        })
    }

    pub(crate) fn config(&self) -> &ConnectionConfig {
        &self.config
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().connections.len()
    }

    /// Take a connection into the table, or say why not. Limits per address wait for the client
    /// behind a proxy to be [identified](Registration::identify).
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: &PeerAddress,
        is_proxy: bool,
    ) -> Result<Registration, Refusal> {
        self.ask(peer)?;
        let client = client_at(peer);
        let limited = client.filter(|_| !is_proxy);
        let mut table = self.lock();
        if table.drain.is_some() {
            return Err(Refusal::Draining);
        }
        if let Some(client) = limited {
            self.allow(&mut table, client)?;
        }
        let address = limited.filter(|_| self.bounds.per_address.is_some());
        // LIMIT: max_connections. A newcomer takes the place of the oldest that said nothing.
        let mut evicted = None;
        if table.connections.len() - table.evicted >= self.bounds.connections {
            evicted = Some(table.evict_silent().ok_or(Refusal::Connections)?);
        }
        table.count(address);
        let handle = ConnectionHandle::new();
        let key = table.connections.insert(Entry {
            handle: handle.clone(),
            evicted: false,
        });
        table.remember_silent(key, &handle);
        drop(table);
        if let Some(evicted) = evicted {
            evicted.abort();
        }
        Ok(Registration {
            registry: self.clone(),
            handle,
            key,
            client,
            is_proxy,
            address,
            handshaking: false,
            ended: false,
        })
    }

    /// Ask the program whether it takes this peer. Foreign code, which has no business under the
    /// table's lock and may panic.
    fn ask(&self, peer: &PeerAddress) -> Result<(), Refusal> {
        let Some(Admit(admit)) = &self.bounds.admit else {
            return Ok(());
        };
        match catch_unwind(AssertUnwindSafe(|| admit(peer))) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Overload),
            Err(_) => {
                tracing::error!("admit panicked");
                Err(Refusal::Panicked)
            }
        }
    }

    /// Whether this client may have another connection.
    fn allow(&self, table: &mut Table, client: IpAddr) -> Result<(), Refusal> {
        // LIMIT: max_connections_per_address.
        if let Some(limit) = self.bounds.per_address
            && (table.per_address.get(&client)).is_some_and(|count| *count >= limit)
        {
            return Err(Refusal::ConnectionsPerAddress);
        }
        // LIMIT: max_connection_rate_per_address.
        if let Some(rate) = self.bounds.rate
            && !table.buckets.take(rate, client, self.config.clock().now())
        {
            return Err(Refusal::RatePerAddress);
        }
        Ok(())
    }

    /// Let every connection finish until `deadline`, and accept no more. An earlier deadline than
    /// that of a drain under way replaces it.
    pub(crate) fn begin_drain(&self, deadline: Instant) {
        let mut table = self.lock();
        let drain = table.drain.get_or_insert_with(|| Drain {
            since: self.config.clock().now(),
            deadline,
            report: DrainReport::default(),
        });
        drain.deadline = drain.deadline.min(deadline);
        let entries = table.connections.iter();
        let handles: Vec<ConnectionHandle> =
            entries.map(|(_, entry)| entry.handle.clone()).collect();
        drop(table);
        // Telling wakes tasks, which is foreign code and no business of the table's lock.
        handles.iter().for_each(|handle| handle.drain(deadline));
        self.draining.send_replace(true);
        self.finish_drain();
    }

    /// The accept loop is gone, and its socket with it.
    pub(crate) fn stop_listening(&self) {
        self.lock().listening = false;
        self.finish_drain();
    }

    pub(crate) fn watch_draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    pub(crate) fn watch_report(&self) -> watch::Receiver<Option<DrainReport>> {
        self.report.subscribe()
    }

    /// The report as it stands, with what has not ended counted as stuck.
    pub(crate) fn give_up_drain(&self) -> DrainReport {
        let table = self.lock();
        let mut report = table.drain.as_ref().map(|drain| drain.report(&self.config));
        let report = report.get_or_insert_default();
        report.stuck = table.connections.len();
        *report
    }

    /// How long to wait for the drain under way, deadline and grace included.
    pub(crate) fn drain_wait(&self) -> Duration {
        /// Connections act on the deadline by themselves, as soon as they are polled.
        const GRACE: Duration = Duration::from_secs(1);
        let deadline = self.lock().drain.as_ref().map(|drain| drain.deadline);
        let now = self.config.clock().now();
        deadline.map_or(GRACE, |deadline| {
            deadline.saturating_duration_since(now) + GRACE
        })
    }

    fn finish_drain(&self) {
        let table = self.lock();
        let Some(drain) = &table.drain else { return };
        if table.listening || !table.connections.is_empty() {
            return;
        }
        let report = drain.report(&self.config);
        drop(table);
        tracing::info!(%report, "the server is drained");
        self.report.send_if_modified(|current| {
            let first = current.is_none();
            *current = current.or(Some(report));
            first
        });
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table
            .lock()
            .expect("no code that panics runs under it")
    }
}

impl Drain {
    fn report(&self, config: &ConnectionConfig) -> DrainReport {
        DrainReport {
            elapsed: config.clock().now().saturating_duration_since(self.since),
            ..self.report
        }
    }
}

impl Table {
    /// End the oldest connection that has not sent a message. Whether there was one.
    fn evict_silent(&mut self) -> Option<ConnectionHandle> {
        while let Some((key, handle)) = self.silent.pop_front() {
            // A key may belong to a later connection by then.
            let entry = self.connections.get_mut(key);
            if let Some(entry) = entry.filter(|entry| entry.handle.is_same(&handle))
                && !handle.has_received()
                && !handle.is_ended()
                && !handle.is_aborted()
            {
                entry.evicted = true;
                self.evicted += 1;
                return Some(handle);
            }
        }
        None
    }

    fn count(&mut self, address: Option<IpAddr>) {
        if let Some(address) = address {
            *self.per_address.entry(address).or_default() += 1;
        }
    }

    fn discount(&mut self, address: Option<IpAddr>) {
        if let Some(address) = address
            && let Some(count) = self.per_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }

    fn remember_silent(&mut self, key: usize, handle: &ConnectionHandle) {
        self.silent.push_back((key, handle.clone()));
        self.forget_ended();
    }

    /// Forget those that are silent no more once they are the most of them, which is O(1) for each
    /// connection that came or went, and give back what a crowd that has gone has taken.
    fn forget_ended(&mut self) {
        if self.connections.is_empty() {
            self.silent.clear();
            self.per_address.shrink_to(SPARE);
            if self.connections.capacity() > SPARE {
                self.connections = Slab::new();
            }
        } else if self.silent.len() > 2 * self.connections.len() + SPARE {
            self.silent
                .retain(|(_, handle)| !handle.has_received() && !handle.is_ended());
        }
        if self.silent.capacity() > 4 * (self.silent.len() + SPARE) {
            self.silent.shrink_to(self.silent.len() + SPARE);
        }
    }
}

/// A connection's place in the table, until it has ended or is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    handle: ConnectionHandle,
    key: usize,
    /// Who connected, if it is an address.
    client: Option<IpAddr>,
    /// It is a proxy, and the limits per address wait for its client.
    is_proxy: bool,
    /// Where the connection is counted.
    address: Option<IpAddr>,
    handshaking: bool,
    ended: bool,
}

impl Registration {
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn handle(&self) -> &ConnectionHandle {
        &self.handle
    }

    /// Whether the peer is a proxy that has not named its client.
    pub(crate) fn is_proxy(&self) -> bool {
        self.is_proxy
    }

    /// The peer is known, after each stage of a handshake. If it is another than that which
    /// connected, or was brought by a proxy, what limits each client applies to it.
    pub(crate) fn identify(&mut self, peer: &PeerAddress) -> Result<(), Refusal> {
        let client = client_at(peer);
        if client == self.client && !self.is_proxy {
            return Ok(());
        }
        let registry = &self.registry;
        if client != self.client {
            registry.ask(peer)?;
        }
        let mut table = registry.lock();
        table.discount(self.address.take());
        if let Some(client) = client {
            registry.allow(&mut table, client)?;
        }
        self.address = client.filter(|_| registry.bounds.per_address.is_some());
        table.count(self.address);
        drop(table);
        (self.client, self.is_proxy) = (client, false);
        Ok(())
    }

    /// Establishing takes longer than a moment, so it counts.
    pub(crate) fn begin_handshake(&mut self) {
        if self.handshaking {
            return;
        }
        self.handshaking = true;
        let mut table = self.registry.lock();
        table.handshakes.push_back(self.handle.clone());
        // LIMIT: max_handshakes. The oldest has had the most time, and makes room.
        if table.handshakes.len() > self.registry.bounds.handshakes
            && let Some(oldest) = table.handshakes.pop_front()
        {
            drop(table);
            oldest.abort();
        }
    }

    pub(crate) fn end_handshake(&mut self) {
        if !std::mem::take(&mut self.handshaking) {
            return;
        }
        let mut table = self.registry.lock();
        table
            .handshakes
            .retain(|handle| !handle.is_same(&self.handle));
    }

    /// Why a connection was told to end before it was established.
    pub(crate) fn refusal(&self) -> Refusal {
        if !self.handle.is_aborted() {
            Refusal::Draining
        } else {
            let table = self.registry.lock();
            match table.connections.get(self.key) {
                Some(Entry { evicted: true, .. }) => Refusal::Connections,
                _ => Refusal::Handshakes,
            }
        }
    }

    /// The connection has ended: give up its place. `None` if it was never established.
    pub(crate) fn end(&mut self, end: Option<(&CloseReason, &ConnectionStats)>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.end_handshake();
        self.handle.mark_ended();
        let mut table = self.registry.lock();
        let entry = table.connections.remove(self.key);
        table.evicted -= usize::from(entry.evicted);
        table.discount(self.address);
        if let Some(drain) = &mut table.drain {
            match end {
                Some((reason, stats)) => drain.report.count(reason, stats),
                None => drain.report.dropped += 1,
            }
        }
        table.forget_ended();
        drop(table);
        self.registry.finish_drain();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// Whom limits per address are about.
fn client_at(peer: &PeerAddress) -> Option<IpAddr> {
    match peer {
        PeerAddress::Ip(address) => Some(client_of(address.ip())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use protosocket::Limits;

    use super::*;

    fn registry() -> Arc<Registry> {
        let config = ConnectionConfig::server(Limits::server()).expect("the defaults are valid");
        let bounds = Bounds {
            connections: usize::MAX,
            per_address: Some(usize::MAX),
            handshakes: 10,
            rate: None,
            admit: None,
        };
        Registry::new(config, bounds)
    }

    fn crowd(registry: &Arc<Registry>) -> Vec<Registration> {
        (0..1000_u32)
            .map(|address| {
                let peer = PeerAddress::Ip((address.to_be_bytes(), 1).into());
                registry.admit(&peer, false).expect("there is room")
            })
            .collect()
    }

    /// What the tables hold. The lock is not held while a test fails.
    fn look<T>(registry: &Registry, look: impl FnOnce(&Table) -> T) -> T {
        look(&registry.lock())
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_nothing_behind() {
        let registry = registry();
        drop(crowd(&registry));
        assert_eq!(look(&registry, |table| table.silent.len()), 0);
        let capacities = look(&registry, |table| {
            [
                table.silent.capacity(),
                table.per_address.capacity(),
                table.connections.capacity(),
            ]
        });
        assert!(
            capacities.into_iter().all(|places| places <= 4 * SPARE),
            "{capacities:?}"
        );
    }

    #[test]
    fn a_few_that_stay_keep_few_that_have_gone() {
        let registry = registry();
        let mut crowd = crowd(&registry);
        crowd.drain(..990);
        let kept = look(&registry, |table| table.silent.len());
        assert!(kept <= 2 * crowd.len() + SPARE, "{kept}");
        let alive = look(&registry, |table| {
            let kept = table.silent.iter();
            kept.filter(|(_, handle)| !handle.is_ended()).count()
        });
        assert_eq!(alive, crowd.len(), "none that may be evicted is forgotten");
    }
}
