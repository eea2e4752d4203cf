//! Messages on their way out: limits, order, and every pause with the wake that ends it.
//!
//! The clock of these tests is never advanced, so no alarm helps a connection that sleeps.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use protosocket::{
    CloseReason, Decoded, EncodeError, Encoder, InputPolicy, Limits, LinesCodec, MessageReactor,
    ReactorContext, ReactorStatus, SendBuffer, SendError, SendFuture, SendLimits, Sender, channel,
};

use protosocket_testkit::{
    Answer, ByHand, Framed, Opened, Probe, Random, Raw, Setup, StreamEvent, always, echo, frame,
    framed, silent,
    simulation::{ConnectionPair, Endpoint, Network, Simulation},
};

/// Raw bytes out; inbound bytes are messages of one byte.
type OneByte = (Raw, ByHand<u8>);

fn one_byte() -> OneByte {
    let decoder = ByHand::new(|input| {
        let byte = input.bytes()[0];
        input.advance(1);
        Ok(Decoded::Message(byte))
    });
    (Raw, decoder)
}

fn part(byte: u8, len: usize) -> Bytes {
    Bytes::from(vec![byte; len])
}

#[test]
fn a_reactor_can_tell_how_many_messages_have_not_been_written() {
    let (told, unsent) = std::sync::mpsc::channel();
    let answer: Answer<LinesCodec> = Box::new(move |context, message| {
        assert!(context.send(message).is_ok());
        told.send(context.unsent_messages()).unwrap();
        ReactorStatus::Continue
    });
    let mut server = Setup::default().open(LinesCodec::new(), answer);
    let mut after = |window, sent: &str| {
        server.peer.set_window(window);
        server.peer.send(sent);
        server.settle();
        unsent.try_iter().collect::<Vec<_>>()
    };
    // Of the second a part is written.
    assert_eq!(after(3, "a\nb\n"), [1, 2]);
    assert_eq!(after(100, "c\n"), [2]);
    assert_eq!(after(0, "d\n"), [1]);
}

#[test]
fn d10_a_peer_that_does_not_read_is_not_read_from() {
    let bulk = 64 * 1024;
    let mut server = Setup::bulk(bulk).open(framed(), echo());
    server.peer.set_window(100);
    let request = frame(&[3; 1_000]);
    for _ in 0..4_000 {
        server.peer.send(&request);
    }
    server.settle();
    let queued = bulk + 2 * request.len();
    assert!(server.peer.bytes_read() <= queued + 100 + 16 * 1024);
    assert_eq!(server.connection.connection().stats().refused, 0);
    // What cannot be written is not asked about, and what is full is not read.
    let polls = server.connection.polls();
    server.peer.send(&request);
    server.settle();
    assert_eq!(server.connection.polls(), polls);

    // Room for writing resumes decoding, again and again.
    while server.knobs.received() < 4_001 {
        assert!(server.peer.is_write_blocked(), "it waits for nothing");
        server.peer.open_window(50_000);
        server.settle();
    }
    server.peer.open_window(usize::MAX);
    server.settle();
    assert_eq!(server.peer.written(), request.repeat(4_001));
}

#[test]
fn d10_one_reply_always_has_room_however_large() {
    let reply = part(1, 1_000_000);
    let mut server = Setup::bulk(2).open(one_byte(), always(reply));
    server.peer.send("abc");
    server.settle();
    assert_eq!(server.peer.written_len(), 3_000_000);
    assert_eq!(server.connection.connection().stats().refused, 0);
}

/// Counts what it encodes.
struct Counting(Rc<Cell<usize>>);

impl Encoder for Counting {
    type Message = Bytes;

    fn encode(&mut self, message: Bytes, output: &mut SendBuffer) -> Result<(), EncodeError> {
        self.0.set(self.0.get() + 1);
        output.put_bytes(message);
        Ok(())
    }
}

