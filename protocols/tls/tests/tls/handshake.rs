//! What is agreed upon, and why nothing could be.

use protosocket_tls::{Alert, AlpnPolicy, Error, ProtocolVersion, Speech};

use crate::{
    pair::{Handshake, NAME, Pair, client, server},
    pki::{Authority, expired},
};

#[test]
fn both_versions_are_spoken_and_everything_is_told() {
    let authority = Authority::new();
    let acceptor = server(&authority).alpn_protocols(["echo", "other"]);
    let acceptor = acceptor.build().expect("it is valid");
    for (version, suite) in [
        (ProtocolVersion::TLS_1_3, "TLS13_AES_256_GCM_SHA384"),
        (
            ProtocolVersion::TLS_1_2,
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ),
    ] {
        let connector = match version {
            ProtocolVersion::TLS_1_3 => client(&authority)
                .alpn_protocols(["unknown", "other"])
                .build()
                .expect("it is valid"),
            _ => crate::pair::client_of_tls12(&authority, &["unknown", "other"]),
        };
        let mut pair = Pair::new(&connector, &acceptor);
        pair.exchange();
        for stream in [&pair.client, &pair.server] {
            assert_eq!(stream.protocol_version(), version);
            assert_eq!(stream.alpn_protocol(), Some(&b"other"[..]));
            assert_eq!(stream.cipher_suite(), suite);
            assert!(!stream.is_resumed());
        }
        assert_eq!(pair.server.server_name(), Some(NAME));
        assert_eq!(pair.client.server_name(), None);
        assert_eq!(pair.server.peer_certificates(), None);
        let chain = pair.client.peer_certificates();
        assert_eq!(chain.expect("a server has one").len(), 1);
    }
}

#[test]
fn a_handshake_does_not_depend_on_how_it_is_cut() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    for slice in [1, 2, 3, 5, 64, 1000] {
        let handshake = Handshake::new(&connector, &acceptor).slices(slice);
        handshake.run().pair().exchange();
    }
}

#[test]
fn l8_a_wrong_application_protocol_is_refused_with_what_both_speak() {
    let authority = Authority::new();
    let acceptor = server(&authority).alpn_protocols(["echo"]);
    let acceptor = acceptor.build().expect("it is valid");
    let connector = client(&authority).alpn_protocols(["h2", "http/1.1"]);
    let connector = connector.build().expect("it is valid");
    let handshake = Handshake::new(&connector, &acceptor).run();
    let error = handshake.server.error();
    let text = error.to_string();
    assert!(text.contains("the client offers h2, http/1.1"), "{text}");
    assert!(text.contains("this server speaks echo"), "{text}");
    let error = Error::of(&error).expect("it is one of TLS");
    assert_eq!(error.alert_sent(), Some(Alert::NO_APPLICATION_PROTOCOL));
    let error = handshake.client.error();
    let error = Error::of(&error).expect("it is one of TLS");
    assert_eq!(error.alert_received(), Some(Alert::NO_APPLICATION_PROTOCOL));
}

#[test]
fn l8_who_offers_no_application_protocol_is_let_in_or_not_as_it_was_chosen() {
    let authority = Authority::new();
    let of = |policy| {
        let acceptor = server(&authority).alpn_protocols(["echo"]);
        let acceptor = acceptor.alpn_policy(policy).build();
        acceptor.expect("it is valid")
    };
    let quiet = client(&authority).build().expect("it is valid");
    let other = client(&authority).alpn_protocols(["h2"]).build();
    let other = other.expect("it is valid");

    let pair = Pair::new(&quiet, &of(AlpnPolicy::RefuseMismatch));
    assert_eq!(pair.server.alpn_protocol(), None);
    for connector in [&quiet, &other] {
        let pair = Pair::new(connector, &of(AlpnPolicy::Optional));
        assert_eq!(pair.server.alpn_protocol(), None);
    }
    let handshake = Handshake::new(&quiet, &of(AlpnPolicy::Require)).run();
    let text = handshake.server.error().to_string();
    assert!(text.contains("the client offers none"), "{text}");

    let strict = client(&authority).alpn_protocols(["h2"]).require_alpn();
    let strict = strict.build().expect("it is valid");
    let handshake = Handshake::new(&strict, &of(AlpnPolicy::Optional)).run();
    let text = handshake.client.error().to_string();
    assert!(text.contains("this side offers h2"), "{text}");
}

