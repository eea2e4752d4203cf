//! Certificates of servers: by name, from files, replaced while the server runs.

use std::{fs, path::PathBuf, time::Duration};

use protosocket_tls::{
    Acceptor, AcceptorBuilder, Alert, ConfigError, Connector, Error, Identity, ProtocolVersion,
    Provider, Roots, development_certificate, ring, rustls::pki_types::CertificateDer,
};

use crate::{
    pair::{Handshake, NAME, Pair, client, server},
    pki::{Authority, Signed},
};

/// A folder that no other test uses, removed with what is there.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("protosocket-tls-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the folder for temporary files is writable");
        Self(path)
    }

    fn write(&self, signed: &Signed) -> Identity {
        fs::write(self.chain(), &signed.chain_pem).expect("it is writable");
        fs::write(self.key(), &signed.key_pem).expect("it is writable");
        Identity::pem_files(self.chain(), self.key())
    }

    fn chain(&self) -> PathBuf {
        self.0.join("chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The certificate that a client of this name is given.
fn served(connector: &Connector, acceptor: &Acceptor) -> CertificateDer<'static> {
    let pair = Pair::new(connector, acceptor);
    let chain = pair.client.peer_certificates();
    chain.expect("a server has one")[0].clone()
}

fn client_of(authority: &Authority, name: &str) -> Connector {
    let connector = client(authority).server_name(name).sessions(0);
    connector.build().expect("it is valid")
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let authority = Authority::new();
    let all = authority.sign(&[
        "a.test",
        "x.b.test",
        "one.test",
        "x.y.one.test",
        "127.0.0.1",
    ]);
    let one = authority.sign(&["one.test"]);
    let below = authority.sign(&["*.one.test"]);
    let exact = authority.sign(&["special.one.test"]);
    let acceptor = Acceptor::builder(ring())
        .certificate(all.identity())
        .certificate_for(["one.test"], one.identity())
        .certificate_for(["*.One.test"], below.identity())
        .certificate_for(["special.one.test"], exact.identity());
    let acceptor = acceptor.build().expect("it is valid");
    for (name, expected) in [
        ("one.test", &one),
        ("ONE.test", &one),
        ("any.one.test", &below),
        ("special.one.test", &exact),
        // A star stands for one label (RFC 9525 section 6.3).
        ("x.y.one.test", &all),
        ("a.test", &all),
        // An address is never sent as a name.
        ("127.0.0.1", &all),
    ] {
        let certificate = served(&client_of(&authority, name), &acceptor);
        assert_eq!(certificate, expected.chain[0], "{name}");
    }
}

#[test]
fn l8_a_name_without_a_certificate_is_refused_if_there_is_none_for_everybody_else() {
    let authority = Authority::new();
    let one = authority.sign(&["one.test"]).identity();
    let acceptor = Acceptor::builder(ring()).certificate_for(["one.test"], one);
    let acceptor = acceptor.build().expect("it is valid");
    for (name, text) in [
        ("other.test", "\"other.test\""),
        ("127.0.0.1", "names no server"),
    ] {
        let handshake = Handshake::new(&client_of(&authority, name), &acceptor).run();
        let error = handshake.server.error();
        assert!(error.to_string().contains(text), "{error}");
        let error = handshake.client.error();
        let error = Error::of(&error).expect("it is one of TLS");
        assert_eq!(error.alert_received(), Some(Alert::UNRECOGNIZED_NAME));
    }
}

#[test]
fn files_are_read_again_and_connections_keep_what_they_have() {
    let folder = Folder::new("reload");
    let authority = Authority::new();
    let (first, second) = (authority.sign(&[NAME]), authority.sign(&[NAME]));
    let acceptor = Acceptor::builder(ring()).certificate(folder.write(&first));
    let acceptor = acceptor.build().expect("it is valid");
    let certificates = acceptor.certificates().expect("they are its own");
    let connector = client_of(&authority, NAME);
    let mut old = Pair::new(&connector, &acceptor);
    let half = Handshake::new(&connector, &acceptor).begin();
    assert!(
        !certificates.reload().expect("it is valid"),
        "nothing is new"
    );

    folder.write(&second);
    assert!(certificates.reload().expect("it is valid"));
    assert_eq!(certificates.generation(), 1);
    assert_eq!(served(&connector, &acceptor), second.chain[0]);
    old.exchange();
    let chain = half.run().pair();
    assert_eq!(
        chain.client.peer_certificates(),
        Some(&second.chain[..]),
        "what is used is decided when the client has spoken"
    );
}

#[test]
fn what_is_broken_never_replaces_what_works() {
    let folder = Folder::new("broken");
    let authority = Authority::new();
    let (first, second) = (authority.sign(&[NAME]), authority.sign(&["second.test"]));
    let acceptor = Acceptor::builder(ring()).certificate_for([NAME], folder.write(&first));
    let acceptor = acceptor.build().expect("it is valid");
    let certificates = acceptor.certificates().expect("they are its own");
    let connector = client_of(&authority, NAME);
    let broken: [(&str, &dyn Fn(), &str); 6] = [
        (
            "half written",
            &|| fs::write(folder.chain(), &second.chain_pem).expect("it is writable"),
            "does not belong to the certificate",
        ),
        (
            "cut off",
            &|| fs::write(folder.chain(), &first.chain_pem[..200]).expect("it is writable"),
            "ends amid a section",
        ),
        (
            "empty",
            &|| fs::write(folder.chain(), "").expect("it is writable"),
            "no certificate",
        ),
        (
            "no key",
            &|| {
                fs::write(folder.chain(), &first.chain_pem).expect("it is writable");
                fs::write(folder.key(), &first.chain_pem).expect("it is writable");
            },
            "no private key",
        ),
        (
            "of another name",
            &|| {
                folder.write(&second);
            },
            "not for the name \"server.test\"",
        ),
        (
            "gone",
            &|| fs::remove_file(folder.chain()).expect("it is there"),
            "cannot read",
        ),
    ];
    for (what, break_it, text) in broken {
        break_it();
        let error = certificates.reload().expect_err(what);
        assert!(error.to_string().contains(text), "{what}: {error}");
        assert_eq!(served(&connector, &acceptor), first.chain[0], "{what}");
        assert_eq!(certificates.generation(), 0);
    }
    let third = authority.sign(&[NAME]);
    folder.write(&third);
    assert!(certificates.reload().expect("it is valid"));
    assert_eq!(served(&connector, &acceptor), third.chain[0]);
}

#[tokio::test(start_paused = true)]
async fn files_are_looked_at_at_an_interval() {
    let folder = Folder::new("watch");
    let authority = Authority::new();
    let (first, second) = (authority.sign(&[NAME]), authority.sign(&[NAME]));
    let acceptor = Acceptor::builder(ring()).certificate(folder.write(&first));
    let acceptor = acceptor.build().expect("it is valid");
    let certificates = acceptor.certificates().expect("they are its own").clone();
    let watching = tokio::spawn(certificates.clone().watch(Duration::from_secs(60)));
    fs::write(folder.chain(), "amid being written").expect("it is writable");
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(certificates.generation(), 0);
    folder.write(&second);
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(certificates.generation(), 1);
    let connector = client_of(&authority, NAME);
    assert_eq!(served(&connector, &acceptor), second.chain[0]);
    watching.abort();
}

#[test]
fn certificates_in_memory_are_replaced_as_well() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let certificates = acceptor.certificates().expect("they are its own");
    let connector = client_of(&authority, NAME);
    let (second, third) = (authority.sign(&[NAME]), authority.sign(&[NAME]));
    certificates
        .replace(second.identity())
        .expect("it is valid");
    assert_eq!(served(&connector, &acceptor), second.chain[0]);
    let replaced = certificates.replace_for([NAME], third.identity());
    replaced.expect("it is valid");
    assert_eq!(served(&connector, &acceptor), third.chain[0]);
    let other = authority.sign(&["other.test"]).identity();
    let error = certificates
        .replace_for([NAME], other)
        .expect_err("a wrong name");
    assert!(matches!(error, ConfigError::WrongName { .. }), "{error}");
    assert_eq!(served(&connector, &acceptor), third.chain[0]);
}

