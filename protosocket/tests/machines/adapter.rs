//! The rules of `MachineReactor`, one by one. The stream wakes nobody without a reason and the
//! clock stands still, so what no wake-up was arranged for never happens.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use protosocket::{
    Blame, CloseReason, Connection, ConnectionConfig, ConnectionEnd, Deadline, Limits,
    MachineReactor, Output, ReactorStatus, SendLimits, Sender, channel,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::oneshot,
    task::{JoinHandle, yield_now},
};

use crate::toy::{Act, Broken, Notes, Toy, ToyHost, Versioned};
use protosocket_testkit::within;

type End = ConnectionEnd<DuplexStream, MachineReactor<Toy, ToyHost>>;

/// A toy on a pipe of eight bytes.
struct Setup {
    peer: DuplexStream,
    notes: Notes,
    sender: Sender<Act>,
    connection: JoinHandle<End>,
    started: tokio::time::Instant,
}

fn start(toy: Toy, host: ToyHost) -> Setup {
    start_with(toy, host, Versioned::default(), small())
}

/// A send buffer that two lines fill, with a reserve for two more.
fn small() -> Limits {
    Limits::client().send_limits(SendLimits {
        bulk_bytes: 16,
        bulk_messages: 16,
        control_bytes: 16,
    })
}

fn start_with(toy: Toy, host: ToyHost, codec: Versioned, limits: Limits) -> Setup {
    let (stream, peer) = duplex(8);
    let (sender, outbound) = channel(16);
    let notes = host.notes.clone();
    let config = ConnectionConfig::client(limits).expect("the limits are valid");
    let reactor = MachineReactor::new(toy, host);
    let connection = Connection::new(stream, codec, reactor, outbound, &config);
    Setup {
        peer,
        notes,
        sender,
        connection: tokio::spawn(connection),
        started: tokio::time::Instant::now(),
    }
}

impl Setup {
    /// Let everything happen that can happen without the passing of time.
    async fn settle(&self) {
        for _ in 0..32 {
            yield_now().await;
        }
        assert_eq!(tokio::time::Instant::now(), self.started);
    }

    async fn end(self) -> End {
        within(self.connection).await.expect("it does not panic")
    }

    async fn read_all(&mut self) -> String {
        let mut text = String::new();
        within(self.peer.read_to_string(&mut text))
            .await
            .expect("in order");
        text
    }
}

/// A host that does `act` once, when the test says so.
fn host_told(
    act: impl FnOnce(&mut Toy, Instant) + Send + 'static,
) -> (oneshot::Sender<()>, ToyHost) {
    let (tell, mut told) = oneshot::channel();
    let mut act = Some(act);
    let host = ToyHost::new().on_poll(move |_, cx, context| {
        if act.is_some()
            && Pin::new(&mut told).poll(cx).is_ready()
            && let Some(act) = act.take()
        {
            let now = context.now();
            let act: Act = Box::new(move |toy| act(toy, now));
            assert!(context.command(act).is_ok(), "the toy takes everything");
        }
    });
    (tell, host)
}

