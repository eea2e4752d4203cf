//! Handshakes that have failed, and peers that may still be reading why.

use std::{
    future::{Future, Ready, ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use protosocket::{
    Clock, ConnectionConfig, ConnectionHandle, Establish, EstablishError, Limits, Lingering,
    ManualClock,
};
use protosocket_testkit::{ScriptedStream, StreamPeer, scripted_stream};

const LINGER: Duration = Duration::from_secs(2);

type Refusal = Ready<io::Result<ScriptedStream>>;

/// A handshake that fails at once, with last words.
struct Refused {
    establish: Establish<Refusal>,
    peer: StreamPeer,
    clock: ManualClock,
    handle: ConnectionHandle,
}

impl Refused {
    fn new(limits: Limits) -> Self {
        let (stream, peer) = scripted_stream();
        peer.set_lingers();
        let clock = ManualClock::new();
        let config = ConnectionConfig::server(limits).expect("it is valid");
        let config = config.with_clock(Arc::new(clock.clone()));
        let handle = ConnectionHandle::new();
        let error = io::Error::new(io::ErrorKind::InvalidData, "no certificate");
        let failed = ready(Err(Lingering::after(error, stream)));
        Self {
            establish: Establish::new(failed, config, handle.clone()),
            peer,
            clock,
            handle,
        }
    }

    fn lingers(&mut self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        match Pin::new(&mut self.establish).poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Err(EstablishError::Io(error))) => {
                assert_eq!(error.to_string(), "no certificate");
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                assert!(error.get_ref().is_some_and(|it| !it.is::<Lingering>()));
                false
            }
            Poll::Ready(_) => panic!("it failed for another reason"),
        }
    }
}

#[test]
fn a_peer_that_is_refused_is_read_until_it_ends() {
    let mut refused = Refused::new(Limits::server());
    assert!(refused.lingers());
    refused.peer.send([0; 1000]);
    assert!(refused.lingers());
    refused.peer.end();
    assert!(!refused.lingers());
}

#[test]
fn a_peer_that_is_refused_and_does_not_end_has_the_linger_timeout_whatever_it_sends() {
    let mut refused = Refused::new(Limits::server().linger_timeout(LINGER));
    assert!(refused.lingers());
    refused.clock.advance(LINGER - Duration::from_millis(10));
    refused.peer.send([0; 1000]);
    assert!(refused.lingers());
    refused.clock.advance(Duration::from_millis(20));
    assert!(!refused.lingers());
}

#[test]
fn a_handshake_does_not_linger_beyond_its_own_deadline() {
    let mut refused = Refused::new(Limits::server().linger_timeout(LINGER));
    let deadline = refused.clock.now() + LINGER / 2;
    refused.establish = refused.establish.with_deadline(Some(deadline));
    assert!(refused.lingers());
    refused
        .clock
        .advance(LINGER / 2 + Duration::from_millis(10));
    assert!(!refused.lingers());
}

#[test]
fn a_handshake_that_fails_at_once_lingers_no_longer_than_its_whole_time() {
    let limits = Limits::server().handshake_timeout(LINGER / 2);
    let mut refused = Refused::new(limits.linger_timeout(LINGER));
    assert!(refused.lingers());
    refused.clock.advance(LINGER / 2 + LINGER / 4);
    assert!(!refused.lingers());
}

#[test]
fn a_drain_or_no_linger_timeout_ends_it_at_once() {
    let mut refused = Refused::new(Limits::server());
    assert!(refused.lingers());
    let deadline = refused.clock.now() + LINGER;
    refused.handle.drain(deadline);
    assert!(!refused.lingers());
    assert!(!Refused::new(Limits::server().linger_timeout(None)).lingers());
}