#[test]
fn d21_the_send_limit_counts_bytes_and_messages() {
    let encoded_of = |limits: SendLimits, size: usize| {
        let encoded = Rc::new(Cell::new(0));
        let decoder = ByHand::new(|_| Ok(Decoded::<()>::Need(1)));
        let setup = Setup::limits(Limits::server().send_limits(limits));
        let mut server = setup.open((Counting(encoded.clone()), decoder), silent());
        server.peer.set_window(0);
        for _ in 0..1_000 {
            server.send(part(1, size));
        }
        server.settle();
        let first = encoded.get();
        server.peer.open_window(usize::MAX);
        server.settle();
        assert_eq!(
            (encoded.get(), server.peer.written_len()),
            (1_000, 1_000 * size)
        );
        first
    };
    let limits = SendLimits {
        bulk_bytes: 100_000,
        bulk_messages: 30,
        ..SendLimits::DEFAULT
    };
    assert_eq!(encoded_of(limits, 1), 30);
    assert_eq!(encoded_of(limits, 20_000), 5);
    assert_eq!(encoded_of(limits, 99_999), 2);
    assert_eq!(encoded_of(limits, 100_000), 1);
}

#[test]
fn a_reply_queue_is_asked_again_after_each_write_to_a_slow_reader() {
    for policy in [InputPolicy::Answering, InputPolicy::Multiplexing] {
        let mut server = Setup::default().open(one_byte(), silent());
        server.knobs.set_policy(policy);
        server.knobs.set_produces(true);
        server.peer.set_window(0);
        server.settle();
        let mut total = 0;
        // Bursts of 3 MiB, above the limit of 1 MiB: only a part of each fits.
        for burst in 1..=4 {
            let parts = (0..48).map(|_| part(burst, 64 * 1024));
            server.knobs.produce(parts);
            server.settle();
            assert!(server.knobs.unproduced() > 0, "the limit was not met");
            total += 48 * 64 * 1024;
            while server.peer.written_len() < total {
                assert!(server.peer.is_write_blocked(), "it waits for nothing");
                // Room for a part of what is encoded, or for all of it and more.
                let room = if burst % 2 == 0 { 300_001 } else { 1_500_000 };
                server.peer.open_window(room);
                server.settle();
            }
            server.peer.set_window(0);
            assert_eq!(server.knobs.unproduced(), 0);
        }
        let written = server.peer.written();
        assert!(written.is_sorted() && written.len() == total);
    }
}

#[test]
fn a_producer_that_was_pending_is_asked_when_it_wakes() {
    let mut server = Setup::default().open(one_byte(), silent());
    server.knobs.set_produces(true);
    server.settle();
    for round in 1..=3 {
        server.knobs.produce([part(round, 2)]);
        assert!(server.connection.is_woken());
        server.settle();
        assert_eq!(server.peer.written_len(), 2 * usize::from(round));
    }
}

#[test]
fn messages_wait_in_the_channel_while_they_are_not_wanted() {
    let mut server = Setup::default().open(one_byte(), silent());
    server.knobs.set_wants_outbound(false);
    server.settle();
    server.send(part(1, 3));
    server.settle();
    assert_eq!(server.peer.written_len(), 0);
    server.knobs.set_wants_outbound(true);
    server.settle();
    assert_eq!(server.peer.written_len(), 3);

    // And are counted, if the connection ends before they are.
    server.knobs.set_wants_outbound(false);
    server.settle();
    server.send(part(2, 3));
    server.knobs.set_status(ReactorStatus::Disconnect);
    let end = server.finish();
    assert_eq!((end.stats.messages_out, end.stats.unsent), (1, 1));
}

/// The senders that were woken, in order.
#[derive(Default)]
struct Line(Mutex<Vec<usize>>);

struct Place(usize, Arc<Line>);

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.1.0.lock().unwrap().push(self.0);
    }
}

struct Waiting<'a> {
    future: Pin<Box<SendFuture<'a, String>>>,
    waker: Waker,
}

impl<'a> Waiting<'a> {
    fn new(sender: &'a Sender<String>, place: usize, line: &Arc<Line>) -> Self {
        Self {
            future: Box::pin(sender.send(place.to_string())),
            waker: Arc::new(Place(place, line.clone())).into(),
        }
    }

    fn poll(&mut self) -> Poll<bool> {
        let mut cx = Context::from_waker(&self.waker);
        self.future.as_mut().poll(&mut cx).map(|sent| sent.is_ok())
    }
}

