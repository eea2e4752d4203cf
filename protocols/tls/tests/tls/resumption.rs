//! Sessions that are resumed, early data that is not, secrets that are logged.

use protosocket_tls::{Acceptor, Connector, SessionPolicy};

use crate::{
    pair::{Pair, client, client_of_tls12, server},
    pki::Authority,
};

/// Whether the second of two connections resumed the session of the first.
fn resumes(connector: &Connector, acceptor: &Acceptor) -> bool {
    let mut first = Pair::new(connector, acceptor);
    assert!(!first.client.is_resumed());
    // The tickets of TLS 1.3 arrive behind the handshake.
    first.exchange();
    let mut second = Pair::new(connector, acceptor);
    second.exchange();
    assert_eq!(second.client.is_resumed(), second.server.is_resumed());
    second.client.is_resumed()
}

#[test]
fn sessions_are_resumed_as_the_policy_says() {
    let authority = Authority::new();
    for (policy, expected) in [
        (SessionPolicy::default(), true),
        (SessionPolicy::Tickets, true),
        (SessionPolicy::Off, false),
    ] {
        let acceptor = server(&authority).sessions(policy).build();
        let acceptor = acceptor.expect("it is valid");
        let connector = client(&authority).build().expect("it is valid");
        assert_eq!(resumes(&connector, &acceptor), expected, "{policy:?}");
        let connector = client_of_tls12(&authority, &[]);
        assert_eq!(resumes(&connector, &acceptor), expected, "{policy:?}");
        let connector = client(&authority).sessions(0).build();
        assert!(!resumes(&connector.expect("it is valid"), &acceptor));
    }
}

#[test]
fn a_resumed_session_has_the_certificate_of_its_client() {
    let authority = Authority::new();
    let acceptor = server(&authority).require_client_certificate(authority.roots());
    let acceptor = acceptor.build().expect("it is valid");
    let mine = authority.sign(&["client.test"]);
    let connector = client(&authority).client_certificate(mine.identity());
    let connector = connector.build().expect("it is valid");
    assert!(resumes(&connector, &acceptor));
    let pair = Pair::new(&connector, &acceptor);
    assert!(pair.server.is_resumed());
    assert_eq!(pair.server.peer_certificates(), Some(&mine.chain[..]));
}

#[test]
fn remembered_sessions_are_bounded() {
    let authority = Authority::new();
    let acceptor = server(&authority).sessions(SessionPolicy::Remember(2));
    let acceptor = acceptor.build().expect("it is valid");
    let connector = client(&authority).build().expect("it is valid");
    Pair::new(&connector, &acceptor).exchange();
    for _ in 0..10 {
        let other = client(&authority).build().expect("it is valid");
        Pair::new(&other, &acceptor).exchange();
    }
    assert!(!Pair::new(&connector, &acceptor).client.is_resumed());
    assert!(
        server(&authority)
            .sessions(SessionPolicy::Remember(0))
            .build()
            .is_err()
    );
}

#[test]
fn l10_early_data_is_never_offered_by_a_server() {
    let authority = Authority::new();
    let acceptor = server(&authority).build().expect("it is valid");
    let connector = crate::pair::client_with_early_data(&authority);
    let mut first = Pair::new(&connector, &acceptor);
    first.exchange();
    let pair = Pair::new(&connector, &acceptor);
    assert!(pair.client.is_resumed(), "it could have been sent");
    // RFC 8446 section 4.2.10: the extension `early_data` is what a client would announce it by.
    let hello = crate::pair::extensions_of_client_hello(&pair.to_server.bytes());
    assert!(hello.contains(&41), "it resumes: {hello:?}");
    assert!(!hello.contains(&42), "it sends early data: {hello:?}");
}

#[test]
fn secrets_are_logged_only_where_that_is_asked_for_and_for_nobody_else_to_read() {
    let authority = Authority::new();
    let name = format!("protosocket-tls-{}-keys.log", std::process::id());
    let path = std::env::temp_dir().join(name);
    let acceptor = server(&authority).key_log(&path).build();
    let acceptor = acceptor.expect("it is writable");
    let connector = client(&authority).sessions(0).build().expect("it is valid");
    Pair::new(&connector, &acceptor).exchange();
    Pair::new(&connector, &acceptor).exchange();
    let text = std::fs::read_to_string(&path).expect("it was written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o077, 0);
    }
    std::fs::remove_file(&path).expect("it is there");
    let labels: Vec<_> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    for label in ["CLIENT_TRAFFIC_SECRET_0", "SERVER_HANDSHAKE_TRAFFIC_SECRET"] {
        let found = labels.iter().filter(|found| **found == label).count();
        assert_eq!(found, 2, "{label} in {labels:?}");
    }
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [_, random, secret] = words[..] else {
            panic!("{line}");
        };
        assert_eq!((random.len(), secret.len()), (64, 96), "{line}");
    }
}
