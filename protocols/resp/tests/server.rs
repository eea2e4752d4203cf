//! A server on a connection that is polled only when it was woken, and a client that is played by
//! hand.

use std::time::Duration;

use protosocket::{Limits, ReactorStatus, SendLimits, Sender, TrySendError, channel};
use protosocket_resp::{Handler, Reply, Request, RequestDecoder, Server, ServerCodec, Value};
use protosocket_testkit::{Driven, Setup};

struct Fixed;

impl Handler for Fixed {
    fn call(&mut self, request: &Request, reply: &mut Reply<'_>) -> ReactorStatus {
        match request.name() {
            b"MAP" => {
                reply.map(1);
                reply.bulk(b"key");
                reply.null();
            }
            b"BYE" => {
                reply.ok();
                return ReactorStatus::Disconnect;
            }
            _ => reply.simple("PONG"),
        }
        ReactorStatus::Continue
    }

    fn authenticate(&mut self, user: &[u8], password: &[u8]) -> bool {
        (user, password) == (b"default", b"secret")
    }
}

fn serve(decoder: RequestDecoder, limits: Limits) -> (Driven<Server<Fixed>>, Sender<Value>) {
    let (sender, receiver) = channel(4);
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    let server = setup.drive(ServerCodec::new(decoder), Server::new(Fixed), receiver);
    (server, sender)
}

/// What a server says to this.
#[track_caller]
fn said(decoder: RequestDecoder, input: &str) -> String {
    let (mut server, _sender) = serve(decoder, Limits::server());
    server.peer.send(input);
    server.settle();
    String::from_utf8(server.peer.written()).unwrap()
}

#[test]
fn hello_changes_the_version() {
    let said = said(
        RequestDecoder::new(),
        "MAP\r\nHELLO 3\r\nMAP\r\nHELLO 2\r\nMAP\r\n",
    );
    let [before, hello, after, back] = [
        "*2\r\n$3\r\nkey\r\n$-1\r\n",
        "%7\r\n",
        "%1\r\n$3\r\nkey\r\n_\r\n",
        "*14\r\n",
    ];
    assert!(said.starts_with(&format!("{before}{hello}")), "{said}");
    assert!(said.contains(&format!("*0\r\n{after}{back}")), "{said}");
    assert!(said.ends_with(before), "{said}");
}

#[test]
fn strangers_are_served_nothing_until_they_have_said_who_they_are() {
    let strict = || RequestDecoder::new().require_authentication();
    let refused = said(strict(), "PING\r\nHELLO 3\r\nAUTH wrong\r\nPING\r\n");
    let codes: Vec<_> = refused
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(codes, ["-NOAUTH", "-NOAUTH", "-WRONGPASS", "-NOAUTH"]);
    assert_eq!(
        said(strict(), "AUTH secret\r\nPING\r\n"),
        "+OK\r\n+PONG\r\n"
    );
    let hello = said(
        strict(),
        "HELLO 3 AUTH default secret SETNAME me\r\nPING\r\n",
    );
    assert!(
        hello.starts_with("%7\r\n") && hello.ends_with("+PONG\r\n"),
        "{hello}"
    );
    // More arguments than a stranger may have.
    let many = format!("AUTH secret\r\n*11\r\n{}", "$4\r\nPING\r\n".repeat(11));
    assert_eq!(said(strict(), &many), "+OK\r\n+PONG\r\n");
    assert_eq!(
        said(RequestDecoder::new(), "AUTH x\r\n").split(' ').next(),
        Some("-ERR")
    );
}

#[test]
fn a_hello_that_is_wrong_somewhere_changes_nothing() {
    let strict = RequestDecoder::new().require_authentication();
    let said = said(strict, "HELLO 3 AUTH default secret NONSENSE\r\nPING\r\n");
    let [hello, ping] = [
        "-ERR Syntax error in HELLO\r\n",
        "-NOAUTH Authentication required.\r\n",
    ];
    assert_eq!(said, format!("{hello}{ping}"));
}

