//! D1: an error of `accept` is never the end of a server, and never keeps a core busy.

use std::{
    collections::VecDeque,
    future::{Future, Ready, ready},
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use protosocket::{Accepted, ManualClock, PeerAddress, Refusal, SocketListener};
use protosocket_server::{ProtosocketServer, ProtosocketServerConfig};
use tokio::io::{DuplexStream, duplex};

use crate::common::{Client, Connector, Record, lock, os_error};

const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;
const UNKNOWN: i32 = 99_999;

/// What `accept` says next.
enum Step {
    Error(io::Error),
    Connection(DuplexStream),
}

/// Says what it is told to, and is pending when that is used up.
#[derive(Clone, Default)]
struct Script {
    steps: Arc<Mutex<VecDeque<Step>>>,
    calls: Arc<AtomicUsize>,
    /// What it says when the steps are used up, for ever.
    then: Option<io::ErrorKind>,
    then_number: Option<i32>,
}

impl Script {
    fn fail(&self, number: i32) {
        lock(&self.steps).push_back(Step::Error(os_error(number)));
    }

    fn connect(&self) -> Client<DuplexStream> {
        let (near, far) = duplex(1024);
        lock(&self.steps).push_back(Step::Connection(far));
        Client::new(near)
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl SocketListener for Script {
    type Stream = DuplexStream;
    type Establish = Ready<io::Result<DuplexStream>>;

    fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match (lock(&self.steps).pop_front(), self.then, self.then_number) {
            (Some(Step::Error(error)), ..) => Poll::Ready(Err(error)),
            (Some(Step::Connection(stream)), ..) => Poll::Ready(Ok(Accepted {
                peer: PeerAddress::Memory,
                establish: ready(Ok(stream)),
            })),
            (None, Some(kind), _) => Poll::Ready(Err(kind.into())),
            (None, None, Some(number)) => Poll::Ready(Err(os_error(number))),
            (None, None, None) => Poll::Pending,
        }
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A server that is polled by hand.
struct Polled {
    server: ProtosocketServer<Connector<Script>>,
    script: Script,
    clock: ManualClock,
    record: Arc<Record>,
    wakes: Arc<Wakes>,
}

impl Polled {
    fn new(script: Script) -> Self {
        let clock = ManualClock::new();
        let record = Arc::new(Record::default());
        let config = ProtosocketServerConfig::default()
            .clock(Arc::new(clock.clone()))
            .observer(record.clone());
        let server = config.build_server(script.clone(), Connector::new());
        Self {
            server: server.expect("the configuration is valid"),
            script,
            clock,
            record,
            wakes: Arc::default(),
        }
    }

    /// Poll once: how often that called `accept`. The server never ends.
    fn poll(&mut self) -> usize {
        let before = self.script.calls();
        let waker = Waker::from(self.wakes.clone());
        let polled = pin!(&mut self.server).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending(), "the server has ended: {polled:?}");
        self.script.calls() - before
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }

    /// Advance the clock in steps of a millisecond until the server is woken: how long that took.
    fn wait_for_wake(&self) -> Duration {
        let before = self.wakes();
        for millisecond in 1..=10_000 {
            self.clock.advance(Duration::from_millis(1));
            if self.wakes() > before {
                return Duration::from_millis(millisecond);
            }
        }
        panic!("the server was not woken within ten seconds");
    }
}

#[tokio::test]
async fn d1_a_lack_backs_off_from_10_to_500_ms_and_never_ends_the_server() {
    for number in [ENFILE, EMFILE, ENOBUFS, ENOMEM, UNKNOWN] {
        let mut polled = Polled::new(Script {
            then_number: Some(number),
            ..Script::default()
        });
        let mut waits = Vec::new();
        for _ in 0..20 {
            let calls = polled.poll();
            assert!((1..=2).contains(&calls), "error {number}: {calls} calls");
            tokio::task::yield_now().await;
            waits.push(polled.wait_for_wake().as_millis());
        }
        assert_eq!(waits[..6], [10, 20, 40, 80, 160, 320], "error {number}");
        assert!(waits[6..].iter().all(|wait| *wait == 500), "{waits:?}");
        assert_eq!(polled.wakes(), 20, "only the clock wakes it");
    }
}

#[tokio::test]
async fn d1_a_wait_begins_anew_after_a_success() {
    let script = Script::default();
    let mut polled = Polled::new(script.clone());
    for _ in 0..2 {
        for expected in [10, 20, 40] {
            script.fail(EMFILE);
            polled.poll();
            assert_eq!(polled.wait_for_wake().as_millis(), expected);
        }
        let mut client = script.connect();
        polled.poll();
        assert!(client.is_served().await);
    }
}

#[tokio::test]
async fn d1_nothing_is_accepted_before_the_wait_is_over() {
    let script = Script::default();
    let mut polled = Polled::new(script.clone());
    script.fail(EMFILE);
    assert_eq!(polled.poll(), 1);
    let mut client = script.connect();
    polled.clock.advance(Duration::from_millis(9));
    assert_eq!(polled.poll(), 0, "woken by something else");
    polled.clock.advance(Duration::from_millis(1));
    assert_eq!(polled.poll(), 2, "one connection, and then there is none");
    assert!(client.is_served().await);
}

#[tokio::test]
async fn d1_an_error_of_one_connection_does_not_delay_the_next() {
    let script = Script::default();
    let mut polled = Polled::new(script.clone());
    for kind in [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::Interrupted,
        io::ErrorKind::NetworkUnreachable,
    ] {
        lock(&script.steps).push_back(Step::Error(kind.into()));
    }
    let mut client = script.connect();
    polled.poll();
    assert!(client.is_served().await);
    assert_eq!(polled.record.refused(Refusal::Accept), 5);
}

/// What accept(2) of Linux says is to be treated like "try again": errors of the network that were
/// pending on the new connection.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn f2_every_error_of_the_network_is_followed_by_the_next_accept_at_once() {
    const NAMES: [(&str, i32); 13] = [
        ("EPERM", 1),
        ("EINTR", 4),
        ("ENONET", 64),
        ("EPROTO", 71),
        ("ENOPROTOOPT", 92),
        ("EOPNOTSUPP", 95),
        ("ENETDOWN", 100),
        ("ENETUNREACH", 101),
        ("ECONNABORTED", 103),
        ("ECONNRESET", 104),
        ("ETIMEDOUT", 110),
        ("EHOSTDOWN", 112),
        ("EHOSTUNREACH", 113),
    ];
    for (name, number) in NAMES {
        let script = Script::default();
        let mut polled = Polled::new(script.clone());
        script.fail(number);
        let mut client = script.connect();
        polled.poll();
        assert!(client.is_served().await, "{name}");
        assert_eq!(polled.record.refused(Refusal::Accept), 1, "{name}");
        assert_eq!(polled.record.refused(Refusal::Resources), 0, "{name}");
    }
}

#[tokio::test]
async fn d1_a_listener_that_fails_at_once_for_ever_does_not_spin() {
    for kind in [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::WouldBlock,
    ] {
        let mut polled = Polled::new(Script {
            then: Some(kind),
            ..Script::default()
        });
        let calls = polled.poll();
        assert!(calls <= 128, "{kind}: {calls} calls in one poll");
        // A task that wants to run again at once is woken when others have run.
        tokio::task::yield_now().await;
        assert_eq!(polled.wakes(), 0, "{kind}: it would run again at once");
        assert_eq!(polled.wait_for_wake().as_millis(), 10, "{kind}");
    }
}

#[tokio::test]
async fn d1_a_lasting_lack_closes_those_that_wait() {
    let script = Script::default();
    let mut polled = Polled::new(script.clone());
    for _ in 0..7 {
        script.fail(EMFILE);
        polled.poll();
        polled.wait_for_wake();
    }
    // The wait has reached its longest, and there still is no descriptor but the one in reserve.
    script.fail(EMFILE);
    let mut shed = [script.connect(), script.connect()];
    polled.poll();
    for client in &mut shed {
        assert_eq!(client.line().await, None, "closed, not left to hang");
    }
    polled.wait_for_wake();
    let mut client = script.connect();
    polled.poll();
    assert!(client.is_served().await);
}

#[tokio::test]
async fn one_poll_accepts_a_bounded_number_and_comes_back_for_the_rest() {
    let script = Script::default();
    let mut polled = Polled::new(script.clone());
    let mut clients: Vec<_> = (0..200).map(|_| script.connect()).collect();
    let calls = polled.poll();
    assert!(calls < 200, "{calls} in one poll");
    let mut polls = 1;
    while script.calls() < 201 {
        tokio::task::yield_now().await;
        assert_eq!(polled.wakes(), polls, "it is woken for the rest");
        polled.poll();
        polls += 1;
    }
    for client in &mut clients {
        assert!(client.is_served().await);
    }
}
