//! Records and messages that a server must not choke on.

use protosocket::Establisher;
use protosocket_testkit::scripted_stream;
use protosocket_tls::{Alert, Error, Speech, rustls::ClientConnection};

use crate::{
    hello::{Hello, in_records},
    pair::{Handshake, Pair, Side, client, config_of_client, read, records, server, write},
    pki::Authority,
};

/// What a server says to these bytes, and what it thinks of them.
fn refused(bytes: &[u8]) -> (Vec<u8>, Error) {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    let mut handshake = Handshake::new(&connector, &acceptor);
    handshake.to_server.to.send(bytes);
    handshake.settle_server();
    let said = handshake.to_client.bytes();
    let error = handshake.server.error();
    let error = Error::of(&error).expect("it is one of TLS").clone();
    if let Some(alert) = error.alert_sent() {
        assert_eq!(said, [21, 3, 3, 0, 2, 2, alert.0], "{error}");
    }
    (said, error)
}

#[test]
fn l7_a_record_that_is_too_long_is_refused_by_its_header() {
    let length = (1_u16 << 14) + 2049;
    let header = [&[0x16, 3, 1][..], &length.to_be_bytes()].concat();
    let (said, error) = refused(&header);
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert_eq!(records(&said), [(21, 2)]);
}

#[test]
fn l7_empty_records_are_refused() {
    let (said, error) = refused(&b"\x16\x03\x01\0\0".repeat(1000));
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert_eq!(records(&said), [(21, 2)]);
}

#[test]
fn l7_a_handshake_message_beyond_64_kib_is_refused_before_it_has_come() {
    // A ClientHello that announces 2^24 - 1 bytes.
    let mut message = vec![1, 0xff, 0xff, 0xff];
    message.extend([7; 1000]);
    let (said, error) = refused(&in_records(&message, 1000));
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert_eq!(records(&said), [(21, 2)]);
}

#[test]
fn l7_a_client_hello_in_records_of_one_byte_is_understood() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    let mut handshake = Handshake::new(&connector, &acceptor).begin();
    let hello = handshake.to_server.bytes();
    let length = u16::from_be_bytes([hello[3], hello[4]]);
    assert_eq!(hello.len(), 5 + usize::from(length), "one record");
    handshake.to_server.skip();
    handshake.to_server.to.send(in_records(&hello[5..], 1));
    handshake.run().pair().exchange();
}

#[test]
fn l8_server_names_that_are_none_are_refused() {
    for name in [&b"a\0b.test"[..], &[b'a'; 300], b""] {
        let hello = Hello::new().server_name(name).versions(&[0x0304]);
        let (said, error) = refused(&in_records(&hello.message(), 1 << 14));
        assert!(matches!(error, Error::Protocol { .. }), "{name:?}: {error}");
        assert_eq!(records(&said), [(21, 2)]);
    }
}

#[test]
fn l6_alerts_and_data_on_a_tls_port_are_no_handshake() {
    let (_, error) = refused(b"\x17\x03\x03\0\x05hello");
    assert!(
        matches!(error, Error::NotTls(Speech::TlsRecord(0x17))),
        "{error}"
    );
    let (_, error) = refused(b"\x15\x03\x01\0\x02\x02\x28");
    assert!(
        matches!(error, Error::NotTls(Speech::TlsRecord(0x15))),
        "{error}"
    );
}

#[test]
fn records_that_were_changed_on_the_way_end_the_stream() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    let mut pair = Pair::new(&connector, &acceptor);
    let before = pair.to_server.bytes().len();
    write(&mut pair.client, b"hello");
    let mut record = pair.to_server.bytes()[before..].to_vec();
    *record.last_mut().expect("it has bytes") ^= 1;
    pair.to_server.to.send(record);
    let error = read(&mut pair.server).expect_err("it cannot be decrypted");
    let error = Error::of(&error).expect("it is one of TLS");
    assert_eq!(error.alert_sent(), Some(Alert::BAD_RECORD_MAC), "{error}");
    pair.to_client.carry();
    let error = read(&mut pair.client).expect_err("it is told");
    let error = Error::of(&error).expect("it is one of TLS");
    assert_eq!(error.alert_received(), Some(Alert::BAD_RECORD_MAC));
}

#[test]
fn l9_key_updates_are_followed_between_data_and_a_flood_of_them_is_refused() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let name = crate::pair::NAME.try_into().expect("it is a name");
    let mut client = ClientConnection::new(config_of_client(&authority), name).expect("valid");
    let (stream, peer) = scripted_stream();
    let mut side = Side::Busy(acceptor.establish(stream));
    let mut heard = 0;
    let mut carry = |client: &mut ClientConnection| {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client
                .write_tls(&mut bytes)
                .expect("memory takes everything");
        }
        peer.send(&bytes);
        let written = peer.written();
        let mut fresh = &written[heard..];
        while !fresh.is_empty() {
            client
                .read_tls(&mut fresh)
                .expect("memory gives everything");
            client.process_new_packets().expect("it is in order");
        }
        heard = written.len();
    };
    for _ in 0..4 {
        carry(&mut client);
        side.poll();
    }
    let mut stream = side.stream();
    for _ in 0..100 {
        client.refresh_traffic_keys().expect("TLS 1.3 has them");
        std::io::Write::write_all(&mut client.writer(), b"data").expect("it is buffered");
        carry(&mut client);
        assert_eq!(read(&mut stream).expect("it came"), b"data");
    }
    for _ in 0..100 {
        client.refresh_traffic_keys().expect("TLS 1.3 has them");
    }
    carry(&mut client);
    let error = read(&mut stream).expect_err("there are too many");
    let error = Error::of(&error).expect("it is one of TLS");
    assert!(
        error.to_string().contains("TooManyKeyUpdateRequests"),
        "{error}"
    );
}
