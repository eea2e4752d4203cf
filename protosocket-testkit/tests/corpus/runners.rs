//! A runner that cannot fail proves nothing: each is shown something wrong.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use protosocket::{
    CloseReason, ConnectionObserver, ConnectionStats, DecodeError, Decoded, Decoder, EncodeError,
    Encoder, Input, LinesCodec, PeerAddress, SendBuffer,
};
use protosocket_testkit::{
    LineEcho,
    corpus::{Corpus, Report, ServerSetup},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{echo, line, lines};

/// A corpus of one case, which is right for an echo of lines.
const RIGHT: &str = r#"
    limits = { linger_timeout = "200 ms" }
    [[case]]
    id = "two"
    rules = ["F11"]
    input = "one\ntwo\n"
    messages = ["one", "two"]
    end = "end_of_input"
"#;

fn one(text: &str) -> Corpus {
    Corpus::parse("one.toml", text).unwrap()
}

#[track_caller]
fn fails(report: &Report, expected: &str) {
    assert_eq!(report.failures.len(), 1, "{report}");
    let failure = &report.failures[0];
    assert!(
        failure.contains("one/two") && failure.contains(expected),
        "{failure}"
    );
}

/// What is right, and ways to expect something else.
fn wrong() -> [(String, &'static str); 4] {
    [
        (
            RIGHT.replace("\"end_of_input\"", "\"decode/malformed\""),
            "expected the end",
        ),
        (RIGHT.replace("[\"one\", \"two\"]", "[\"one\"]"), "messages"),
        (RIGHT.replace("[\"one\", \"two\"]", "3"), "messages"),
        (
            RIGHT.replace("end =", "says = \"no such words\"\nend ="),
            "expected a reason that says",
        ),
    ]
}

#[test]
fn a_wrong_expectation_is_seen_at_every_level() {
    one(RIGHT).run_decoder(lines, line).expect_all();
    one(RIGHT).run_codec_client(lines, line).expect_all();
    one(RIGHT)
        .run_server(|| LineEcho, |setup| echo::serve(setup, lines))
        .expect_all();
    for (text, expected) in wrong() {
        fails(&one(&text).run_decoder(lines, line), expected);
        fails(&one(&text).run_codec_client(lines, line), expected);
        let report = one(&text).run_server(|| LineEcho, |setup| echo::serve(setup, lines));
        fails(&report, expected);
    }
}

#[test]
fn other_messages_are_seen_where_messages_can_be_looked_at() {
    let text = RIGHT.replace("[\"one\", \"two\"]", "[\"one\", \"too\"]");
    fails(&one(&text).run_decoder(lines, line), "messages");
    fails(&one(&text).run_codec_client(lines, line), "messages");
}

/// Takes all that it is shown for one line.
struct Greedy;

impl Decoder for Greedy {
    type Message = String;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<String>, DecodeError> {
        let text = String::from_utf8_lossy(input.bytes()).into_owned();
        input.advance(input.len());
        Ok(Decoded::Message(text))
    }
}

impl Encoder for Greedy {
    type Message = String;

    fn encode(&mut self, _: String, _: &mut SendBuffer) -> Result<(), EncodeError> {
        Ok(())
    }
}

#[test]
fn a_decoder_that_depends_on_segments_is_seen() {
    let text = RIGHT.replace("[\"one\", \"two\"]", "1");
    fails(&one(&text).run_decoder(|_| Greedy, line), "in segments of");
    // Where the contract alone cannot be asked, because the input is long, connections show it.
    let text = text.replace("\"one\\ntwo\\n\"", "{ counting = 100000 }");
    fails(&one(&text).run_decoder(|_| Greedy, line), "random segments");
}

/// Never returns from the decoder.
struct Spinning;

impl Decoder for Spinning {
    type Message = String;

    fn decode(&mut self, _: &mut Input<'_>) -> Result<Decoded<String>, DecodeError> {
        loop {
            std::thread::park();
        }
    }
}

impl Encoder for Spinning {
    type Message = String;

    fn encode(&mut self, _: String, _: &mut SendBuffer) -> Result<(), EncodeError> {
        Ok(())
    }
}

#[test]
fn a_decoder_that_never_returns_hangs_no_test() {
    let hurried = || one(RIGHT).patience(Duration::from_millis(50));
    fails(&hurried().run_decoder(|_| Spinning, line), "it hangs");
    fails(&hurried().run_codec_client(|_| Spinning, line), "it hangs");
}

/// Lines, and a decoder that stands still at the first that is no canary's.
struct Blocking {
    lines: LinesCodec,
    blocks: bool,
}

impl Blocking {
    const FOR: Duration = Duration::from_millis(1500);

    fn new() -> Self {
        Self {
            lines: lines_codec(),
            blocks: true,
        }
    }
}

impl Decoder for Blocking {
    type Message = String;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<String>, DecodeError> {
        let decoded = self.lines.decode(input)?;
        if let Decoded::Message(line) = &decoded
            && !line.starts_with("canary")
            && std::mem::take(&mut self.blocks)
        {
            let until = Instant::now() + Self::FOR;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
        }
        Ok(decoded)
    }
}

impl Encoder for Blocking {
    type Message = String;

    fn encode(&mut self, line: String, output: &mut SendBuffer) -> Result<(), EncodeError> {
        self.lines.encode(line, output)
    }
}

fn lines_codec() -> LinesCodec {
    LinesCodec::new().max_length(64)
}

#[test]
fn a_server_or_client_that_blocks_its_thread_is_seen() {
    let hurried = || one(RIGHT).longest_wait(Duration::from_millis(200));
    let blocked = "waited too long: expected 200ms";
    let report = hurried().run_server(|| LineEcho, |setup| echo::serve(setup, |_| Blocking::new()));
    fails(&report, blocked);
    let report = hurried().run_codec_client(|_| Blocking::new(), line);
    fails(&report, blocked);
    // By default, too.
    let report = one(RIGHT).run_codec_client(|_| Blocking::new(), line);
    fails(&report, "waited too long: expected 1s");
    // As long as it may be.
    let patient = one(RIGHT).longest_wait(Duration::from_secs(20));
    let report = patient.run_server(|| LineEcho, |setup| echo::serve(setup, |_| Blocking::new()));
    report.expect_all();
}

/// A server by hand: it echoes lines and tells its observer, and does what it should not.
fn careless(setup: ServerSetup, harm: Harm) -> (SocketAddr, impl Future) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let harmed = Rc::new(watch::Sender::new(false));
    let serve = async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let tasks = Rc::new(RefCell::new(Vec::new()));
        while let Ok((stream, peer)) = listener.accept().await {
            let (setup, harmed) = (setup.clone(), harmed.clone());
            tasks
                .borrow_mut()
                .push(tokio::task::spawn_local(async move {
                    let count = serve_one(stream, &harmed, harm).await;
                    let mut stats = ConnectionStats::default();
                    stats.messages_in = count;
                    let peer = PeerAddress::Ip(peer);
                    let observer: &dyn ConnectionObserver = &*setup.observer;
                    observer.closed(&peer, &CloseReason::EndOfInput, &stats);
                }));
        }
    };
    (address, serve)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    None,
    /// Everybody is thrown out after one has left.
    ThrowsOut,
    /// Everybody is left without an answer after one has left.
    FallsSilent,
    /// One that has left is never noticed.
    Keeps,
}

