//! Bytes to messages: progress, limits, the cost of partial reads, and pauses.

use std::{
    cell::{Cell, OnceCell},
    io,
    rc::Rc,
    task::Context,
    time::Duration,
};

use bytes::Bytes;
use protosocket::{
    Clock, CloseReason, DecodeError, Decoded, Decoder, Input, LengthDelimitedCodec, Limits,
    LinesCodec, MessageReactor, ReactorContext, ReactorStatus, SendError, Varint, channel,
};

use protosocket_testkit::{ByHand, Knobs, Opened, Raw, Setup, echo, frame, framed, silent};

type Hand<M> = (Raw, ByHand<M>);

fn by_hand<M: Clone + 'static>(setup: Setup, decoder: ByHand<M>) -> Opened<Hand<M>> {
    setup.open((Raw, decoder), silent())
}

fn decode_error<M: Clone + 'static>(server: &mut Opened<Hand<M>>) -> DecodeError {
    match server.finish().reason {
        CloseReason::Decode(error) => error,
        reason => panic!("it ended for another reason: {reason}"),
    }
}

#[test]
fn d3_an_endless_varint_ends_the_connection() {
    let mut server = Setup::default().open(LengthDelimitedCodec::<Varint>::new(), echo());
    server.peer.set_max_read(1);
    server.peer.send(vec![0xff; 1_000_000]);
    let end = server.finish();
    assert!(matches!(
        end.reason,
        CloseReason::Decode(DecodeError::Malformed(_))
    ));
    assert_eq!(end.stats.messages_in, 0);
}

#[test]
fn d4_a_message_above_the_limit_is_skipped_without_being_buffered() {
    let setup = Setup::limits(Limits::server().max_message_size(1024));
    let skips = Rc::new(Cell::new(0));
    let seen = skips.clone();
    let decoder = ByHand::<Bytes>::new(move |input| {
        let Some(first) = input.bytes().first_chunk::<4>() else {
            return Ok(Decoded::Need(4));
        };
        let length = u32::from_be_bytes(*first);
        if length > 1000 {
            input.advance(4);
            seen.set(seen.get() + 1);
            return Ok(Decoded::Skip(u64::from(length)));
        }
        let total = 4 + length as usize;
        if input.len() < total {
            return Ok(Decoded::Need(total));
        }
        input.advance(4);
        Ok(Decoded::Message(input.take(total - 4)))
    });
    let mut server = by_hand(setup, decoder);
    server.peer.send(frame(b"before"));
    server.peer.send(frame(&vec![7; 5_000_000]));
    server
        .peer
        .send([frame(b"after"), frame(&[7; 2000]), frame(b"end")].concat());
    server.settle();
    assert_eq!(
        server.knobs.lock().received,
        [&b"before"[..], b"after", b"end"]
    );
    assert_eq!(skips.get(), 2);

    // And input that ends inside what is skipped is truncated.
    server.peer.send(&frame(&[7; 2000])[..100]);
    server.peer.end();
    server.drop_sender();
    assert!(matches!(
        decode_error(&mut server),
        DecodeError::Truncated { .. }
    ));
}

#[test]
fn d4_a_skip_of_nothing_is_an_error() {
    let mut server = by_hand(
        Setup::default(),
        ByHand::<()>::new(|_| Ok(Decoded::Skip(0))),
    );
    server.peer.send("a");
    assert!(matches!(
        decode_error(&mut server),
        DecodeError::NoProgress("a skip of no bytes")
    ));
}

#[test]
fn d5_a_message_of_nothing_is_an_error() {
    let mut server = by_hand(Setup::default(), ByHand::new(|_| Ok(Decoded::Message(()))));
    server.peer.send("a");
    assert!(matches!(
        decode_error(&mut server),
        DecodeError::NoProgress("a message of no bytes")
    ));
    assert_eq!(server.knobs.received(), 0);
}

#[test]
fn d5_needing_what_is_there_is_an_error() {
    for need in [0, 1, 2] {
        let decoder = ByHand::<()>::new(move |_| Ok(Decoded::Need(need)));
        let mut server = by_hand(Setup::default(), decoder);
        server.peer.send("ab");
        assert!(matches!(
            decode_error(&mut server),
            DecodeError::NoProgress(_)
        ));
    }
}

