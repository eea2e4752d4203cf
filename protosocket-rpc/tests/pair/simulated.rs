//! Calls through a network that stalls, slices, resets and heals, on a virtual clock.

use std::{cell::RefCell, rc::Rc, time::Duration};

use protosocket::{Limits, SendLimits};
use protosocket_rpc::{
    Error, Execution, RpcServerConfig,
    client::{Configuration, RpcClient, RpcCompletionReactor, SlowConsumer, StreamingCompletion},
    server::RpcReactor,
};
use protosocket_testkit::{
    Random, for_each_seed_in_a_thread,
    simulation::{
        ConnectionPair, Endpoint, LinkHandle, Network, Side, Simulation, SimulationHandle,
        StreamConditions,
    },
};

use crate::{
    service::{Heard, Service},
    text::{NORMAL, Text, TextCodec},
    threads::next,
};

/// How a call of a seed ended.
#[derive(Debug)]
struct Ended {
    text: String,
    how: How,
}

#[derive(Debug)]
enum How {
    /// With the answer that it should have.
    Answered,
    Dropped,
    Failed(Error),
}

type Ledger = Rc<RefCell<Vec<Ended>>>;

/// Make calls of all kinds.
async fn call(
    client: RpcClient<Text, Text>,
    simulation: SimulationHandle,
    mut random: Random,
    caller: usize,
    ledger: Ledger,
) {
    for n in 0..random.within(1..20) {
        let about = format!("{caller}.{n}");
        let padding = "x".repeat(match random.below(8) {
            0 => random.below(5000),
            _ => random.below(30),
        });
        let id = match random.below(4) {
            0 => 1 << 60 | (caller << 32 | n) as u64,
            _ => 0,
        };
        let (text, is_stream) = match random.below(8) {
            0 => (format!("never {about} {padding}"), false),
            1 => (format!("reject {about} {padding}"), false),
            2 => (
                format!("later {} {about} {padding}", random.below(5)),
                false,
            ),
            3..6 => (
                format!("count {} {about} {padding}", random.below(40)),
                true,
            ),
            _ => (format!("echo {about} {padding}"), false),
        };
        let client = match random.below(3) {
            0 => client.with_timeout(Duration::from_millis(random.within(1..2000) as u64)),
            _ => client.clone(),
        };
        let request = Text::new(id, NORMAL, &*text);
        let patience = match random.below(5) {
            0 => Some(Duration::from_millis(random.below(300) as u64)),
            _ => None,
        };
        let how = async {
            let permit = match client.reserve().await {
                Ok(permit) => permit,
                Err(error) => return How::Failed(error),
            };
            let result = match is_stream {
                true => {
                    read(
                        permit.send_streaming(request),
                        &simulation,
                        &mut random,
                        &text,
                    )
                    .await
                }
                false => match permit.send_unary(request) {
                    Ok(answer) => answer.await.map(|answer| assert_eq!(answer.text, text)),
                    Err(error) => Err(error),
                },
            };
            match result {
                Ok(()) => How::Answered,
                Err(error) => How::Failed(error),
            }
        };
        let how = match patience {
            Some(patience) => {
                let sleep = simulation.sleep(patience);
                tokio::select! {
                    biased;
                    how = how => how,
                    () = sleep => How::Dropped,
                }
            }
            None => how.await,
        };
        ledger.borrow_mut().push(Ended { text, how });
    }
}

/// Read a stream, now and then slowly.
async fn read(
    stream: Result<StreamingCompletion<Text, Text>, Error>,
    simulation: &SimulationHandle,
    random: &mut Random,
    text: &str,
) -> Result<(), Error> {
    let mut stream = stream?;
    let mut seen = 0;
    while let Some(item) = next(&mut stream).await {
        seen += 1;
        assert_eq!(item?.text, format!("{seen} {text}"));
        if random.per_mille(50) {
            simulation
                .sleep(Duration::from_millis(random.below(200) as u64))
                .await;
        }
    }
    // Only what is complete ends without an error.
    let count = text.split(' ').nth(1).unwrap();
    assert_eq!(seen.to_string(), count, "{text}");
    Ok(())
}