async fn serve_one(stream: TcpStream, harmed: &watch::Sender<bool>, harm: Harm) -> u64 {
    let mut stream = BufReader::new(stream);
    let mut count = 0;
    let mut text = String::new();
    let mut harm_done = harmed.subscribe();
    loop {
        text.clear();
        let is_harmed = tokio::select! {
            read = stream.read_line(&mut text) => match read {
                Ok(1..) => *harmed.borrow(),
                _ => break,
            },
            _ = harm_done.wait_for(|harmed| *harmed) => true,
        };
        match harm {
            Harm::ThrowsOut if is_harmed => return count,
            Harm::FallsSilent if is_harmed => std::future::pending().await,
            _ => {}
        }
        count += 1;
        stream.write_all(text.as_bytes()).await.unwrap();
    }
    harmed.send_replace(harm != Harm::None);
    if harm == Harm::Keeps {
        std::future::pending().await
    }
    count
}

#[test]
fn a_server_that_loses_the_canary_is_seen() {
    let run = |harm, patience| {
        one(RIGHT)
            .patience(patience)
            .run_server(|| LineEcho, move |setup| careless(setup, harm))
    };
    let (patient, hurried) = (Duration::from_secs(20), Duration::from_secs(1));
    run(Harm::None, patient).expect_all();
    fails(
        &run(Harm::ThrowsOut, patient),
        "the canary beside it suffered",
    );
    fails(
        &run(Harm::FallsSilent, hurried),
        "the canary beside it suffered",
    );
    fails(&run(Harm::Keeps, hurried), "had not ended");
}

#[test]
fn a_client_that_hangs_is_seen() {
    let hurried = || one(RIGHT).patience(Duration::from_millis(300));
    let report = hurried().run_client(|_| std::future::pending::<()>());
    fails(&report, "the client does not connect");
    let report = hurried().run_client(|setup| async move {
        let _stream = TcpStream::connect(setup.address).await;
        std::future::pending::<()>().await;
    });
    fails(&report, "had not ended");
    // One that keeps the thread to itself is noticed by the canary on the other connection.
    let report = hurried().run_client(|setup| async move {
        echo::connect(setup, LinesCodec::new()).await;
        loop {
            std::thread::park();
        }
    });
    fails(&report, "it hangs");
}

#[test]
fn replies_that_are_cut_or_too_long_are_seen() {
    for (script, expected) in [
        (
            "[{ send = \"one\\n\" }, \"shut_down\", { read = 6 }]",
            "expected 6 bytes, there were 5",
        ),
        (
            "[{ send = \"one\\n\" }, \"shut_down\", { read = 3 }, \"read_end\"]",
            "there were 2 bytes",
        ),
    ] {
        let text = format!(
            "[[case]]\nid = \"two\"\nrules = [\"F8\"]\nscript = {script}\nmessages = 1\n\
             end = \"end_of_input\"\nwithout.decoder = \"it sends\""
        );
        let report = one(&text).run_server(|| LineEcho, |setup| echo::serve(setup, lines));
        fails(&report, expected);
    }
}