#[test]
fn senders_that_wait_for_room_get_it_in_their_order() {
    for capacity in [1, 2, 40] {
        let setup = Setup {
            capacity,
            ..Setup::bulk(4)
        };
        let mut server = setup.open(LinesCodec::new().line_feed(), echo());
        server.peer.set_window(0);
        server.settle();
        let sender = server.sender().clone();
        let line = Arc::new(Line::default());
        let mut waiting: Vec<_> = (100..200)
            .map(|place| Waiting::new(&sender, place, &line))
            .collect();
        let mut sent = 0;
        for future in &mut waiting {
            match future.poll() {
                Poll::Ready(accepted) => {
                    assert!(accepted);
                    sent += 1;
                }
                Poll::Pending => {}
            }
        }
        assert_eq!(sent, capacity);
        server.settle();
        let mut woken = 0;
        for _ in 0..1_000 {
            // Whoever was woken takes its place at once.
            loop {
                let next = line.0.lock().unwrap().get(woken).copied();
                let Some(place) = next else { break };
                assert_eq!(place, 100 + capacity + woken, "out of line");
                assert_eq!(waiting[place - 100].poll(), Poll::Ready(true));
                woken += 1;
                server.settle();
            }
            if server.peer.written_len() == 400 {
                break;
            }
            server.peer.open_window(4);
            server.settle();
        }
        let expected: String = (100..200).map(|place| format!("{place}\n")).collect();
        assert_eq!(server.peer.written(), expected.as_bytes(), "of {capacity}");
    }
}

fn multiplexing(bulk: usize, answer: Answer<OneByte>) -> Opened<OneByte> {
    let server = Setup::bulk(bulk).open(one_byte(), answer);
    server.knobs.set_policy(InputPolicy::Multiplexing);
    server
}

#[test]
fn multiplexing_hears_cancels_while_bulk_is_full() {
    let mut server = multiplexing(1_000, silent());
    server.peer.set_window(0);
    server.knobs.produce((0..50).map(|_| part(1, 100)));
    server.send(part(2, 100));
    server.settle();
    assert!(server.knobs.unproduced() > 0);
    let queued = server.connection.connection().stats().unsent;
    server.peer.send("cancel");
    server.settle();
    assert_eq!(server.knobs.received(), 6);
    // And bulk waits all the same.
    assert_eq!(server.connection.connection().stats().unsent, queued);
    server.peer.open_window(usize::MAX);
    server.settle();
    assert_eq!(server.peer.written_len(), 5_100);
}

#[test]
fn multiplexing_pauses_when_the_control_reserve_is_used_up_and_resumes() {
    let answer: Answer<OneByte> = Box::new(|context, _| {
        assert!(context.send_control(part(9, 100)).is_ok(), "the reserve");
        ReactorStatus::Continue
    });
    let mut server = multiplexing(1_000, answer);
    server.peer.set_window(0);
    server.knobs.produce((0..50).map(|_| part(1, 100)));
    server.settle();
    server.peer.send(vec![0; 200]);
    server.settle();
    // 1,000 bytes of bulk and a reserve of 500.
    assert_eq!(server.knobs.received(), 5);
    while server.peer.written_len() < 50 * 100 + 200 * 100 {
        assert!(server.peer.is_write_blocked(), "it waits for nothing");
        server.peer.open_window(250);
        server.settle();
    }
    assert_eq!(server.knobs.received(), 200);
    assert_eq!(server.connection.connection().stats().refused, 0);
}

#[test]
fn an_answering_reactor_is_refused_a_second_large_reply_and_told_so() {
    let refused = Rc::new(Cell::new(0));
    let count = refused.clone();
    let answer: Answer<OneByte> = Box::new(move |context, _| {
        assert!(context.send(part(1, 2_000)).is_ok());
        match context.send(part(2, 2_000)) {
            Err(SendError::Full(message)) => {
                assert_eq!(message.len(), 2_000);
                count.set(count.get() + 1);
                ReactorStatus::Continue
            }
            _ => ReactorStatus::Abort,
        }
    });
    let mut server = Setup::bulk(1_000).open(one_byte(), answer);
    server.peer.send("a");
    server.settle();
    assert_eq!(refused.get(), 1);
    assert_eq!(server.connection.connection().stats().refused, 1);

    // With `reply`, the second one ends the connection and says why.
    let answer: Answer<OneByte> = Box::new(|context, _| {
        assert_eq!(context.reply(part(1, 2_000)), ReactorStatus::Continue);
        context.reply(part(2, 2_000))
    });
    let mut server = Setup::bulk(1_000).open(one_byte(), answer);
    server.peer.send("a");
    let end = server.finish();
    assert_eq!(end.reason.name(), "send_buffer_full");
    assert_eq!((end.stats.messages_out, end.stats.refused), (1, 1));
    assert_eq!(server.peer.written_len(), 2_000);
}

