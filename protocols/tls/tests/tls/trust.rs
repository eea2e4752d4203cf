//! Whom a client believes.

use protosocket_tls::{Acceptor, Alert, Connector, Error, ring};

use crate::{
    pair::{Handshake, NAME, Pair, client, client_of_tls12, server},
    pki::{Authority, Signed},
};

fn acceptor(signed: &Signed) -> Acceptor {
    let acceptor = Acceptor::builder(ring()).certificate(signed.identity());
    acceptor.build().expect("it is valid")
}

#[test]
fn a_pinned_certificate_is_believed_and_no_other() {
    let authority = Authority::new();
    let (mine, other) = (authority.sign(&["any.test"]), authority.sign(&["any.test"]));
    let pinned = Connector::builder(ring()).server_name(NAME).sessions(0);
    let pinned = pinned.pin_certificate(mine.chain[0].clone()).build();
    let pinned = pinned.expect("it is valid");
    Pair::new(&pinned, &acceptor(&mine)).exchange();
    let handshake = Handshake::new(&pinned, &acceptor(&other)).run();
    let error = handshake.client.error();
    let text = error.to_string();
    assert!(text.contains("none of those that are pinned"), "{text}");
    let sent = Error::of(&error).expect("it is one of TLS").alert_sent();
    assert_eq!(sent, Some(Alert::CERTIFICATE_UNKNOWN));

    // The fingerprint that it names is the one to pin.
    let hex = text.split("SHA-256 is ").nth(1).expect("it is named");
    let pin: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("it is hex"))
        .collect();
    let connector = Connector::builder(ring()).server_name(NAME);
    let connector = connector
        .pin_sha256(pin.try_into().expect("32 bytes"))
        .build();
    Pair::new(&connector.expect("it is valid"), &acceptor(&other)).exchange();
}

#[test]
fn a_pin_beside_roots_takes_both() {
    let authority = Authority::new();
    let mine = authority.sign(&[NAME]);
    let pin = |authority: &Authority| {
        let connector = client(authority).pin_certificate(mine.chain[0].clone());
        connector.build().expect("it is valid")
    };
    Pair::new(&pin(&authority), &acceptor(&mine)).exchange();
    let error = Handshake::new(&pin(&Authority::new()), &acceptor(&mine)).run();
    assert!(
        error
            .client
            .error()
            .to_string()
            .contains("no authority that this side trusts")
    );
    let error = Handshake::new(&pin(&authority), &acceptor(&authority.sign(&[NAME]))).run();
    assert!(error.client.error().to_string().contains("pinned"));
}

#[test]
fn in_development_anybody_can_be_believed_but_must_have_the_key() {
    let signed = Authority::new().sign(&["any.test"]);
    let connector = Connector::builder(ring()).server_name(NAME);
    let connector = connector.dangerous_accept_any_certificate().build();
    Pair::new(&connector.expect("it is valid"), &acceptor(&signed)).exchange();
}

#[test]
fn clients_of_tls_12_are_served() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    Pair::new(&client_of_tls12(&authority, &[]), &acceptor).exchange();
}
