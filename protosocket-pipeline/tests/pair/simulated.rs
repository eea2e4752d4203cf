//! Requests through a network that stalls, slices, resets, is gone and heals, on a virtual clock.

use std::{cell::RefCell, future::poll_fn, rc::Rc, sync::Arc, time::Duration};

use protosocket::{Backoff, ConnectionConfig, Limits, Reconnect, SendLimits, SocketListener};
use protosocket_pipeline::{Error, Execution, PipelineClient, PipelineConfig, connect};
use protosocket_testkit::{
    Random, for_each_seed_in_a_thread,
    simulation::{Network, Side, SimListener, Simulation, SimulationHandle, StreamConditions},
};

use crate::echoes::{Echoes, Heard, serve};

/// How a request of a seed ended.
struct Ended {
    text: String,
    /// `None` if it was dropped.
    how: Option<Result<String, Error>>,
}

type Ledger = Rc<RefCell<Vec<Ended>>>;

async fn ask(
    client: PipelineClient<Echoes>,
    simulation: SimulationHandle,
    mut random: Random,
    caller: usize,
    ledger: Ledger,
) {
    let mut held = Vec::new();
    for n in 0..random.within(1..40) {
        let padding = "x".repeat(match random.below(8) {
            0 => random.below(5000),
            _ => random.below(30),
        });
        let kind = match random.below(4) {
            0 => "quiet",
            _ => "ask",
        };
        let text = format!("{kind} {caller}.{n} {padding}");
        let client = match random.below(3) {
            0 => client.with_timeout(Duration::from_millis(random.within(1..2000) as u64)),
            _ => client.clone(),
        };
        // Callers that wait for room while they hold replies may wait for each other.
        let response = match random.below(2) == 0 && held.is_empty() {
            true => match client.reserve().await {
                Ok(permit) => permit.request(text.clone()),
                Err(error) => panic!("it takes requests to the end: {error}"),
            },
            false => client.request(text.clone()),
        };
        held.push((text, response));
        if random.below(3) == 0 {
            let pause = Duration::from_millis(random.below(200) as u64);
            simulation.sleep(pause).await;
        }
        if held.len() < random.within(1..10) {
            continue;
        }
        for (text, response) in held.drain(..) {
            let how = match random.below(6) {
                0 => None,
                1 => {
                    let patience = Duration::from_millis(random.below(300) as u64);
                    tokio::select! {
                        biased;
                        how = response => Some(how),
                        () = simulation.sleep(patience) => None,
                    }
                }
                _ => Some(response.await),
            };
            ledger.borrow_mut().push(Ended { text, how });
        }
    }
    for (text, response) in held {
        let how = Some(response.await);
        ledger.borrow_mut().push(Ended { text, how });
    }
}

async fn listen(
    mut listener: SimListener,
    simulation: SimulationHandle,
    mut random: Random,
    is_calm: bool,
    heard: Rc<RefCell<Heard>>,
) {
    loop {
        let accepted = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        // Some connections end in order, with what was asked behind.
        let most = match is_calm || random.below(3) > 0 {
            true => usize::MAX,
            false => random.below(20),
        };
        let heard = heard.clone();
        simulation.spawn_background("a connection of the server", async move {
            if let Ok(stream) = accepted.establish.await {
                let hear = |line| *heard.borrow_mut().entry(line).or_default() += 1;
                // The network may have taken it away.
                let _ = serve(stream, most, hear).await;
            }
        });
    }
}

/// Do something to the network, and heal it.
async fn disturb(simulation: SimulationHandle, mut random: Random, network: Network) {
    for _ in 0..random.within(1..8) {
        let pause = Duration::from_millis(random.below(500) as u64);
        simulation.sleep(pause).await;
        let links = network.links();
        let Some(link) = links.last() else { continue };
        match random.below(6) {
            0 => link.reset(),
            1 => link.reset_after(Side::Client, random.below(3000) as u64),
            2 => link.reset_after(Side::Server, random.below(3000) as u64),
            3 => network.set_refusing("server", true),
            4 => network.partition("server"),
            _ => link.stall_from(Side::Server),
        }
        if random.below(2) == 0 {
            simulation.sleep(Duration::from_secs(1)).await;
            network.heal();
        }
    }
    simulation.sleep(Duration::from_secs(1)).await;
    network.heal();
}