/// Do something to the network, or to the connections.
async fn disturb(
    simulation: SimulationHandle,
    mut random: Random,
    link: LinkHandle,
    client: protosocket::ConnectionHandle,
) {
    for _ in 0..random.within(1..4) {
        simulation
            .sleep(Duration::from_millis(random.below(500) as u64))
            .await;
        match random.below(6) {
            0 => link.reset(),
            1 => link.reset_after(Side::Client, random.below(3000) as u64),
            2 => link.reset_after(Side::Server, random.below(3000) as u64),
            3 => client.abort(),
            4 => client.drain(simulation.now() + Duration::from_millis(random.below(3000) as u64)),
            _ => link.stall(),
        }
    }
    simulation.sleep(Duration::from_secs(1)).await;
    link.heal();
}

fn limits(limits: Limits, random: &mut Random) -> Limits {
    limits.send_limits(SendLimits {
        bulk_bytes: *random.one_of(&[100, 10_000, 1024 * 1024]),
        bulk_messages: *random.one_of(&[1, 10, 4096]),
        control_bytes: *random.one_of(&[30, 1000, 64 * 1024]),
    })
}

fn run(random: &mut Random) {
    let is_calm = random.below(2) == 0;
    let spurious = if random.per_mille(100) { 200 } else { 0 };
    let simulation = Simulation::new(random).spurious_wakes(spurious);
    let network = Network::new(&simulation, random);
    let conditions = [
        StreamConditions::random(random),
        StreamConditions::random(random),
    ];
    let [from_client, from_server] = conditions;
    network.set_conditions(from_client, from_server);
    let policy = *random.one_of(&[SlowConsumer::Pause, SlowConsumer::End]);
    let configuration = Configuration::new()
        .max_concurrent_calls(*random.one_of(&[1, 5, 1000]))
        .and_then(|it| it.max_buffered_items(*random.one_of(&[1, 4, 128])))
        .unwrap()
        .slow_consumer(policy);
    let (client, reactor) = RpcCompletionReactor::new(&configuration);
    let heard = Heard::default();
    let rpcs = *random.one_of(&[1, 4096]);
    let config = RpcServerConfig::default().max_concurrent_rpcs(rpcs);
    let server = RpcReactor::new(Service::new(heard.clone()), &config).unwrap();
    let near = Endpoint::new(TextCodec, reactor).limits(limits(Limits::client(), random));
    let far = Endpoint::new(TextCodec, server).limits(limits(Limits::server(), random));
    let mut pair = ConnectionPair::open(&simulation, &network, near, far);
    pair.client.sender = None;
    pair.server.sender = None;

    let ledger = Ledger::default();
    let handle = simulation.handle();
    let callers: Vec<_> = (0..random.within(1..6))
        .map(|caller| {
            let call = call(
                client.clone(),
                handle.clone(),
                random.fork(),
                caller,
                ledger.clone(),
            );
            simulation.spawn(format!("caller {caller}"), call)
        })
        .collect();
    if !is_calm {
        let disturbance = disturb(
            handle.clone(),
            random.fork(),
            pair.link.clone(),
            pair.client.handle.clone(),
        );
        simulation.spawn("disturbance", disturbance);
    }
    drop(client);
    // Nobody is left waiting: neither a caller, nor one of the connections.
    simulation.run().unwrap();
    assert!(callers.iter().all(|caller| caller.is_finished()));
    let end = pair.client.task.take().unwrap();
    assert!(pair.server.task.take().is_some());

    let heard = heard.lock().unwrap();
    assert!(
        heard.values().all(|times| *times == 1),
        "each is carried out once"
    );
    for Ended { text, how } in ledger.borrow().iter() {
        let was_heard = heard.contains_key(text);
        match how {
            How::Answered => assert!(was_heard, "{text}"),
            How::Dropped => {}
            How::Failed(error) => {
                let never_sent = error.execution() == Execution::NeverSent;
                assert!(!never_sent || !was_heard, "{text}: {error}");
                let is_fair = match error {
                    // What is refused is not heard by the service.
                    Error::CancelledRemotely => was_heard || rpcs == 1,
                    Error::SlowConsumer { .. } => policy == SlowConsumer::End && was_heard,
                    Error::DeadlineExceeded { .. } => true,
                    Error::ConnectionLost { .. } | Error::Draining => !is_calm,
                    _ => false,
                };
                assert!(is_fair, "{text}: {error}");
            }
        }
    }
    if is_calm {
        assert_eq!(end.reason.name(), "no_senders");
        assert_eq!((end.stats.unsent, end.stats.unanswered), (0, 0));
    }
}

#[test]
fn calls_end_as_they_should_whatever_happens() {
    for_each_seed_in_a_thread(0..100, run);
}