#[test]
fn d5_consuming_more_than_was_given_is_noticed_before_the_message_is_delivered() {
    let decoder = ByHand::new(|input| {
        input.advance(5);
        Ok(Decoded::Message(()))
    });
    let mut server = by_hand(Setup::default(), decoder);
    server.peer.send("abc");
    assert!(matches!(
        decode_error(&mut server),
        DecodeError::Overrun {
            available: 3,
            overrun: 2
        }
    ));
    assert_eq!(server.knobs.received(), 0);
}

#[test]
fn the_end_of_input_completes_a_message() {
    let decoder = ByHand::new(|input| Ok(Decoded::Need(input.len() + 1))).at_end({
        let mut left = 1;
        move |input| {
            let message = match input.is_empty() {
                true if left == 0 => None,
                true => {
                    left -= 1;
                    Some(Bytes::from_static(b"the end"))
                }
                false => Some(input.take(2)),
            };
            Ok(message)
        }
    });
    let mut server = by_hand(Setup::default(), decoder);
    server.peer.send("abcd");
    server.peer.end();
    server.drop_sender();
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(
        server.knobs.lock().received,
        [&b"ab"[..], b"cd", b"the end"]
    );
}

#[test]
fn d11b_a_message_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() {
    let limits = || Limits::server().max_message_size(100_004);
    let mut server = Setup::limits(limits()).open(framed(), silent());
    server.peer.set_max_read(1_000);
    server.peer.send(frame(&vec![1; 100_000]));
    server.settle();
    assert_eq!(server.knobs.lock().received[0].len(), 100_000);

    // Refused by its length alone, before it is buffered.
    let mut server = Setup::limits(limits()).open(framed(), silent());
    server.peer.send(&frame(&vec![1; 100_001])[..4]);
    assert!(matches!(
        server.finish().reason,
        CloseReason::Decode(DecodeError::TooLarge {
            size: 100_005,
            limit: 100_004
        })
    ));
}

/// Shows how much a decoder is given to look at.
struct Counted<D> {
    decoder: D,
    calls: Rc<Cell<usize>>,
    /// Bytes that were shown, each as often as it was.
    shown: Rc<Cell<usize>>,
    /// What the last answer asked for.
    need: usize,
}

impl<D: Decoder> Decoder for Counted<D> {
    type Message = D::Message;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<D::Message>, DecodeError> {
        self.calls.set(self.calls.get() + 1);
        self.shown.set(self.shown.get() + input.len());
        assert!(
            input.len() >= self.need || input.is_ended(),
            "it asked for {} bytes and is called with {}",
            self.need,
            input.len()
        );
        let decoded = self.decoder.decode(input)?;
        self.need = match decoded {
            Decoded::Need(need) => need,
            _ => 0,
        };
        Ok(decoded)
    }
}

fn counted<D>(decoder: D) -> (Counted<D>, Rc<Cell<usize>>, Rc<Cell<usize>>) {
    let (calls, shown) = <(Rc<Cell<usize>>, Rc<Cell<usize>>)>::default();
    let counted = Counted {
        decoder,
        calls: calls.clone(),
        shown: shown.clone(),
        need: 0,
    };
    (counted, calls, shown)
}

#[test]
fn d22_a_flood_is_read_in_bounded_steps_and_answered_meanwhile() {
    let mut server = Setup::default().open(LinesCodec::new().line_feed(), echo());
    let mut flood = Vec::new();
    for _ in 0..500_000 {
        flood.extend_from_slice(b"abcdefg\n");
    }
    server.peer.send(&flood);
    let mut read = 0;
    while server.peer.bytes_read() < flood.len() {
        assert!(server.connection.is_woken(), "it must ask to go on");
        server.connection.poll_once();
        let step = server.peer.bytes_read() - read;
        assert!(step <= 128 * 1024, "{step} bytes in one poll");
        read += step;
        let unanswered = read - server.peer.written_len();
        assert!(unanswered <= 512 * 8, "{unanswered} bytes unanswered");
    }
    server.settle();
    assert_eq!(server.peer.written_len(), flood.len());
    let largest = server.peer.writes().into_iter().max();
    assert!(largest <= Some(2 * 512 * 8), "one write of {largest:?}");
}