#[test]
fn control_that_takes_the_room_of_a_reply_has_it_refused() {
    let refused = Rc::new(Cell::new(0));
    let count = refused.clone();
    let answer: Answer<OneByte> = Box::new(move |context, _| {
        assert!(context.send_control(part(1, 2_000)).is_ok());
        let reply = context.send(part(2, 2_000));
        count.set(count.get() + usize::from(matches!(reply, Err(SendError::Full(_)))));
        ReactorStatus::Continue
    });
    let mut server = Setup::bulk(1_000).open(one_byte(), answer);
    server.peer.send("a");
    server.settle();
    assert_eq!(refused.get(), 1);
    assert_eq!(server.peer.written_len(), 2_000);
}

#[test]
fn a_message_that_writes_itself_keeps_the_limits_and_leaves_no_half_behind() {
    let outcomes = Rc::new(Cell::new([0; 3]));
    let count = outcomes.clone();
    let answer: Answer<OneByte> = Box::new(move |context, _| {
        let parts = [b"ab".as_slice(), b"cd"];
        let written = context.send_with(|output| {
            parts.iter().for_each(|part| output.put_slice(part));
            Ok(())
        });
        let failed = context.send_with(|output| {
            output.put_slice(b"half");
            Err(EncodeError::invalid("told to fail"))
        });
        assert!(matches!(failed, Err(SendError::Encode(_))));
        let large = context.send_with(|output| {
            output.put_bytes(part(b'x', 20_000));
            Ok(())
        });
        let refused = context.send_with(|_| unreachable!("there is no room"));
        assert!(matches!(refused, Err(SendError::Full(()))));
        let [a, b, c] = count.get();
        let ok = |result: Result<(), _>| usize::from(result.is_ok());
        count.set([a + ok(written), b + ok(large), c + 1]);
        ReactorStatus::Continue
    });
    let mut server = Setup::bulk(1_000).open(one_byte(), answer);
    server.peer.send("m");
    server.settle();
    assert_eq!(outcomes.get(), [1, 1, 1]);
    let written = server.peer.written();
    assert_eq!((&written[..5], written.len()), (&b"abcdx"[..], 20_004));
    server.drop_sender();
    server.peer.end();
    let stats = server.finish().stats;
    assert_eq!((stats.messages_out, stats.refused), (2, 1));
}

#[test]
fn partial_writes_of_every_length_resume_exactly() {
    // Contiguous pieces between segments of their own, and several messages in a piece.
    let sizes = [3, 16 * 1024, 1, 17_000, 20, 40_000, 16 * 1024 - 1];
    let messages: Vec<Bytes> = (1..)
        .zip(sizes)
        .map(|(byte, len)| part(byte, len))
        .collect();
    let expected: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
    for vectored in [true, false] {
        for step in (1..=64).chain([4_095, 16 * 1024, 16 * 1024 + 4]) {
            let mut client = Setup::client().open(framed(), silent());
            if !vectored {
                client.peer.set_not_vectored();
            }
            client.peer.set_max_write(step);
            for message in &messages {
                client.send(message.clone());
            }
            client.drop_sender();
            let end = client.finish();
            assert_eq!(end.stats.messages_out, 7);
            assert!(client.peer.written() == expected, "steps of {step}");
        }
    }
}

#[test]
fn a_window_that_opens_byte_by_byte_is_filled_byte_by_byte() {
    let message = part(1, 20_000);
    for vectored in [true, false] {
        let mut client = Setup::client().open(framed(), silent());
        if !vectored {
            client.peer.set_not_vectored();
        }
        client.peer.set_window(0);
        client.send(message.slice(..50));
        client.send(message.clone());
        client.send(message.slice(..50));
        client.settle();
        for open in 1..=300 {
            client.peer.open_window(1);
            client.settle();
            assert_eq!(client.peer.written_len(), open);
        }
        client.peer.open_window(usize::MAX);
        client.drop_sender();
        client.finish();
        let expected = [
            frame(&message[..50]),
            frame(&message),
            frame(&message[..50]),
        ];
        assert!(client.peer.written() == expected.concat());
    }
}

