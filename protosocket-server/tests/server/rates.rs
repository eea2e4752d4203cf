//! F20 and F25: who is let in, how fast, and while memory lasts.

use std::{
    collections::VecDeque,
    future::{Ready, ready},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use protosocket::{Accepted, ManualClock, PeerAddress, Refusal, SocketListener};
use protosocket_server::ProtosocketServerConfig;
use tokio::io::{DuplexStream, duplex};

use crate::common::{Client, Connector, Record, Running, lock, until};

/// A listener for connections from whatever address a test gives them.
#[derive(Clone, Default)]
struct Anywhere(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(SocketAddr, DuplexStream)>,
    waker: Option<Waker>,
}

impl Anywhere {
    fn connect(&self, from: impl Into<IpAddr>) -> Client<DuplexStream> {
        let (near, far) = duplex(256);
        let mut queue = lock(&self.0);
        queue.waiting.push_back(((from.into(), 1234).into(), far));
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
        Client::new(near)
    }

    fn connect_from(&self, from: &str) -> Client<DuplexStream> {
        self.connect(from.parse::<IpAddr>().expect("it is an address"))
    }
}

impl SocketListener for Anywhere {
    type Stream = DuplexStream;
    type Establish = Ready<io::Result<DuplexStream>>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Establish>>> {
        let mut queue = lock(&self.0);
        match queue.waiting.pop_front() {
            Some((address, stream)) => Poll::Ready(Ok(Accepted {
                peer: PeerAddress::Ip(address),
                establish: ready(Ok(stream)),
            })),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

struct Served {
    anywhere: Anywhere,
    record: Arc<Record>,
    clock: ManualClock,
    _server: Running,
}

fn serve(config: impl FnOnce(ProtosocketServerConfig) -> ProtosocketServerConfig) -> Served {
    let (anywhere, record, clock) = (Anywhere::default(), Arc::default(), ManualClock::new());
    let record: Arc<Record> = record;
    let base = ProtosocketServerConfig::default()
        .observer(record.clone())
        .clock(Arc::new(clock.clone()));
    let server = Connector::new().serve(config(base), anywhere.clone());
    Served {
        anywhere,
        record,
        clock,
        _server: server,
    }
}

#[tokio::test]
async fn f20_an_address_that_connects_too_fast_is_refused_and_others_are_served() {
    let served = serve(|config| config.max_connection_rate_per_address(10, 5));
    let flood: Vec<_> = (0..2_000)
        .map(|_| served.anywhere.connect([10, 0, 0, 1]))
        .collect();
    let mut others: Vec<_> = (0..200)
        .map(|host| served.anywhere.connect([10, 0, 1, host]))
        .collect();
    for other in &mut others {
        assert!(other.is_served().await);
    }
    assert_eq!(served.record.refused(Refusal::RatePerAddress), 1_995);
    assert_eq!(served.record.opened(), 205);
    let mut flood = flood.into_iter();
    assert!(flood.next().expect("there are many").is_served().await);
    assert_eq!(
        flood.next_back().expect("there are many").line().await,
        None
    );

    // What it is granted comes back with the time, and no more than that.
    served.clock.advance(Duration::from_millis(200));
    let mut again: Vec<_> = (0..3)
        .map(|_| served.anywhere.connect([10, 0, 0, 1]))
        .collect();
    assert!(again[0].is_served().await && again[1].is_served().await);
    assert_eq!(again[2].line().await, None);
}

#[tokio::test]
async fn f20_a_thousand_addresses_with_ten_connections_each() {
    let served = serve(|config| {
        let config = config.max_connections_per_address(4);
        config.max_connection_rate_per_address(1, 6)
    });
    let clients: Vec<_> = (0..10_000_u32)
        .map(|number| {
            let host = 0x7f00_0000 + number % 1_000;
            served.anywhere.connect(IpAddr::V4(host.into()))
        })
        .collect();
    let mut good = served.anywhere.connect([192, 0, 2, 1]);
    assert!(good.is_served().await);
    assert_eq!(served.record.opened(), 4_001);
    let refused = served.record.refused(Refusal::ConnectionsPerAddress);
    assert_eq!(refused, 6_000, "a place that is not there takes no token");
    drop(clients);
}

/// A host with IPv6 has 2^64 addresses, and can use each of them once.
#[tokio::test]
async fn f20_the_addresses_of_one_ipv6_network_are_one_client() {
    let served = serve(|config| config.max_connections_per_address(2));
    let mut first = served.anywhere.connect_from("2001:db8::1");
    let mut second = served.anywhere.connect_from("2001:db8::2");
    assert!(first.is_served().await && second.is_served().await);
    let mut third = served.anywhere.connect_from("2001:db8::ffff:3");
    assert_eq!(third.line().await, None);
    assert_eq!(served.record.refused(Refusal::ConnectionsPerAddress), 1);
    let mut neighbour = served.anywhere.connect_from("2001:db8:0:1::1");
    assert!(neighbour.is_served().await);
    // An IPv4 address is a client of its own, however it is written.
    let mut mapped = served.anywhere.connect_from("::ffff:192.0.2.1");
    let mut plain = served.anywhere.connect_from("192.0.2.1");
    assert!(mapped.is_served().await && plain.is_served().await);
    assert_eq!(served.anywhere.connect([192, 0, 2, 1]).line().await, None);
    // The place of one that goes is free for another of its network.
    drop(first);
    until(|| served.record.closed("end_of_input") == 1).await;
    let mut fourth = served.anywhere.connect_from("2001:db8::4");
    assert!(fourth.is_served().await);
}

#[tokio::test]
async fn f25_an_overloaded_program_refuses_the_new_and_keeps_the_old() {
    let overloaded = Arc::new(AtomicBool::new(false));
    let is_overloaded = overloaded.clone();
    let served = serve(|config| config.admit(move |_| !is_overloaded.load(Ordering::Relaxed)));
    let mut old: Vec<_> = (0..10)
        .map(|_| served.anywhere.connect([10, 0, 0, 1]))
        .collect();
    for client in &mut old {
        assert!(client.is_served().await);
    }
    overloaded.store(true, Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(served.anywhere.connect([10, 0, 0, 1]).line().await, None);
    }
    assert_eq!(served.record.refused(Refusal::Overload), 10);
    for client in &mut old {
        assert!(client.is_served().await);
    }
    overloaded.store(false, Ordering::Relaxed);
    assert!(served.anywhere.connect([10, 0, 0, 1]).is_served().await);
}

#[tokio::test]
async fn f25_who_is_admitted_is_told_and_a_panic_refuses_one() {
    let served = serve(|config| {
        config.admit(|peer| match peer {
            PeerAddress::Ip(address) if address.ip() == IpAddr::from([10, 0, 0, 9]) => {
                panic!("on purpose")
            }
            PeerAddress::Ip(address) => address.ip() == IpAddr::from([10, 0, 0, 1]),
            _ => false,
        })
    });
    assert_eq!(served.anywhere.connect([10, 0, 0, 9]).line().await, None);
    assert_eq!(served.anywhere.connect([10, 0, 0, 2]).line().await, None);
    assert!(served.anywhere.connect([10, 0, 0, 1]).is_served().await);
    assert_eq!(served.record.refused(Refusal::Panicked), 1);
    assert_eq!(served.record.refused(Refusal::Overload), 1);
}