#[test]
fn what_is_wrong_is_said_as_people_write_it() {
    for (input, error) in [
        ("*1\r\nx", "-ERR Protocol error: expected '$', got 'x'\r\n"),
        (
            "*1\r\n\u{1}",
            "-ERR Protocol error: expected '$', got '\\x01'\r\n",
        ),
    ] {
        assert_eq!(said(RequestDecoder::new(), input), error);
    }
}

#[test]
fn r3_other_protocols_are_told_by_their_first_bytes() {
    for (input, looks) in [
        ("\u{16}\u{3}\u{1}", "looks like TLS"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "looks like HTTP"),
        ("POST / HTTP/1.1\r\n", "looks like HTTP"),
    ] {
        let said = said(RequestDecoder::new(), input);
        assert!(
            said.contains(looks) && said.matches('\n').count() == 1,
            "{said}"
        );
    }
}

#[test]
fn what_breaks_the_protocol_is_answered_behind_the_replies_before_it() {
    let (mut server, _sender) = serve(RequestDecoder::new(), Limits::server());
    server
        .peer
        .send("PING\r\n*1\r\n$-5\r\n*1\r\n$4\r\nPING\r\n");
    server.settle();
    let said = String::from_utf8(server.peer.written()).unwrap();
    assert!(
        said.starts_with("+PONG\r\n-ERR Protocol error: invalid bulk length: -5"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2);
    assert_eq!(server.reason(), "decode");
}

#[test]
fn quit_and_handlers_end_connections_behind_their_reply() {
    for last in ["QUIT", "BYE"] {
        let (mut server, _sender) = serve(RequestDecoder::new(), Limits::server());
        server.peer.send(format!("PING\r\n{last}\r\nPING\r\n"));
        server.settle();
        assert_eq!(server.peer.written(), b"+PONG\r\n+OK\r\n");
        assert_eq!(server.reason(), "disconnect");
    }
}

#[test]
fn r4_a_client_that_does_not_read_is_not_read_from_and_ends() {
    let limits = Limits::server().send_limits(SendLimits {
        bulk_bytes: 10_000,
        ..SendLimits::DEFAULT
    });
    let (mut server, _sender) = serve(RequestDecoder::new(), limits);
    server.peer.set_window(0);
    server.peer.send("PING\r\n".repeat(100_000));
    server.settle();
    let read = server.peer.bytes_read();
    // As many as have replies in 10,000 bytes, what one poll reads, and what is read ahead.
    assert!(read < 200_000, "{read}");
    server.advance(Duration::from_secs(29));
    assert!(!server.is_ended());
    server.advance(Duration::from_secs(1));
    assert_eq!(server.reason(), "write_timeout");
}

#[test]
fn r6_a_subscriber_that_does_not_read_is_told_of_and_ends() {
    let limits = Limits::server().send_limits(SendLimits {
        bulk_bytes: 100,
        ..SendLimits::DEFAULT
    });
    let (mut server, sender) = serve(RequestDecoder::new(), limits);
    server.peer.set_window(0);
    server.settle();
    let push = || Value::Push(vec!["message".into(), "text".into()]);
    let mut taken = 0;
    let full = loop {
        match sender.try_send(push()) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        server.settle();
        assert!(taken < 100, "nothing bounds what it is sent");
    };
    assert!(matches!(full, TrySendError::Full(_)));
    server.pass(Duration::from_secs(31));
    assert_eq!(server.reason(), "write_timeout");
}

#[test]
fn pushes_are_sent_between_replies() {
    let (mut server, sender) = serve(RequestDecoder::new(), Limits::server());
    let push = Value::Push(vec!["message".into()]);
    assert!(sender.try_send(push).is_ok());
    server.peer.send("PING\r\n");
    server.settle();
    let said = String::from_utf8(server.peer.written()).unwrap();
    assert_eq!(
        (
            said.contains("*1\r\n+message\r\n"),
            said.contains("+PONG\r\n")
        ),
        (true, true)
    );
}
