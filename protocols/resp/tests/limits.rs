//! Each limit: what it still lets through, and what is said beyond it. Who reaches one hears of it.

use bytes::Bytes;
use protosocket::{DecodeError, Decoded, Decoder, Input, Limits, ReactorStatus, channel};
use protosocket_resp::{
    Handler, MAX_DEPTH, Reply, Request, RequestDecoder, Server, ServerCodec, Value, ValueDecoder,
};
use protosocket_testkit::Setup;

/// Answers with how many arguments there are, and how many bytes in the last.
struct Count;

impl Handler for Count {
    fn call(&mut self, request: &Request, reply: &mut Reply<'_>) -> ReactorStatus {
        let last = request.args().last().unwrap_or_default();
        reply.simple(format!("{} {}", request.len(), last.len()));
        ReactorStatus::Continue
    }
}

/// What the client hears of a server with these limits, and how its connection ends, if it does.
fn said(
    decoder: RequestDecoder,
    limits: Limits,
    input: impl AsRef<[u8]>,
) -> (String, Option<&'static str>) {
    let (_sender, receiver) = channel(1);
    let setup = Setup::limits(limits);
    let mut server = setup.drive(ServerCodec::new(decoder), Server::new(Count), receiver);
    server.peer.send(input);
    server.settle();
    let said = String::from_utf8(server.peer.written()).unwrap();
    let end = server.is_ended().then(|| server.reason());
    (said, end)
}

#[track_caller]
fn taken(decoder: RequestDecoder, limits: Limits, input: impl AsRef<[u8]>, expected: &str) {
    let (said, end) = said(decoder, limits, input);
    assert_eq!((said, end), (format!("+{expected}\r\n"), None));
}

