//! What the simulated network itself promises, without connections: the tests of the others lean
//! on it.

use std::{io, time::Duration};

use protosocket::{SocketConnector, SocketListener, Transport};
use protosocket_testkit::{
    Random, for_each_seed_in_a_thread,
    simulation::{Network, ResetCause, Side, SimListener, SimStream, Simulation, StreamConditions},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn world(random: &mut Random) -> (Simulation, Network) {
    let simulation = Simulation::new(random);
    let network = Network::new(&simulation, random);
    (simulation, network)
}

/// Latency of 10 ms, and nothing else.
fn steady() -> StreamConditions {
    StreamConditions {
        latency: Duration::from_millis(10)..Duration::from_millis(10),
        ..StreamConditions::default()
    }
}

async fn accept(listener: &mut SimListener) -> SimStream {
    let accepted = std::future::poll_fn(|cx| listener.poll_accept(cx)).await;
    accepted
        .expect("nothing fails")
        .establish
        .await
        .expect("nothing fails")
}

/// What is read until the end, and how that came.
async fn read_all(mut stream: SimStream) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await.map(|_| ());
    (bytes, end)
}

#[test]
fn bytes_arrive_whole_through_any_conditions_and_each_direction_ends_for_itself() {
    for_each_seed_in_a_thread(0..200, |random| {
        let (simulation, network) = world(random);
        network.set_conditions(
            StreamConditions::random(random),
            StreamConditions::random(random),
        );
        let (mut near, mut far) = network.pair();
        let size = random.below_one_of(&[10, 300]);
        let sent = random.bytes(size);
        let expected = sent.clone();
        simulation.spawn("writer", async move {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            // The other direction is open, and what comes through it is whole as well.
            let (echoed, end) = read_all(near).await;
            end.unwrap();
            assert!(echoed == sent);
        });
        simulation.spawn("echo", async move {
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            assert!(heard == expected);
            far.write_all(&heard).await.unwrap();
            far.flush().await.unwrap();
            far.shutdown().await.unwrap();
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        });
        simulation.run().unwrap();
        assert_eq!(network.links()[0].reset_cause(), None);
    });
}

#[test]
fn a_reset_is_seen_by_both_ends_at_its_byte() {
    for_each_seed_in_a_thread(0..50, |random| {
        let (simulation, network) = world(random);
        let (mut near, far) = network.pair();
        let link = near.link();
        link.reset_after(Side::Client, 1000);
        simulation.spawn("writer", async move {
            near.write_all(&[1; 5000]).await.unwrap_err();
        });
        let reader = simulation.spawn("reader", read_all(far));
        simulation.run().unwrap();
        let (bytes, end) = reader.take().unwrap();
        assert!(bytes.len() <= 1000);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(link.written(Side::Client), 1000);
        assert_eq!(link.reset_cause(), Some(ResetCause::Network));
        assert_eq!(link.lost(Side::Server) + bytes.len(), 1000);
    });
}

#[test]
fn an_abort_is_no_end_and_a_drop_is_one() {
    for (aborts, kind) in [(true, Some(io::ErrorKind::ConnectionReset)), (false, None)] {
        let (simulation, network) = world(&mut Random::new(1));
        let (mut near, far) = network.pair();
        if aborts {
            near.abort();
        }
        drop(near);
        let reader = simulation.spawn("reader", read_all(far));
        simulation.run().unwrap();
        let (_, end) = reader.take().unwrap();
        assert_eq!(end.err().map(|error| error.kind()), kind);
    }
}

/// The last words of a server that closes while its client is still writing: whether they arrive.
fn last_words(seed: u64, lingers: bool) -> (bool, Option<ResetCause>) {
    let (simulation, network) = world(&mut Random::new(seed));
    network.set_conditions(steady(), steady());
    let (mut near, mut far) = network.pair();
    let link = near.link();
    let handle = simulation.handle();
    simulation.spawn("server", async move {
        far.write_all(b"goodbye").await.unwrap();
        far.shutdown().await.unwrap();
        if lingers {
            while far.read(&mut [0; 64]).await.unwrap() > 0 {}
        }
    });
    let client = simulation.spawn("client", async move {
        // It is busy while the last words arrive, and writes before it reads.
        handle.sleep(Duration::from_millis(15)).await;
        near.write_all(b"one more").await.unwrap();
        handle.sleep(Duration::from_millis(100)).await;
        let mut heard = Vec::new();
        let read = near.read_to_end(&mut heard).await.is_ok();
        read && heard == b"goodbye"
    });
    simulation.run().unwrap();
    (client.take().unwrap(), link.reset_cause())
}