#[test]
fn d22_large_messages_are_read_in_bounded_steps() {
    let mut server = Setup::default().open(framed(), silent());
    let flood = frame(&vec![1; 64 * 1024]).repeat(40);
    server.peer.send(&flood);
    let mut read = 0;
    while server.peer.bytes_read() < flood.len() {
        assert!(server.connection.is_woken(), "it must ask to go on");
        server.connection.poll_once();
        let step = server.peer.bytes_read() - read;
        // Its share, and up to an eighth of that to the end of a message.
        assert!(step <= 288 * 1024, "{step} bytes in one poll");
        read += step;
    }
    server.settle();
    assert_eq!(server.knobs.received(), 40);
}

#[test]
fn large_messages_of_one_size_are_read_whole() {
    for size in [20_000, 64 * 1024, 100_000, 200_000, 250_000, 1024 * 1024] {
        let mut server = Setup::default().open(framed(), silent());
        let message = frame(&vec![1; size]);
        // While the buffer grows towards what the messages need, they are read in pieces.
        let count = 2 * 1024 * 1024 / size;
        server.peer.send(message.repeat(count));
        server.settle();
        server.knobs.lock().received.clear();
        server.peer.send(message.repeat(count));
        while server.peer.bytes_read() < 2 * count * message.len() {
            server.connection.poll_once();
            server.knobs.lock().received.clear();
            let cut = server.peer.bytes_read() % message.len();
            assert_eq!(cut, 0, "a read of messages of {size} bytes ends inside one");
        }
    }
}

#[test]
fn large_messages_that_are_held_have_their_memory_used_again() {
    let message = frame(&vec![1; 1024 * 1024]);
    let mut server = Setup::default().open(framed(), echo());
    let mut exchange = || {
        let before = server.peer.reads();
        server.peer.send(message.repeat(2));
        server.settle();
        assert_eq!(server.peer.written_len(), 2 * message.len());
        server.knobs.lock().received.clear();
        server.peer.forget_written();
        server.peer.reads() - before
    };
    // While the buffer grows towards what the messages need, it takes several.
    for _ in 0..3 {
        exchange();
    }
    for _ in 0..5 {
        assert_eq!(exchange(), 2, "each message is read at once");
    }
}

#[test]
fn large_messages_that_come_one_by_one_are_each_read_at_once() {
    let mut server = Setup::default().open(framed(), echo());
    let message = frame(&vec![1; 64 * 1024]);
    let mut exchange = || {
        let before = server.peer.reads();
        server.peer.send(&message);
        server.settle();
        server.knobs.lock().received.clear();
        server.peer.forget_written();
        server.peer.reads() - before
    };
    // While the buffer grows towards what the messages need, it takes several.
    for _ in 0..10 {
        exchange();
    }
    for _ in 0..20 {
        assert_eq!(exchange(), 1, "the buffer's memory is used again");
    }
}

#[test]
fn c10_reads_of_one_byte_are_bounded_in_number() {
    let mut server = Setup::default().open(framed(), silent());
    server.peer.set_max_read(1);
    server.peer.send(frame(&[1; 10_000]));
    let mut read = 0;
    while server.peer.bytes_read() < 10_004 {
        assert!(server.connection.is_woken());
        server.connection.poll_once();
        assert!(server.peer.bytes_read() - read <= 32);
        read = server.peer.bytes_read();
    }
    server.settle();
    assert_eq!(server.knobs.received(), 1);
}

#[test]
fn poll_ready_pauses_decoding_and_its_wake_resumes_it() {
    let mut server = Setup::default().open(LinesCodec::new().line_feed(), echo());
    server.knobs.set_ready(false);
    server.settle();
    server.peer.send("a\nb\n");
    server.settle();
    assert_eq!(server.knobs.received(), 0);
    assert_eq!(server.peer.bytes_read(), 4, "read ahead");
    server.knobs.set_ready(true);
    assert!(server.connection.is_woken());
    server.settle();
    assert_eq!(server.peer.written(), b"a\nb\n");
}