#[track_caller]
fn refused(decoder: RequestDecoder, limits: Limits, input: impl AsRef<[u8]>, expected: &[&str]) {
    let (said, end) = said(decoder, limits, input);
    assert_eq!(end, Some("decode"), "{said}");
    assert!(said.starts_with("-ERR Protocol error: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in expected {
        assert!(said.contains(part), "{said}");
    }
}

fn command(arguments: usize) -> String {
    format!("*{arguments}\r\n{}", "$1\r\nx\r\n".repeat(arguments))
}

fn with_bulk(length: usize) -> String {
    format!("*1\r\n${length}\r\n{}\r\n", "x".repeat(length))
}

#[test]
fn max_args() {
    let decoder = || RequestDecoder::new().max_args(3);
    taken(decoder(), Limits::server(), command(3), "3 1");
    let says = ["invalid multibulk length: 4", "limit is 3", "max_args"];
    refused(decoder(), Limits::server(), "*4\r\n", &says);
}

#[test]
fn max_bulk() {
    let decoder = || RequestDecoder::new().max_bulk(100);
    taken(decoder(), Limits::server(), with_bulk(100), "1 100");
    let says = ["invalid bulk length: 101", "limit is 100", "max_bulk"];
    refused(decoder(), Limits::server(), "*1\r\n$101\r\n", &says);
}

#[test]
fn an_inline_command() {
    let line = |length| format!("{}\r\n", "x".repeat(length - 2));
    let most = 64 * 1024;
    taken(
        RequestDecoder::new(),
        Limits::server(),
        line(most),
        "1 65534",
    );
    let says = ["too big inline request", "65536 bytes"];
    for line in [line(most + 1), "x".repeat(most)] {
        refused(RequestDecoder::new(), Limits::server(), line, &says);
    }
}

#[test]
fn strangers() {
    let decoder = || RequestDecoder::new().require_authentication();
    for input in [command(10), with_bulk(16 * 1024)] {
        let (said, end) = said(decoder(), Limits::server(), input);
        assert!(said.starts_with("-NOAUTH"), "{said}");
        assert_eq!(end, None);
    }
    let says = ["unauthenticated multibulk length: 11", "before AUTH", "10"];
    refused(decoder(), Limits::server(), "*11\r\n", &says);
    let says = ["unauthenticated bulk length: 16385", "before AUTH", "16384"];
    refused(decoder(), Limits::server(), "*1\r\n$16385\r\n", &says);
    // Theirs is the smaller one, whatever was set.
    let narrow = decoder().max_args(2).max_bulk(5);
    refused(narrow.clone(), Limits::server(), "*3\r\n", &["max_args"]);
    refused(narrow, Limits::server(), "*1\r\n$6\r\n", &["max_bulk"]);
}

/// A command is one message of the connection, with all that is around its arguments.
#[test]
fn arguments_near_the_limit_of_the_connection() {
    const LIMIT: usize = 100_000;
    let limits = || Limits::server().max_message_size(LIMIT);
    let around = with_bulk(10_000).len() - 10_000;
    let fits = LIMIT - around;
    for length in [fits - 1, fits] {
        let expected = format!("1 {length}");
        taken(
            RequestDecoder::new(),
            limits(),
            with_bulk(length),
            &expected,
        );
    }
    // Its announcement is enough.
    for length in [fits + 1, LIMIT, LIMIT + 1] {
        let announced = format!("*1\r\n${length}\r\n");
        let says = ["max_message_size", "100000"];
        refused(RequestDecoder::new(), limits(), announced, &says);
    }
    // Of two limits the one that is smaller answers.
    let decoder = RequestDecoder::new().max_bulk(LIMIT / 2);
    refused(decoder, limits(), "*1\r\n$50001\r\n", &["max_bulk"]);
    // Many arguments that are small are as large together.
    let many = command(LIMIT / 7);
    refused(RequestDecoder::new(), limits(), many, &["max_message_size"]);
}

fn decode(decoder: ValueDecoder, input: &str) -> Result<Option<Value>, DecodeError> {
    let mut decoder = decoder;
    Ok(
        match decoder.decode(&mut Input::from_slice(input.as_bytes()))? {
            Decoded::Message(value) => Some(value),
            Decoded::Need(_) | Decoded::Skip(_) => None,
        },
    )
}

#[track_caller]
fn refused_value(decoder: ValueDecoder, input: &str, expected: &str) {
    let error = decode(decoder, input).expect_err("it is refused");
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn depth() {
    let nested = |depth| format!("{}:1\r\n", "*1\r\n".repeat(depth));
    let deepest = decode(ValueDecoder::new(), &nested(MAX_DEPTH)).unwrap();
    assert!(deepest.is_some());
    refused_value(ValueDecoder::new(), &nested(MAX_DEPTH + 1), "32 levels");
}

#[test]
fn max_values() {
    let decoder = || ValueDecoder::new().max_values(4);
    let three = "*3\r\n:1\r\n:2\r\n:3\r\n";
    assert!(decode(decoder(), three).unwrap().is_some());
    refused_value(decoder(), "*4\r\n", "more than 4 values (max_values)");
    // However they are announced.
    let streamed = format!("*?\r\n{}.\r\n", ":1\r\n".repeat(4));
    refused_value(decoder(), &streamed, "max_values");
    refused_value(decoder(), "%2\r\n", "max_values");
}

#[test]
fn max_length() {
    let decoder = || ValueDecoder::new().max_length(20);
    let fits = decode(decoder(), "$13\r\n0123456789abc\r\n").unwrap();
    assert_eq!(fits, Some(Value::Bulk(Bytes::from("0123456789abc"))));
    refused_value(decoder(), "$21\r\n", "21");
    // All that is in a value counts.
    refused_value(decoder(), "*2\r\n$5\r\nhello\r\n$5\r\nworld\r\n", "20");
}

#[test]
fn a_line_of_a_reply() {
    let line = |length: usize| format!("+{}\r\n", "x".repeat(length - 3));
    let most = 64 * 1024;
    assert!(decode(ValueDecoder::new(), &line(most)).unwrap().is_some());
    refused_value(ValueDecoder::new(), &line(most + 10), "65536 bytes");
}