#[test]
fn what_cannot_work_is_refused_before_anybody_connects() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let signed = || authority.sign(&[NAME]);
    let builder = || Acceptor::builder(ring());
    let refused = |builder: AcceptorBuilder| builder.build().expect_err("it cannot work");
    for (error, text) in [
        (refused(builder()), "needs a certificate"),
        (
            refused(builder().certificate(Identity::pem_files("/no/such", "/no/such"))),
            "cannot read /no/such",
        ),
        (
            refused(builder().certificate(Identity::pem_files("/dev/zero", "/dev/zero"))),
            "no file of at most",
        ),
        (
            refused(builder().certificate(Identity::pem(signed().chain_pem, signed().key_pem))),
            "does not belong",
        ),
        (
            refused(builder().certificate_for(["1.2.3.4"], signed().identity())),
            "name no addresses",
        ),
        (
            refused(builder().certificate_for(["a..test"], signed().identity())),
            "host name",
        ),
        (
            refused(server(&authority).certificate(signed().identity())),
            "two certificates",
        ),
        (
            refused(server(&authority).alpn_protocols([""])),
            "1 to 255 bytes",
        ),
        (
            refused(server(&authority).minimum_version(ProtocolVersion::TLS_1_1)),
            "TLS 1.1 is not supported",
        ),
        (
            refused(server(&authority).require_client_certificate(Roots::new())),
            "no authority",
        ),
    ] {
        assert!(error.to_string().contains(text), "{error}");
    }
    let builder = || Connector::builder(ring());
    let pin = [0; 32];
    for (builder, text) in [
        (builder().roots(stranger.roots()), "the name of the server"),
        (builder().server_name("a.test"), "whom"),
        (builder().server_name("a b").pin_sha256(pin), "\"a b\""),
        (
            builder()
                .server_name("a.test")
                .pin_sha256(pin)
                .dangerous_accept_any_certificate(),
            "without meaning",
        ),
    ] {
        let error = builder.build().expect_err("it cannot work");
        let text = if text == "whom" {
            "which certificates it trusts"
        } else {
            text
        };
        assert!(error.to_string().contains(text), "{error}");
    }
    let text = Roots::from_pem("nothing")
        .expect_err("it is none")
        .to_string();
    assert!(text.contains("no certificate"), "{text}");
}