#[test]
fn what_one_poll_writes_is_bounded() {
    let mut server = Setup::default().open(one_byte(), silent());
    server.knobs.set_produces(true);
    server.settle();
    // Smaller than what one write takes, and several times what a poll may write.
    let count = 8 * 1024;
    server.knobs.produce((0..count).map(|_| part(1, 1024)));
    let mut written = 0;
    while written < count * 1024 {
        assert!(server.connection.is_woken(), "it must ask to go on");
        server.connection.poll_once();
        let share = server.peer.written_len() - written;
        // The last write is begun below the limit, with a full send buffer at most.
        assert!((1..=2 * 1024 * 1024).contains(&share), "{share} bytes");
        written += share;
    }
    assert_eq!(server.knobs.unproduced(), 0);
}

#[test]
fn channel_and_reactor_do_not_starve_each_other() {
    let mut server = Setup::bulk(100).open(one_byte(), silent());
    server.peer.set_window(0);
    for _ in 0..100 {
        server.send(part(1, 100));
    }
    server.knobs.produce((0..100).map(|_| part(2, 100)));
    server.settle();
    server.peer.open_window(10_000);
    server.settle();
    let written = server.peer.written();
    for byte in [1, 2] {
        let share = written.iter().filter(|wrote| **wrote == byte).count();
        assert!(share >= 4_000, "{share} of 10,000 bytes");
    }
}

#[test]
fn a_peer_that_asks_for_more_than_it_reads_does_not_starve_the_channel() {
    let mut server = Setup::bulk(1_000).open(one_byte(), always(part(1, 100)));
    server.peer.set_window(0);
    server.peer.send(vec![0; 1_000]);
    server.settle();
    server.send(part(2, 100));
    // Each answer that leaves makes room for one message, and a thousand requests want it.
    for _ in 0..30 {
        server.peer.open_window(100);
        server.settle();
    }
    assert!(server.peer.written().contains(&2));
}

/// Does something that writes nothing for as long as it is let.
struct Restless {
    calls: Rc<Cell<usize>>,
    refill: Option<Sender<Bytes>>,
    produces: bool,
    rest: bool,
    received: Rc<Cell<usize>>,
}

impl Restless {
    fn count(&self) {
        self.calls.set(self.calls.get() + 1);
        assert!(self.calls.get() < 1_000_000, "one poll goes on for ever");
    }
}

impl MessageReactor for Restless {
    type Codec = Framed;
    type Inbound = Bytes;
    type Outbound = Bytes;
    type LogicalOutbound = Bytes;

    fn on_inbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, Framed>,
        _message: Bytes,
    ) -> ReactorStatus {
        self.received.set(self.received.get() + 1);
        ReactorStatus::Continue
    }

    fn on_outbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, Framed>,
        message: Bytes,
    ) -> Result<(), SendError<Bytes>> {
        self.count();
        if let Some(sender) = &self.refill {
            assert!(sender.try_send(message).is_ok());
        }
        Ok(())
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
        _context: &mut ReactorContext<'_, Framed>,
    ) -> ReactorStatus {
        match self.rest {
            true => ReactorStatus::Disconnect,
            false => ReactorStatus::Continue,
        }
    }

    fn poll_outbound_many(
        &mut self,
        _cx: &mut Context<'_>,
        _context: &mut ReactorContext<'_, Framed>,
    ) -> Poll<Option<()>> {
        self.count();
        Poll::Ready(self.produces.then_some(()))
    }

    fn send_rest(
        &mut self,
        _context: &mut ReactorContext<'_, Framed>,
        _reason: &CloseReason,
    ) -> bool {
        self.count();
        self.rest
    }
}

#[test]
fn c10_work_that_writes_nothing_does_not_hold_the_thread() {
    for [refill, produces, rest] in [
        [true, false, false],
        [false, true, false],
        [false, false, true],
    ] {
        for ended in [false, true] {
            let (calls, received) = <(Rc<Cell<usize>>, Rc<Cell<usize>>)>::default();
            let (sender, receiver) = channel(1_000);
            for _ in 0..100 {
                assert!(sender.try_send(Bytes::new()).is_ok());
            }
            let reactor = Restless {
                calls: calls.clone(),
                refill: refill.then_some(sender),
                produces,
                rest,
                received: received.clone(),
            };
            let mut server = Setup::default().drive(framed(), reactor, receiver);
            if ended {
                // From here on not even reads are counted.
                server.peer.end();
            }
            for round in 1..=3 {
                server.peer.send(frame(b"a"));
                server.poll_once();
                assert!(!server.is_ended(), "round {round}");
                assert!(server.is_woken(), "it has more to do");
                let messages = if ended || rest { 0 } else { round };
                assert!(received.get() >= messages, "the input starves");
                calls.set(0);
            }
        }
    }
}