#[test]
fn poll_ready_is_asked_before_each_message() {
    let own: Rc<OnceCell<Knobs<LinesCodec>>> = Rc::default();
    let knobs = own.clone();
    let mut server = Setup::default().open(
        LinesCodec::new(),
        Box::new(move |_, _| {
            knobs.get().expect("set below").set_ready(false);
            ReactorStatus::Continue
        }),
    );
    assert!(own.set(server.knobs.clone()).is_ok());
    server.peer.send("a\nb\nc\n");
    for messages in 1..=3 {
        server.settle();
        assert_eq!(server.knobs.received(), messages);
        server.knobs.set_ready(true);
    }
}

#[test]
fn what_is_read_ahead_while_paused_is_bounded() {
    let mut server = Setup::default().open(framed(), silent());
    server.knobs.set_ready(false);
    server.peer.set_max_read(5_000);
    for _ in 0..100 {
        server.peer.send(frame(&[1; 1_000]));
    }
    server.settle();
    assert_eq!(server.peer.bytes_read(), 16 * 1024);
    assert!(!server.peer.is_awaited(), "it would read on");
    let polls = server.connection.polls();
    server.peer.send("more");
    server.settle();
    assert_eq!(server.connection.polls(), polls, "nobody asked to be woken");
    server.knobs.set_ready(true);
    server.settle();
    assert_eq!(server.knobs.received(), 100);
}

#[test]
fn the_end_and_a_reset_are_seen_while_paused() {
    let mut server = Setup::default().open(framed(), silent());
    server.knobs.set_ready(false);
    server.peer.send(frame(&[1; 1_000]));
    server.settle();
    server.peer.fail_read(io::ErrorKind::ConnectionReset);
    assert_eq!(server.reason(), "io");

    let mut server = Setup::default().open(framed(), silent());
    server.knobs.set_ready(false);
    server.drop_sender();
    server.peer.send(frame(&[1; 1_000]));
    server.settle();
    server.peer.end();
    assert!(server.connection.is_woken(), "it waits for the end");
    server.settle();
    assert_eq!(
        server.knobs.lock().ends_of_input,
        0,
        "a message is before it"
    );
    server.knobs.set_ready(true);
    assert_eq!(server.reason(), "end_of_input");
    assert_eq!(server.knobs.received(), 1);
}

#[test]
fn a_large_message_is_paused_and_resumed_in_the_middle() {
    let mut server = Setup::default().open(framed(), silent());
    let bytes = frame(&vec![5; 300_000]);
    server.peer.send(&bytes[..150_000]);
    server.settle();
    server.knobs.set_ready(false);
    server.peer.send(&bytes[150_000..]);
    server.settle();
    assert!(server.peer.bytes_read() <= 150_000 + 16 * 1024);
    server.knobs.set_ready(true);
    server.settle();
    assert_eq!(server.knobs.lock().received, [vec![5; 300_000]]);
}

#[test]
fn a_message_that_is_completed_while_paused_is_not_taken_for_the_end() {
    for chunk in [1, 1000, 256 * 1024] {
        // How much room is left behind the first message depends on its size.
        for large in (17_000..60_000).step_by(500) {
            let limits = Limits::server().receive_chunk(chunk);
            let mut server = Setup::limits(limits).open(framed(), silent());
            let second = frame(&[2; 5000]);
            server.peer.send(frame(&vec![1; large]));
            server.peer.send(&second[..100]);
            server.settle();
            server.knobs.set_ready(false);
            server.peer.send(&second[100..]);
            server.settle();
            server.peer.send(frame(b"third"));
            server.settle();
            server.knobs.set_ready(true);
            server.settle();
            assert_eq!(
                (server.knobs.received(), server.connection.is_ended()),
                (3, false),
                "{large} bytes in chunks of {chunk}"
            );
        }
    }
}