fn lines(count: usize) -> String {
    (0..count)
        .map(|index| format!("line {index}\r\n"))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn control_beyond_the_reserve_is_sent_in_order_when_there_is_room() {
    let toy = Toy::new().on_inbound(|toy, _| {
        (0..20).for_each(|index| toy.control(format!("line {index}")));
        toy.status = ReactorStatus::Disconnect;
        Ok(())
    });
    let mut setup = start(toy, ToyHost::new());
    setup.peer.write_all(b"go\r\n").await.unwrap();
    setup.settle().await;
    assert_eq!(setup.read_all().await, lines(20));
    let end = setup.end().await;
    assert!(matches!(end.reason, CloseReason::Disconnect));
    assert_eq!((end.stats.messages_out, end.stats.refused), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_failed_machine_arrive_although_the_buffer_was_full() {
    let toy = Toy::new().on_inbound(|toy, _| {
        (0..20).for_each(|index| toy.control(format!("line {index}")));
        Err(Broken)
    });
    let mut setup = start(toy, ToyHost::new());
    setup.peer.write_all(b"go\r\n").await.unwrap();
    setup.settle().await;
    assert_eq!(setup.read_all().await, lines(20));
    let notes = setup.notes.clone();
    let end = setup.end().await;
    assert_eq!(end.stats.unsent, 0);
    assert_eq!(notes.all(), ["the toy is broken"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_machine_is_the_reason_of_the_end_and_not_an_end_in_order() {
    let setup = {
        let toy = Toy::new().on_inbound(|_, _| Err(Broken));
        let mut setup = start(toy, ToyHost::new());
        setup.peer.write_all(b"go\r\n").await.unwrap();
        setup
    };
    let end = setup.end().await;
    assert_eq!(end.reason.to_string(), "the toy is broken");
    assert_eq!(end.reason.blame(), Blame::Peer);
    assert!(!end.reason.is_graceful());
}

#[tokio::test(start_paused = true)]
async fn commands_behind_a_failure_are_counted_and_not_issued() {
    let toy = Toy::new().on_inbound(|_, _| Err(Broken));
    let mut setup = start(toy, ToyHost::new());
    setup.peer.write_all(b"go\r\n").await.unwrap();
    for _ in 0..3 {
        let sent = setup.sender.try_send(Box::new(|_| {}));
        assert!(sent.is_ok());
    }
    let notes = setup.notes.clone();
    let end = setup.end().await;
    assert_eq!(end.stats.unsent, 3);
    assert_eq!(notes.all(), ["the toy is broken"]);
}

#[tokio::test(start_paused = true)]
async fn an_abort_does_not_wait_for_room() {
    let toy = Toy::new().on_inbound(|toy, _| {
        (0..20).for_each(|index| toy.control(format!("line {index}")));
        toy.status = ReactorStatus::Abort;
        Ok(())
    });
    let mut setup = start(toy, ToyHost::new());
    setup.peer.write_all(b"go\r\n").await.unwrap();
    setup.settle().await;
    assert!(setup.connection.is_finished());
    assert!(matches!(setup.end().await.reason, CloseReason::Aborted));
}

#[tokio::test(start_paused = true)]
async fn an_event_of_an_output_is_told_although_nothing_can_be_written() {
    let (tell, host) = host_told(|toy, _| {
        toy.event_after_output = Some("sent");
        toy.control("x");
    });
    let mut toy = Toy::new();
    // More than the pipe holds, so that the stream takes nothing from here on.
    toy.control("0123456789");
    let setup = start(toy, host);
    setup.settle().await;
    tell.send(()).unwrap();
    setup.settle().await;
    assert_eq!(setup.notes.all(), ["sent"]);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_an_event_has_made_is_polled_in_the_same_wake() {
    let (tell, host) = host_told(|toy, _| toy.events.push_back("start"));
    let setup = start(Toy::new(), host);
    setup.settle().await;
    tell.send(()).unwrap();
    setup.settle().await;
    assert_eq!(setup.notes.all(), ["start", "polled"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_always_told_something_lets_others_run() {
    let host = ToyHost::new().on_poll(|_, _, context| {
        let act: Act = Box::new(|toy| toy.events.push_back("start"));
        assert!(context.command(act).is_ok(), "the toy takes everything");
    });
    let mut setup = start(
        Toy::new().on_inbound(|toy, _| {
            toy.status = ReactorStatus::Disconnect;
            Ok(())
        }),
        host,
    );
    setup.settle().await;
    setup.peer.write_all(b"stop\r\n").await.unwrap();
    assert!(matches!(setup.end().await.reason, CloseReason::Disconnect));
}

#[tokio::test(start_paused = true)]
async fn input_that_is_wanted_again_is_decoded_in_the_same_wake() {
    let (tell, host) = host_told(|toy, _| toy.wants_input = true);
    let mut toy = Toy::new().on_inbound(|toy, _| {
        toy.events.push_back("inbound");
        Ok(())
    });
    toy.wants_input = false;
    let mut setup = start(toy, host);
    setup.peer.write_all(b"a\r\nb\r\n").await.unwrap();
    setup.settle().await;
    assert_eq!(setup.notes.all(), Vec::<String>::new());
    tell.send(()).unwrap();
    setup.settle().await;
    assert_eq!(setup.notes.all(), ["inbound", "inbound"]);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_message_runs_again_when_input_is_wanted_again() {
    let (tell, host) = host_told(|toy, _| toy.wants_input = true);
    let mut toy = Toy::new();
    toy.wants_input = false;
    let mut setup = start(toy, host);
    setup.peer.write_all(b"a\r\nhalf").await.unwrap();
    setup.settle().await;
    tell.send(()).unwrap();
    let end = tokio::time::timeout(Duration::from_secs(300), setup.connection).await;
    let end = end.expect("a deadline ends it").unwrap();
    assert!(matches!(
        end.reason,
        CloseReason::Deadline(Deadline::Message)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_past_when_it_is_set_is_told() {
    let (tell, host) = host_told(|toy, now| toy.deadline = Some(now));
    let setup = start(Toy::new(), host);
    setup.settle().await;
    tell.send(()).unwrap();
    setup.settle().await;
    assert_eq!(setup.notes.all(), ["timeout"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_sender_is_missed_although_no_command_is_wanted() {
    let mut toy = Toy::new();
    toy.wants_commands = false;
    let setup = start(toy, ToyHost::new());
    setup.settle().await;
    let Setup {
        peer,
        sender,
        connection,
        ..
    } = setup;
    drop(sender);
    let end = within(connection).await.unwrap();
    assert!(matches!(end.reason, CloseReason::NoSenders));
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn commands_that_waited_are_issued_when_they_are_wanted_again() {
    let (tell, host) = host_told(|toy, _| toy.wants_commands = true);
    let mut toy = Toy::new();
    toy.wants_commands = false;
    let setup = start(toy, host);
    assert!(
        setup
            .sender
            .try_send(Box::new(|toy| toy.events.push_back("done")))
            .is_ok()
    );
    setup.settle().await;
    assert_eq!(setup.notes.all(), Vec::<String>::new());
    tell.send(()).unwrap();
    setup.settle().await;
    assert_eq!(setup.notes.all(), ["message", "done"]);
}

#[tokio::test(start_paused = true)]
async fn the_codec_hears_of_every_change_before_a_message_is_encoded() {
    let mut toy = Toy::new();
    for index in 0..12 {
        toy.outputs.push_back(Output::Bulk(format!("line {index}")));
    }
    let mut setup = start_with(toy, ToyHost::new(), Versioned::showing(), small());
    setup.settle().await;
    // A command between two messages changes what the second one depends on.
    let act: Act = Box::new(|toy| toy.status = ReactorStatus::Disconnect);
    assert!(setup.sender.try_send(act).is_ok());
    let text = setup.read_all().await;
    // The command counts as a change too, wherever it falls among the twelve outputs.
    let versions: Vec<u64> = text
        .lines()
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(versions.len(), 12, "{text}");
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{text}");
    assert_eq!((versions[0], versions[11]), (1, 13), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_output_that_is_finished_leaves_the_input_open() {
    let toy = Toy::new().on_inbound(|toy, line| {
        match line {
            "finish" => {
                (0..20).for_each(|index| toy.control(format!("line {index}")));
                toy.status = ReactorStatus::Finish;
            }
            // An answer that comes too late is refused, and the connection goes on.
            _ => toy.control("too late"),
        }
        toy.events.push_back("inbound");
        Ok(())
    });
    let mut setup = start(toy, ToyHost::new());
    setup.peer.write_all(b"finish\r\n").await.unwrap();
    assert_eq!(setup.read_all().await, lines(20));
    assert!(setup.sender.try_send(Box::new(|_| {})).is_err());
    setup.peer.write_all(b"more\r\nand more\r\n").await.unwrap();
    setup.settle().await;
    assert_eq!(setup.notes.all(), ["inbound", "inbound", "inbound"]);
    assert!(!setup.connection.is_finished());
    setup.peer.shutdown().await.unwrap();
    // A sender that is still held can send nothing, so nobody waits for it.
    setup.settle().await;
    assert!(setup.connection.is_finished());
    let end = setup.end().await;
    assert!(matches!(end.reason, CloseReason::EndOfInput));
    assert_eq!((end.stats.messages_out, end.stats.unsent), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_before_the_output_is_finished_is_sent() {
    let mut toy = Toy::new();
    toy.wants_commands = false;
    let (tell, host) = host_told(|toy, _| {
        toy.wants_commands = true;
        toy.status = ReactorStatus::Finish;
    });
    let mut setup = start(toy, host);
    for _ in 0..3 {
        let sent = (setup.sender).try_send(Box::new(|toy| toy.control("accepted")));
        assert!(sent.is_ok());
    }
    setup.settle().await;
    tell.send(()).unwrap();
    assert_eq!(setup.read_all().await, "accepted\r\n".repeat(3));
    drop(setup.peer);
    let end = within(setup.connection).await.unwrap();
    assert!(matches!(end.reason, CloseReason::EndOfInput));
}