#[test]
fn what_exceeds_the_bulk_limit_uses_nothing_of_the_control_reserve() {
    // Bulk of 100 bytes, 50 for control, and one message that is larger than both together.
    let mut client = Setup::bulk(100).open(framed(), silent());
    client.knobs.set_policy(InputPolicy::Multiplexing);
    client.peer.set_window(0);
    client.send(vec![7; 100_000].into());
    client.settle();
    client.peer.send(frame(b"you may send more"));
    client.settle();
    assert_eq!(client.knobs.received(), 1, "it goes on hearing");
}

#[test]
fn two_multiplexing_peers_of_large_messages_never_wait_for_each_other() {
    let mut random = Random::new(1);
    let simulation = Simulation::new(&mut random);
    let network = Network::new(&simulation, &mut random);
    // No deadline helps them.
    let limits = || Limits::client().write_timeout(None);
    let ends = [(); 2].map(|()| {
        let (probe, knobs) = Probe::new(silent());
        knobs.set_policy(InputPolicy::Multiplexing);
        (Endpoint::new(framed(), probe).limits(limits()), knobs)
    });
    let [(client, near), (server, far)] = ends;
    let pair = ConnectionPair::open(&simulation, &network, client, server);
    for _ in 0..20 {
        for sender in [&pair.client.sender, &pair.server.sender] {
            let sender = sender.as_ref().expect("it was just opened");
            sender
                .try_send(vec![1; 200 * 1024].into())
                .expect("there is room");
        }
    }
    let done = || near.received() == 20 && far.received() == 20;
    simulation.run_until(done).unwrap();
}

#[test]
fn the_control_reserve_is_bounded_and_given_back_by_what_leaves() {
    let ack = Bytes::from_static(&[9; 20]);
    let reply = ack.clone();
    let answer: Answer<OneByte> = Box::new(move |context, _| {
        assert!(context.has_control_room(), "it would not have been called");
        context
            .send_control(reply.clone())
            .expect("there is a reserve");
        ReactorStatus::Continue
    });
    let mut server = Setup::bulk(100).open(one_byte(), answer);
    server.knobs.set_policy(InputPolicy::Multiplexing);
    server.peer.set_window(0);
    server.send(part(1, 1_000));
    server.settle();
    server.peer.send([0; 10]);
    server.settle();
    // 50 bytes of reserve take two acknowledgements and the one that goes over it.
    assert_eq!(server.knobs.received(), 3);
    server.peer.open_window(20);
    server.settle();
    assert_eq!(server.knobs.received(), 4);
    server.peer.open_window(usize::MAX);
    server.settle();
    assert_eq!(server.knobs.received(), 10);
    assert_eq!(server.peer.written_len(), 1_000 + 10 * ack.len());
}

#[test]
fn a_connection_that_is_dropped_before_its_flush_is_done_resets_its_stream() {
    let server = |holds: bool| {
        let mut server = Setup::default().open(framed(), silent());
        if holds {
            server.peer.hold_flush();
        }
        server.send(Bytes::from_static(b"written"));
        server.settle();
        assert!(server.peer.written_len() > 0);
        let peer = server.peer.clone();
        drop(server.connection.into_observer());
        peer.saw(StreamEvent::Abort)
    };
    assert!(server(true), "a stream that buffers has lost it");
    assert!(!server(false), "everything has been sent");
}

#[test]
fn what_was_written_in_part_is_told_from_what_was_not_written() {
    for taken in 0..=9 {
        // Three messages of three bytes each, in one write and byte by byte.
        for max_write in [usize::MAX, 1] {
            let mut server = Setup::default().open(one_byte(), silent());
            server.peer.set_window(taken);
            server.peer.set_max_write(max_write);
            (1..=3).for_each(|number| server.send(part(number, 3)));
            server.settle();
            server.connection.handle.abort();
            let stats = server.finish().stats;
            let expected = (taken as u64 / 3, u64::from(!taken.is_multiple_of(3)));
            assert_eq!((stats.messages_out, stats.cut), expected, "{taken} bytes");
            assert_eq!(stats.messages_out + stats.unsent, 3);
        }
    }
}