#[test]
fn d5_a_decoder_that_finds_messages_in_nothing_after_the_end_is_an_error() {
    let decoder = ByHand::new(|input| Ok(Decoded::Need(input.len() + 1))).at_end(|_| Ok(Some(())));
    let mut server = by_hand(Setup::default(), decoder);
    server.peer.send("abc");
    server.peer.end();
    server.drop_sender();
    assert!(matches!(
        decode_error(&mut server),
        DecodeError::NoProgress(_)
    ));
    // The end itself may complete one message.
    assert_eq!(server.knobs.received(), 1);
}

#[test]
fn d3_a_decoder_that_never_has_enough_ends_at_the_limit() {
    for limit in [100, 16 * 1024, 1_000_000] {
        let setup = Setup::limits(Limits::server().max_message_size(limit));
        let decoder = ByHand::<()>::new(|input| Ok(Decoded::Need(input.len() + 1)));
        let mut server = by_hand(setup, decoder);
        let flood = vec![0xff; 64 * 1024];
        for _ in 0..limit / flood.len() + 2 {
            server.peer.send(&flood);
        }
        server.settle();
        assert!(server.peer.bytes_read() <= limit + 256 * 1024);
        let error = decode_error(&mut server);
        let size = limit as u64 + 1;
        assert!(
            matches!(error, DecodeError::TooLarge { size: s, limit: l } if s >= size && l == size - 1),
            "{error}"
        );
    }
}

#[test]
fn d25_a_decoder_that_knows_the_length_is_called_when_all_is_there() {
    for (size, read) in [(1_000, 1), (10_000, 7), (100_000, 999), (3_000_000, 65_536)] {
        let (decoder, calls, shown) = counted(framed());
        let mut server = Setup::default().open((Raw, decoder), silent());
        server.peer.set_max_read(read);
        server.peer.send(frame(&vec![1; size]));
        server.settle();
        assert_eq!(server.knobs.received(), 1);
        // The prefix byte by byte, then the whole.
        assert!(calls.get() <= 6, "{} calls for {size}", calls.get());
        let bytes = size + 4 + read;
        assert!(shown.get() <= bytes + 16, "{} shown of {size}", shown.get());
    }
}

#[test]
fn d25_messages_across_reads_cost_what_their_bytes_cost() {
    let (decoder, calls, _) = counted(framed());
    let mut server = Setup::default().open((Raw, decoder), silent());
    let messages = 2_000;
    server.peer.set_max_read(1_001);
    server.peer.send(frame(&[1; 100]).repeat(messages));
    server.settle();
    assert_eq!(server.knobs.received(), messages);
    let reads = messages * 104 / 1_001 + 1;
    // One call per message, one that finds the rest of a read to be too short, and one for a
    // prefix that is cut.
    assert!(calls.get() <= messages + 2 * reads, "{} calls", calls.get());
}

#[test]
fn d25_a_scanning_decoder_is_shown_new_bytes_only_when_there_are_some() {
    // Looks for a line feed in what it has not seen, and counts what it looks at.
    let looked_at = Rc::new(Cell::new(0));
    let looks = looked_at.clone();
    let mut scanned = 0;
    let scanner = ByHand::new(move |input: &mut Input<'_>| {
        let unseen = &input.bytes()[scanned..];
        let found = unseen.iter().position(|byte| *byte == b'\n');
        looks.set(looks.get() + found.unwrap_or(unseen.len()));
        match found {
            None => {
                scanned = input.len();
                Ok(Decoded::Need(scanned + 1))
            }
            Some(at) => {
                let line = scanned + at + 1;
                scanned = 0;
                Ok(Decoded::Message(input.take(line).len()))
            }
        }
    });
    let (decoder, calls, _) = counted(scanner);
    let mut server = Setup::default().open((Raw, decoder), silent());
    let line = 50_000;
    server.peer.set_max_read(1);
    let mut text = vec![b'x'; line];
    text.push(b'\n');
    server.peer.send(text);
    server.settle();
    assert_eq!(server.knobs.lock().received, [line + 1]);
    assert!(looked_at.get() <= line, "looked at {}", looked_at.get());
    assert!(calls.get() <= line + 1, "{} calls", calls.get());
}

