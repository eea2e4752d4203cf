//! A ClientHello read from bytes alone: what it says, however it is cut, and what is refused.

use protosocket_testkit::{for_each_seed, operations};
use protosocket_tls::{
    ClientHello, ClientHelloError, MAX_CLIENT_HELLO, Parsed, ProtocolVersion, Speech,
};

use crate::{
    any_bytes,
    hello::{Hello, in_records},
};

#[track_caller]
fn parsed(bytes: &[u8]) -> ClientHello {
    match ClientHello::parse(bytes) {
        Ok(Parsed::ClientHello(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_says_where_to() {
    let message = Hello::new()
        .server_name(b"Server.Test")
        .protocols(&[b"h2", b"\x00\xff"])
        .versions(&[0x7a7a, 0x0304, 0x0303])
        .message();
    let hello = parsed(&in_records(&message, 1 << 14));
    assert_eq!(hello.server_name(), Some("server.test"));
    let protocols: Vec<_> = hello.application_protocols().collect();
    assert_eq!(protocols, [&b"h2"[..], b"\x00\xff"]);
    let versions = [
        ProtocolVersion(0x7a7a),
        ProtocolVersion::TLS_1_3,
        ProtocolVersion::TLS_1_2,
    ];
    assert_eq!(hello.versions(), versions);
}

#[test]
fn a_client_of_tls_12_may_leave_everything_out() {
    let hello = parsed(&in_records(&Hello::new().message_without_extensions(), 100));
    assert_eq!(hello.server_name(), None);
    assert_eq!(hello.application_protocols().len(), 0);
    assert_eq!(hello.versions(), [ProtocolVersion::TLS_1_2]);
}

#[test]
fn l7_it_is_the_same_in_whichever_records_and_with_whatever_behind_it() {
    let message = Hello::new().server_name(b"a.test").message();
    let whole = parsed(&in_records(&message, 1 << 14));
    for fragment in 1..=message.len() {
        let mut bytes = in_records(&message, fragment);
        assert_eq!(parsed(&bytes), whole, "{fragment}");
        bytes.extend(b"whatever comes behind it");
        assert_eq!(parsed(&bytes), whole, "{fragment}");
    }
}

#[test]
fn what_is_missing_is_never_more_than_what_must_come() {
    let message = Hello::new().server_name(b"a.test").message();
    for fragment in [1, 2, 3, 4, 5, 7, 50, 1 << 14] {
        let bytes = in_records(&message, fragment);
        for cut in 0..bytes.len() {
            let Ok(Parsed::NeedMore(missing)) = ClientHello::parse(&bytes[..cut]) else {
                panic!("{cut} of {} bytes are enough", bytes.len());
            };
            assert!(
                missing > 0 && missing <= bytes.len() - cut,
                "{cut}: {missing}"
            );
            // With less, it is still not there.
            let less = ClientHello::parse(&bytes[..cut + missing - 1]);
            assert!(matches!(less, Ok(Parsed::NeedMore(_))), "{cut}: {less:?}");
        }
    }
}

#[test]
fn what_breaks_a_rule_is_refused_with_the_rule() {
    let refused = |bytes: &[u8], text: &str| match ClientHello::parse(bytes) {
        Err(error) => assert!(error.to_string().contains(text), "{error}: {text}"),
        Ok(parsed) => panic!("{text}: {parsed:?}"),
    };
    refused(b"GET / HTTP/1.1\r\n", "looks like HTTP");
    // RFC 8446 section 5.1.
    refused(b"\x16\x03\x01\0\0", "an empty record");
    refused(b"\x16\x03\x01\x40\x01", "more than 2^14 bytes");
    refused(
        b"\x16\x03\x01\0\x01\x01\x15\x03\x01\0\x02\x02\x28",
        "amid the handshake",
    );
    refused(b"\x16\x03\x01\0\x04\x02\0\0\0", "of type 2");
    // It is refused by what it announces, before any of that has come.
    refused(b"\x16\x03\x01\0\x04\x01\x01\0\0", "MAX_CLIENT_HELLO");
    let of = |hello: Hello, text: &str| refused(&in_records(&hello.message(), 1 << 14), text);
    // RFC 6066 section 3.
    of(Hello::new().server_name(b""), "no host name");
    of(Hello::new().server_name(b"a\0b.test"), "no host name");
    of(
        Hello::new().server_name("ä.test".as_bytes()),
        "no host name",
    );
    of(Hello::new().server_name(&[b'a'; 300]), "no host name");
    of(Hello::new().server_name(b"127.0.0.1"), "an address");
    of(
        Hello::new().server_name(b"a.test").server_name(b"a.test"),
        "comes twice",
    );
    // RFC 7301 section 3.1.
    of(Hello::new().protocols(&[]), "an empty list");
    of(Hello::new().protocols(&[b""]), "of no bytes");
    // RFC 8446 section 4.2.1.
    of(Hello::new().versions(&[]), "supported versions");
    of(
        Hello::new().extension(43, b"\x03\x03\x04\x03"),
        "supported versions",
    );
    of(
        Hello::new().extension(16, b"\0\x09\x02h2"),
        "the application protocols",
    );
    let mut message = Hello::new().message();
    message[3] += 1;
    message.push(0);
    refused(&in_records(&message, 1 << 14), "behind the extensions");
}

#[test]
fn l7_the_largest_one_is_read_from_records_of_one_byte_and_a_larger_one_is_refused() {
    let largest = Hello::new().padded_to(MAX_CLIENT_HELLO).message();
    parsed(&in_records(&largest, 1));
    let larger = Hello::new().padded_to(MAX_CLIENT_HELLO + 1).message();
    let error = ClientHello::parse(&in_records(&larger, 1)).expect_err("it is too long");
    assert_eq!(error, ClientHelloError::TooLong(MAX_CLIENT_HELLO + 1));
}

#[test]
fn nothing_that_is_flipped_cut_or_made_up_makes_it_panic() {
    let message = Hello::new()
        .server_name(b"a.test")
        .protocols(&[b"h2", b"http/1.1"])
        .versions(&[0x0304])
        .message();
    for_each_seed(0..2000, |random| {
        let mut bytes = in_records(&message, random.within(1..80));
        for _ in 0..random.within(1..5) {
            let at = random.below(bytes.len());
            bytes[at] = random.below(256) as u8;
        }
        bytes.truncate(random.below(bytes.len() + 1));
        any_bytes::check(&bytes);
    });
    assert_eq!(
        ClientHello::parse(b"\0\0\0\0"),
        Err(ClientHelloError::NotTls(Speech::Unknown))
    );
}

#[test]
fn what_fuzzing_has_kept_holds() {
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/client_hello"
    );
    let kept = operations::replay(std::path::Path::new(corpus), any_bytes::check);
    assert!(kept.expect("the kept inputs can be read") > 0);
}