#[test]
fn a_certificate_for_development_takes_one_line() {
    let development = development_certificate([NAME]).expect("it is a name");
    let acceptor = Acceptor::builder(ring()).certificate(development.identity);
    let acceptor = acceptor.build().expect("it is valid");
    let roots = Roots::from_pem(&development.pem).expect("it is a certificate");
    let connector = Connector::builder(ring()).server_name(NAME).roots(roots);
    Pair::new(&connector.build().expect("it is valid"), &acceptor).exchange();
    let pinned = Connector::builder(ring()).server_name("whatever");
    let pinned = pinned.pin_certificate(development.certificate).build();
    Pair::new(&pinned.expect("it is valid"), &acceptor).exchange();
}

#[test]
fn a_provider_that_is_put_together_by_hand_has_no_tickets() {
    let authority = Authority::new();
    let provider = Provider::custom(protosocket_tls::rustls::crypto::ring::default_provider());
    let identity = authority.sign(&[NAME]).identity();
    let acceptor = || Acceptor::builder(provider.clone()).certificate(identity.clone());
    let tickets = acceptor().sessions(protosocket_tls::SessionPolicy::Tickets);
    assert!(matches!(tickets.build(), Err(ConfigError::NoTickets)));
    let acceptor = acceptor().build().expect("it is valid");
    Pair::new(&client_of(&authority, NAME), &acceptor).exchange();
}

#[test]
fn l8_a_chain_of_a_client_beyond_64_kib_is_refused_before_it_has_come() {
    let authority = Authority::new();
    let acceptor = server(&authority).require_client_certificate(authority.roots());
    let acceptor = acceptor.build().expect("it is valid");
    let signed = authority.sign(&["client.test"]);
    let one = signed.chain[0].clone();
    let count = 2 * 64 * 1024 / one.len();
    let identity = Identity::der(vec![one; count], signed.key);
    let connector = client(&authority).client_certificate(identity);
    let connector = connector.build().expect("it is valid");
    let handshake = Handshake::new(&connector, &acceptor).run();
    let error = handshake.server.error();
    let error = Error::of(&error).expect("it is one of TLS");
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}