#[test]
fn d11b_a_message_above_the_limit_is_refused_however_it_is_cut() {
    for cut in [0, 2, 50, 104] {
        let limits = Limits::server().max_message_size(64);
        let mut server = Setup::limits(limits).open(framed(), silent());
        let bytes = frame(&[1; 100]);
        server.peer.send(bytes.slice(..cut));
        server.settle();
        server.peer.send(bytes.slice(cut..));
        server.settle();
        assert_eq!(server.knobs.received(), 0, "cut at {cut}");
        assert_eq!(server.reason(), "decode", "cut at {cut}");
    }
}

#[test]
fn d4_a_skip_forgets_what_was_needed_for_the_skipped_message() {
    // A message that begins with 0xff is asked for whole and then skipped from its front.
    let decoder = ByHand::<Bytes>::new(|input| match input.bytes() {
        [] => Ok(Decoded::Need(1)),
        [0xff, ..] if input.len() < 16 => Ok(Decoded::Need(16)),
        [0xff, ..] => Ok(Decoded::Skip(16)),
        _ => Ok(Decoded::Message(input.take(1))),
    });
    let mut server = Setup::default().open((Raw, decoder), silent());
    for _ in 0..2 {
        server.peer.send([0xff; 8]);
        server.settle();
    }
    server.peer.send([1]);
    server.settle();
    assert_eq!(server.knobs.received(), 1);
}

/// A keepalive is a byte of 0; every other byte is a message.
struct Keepalives;

impl Decoder for Keepalives {
    type Message = Bytes;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Bytes>, DecodeError> {
        match input.bytes() {
            [] => Ok(Decoded::Need(1)),
            [0, ..] => {
                input.advance(1);
                Ok(Decoded::Need(1))
            }
            _ => Ok(Decoded::Message(input.take(1))),
        }
    }

    fn is_inside(&self) -> bool {
        false
    }
}

#[test]
fn what_stands_between_messages_begins_none() {
    let mut server = Setup::default().open((Raw, Keepalives), silent());
    server.drop_sender();
    server.peer.send([1, 0]);
    server.settle();
    let at = server.connection.clock.now() + Duration::from_secs(5);
    server.connection.handle.drain(at);
    server.settle();
    assert_eq!(server.reason(), "drained");
}

#[test]
fn a_message_that_was_skipped_has_ended() {
    let decoder = ByHand::<Bytes>::new(|input| {
        if input.len() < 4 {
            return Ok(Decoded::Need(4));
        }
        input.advance(4);
        Ok(Decoded::Skip(10))
    });
    let mut server = Setup::default().open((Raw, decoder), silent());
    server.drop_sender();
    server.peer.send([0; 14]);
    server.settle();
    let at = server.connection.clock.now() + Duration::from_secs(5);
    server.connection.handle.drain(at);
    server.settle();
    assert_eq!(server.reason(), "drained");
}

/// Hands over when it is told to, to look at what a connection has kept.
struct Surrenders(Rc<Cell<bool>>);

impl MessageReactor for Surrenders {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, LinesCodec>,
        _message: String,
    ) -> ReactorStatus {
        ReactorStatus::Continue
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> Result<(), SendError<String>> {
        context.send(message)
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
        _context: &mut ReactorContext<'_, LinesCodec>,
    ) -> ReactorStatus {
        match self.0.get() {
            true => ReactorStatus::Handover,
            false => ReactorStatus::Continue,
        }
    }
}

#[test]
fn d11_the_beginning_of_a_message_does_not_keep_the_buffer_of_a_long_one() {
    let (_sender, receiver) = channel(8);
    let surrender = Rc::new(Cell::new(false));
    let codec = LinesCodec::new().max_length(32 << 20);
    let reactor = Surrenders(surrender.clone());
    let mut server = Setup::default().drive(codec, reactor, receiver);
    let mut line = vec![b'a'; 4_000_000];
    line.extend_from_slice(b"\nb");
    server.peer.send(line);
    server.settle();
    server.peer.send(b"\nb");
    server.settle();
    surrender.set(true);
    server.poll_once();
    server.settle();
    let unread = server.finish().handover.expect("it surrendered").unread;
    assert_eq!(&unread[..], b"b");
    assert!(
        unread.capacity() <= 64 * 1024,
        "{} bytes",
        unread.capacity()
    );
}