#[test]
fn bytes_that_come_too_late_reset_and_may_destroy_the_last_words() {
    let mut destroyed = 0;
    for seed in 0..20 {
        assert_eq!(last_words(seed, true), (true, None));
        let (heard, cause) = last_words(seed, false);
        assert_eq!(cause, Some(ResetCause::Late(Side::Server)));
        destroyed += usize::from(!heard);
    }
    // Some systems give their program what had arrived, others do not.
    assert!((5..15).contains(&destroyed), "{destroyed} of 20");
}

#[test]
fn a_stall_holds_everything_back_and_a_heal_lets_it_go() {
    let (simulation, network) = world(&mut Random::new(1));
    network.set_conditions(steady(), steady());
    let (mut near, far) = network.pair();
    let link = near.link();
    link.stall();
    simulation.spawn("writer", async move {
        near.write_all(b"held back").await.unwrap();
        near.shutdown().await.unwrap();
    });
    let reader = simulation.spawn("reader", read_all(far));
    simulation.run_for(Duration::from_secs(100)).unwrap();
    assert!(!reader.is_finished());
    link.heal();
    simulation.run_for(Duration::from_millis(10)).unwrap();
    let (bytes, end) = reader.take().expect("it arrives a latency after the heal");
    assert_eq!((bytes.as_slice(), end.is_ok()), (&b"held back"[..], true));
}

#[test]
fn listeners_accept_refuse_and_fail_as_they_are_told() {
    let (simulation, network) = world(&mut Random::new(1));
    network.set_conditions(steady(), steady());
    let nobody = network.connector("server");
    let refused = simulation.block_on(async move { nobody.connect().await.map(drop) });
    let refused = refused.unwrap().unwrap_err();
    assert_eq!(refused.source.kind(), io::ErrorKind::ConnectionRefused);
    // There and back again.
    assert_eq!(simulation.elapsed(), Duration::from_millis(20));

    let mut listener = network.listener("server");
    let client = network.connector("server");
    let address = client.local_address();
    network.fail_accept("server", io::ErrorKind::OutOfMemory.into());
    let accepted = simulation.spawn("server", async move {
        let failed = std::future::poll_fn(|cx| listener.poll_accept(cx)).await;
        let error = failed.map(drop).unwrap_err();
        let stream = accept(&mut listener).await;
        (error.kind(), stream.peer_address(), listener)
    });
    let connected = simulation.spawn("client", async move { client.connect().await });
    simulation.run().unwrap();
    let (kind, peer, listener) = accepted.take().unwrap();
    assert_eq!((kind, peer), (io::ErrorKind::OutOfMemory, address));
    assert!(connected.take().unwrap().is_ok());

    // Who waits to be accepted when the listener goes is reset.
    let waiting = network.connector("server");
    let waiting = simulation.block_on(async move { waiting.connect().await });
    let waiting = waiting.unwrap().expect("the backlog takes it");
    drop(listener);
    let read = simulation.block_on(read_all(waiting)).unwrap();
    assert_eq!(read.1.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    network.set_refusing("server", true);
    let _listener = network.listener("server");
    let late = network.connector("server");
    let late = simulation.block_on(async move { late.connect().await.map(drop) });
    assert!(late.unwrap().is_err());
    assert_eq!(network.connects(), 4);
}

#[test]
fn a_listener_that_was_replaced_takes_nothing_along() {
    let mut random = Random::new(1);
    let (simulation, network) = world(&mut random);
    let old = network.listener("server");
    let connector = network.connector("server");
    let waiting = simulation.block_on(async move { connector.connect().await });
    let waiting = waiting.unwrap().expect("somebody listens");
    let mut new = network.listener("server");
    let (_, end) = simulation.block_on(read_all(waiting)).unwrap();
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(old);
    let connector = network.connector("server");
    let accepted = simulation.spawn("server", async move { accept(&mut new).await });
    let connected = simulation.block_on(async move { connector.connect().await });
    assert!(connected.unwrap().is_ok());
    simulation.run().unwrap();
    assert!(accepted.take().is_some());
}