fn run(random: &mut Random) {
    let is_calm = random.below(3) == 0;
    let spurious = if random.per_mille(100) { 200 } else { 0 };
    let simulation = Simulation::new(random).spurious_wakes(spurious);
    let network = Network::new(&simulation, random);
    let from_client = StreamConditions::random(random);
    let from_server = StreamConditions::random(random);
    network.set_conditions(from_client, from_server);

    let handle = simulation.handle();
    let heard = Rc::new(RefCell::new(Heard::new()));
    let listener = network.listener("server");
    let listen = listen(
        listener,
        handle.clone(),
        random.fork(),
        is_calm,
        heard.clone(),
    );
    simulation.spawn_background("server", listen);

    let clock = Arc::new(simulation.clock());
    let limits = Limits::client()
        .linger_timeout(None)
        .send_limits(SendLimits {
            bulk_bytes: *random.one_of(&[100, 10_000, 1024 * 1024]),
            bulk_messages: *random.one_of(&[1, 10, 4096]),
            ..SendLimits::DEFAULT
        });
    let connection = ConnectionConfig::client(limits).unwrap();
    let config = PipelineConfig::new()
        .connection(connection.with_clock(clock.clone()))
        .and_then(|it| it.max_in_flight(*random.one_of(&[1, 5, 4096])))
        .and_then(|it| it.max_queued(*random.one_of(&[1, 5, 4096])))
        .unwrap();
    let reconnect = Reconnect::new(network.connector("server"), Backoff::new().seed(7))
        .unwrap()
        .with_clock(clock);
    let (client, driver) = connect(reconnect, Echoes, &config);
    let driver = simulation.spawn("driver", driver);
    let ledger = Ledger::default();
    let callers: Vec<_> = (0..random.within(1..6))
        .map(|caller| {
            let (random, ledger) = (random.fork(), ledger.clone());
            let ask = ask(client.clone(), handle.clone(), random, caller, ledger);
            simulation.spawn(format!("caller {caller}"), ask)
        })
        .collect();
    if !is_calm {
        let disturb = disturb(handle.clone(), random.fork(), network.clone());
        simulation.spawn("disturbance", disturb);
    }
    // Nobody is left waiting, nor is anything left of those that gave up.
    let are_done = || callers.iter().all(|caller| caller.is_finished());
    simulation.run_until(are_done).unwrap();
    simulation.run_until(|| client.in_flight() == 0).unwrap();
    assert_eq!(client.queued(), 0);
    drop(client);
    simulation.run().unwrap();
    driver.take().unwrap().unwrap();

    let heard = heard.borrow();
    for Ended { text, how } in ledger.borrow().iter() {
        let times = heard.get(text).copied().unwrap_or(0);
        assert!(times <= 1, "{text} was sent {times} times");
        match how {
            None => {}
            // Nobody knows whether what has no reply has arrived.
            Some(Ok(reply)) if reply.starts_with("quiet") => assert_eq!(reply, text),
            Some(Ok(reply)) => assert_eq!((reply, times), (text, 1)),
            Some(Err(error)) => {
                let never_sent = error.execution() == Execution::NeverSent;
                assert!(!never_sent || times == 0, "{text}: {error}");
                let is_fair = match error {
                    Error::ConnectionLost { .. } => !is_calm,
                    Error::DeadlineExceeded { .. } | Error::QueueFull(_) => true,
                    _ => false,
                };
                assert!(is_fair, "{text}: {error}");
            }
        }
    }
}

#[test]
fn requests_end_as_they_should_whatever_happens() {
    for_each_seed_in_a_thread(0..200, run);
}
