//! OpenSSL's client with our server, and its server with our client.

mod tls;

use std::process::Command;

use interop::programs::{Program, find, free_port};
use protosocket_tls::{AlpnPolicy, Identity};
use tls::{Files, NAME, Server, exchange, pki, text};

/// `openssl s_client` to `server`, which trusts the authority and asks for [`NAME`].
fn s_client(files: &Files, server: &Server, arguments: &[&str]) -> Option<Program> {
    let mut command = Command::new(find("openssl")?);
    command
        .args(["s_client", "-connect", &server.address.to_string()])
        .args(["-CAfile", text(&files.ca()), "-verify_return_error"])
        .args(["-servername", NAME, "-verify_hostname", NAME])
        .args(arguments);
    Some(Program::start(&mut command))
}

/// `openssl s_server`, which answers each line backwards, and its port.
fn s_server(files: &Files, arguments: &[&str]) -> Option<(Program, u16)> {
    let openssl = find("openssl")?;
    let (chain, key) = files.write("server", &files.authority.sign(&[NAME]));
    let port = free_port();
    let mut command = Command::new(openssl);
    command
        .args(["s_server", "-rev", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-cert", text(&chain), "-key", text(&key)])
        .args(arguments);
    Some((Program::serve(&mut command, port), port))
}

#[test]
fn its_client_speaks_both_versions_with_our_server_and_agrees_on_a_protocol() {
    let files = Files::new("openssl-versions");
    let server = Server::start(files.acceptor().alpn_protocols(["echo"]));
    for (number, (version, spoken)) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")]
        .into_iter()
        .enumerate()
    {
        let arguments = [version, "-alpn", "other,echo"];
        let Some(mut client) = s_client(&files, &server, &arguments) else {
            return;
        };
        client.say("hello\n");
        let heard = client.hear("echo hello");
        for part in ["Verification: OK", spoken, "ALPN protocol: echo"] {
            assert!(heard.contains(part), "{part}: {heard}");
        }
        client.finish();
        let ends = server.ends(number + 1);
        assert_eq!(ends[number].0, "end_of_input", "{ends:?}");
    }
}

#[test]
fn its_client_is_told_why_it_is_refused_and_so_are_we() {
    let files = Files::new("openssl-refused");
    let acceptor = files.acceptor().alpn_protocols(["echo"]);
    let server = Server::start(acceptor.alpn_policy(AlpnPolicy::Require));
    let Some(client) = s_client(&files, &server, &["-alpn", "h2"]) else {
        return;
    };
    client.hear("no application protocol");
    let client = s_client(&files, &server, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    let client = client.expect("it was found before");
    client.hear("handshake failure");
    let ends = server.ends(2);
    assert!(ends[0].1.contains("the client offers h2"), "{ends:?}");
    assert!(ends[1].1.contains("older than TLS 1.2"), "{ends:?}");
}

#[test]
fn the_certificate_is_chosen_by_the_name_that_its_client_asks_for() {
    let files = Files::new("openssl-sni");
    let named = |name: &str| {
        files.authority.sign_with(&[name], |params| {
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
        })
    };
    let acceptor = files
        .acceptor()
        .certificate_for(["one.test"], named("one.test").identity())
        .certificate_for(["*.two.test"], named("*.two.test").identity());
    let server = Server::start(acceptor);
    for (name, subject) in [
        ("one.test", "CN = one.test"),
        ("a.two.test", "CN = *.two.test"),
    ] {
        let arguments = ["-servername", name, "-verify_hostname", name];
        let Some(mut client) = s_client(&files, &server, &arguments) else {
            return;
        };
        client.say("hello\n");
        let heard = client.hear("echo hello");
        assert!(heard.contains(subject), "{heard}");
    }
}

#[test]
fn its_client_shows_a_certificate_or_is_refused() {
    let files = Files::new("openssl-mtls");
    let roots = files.authority.roots();
    let server = Server::start(files.acceptor().require_client_certificate(roots));
    let good = files.write("good", &files.authority.sign(&["client.test"]));
    let expired = files.authority.sign_with(&["client.test"], pki::expired);
    let expired = files.write("expired", &expired);
    let stranger = pki::Authority::new().sign(&["client.test"]);
    let stranger = files.write("stranger", &stranger);

    let arguments = ["-cert", text(&good.0), "-key", text(&good.1)];
    let Some(mut client) = s_client(&files, &server, &arguments) else {
        return;
    };
    client.say("hello\n");
    client.hear("echo hello");
    client.finish();
    let mut told = Vec::new();
    for arguments in [
        vec!["-cert", text(&expired.0), "-key", text(&expired.1)],
        vec!["-cert", text(&stranger.0), "-key", text(&stranger.1)],
        vec![],
    ] {
        let client = s_client(&files, &server, &arguments).expect("it was found before");
        told.push(client.hear(" alert "));
    }
    for (text, alert) in told
        .iter()
        .zip(["expired", "unknown ca", "certificate required"])
    {
        assert!(text.contains(alert), "{alert}: {text}");
    }
    let ends = server.ends(4);
    assert_eq!(ends[0].0, "end_of_input");
    for (end, reason) in ends[1..]
        .iter()
        .zip(["expired", "no authority", "it sent none"])
    {
        assert_eq!(end.0, "refused/handshake");
        assert!(end.1.contains(reason), "{end:?}");
    }
}

#[test]
fn its_client_resumes_sessions_in_both_versions() {
    let files = Files::new("openssl-resumption");
    let server = Server::start(files.acceptor());
    for version in ["-tls1_3", "-tls1_2"] {
        let session = files.path(version);
        for (option, expected) in [("-sess_out", "New, "), ("-sess_in", "Reused, ")] {
            let arguments = [version, option, text(&session)];
            let Some(mut client) = s_client(&files, &server, &arguments) else {
                return;
            };
            client.say("hello\n");
            client.hear("echo hello");
            let heard = client.finish();
            assert!(heard.contains(expected), "{version} {option}: {heard}");
        }
    }
}

#[test]
fn l9_renegotiation_is_refused() {
    let files = Files::new("openssl-renegotiation");
    let server = Server::start(files.acceptor());
    let Some(mut client) = s_client(&files, &server, &["-tls1_2"]) else {
        return;
    };
    client.say("hello\n");
    client.hear("echo hello");
    client.say("R\n");
    client.hear("no renegotiation");
    // OpenSSL gives the connection up then, with an alert.
    let ends = server.ends(1);
    assert_eq!(ends[0].0, "io", "{ends:?}");
}

#[test]
fn both_sides_log_the_same_secrets() {
    let files = Files::new("openssl-keylog");
    let (ours, theirs) = (files.path("ours"), files.path("theirs"));
    let server = Server::start(files.acceptor().key_log(&ours));
    let arguments = ["-keylogfile", text(&theirs)];
    let Some(mut client) = s_client(&files, &server, &arguments) else {
        return;
    };
    client.say("hello\n");
    client.hear("echo hello");
    client.finish();
    let lines = |path| {
        let text = std::fs::read_to_string(path).expect("it was written");
        let lines = text.lines().filter(|line| line.contains("TRAFFIC_SECRET"));
        let mut lines: Vec<_> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&ours).len(), 4);
    assert_eq!(lines(&ours), lines(&theirs));
}

#[test]
fn our_client_speaks_both_versions_with_its_server() {
    let files = Files::new("openssl-server");
    let connector = files.connector().alpn_protocols(["other", "echo"]).build();
    let connector = connector.expect("it is valid");
    for (version, spoken) in [("-tls1_3", "TLS13_"), ("-tls1_2", "TLS_ECDHE")] {
        let Some((_server, port)) = s_server(&files, &[version, "-alpn", "echo"]) else {
            return;
        };
        let exchange = exchange(&connector, port, "hello").expect("it is answered");
        assert_eq!(exchange.answer, "olleh");
        assert!(exchange.about.contains(spoken), "{}", exchange.about);
        assert!(exchange.about.ends_with(" echo"), "{}", exchange.about);
    }
}

#[test]
fn our_client_resumes_sessions_of_its_server() {
    let files = Files::new("openssl-server-resumption");
    for version in ["-tls1_3", "-tls1_2"] {
        let Some((_server, port)) = s_server(&files, &[version]) else {
            return;
        };
        let connector = files.connector().build().expect("it is valid");
        for resumed in ["resumed: false", "resumed: true"] {
            let exchange = exchange(&connector, port, "hello").expect("it is answered");
            assert!(
                exchange.about.contains(resumed),
                "{version} {}",
                exchange.about
            );
        }
    }
}

#[test]
fn our_client_shows_its_certificate_and_hears_why_it_is_refused() {
    let files = Files::new("openssl-server-mtls");
    let arguments = ["-Verify", "1", "-verify_return_error", "-CAfile"];
    let ca = files.ca();
    let arguments = [&arguments[..], &[text(&ca)]].concat();
    let Some((_server, port)) = s_server(&files, &arguments) else {
        return;
    };
    let with = |identity: Option<Identity>| {
        let connector = match identity {
            Some(identity) => files.connector().client_certificate(identity),
            None => files.connector(),
        };
        let connector = connector.build().expect("it is valid");
        exchange(&connector, port, "hello").map(|exchange| exchange.answer)
    };
    let good = files.authority.sign(&["client.test"]).identity();
    assert_eq!(with(Some(good)).expect("it is answered"), "olleh");
    let expired = files.authority.sign_with(&["client.test"], pki::expired);
    let error = with(Some(expired.identity())).expect_err("it has expired");
    assert!(error.contains("certificate_expired (45)"), "{error}");
    let error = with(None).expect_err("one is required");
    assert!(error.contains("certificate_required (116)"), "{error}");
}

#[test]
fn our_client_says_what_is_wrong_with_the_certificate_of_its_server() {
    let files = Files::new("openssl-server-wrong");
    let Some((server, port)) = s_server(&files, &[]) else {
        return;
    };
    let connector = files.connector().server_name("other.test").build();
    let error = exchange(&connector.expect("it is valid"), port, "hello");
    let error = error.err().expect("it is for another name");
    assert!(
        error.contains("not valid for name \"other.test\""),
        "{error}"
    );
    server.hear("bad certificate");
}
