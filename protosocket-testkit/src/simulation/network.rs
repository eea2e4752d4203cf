//! Listeners and connectors between which every stream is simulated.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    io,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use protosocket::{
    Accepted, Alarm, Clock, ConnectError, ManualClock, PeerAddress, SocketConnector, SocketListener,
};

use super::{
    SimulationHandle,
    pipe::{StreamConditions, draw},
    stream::{LinkHandle, SimStream, label, link},
};
use crate::Random;

/// How long opening a connection may take, as with the core's own connectors.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A network of streams on the clock of a [`Simulation`](super::Simulation). Cheap to clone.
///
/// Programs listen under a name and connect to a name. Every connection is a [`SimStream`] under
/// the [`conditions`](Self::set_conditions) of its time. A test holds back, resets, refuses and
/// heals.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    clock: ManualClock,
    random: Random,
    conditions: [StreamConditions; 2],
    /// How long a listener's side takes to establish a connection.
    handshake: Range<Duration>,
    hosts: BTreeMap<String, HostState>,
    links: Vec<LinkHandle>,
    connects: u64,
    clients: u32,
    listeners: u64,
}

#[derive(Default)]
struct HostState {
    /// `None` while nobody listens.
    listener: Option<ListenerState>,
    /// Connections are refused although somebody listens.
    refuses: bool,
    /// Nothing comes through, either way.
    partitioned: bool,
    /// Who waits for the partition to end.
    waiting: Vec<Waker>,
    address: u32,
    links: Vec<LinkHandle>,
}

#[derive(Default)]
struct ListenerState {
    /// Which [`SimListener`] it belongs to.
    number: u64,
    queue: VecDeque<(SimStream, PeerAddress)>,
    errors: VecDeque<io::Error>,
    waker: Option<Waker>,
}

impl ListenerState {
    fn reset_waiting(self) {
        for (mut stream, _) in self.queue {
            protosocket::Transport::abort(&mut stream);
        }
    }
}