#[test]
fn l8_certificates_of_clients_are_refused_for_the_reason_that_there_is() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let server = server(&authority).require_client_certificate(authority.roots());
    let acceptor = server.build().expect("it is valid");
    let good = authority.sign(&["client.test"]);
    let cases = [
        (
            Some(authority.sign_with(&["c.test"], expired)),
            "expired",
            Alert::CERTIFICATE_EXPIRED,
        ),
        (
            Some(stranger.sign(&["c.test"])),
            "no authority that this side trusts",
            Alert::UNKNOWN_CA,
        ),
        (
            Some(authority.sign_with(&["c.test"], |params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            })),
            "client auth",
            Alert::UNSUPPORTED_CERTIFICATE,
        ),
        (
            None,
            "it sent none, and one is required",
            Alert::CERTIFICATE_REQUIRED,
        ),
    ];
    for (signed, problem, alert) in cases {
        let connector = match &signed {
            Some(signed) => client(&authority).client_certificate(signed.identity()),
            None => client(&authority),
        };
        let connector = connector.build().expect("it is valid");
        let handshake = Handshake::new(&connector, &acceptor).run();
        let text = handshake.server.error().to_string();
        assert!(text.contains(problem), "{text}");
        // In TLS 1.3 the client is done first, and hears of it when it reads.
        let mut stream = handshake.client.stream();
        let error = crate::pair::read(&mut stream).expect_err("it was refused");
        let error = Error::of(&error).expect("it is one of TLS");
        assert_eq!(error.alert_received(), Some(alert), "{problem}");
    }
    let connector = client(&authority).client_certificate(good.identity());
    let mut pair = Pair::new(&connector.build().expect("it is valid"), &acceptor);
    pair.exchange();
    assert_eq!(pair.server.peer_certificates(), Some(&good.chain[..]));
}

#[test]
fn l8_client_certificates_that_are_asked_for_may_be_missing_but_not_wrong() {
    let authority = Authority::new();
    let server = server(&authority).accept_client_certificate(authority.roots());
    let acceptor = server.build().expect("it is valid");
    let without = client(&authority).build().expect("it is valid");
    let pair = Pair::new(&without, &acceptor);
    assert_eq!(pair.server.peer_certificates(), None);
    let wrong = Authority::new().sign(&["c.test"]);
    let wrong = client(&authority).client_certificate(wrong.identity());
    let wrong = wrong.build().expect("it is valid");
    let error = Handshake::new(&wrong, &acceptor).run().server.error();
    assert!(
        error
            .to_string()
            .contains("no authority that this side trusts"),
        "{error}"
    );
}

#[test]
fn l8_a_client_says_what_is_wrong_with_the_certificate_of_its_server() {
    let authority = Authority::new();
    let connector = client(&authority).build().expect("it is valid");
    for (identity, problem, alert) in [
        (
            authority.sign(&["other.test"]),
            "not valid for name",
            Alert::BAD_CERTIFICATE,
        ),
        (
            authority.sign_with(&[NAME], expired),
            "expired",
            Alert::CERTIFICATE_EXPIRED,
        ),
        (
            Authority::new().sign(&[NAME]),
            "no authority that this side trusts",
            Alert::UNKNOWN_CA,
        ),
    ] {
        let acceptor = protosocket_tls::Acceptor::builder(protosocket_tls::ring());
        let acceptor = acceptor.certificate(identity.identity()).build();
        let handshake = Handshake::new(&connector, &acceptor.expect("it is valid")).run();
        let error = handshake.client.error();
        assert!(error.to_string().contains(problem), "{error}");
        let sent = Error::of(&error).expect("it is one of TLS").alert_sent();
        assert_eq!(sent, Some(alert));
        let error = handshake.server.error();
        let received = Error::of(&error).expect("it is one of TLS");
        assert_eq!(received.alert_received(), Some(alert));
    }
}

#[test]
fn l6_a_peer_that_does_not_speak_tls_is_told_from_one_that_does() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    for (bytes, speech) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], Speech::Http),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Speech::Ssh),
        (b"hello, is there anybody\r\n", Speech::Text),
        (b"\0\0\0\x05hello", Speech::Unknown),
    ] {
        let handshake = Handshake::new(&connector, &acceptor);
        handshake.to_server.to.send(bytes);
        handshake.to_client.to.send(bytes);
        let handshake = handshake.run();
        for error in [handshake.server.error(), handshake.client.error()] {
            let Some(Error::NotTls(found)) = Error::of(&error) else {
                panic!("{error}");
            };
            assert_eq!(*found, speech);
        }
    }
}

#[test]
fn a_handshake_that_breaks_off_says_so() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    let handshake = Handshake::new(&connector, &acceptor);
    handshake.to_server.to.end();
    handshake.to_client.to.end();
    let handshake = handshake.run();
    for error in [handshake.server.error(), handshake.client.error()] {
        assert!(
            matches!(Error::of(&error), Some(Error::HandshakeCut)),
            "{error}"
        );
    }
}

#[test]
fn versions_below_the_minimum_are_refused() {
    let authority = Authority::new();
    let server = server(&authority).minimum_version(ProtocolVersion::TLS_1_3);
    let acceptor = server.build().expect("it is valid");
    let connector = crate::pair::client_of_tls12(&authority, &[]);
    let handshake = Handshake::new(&connector, &acceptor).run();
    let error = handshake.server.error();
    assert!(error.to_string().contains("minimum_version"), "{error}");
    let sent = Error::of(&error).expect("it is one of TLS").alert_sent();
    let error = handshake.client.error();
    let received = Error::of(&error)
        .expect("it is one of TLS")
        .alert_received();
    assert_eq!((sent, received), (Some(Alert::PROTOCOL_VERSION), sent));
}