impl Network {
    /// A network without anybody in it, under the default conditions.
    pub fn new(simulation: &SimulationHandle, random: &mut Random) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared {
                clock: simulation.clock(),
                random: random.fork(),
                conditions: [StreamConditions::default(), StreamConditions::default()],
                handshake: Duration::ZERO..Duration::ZERO,
                hosts: BTreeMap::new(),
                links: Vec::new(),
                connects: 0,
                clients: 0,
                listeners: 0,
            })),
        }
    }

    /// How streams that are opened from here on treat what clients and what servers write.
    pub fn set_conditions(&self, from_client: StreamConditions, from_server: StreamConditions) {
        self.lock().conditions = [from_client, from_server];
    }

    /// How long accepted streams take to be established, from here on; no time by default.
    pub fn set_handshake(&self, takes: Range<Duration>) {
        self.lock().handshake = takes;
    }

    /// Listen under `name`, in place of whoever did before: who waited there is reset, and the
    /// listener that was replaced accepts nobody any more.
    pub fn listener(&self, name: &str) -> SimListener {
        let mut shared = self.lock();
        shared.listeners += 1;
        let number = shared.listeners;
        drop(shared);
        let state = ListenerState {
            number,
            ..ListenerState::default()
        };
        let replaced = self.with_host(name, |host| host.listener.replace(state));
        replaced.into_iter().for_each(ListenerState::reset_waiting);
        SimListener {
            shared: self.shared.clone(),
            name: name.to_owned(),
            number,
        }
    }

    /// Connect to `name`, from an address of this connector's own.
    pub fn connector(&self, name: &str) -> SimConnector {
        let mut shared = self.lock();
        shared.clients += 1;
        let address = label(shared.clients);
        drop(shared);
        self.with_host(name, |_| ());
        SimConnector {
            shared: self.shared.clone(),
            name: name.to_owned(),
            local: PeerAddress::Ip(address),
            timeout: Some(CONNECT_TIMEOUT),
        }
    }

    /// A stream between nobody in particular: the client's end, the server's end.
    pub fn pair(&self) -> (SimStream, SimStream) {
        let mut shared = self.lock();
        shared.clients += 1;
        let addresses = [shared.clients, 0].map(|number| PeerAddress::Ip(label(number)));
        let (client, server, link) = shared.open(addresses);
        shared.links.push(link);
        (client, server)
    }

    /// Refuse connections to `name`, or take them again.
    pub fn set_refusing(&self, name: &str, refuses: bool) {
        self.with_host(name, |host| host.refuses = refuses);
    }

    /// Let the next accept of `name` fail with this error.
    pub fn fail_accept(&self, name: &str, error: io::Error) {
        self.with_host(name, |host| {
            if let Some(listener) = &mut host.listener {
                listener.errors.push_back(error);
                wake(&mut listener.waker);
            }
        });
    }

    /// Let nothing through to or from `name` until [`heal`](Self::heal): streams stall, and
    /// connecting takes until it is over.
    pub fn partition(&self, name: &str) {
        self.with_host(name, |host| {
            host.partitioned = true;
            host.links.iter().for_each(LinkHandle::stall);
        });
    }

    /// End every partition and every stall, and refuse nobody.
    pub fn heal(&self) {
        let mut shared = self.lock();
        let mut waiting = Vec::new();
        for host in shared.hosts.values_mut() {
            host.refuses = false;
            host.partitioned = false;
            waiting.append(&mut host.waiting);
        }
        let links = shared.links.clone();
        drop(shared);
        links.iter().for_each(LinkHandle::heal);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Every stream that was opened, in order.
    pub fn links(&self) -> Vec<LinkHandle> {
        self.lock().links.clone()
    }

    /// How often somebody has begun to connect.
    pub fn connects(&self) -> u64 {
        self.lock().connects
    }

    fn with_host<T>(&self, name: &str, act: impl FnOnce(&mut HostState) -> T) -> T {
        let mut shared = self.lock();
        let address = shared.hosts.len() as u32;
        let host = shared.hosts.entry(name.to_owned());
        act(host.or_insert_with(|| HostState {
            address: 0x00ff_0000 + address,
            ..HostState::default()
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no code that panics runs under it")
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Shared {
    fn open(&mut self, addresses: [PeerAddress; 2]) -> (SimStream, SimStream, LinkHandle) {
        let random = self.random.fork();
        link(
            self.clock.clone(),
            self.conditions.clone(),
            random,
            addresses,
        )
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.lock();
        f.debug_struct("Network")
            .field("hosts", &shared.hosts.keys().collect::<Vec<_>>())
            .field("links", &shared.links)
            .finish_non_exhaustive()
    }
}

/// Accepts what [`SimConnector`]s open. When it is dropped, those that wait are reset and later ones
/// refused.
pub struct SimListener {
    shared: Arc<Mutex<Shared>>,
    name: String,
    number: u64,
}

impl SocketListener for SimListener {
    type Stream = SimStream;
    type Establish = SimEstablish;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<SimEstablish>>> {
        let mut shared = lock(&self.shared);
        let shared = &mut *shared;
        let host = shared.hosts.get_mut(&self.name);
        let listener = host
            .and_then(|host| host.listener.as_mut())
            .filter(|listener| listener.number == self.number);
        let Some(listener) = listener else {
            return Poll::Pending;
        };
        if let Some(error) = listener.errors.pop_front() {
            return Poll::Ready(Err(error));
        }
        let Some((stream, peer)) = listener.queue.pop_front() else {
            listener.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let takes = draw(&shared.handshake, &mut shared.random);
        let alarm =
            (takes > Duration::ZERO).then(|| shared.clock.alarm(shared.clock.now() + takes));
        Poll::Ready(Ok(Accepted {
            peer,
            establish: SimEstablish {
                stream: Some(stream),
                alarm,
            },
        }))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        let host = shared.hosts.get_mut(&self.name);
        let number = self.number;
        let own = |listener: &mut ListenerState| listener.number == number;
        let listener = host.and_then(|host| host.listener.take_if(own));
        drop(shared);
        listener.into_iter().for_each(ListenerState::reset_waiting);
    }
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimListener")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A simulated handshake: nothing but the time that it takes.
pub struct SimEstablish {
    stream: Option<SimStream>,
    alarm: Option<Pin<Box<dyn Alarm>>>,
}

impl Future for SimEstablish {
    type Output = io::Result<SimStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SimStream>> {
        if let Some(alarm) = &mut self.alarm
            && alarm.as_mut().poll_due(cx).is_pending()
        {
            return Poll::Pending;
        }
        let stream = self.stream.take();
        Poll::Ready(Ok(stream.expect("it is not polled after it was done")))
    }
}

impl fmt::Debug for SimEstablish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimEstablish")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Opens streams to a [`SimListener`], within 10 seconds of virtual time. Clones have the same
/// address.
#[derive(Clone)]
pub struct SimConnector {
    shared: Arc<Mutex<Shared>>,
    name: String,
    local: PeerAddress,
    timeout: Option<Duration>,
}

impl SimConnector {
    /// Give up after this time; see [`Limits::connect_timeout`](protosocket::Limits::connect_timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// What the listener sees of it.
    pub fn local_address(&self) -> PeerAddress {
        self.local.clone()
    }

    /// How long the next thing takes to arrive, and when this attempt is given up.
    fn begin(&self) -> (ManualClock, PeerAddress, Duration, Option<Instant>) {
        let mut shared = lock(&self.shared);
        shared.connects += 1;
        let clock = shared.clock.clone();
        let [conditions, _] = shared.conditions.clone();
        let latency = conditions.draw_latency(&mut shared.random);
        let until = self.timeout.map(|timeout| clock.now() + timeout);
        let host = shared.hosts.get(&self.name);
        let address = PeerAddress::Ip(label(host.map_or(0, |host| host.address)));
        (clock, address, latency, until)
    }

    /// The packet that opens a connection has arrived, unless it cannot.
    fn arrive(&self, remote: &PeerAddress, cx: &mut Context<'_>) -> Poll<io::Result<SimStream>> {
        let mut shared = lock(&self.shared);
        let shared = &mut *shared;
        let host = shared.hosts.get_mut(&self.name);
        let host = host.expect("a connector makes its host known");
        if host.partitioned {
            host.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        if host.refuses || host.listener.is_none() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        let (client, server, link) = shared.open([self.local.clone(), remote.clone()]);
        let host = shared.hosts.get_mut(&self.name);
        let host = host.expect("it was there above");
        host.links.push(link.clone());
        shared.links.push(link);
        if let Some(listener) = &mut host.listener {
            let peer = protosocket::Transport::peer_address(&server);
            listener.queue.push_back((server, peer));
            wake(&mut listener.waker);
        }
        Poll::Ready(Ok(client))
    }
}

impl SocketConnector for SimConnector {
    type Stream = SimStream;

    async fn connect(&self) -> Result<SimStream, ConnectError> {
        let (clock, address, latency, until) = self.begin();
        let mut out_of_time = until.map(|until| clock.alarm(until));
        let mut under_way = clock.alarm(clock.now() + latency);
        let mut answer = None;
        let opened = std::future::poll_fn(|cx| {
            if let Some(alarm) = &mut out_of_time
                && alarm.as_mut().poll_due(cx).is_ready()
            {
                return Poll::Ready(Err(ConnectError::timed_out(address.clone())));
            }
            loop {
                if under_way.as_mut().poll_due(cx).is_pending() {
                    return Poll::Pending;
                }
                if let Some(answer) = answer.take() {
                    let source = |source| ConnectError {
                        address: address.clone(),
                        source,
                    };
                    return Poll::Ready(Result::map_err(answer, source));
                }
                let Poll::Ready(result) = self.arrive(&address, cx) else {
                    return Poll::Pending;
                };
                answer = Some(result);
                under_way.as_mut().reset(clock.now() + latency);
            }
        });
        opened.await
    }
}

impl fmt::Debug for SimConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimConnector")
            .field("name", &self.name)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
