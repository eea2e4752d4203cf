//! GnuTLS's client with our server, and its server with our client.

mod tls;

use std::process::Command;

use interop::programs::{Program, find, free_port};
use tls::{Files, NAME, Server, exchange, text};

/// `gnutls-cli` to `server`, which trusts the authority and asks for [`NAME`].
fn gnutls_cli(files: &Files, server: &Server, arguments: &[&str]) -> Option<Program> {
    let mut command = Command::new(find("gnutls-cli")?);
    command
        .args(["--x509cafile", text(&files.ca()), "--port", &server.port()])
        .args(["--sni-hostname", NAME, "--verify-hostname", NAME])
        .args(arguments)
        .arg("127.0.0.1");
    Some(Program::start(&mut command))
}

/// `gnutls-serv`, which echoes, and its port.
fn gnutls_serv(files: &Files, arguments: &[&str]) -> Option<(Program, u16)> {
    let program = find("gnutls-serv")?;
    let (chain, key) = files.write("server", &files.authority.sign(&[NAME]));
    let port = free_port();
    let mut command = Command::new(program);
    command
        .args(["--echo", "--port", &port.to_string()])
        .args(["--x509certfile", text(&chain), "--x509keyfile", text(&key)])
        .args(arguments);
    Some((Program::serve(&mut command, port), port))
}

const TLS13: &str = "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.3";
const TLS12: &str = "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.2";

#[test]
fn its_client_speaks_both_versions_with_our_server_and_agrees_on_a_protocol() {
    let files = Files::new("gnutls-versions");
    let server = Server::start(files.acceptor().alpn_protocols(["echo"]));
    for (number, (version, spoken)) in [(TLS13, "TLS1.3"), (TLS12, "TLS1.2")]
        .into_iter()
        .enumerate()
    {
        let Some(mut client) = gnutls_cli(&files, &server, &[version, "--alpn", "echo"]) else {
            return;
        };
        client.hear("Handshake was completed");
        client.say("hello\n");
        let heard = client.hear("echo hello");
        for part in [
            "The certificate is trusted",
            spoken,
            "Application protocol: echo",
        ] {
            assert!(heard.contains(part), "{part}: {heard}");
        }
        client.finish();
        let ends = server.ends(number + 1);
        assert_eq!(ends[number].0, "end_of_input", "{ends:?}");
    }
}

#[test]
fn its_client_resumes_sessions_in_both_versions() {
    let files = Files::new("gnutls-resumption");
    let server = Server::start(files.acceptor());
    for version in [TLS13, TLS12] {
        let Some(mut client) =
            gnutls_cli(&files, &server, &[version, "--resume", "--waitresumption"])
        else {
            return;
        };
        client.hear("*** This is a resumed session");
        client.say("hello\n");
        client.hear("echo hello");
    }
}

#[test]
fn its_client_is_told_why_it_is_refused_and_so_are_we() {
    let files = Files::new("gnutls-refused");
    let roots = files.authority.roots();
    let acceptor = files.acceptor().alpn_protocols(["echo"]);
    let server = Server::start(acceptor.require_client_certificate(roots));
    let Some(client) = gnutls_cli(&files, &server, &["--alpn", "h2"]) else {
        return;
    };
    client.hear("No supported application protocol could be negotiated");
    let client = gnutls_cli(&files, &server, &[]).expect("it was found before");
    client.hear("Certificate is required");
    let (chain, key) = files.write("client", &files.authority.sign(&["client.test"]));
    let arguments = ["--x509certfile", text(&chain), "--x509keyfile", text(&key)];
    let mut client = gnutls_cli(&files, &server, &arguments).expect("it was found before");
    client.hear("Handshake was completed");
    client.say("hello\n");
    client.hear("echo hello");
    client.finish();
    let ends = server.ends(3);
    assert!(ends[0].1.contains("the client offers h2"), "{ends:?}");
    assert!(ends[1].1.contains("it sent none"), "{ends:?}");
    assert_eq!(ends[2].0, "end_of_input", "{ends:?}");
}

#[test]
fn our_client_speaks_both_versions_with_its_server() {
    let files = Files::new("gnutls-server");
    let connector = files.connector().alpn_protocols(["other", "echo"]).build();
    let connector = connector.expect("it is valid");
    for (version, spoken) in [(TLS13, "TLS13_"), (TLS12, "TLS_ECDHE")] {
        let Some((_server, port)) = gnutls_serv(&files, &[version, "--alpn", "echo"]) else {
            return;
        };
        let exchange = exchange(&connector, port, "hello").expect("it is answered");
        assert_eq!(exchange.answer, "hello");
        assert!(exchange.about.contains(spoken), "{}", exchange.about);
        assert!(exchange.about.ends_with(" echo"), "{}", exchange.about);
    }
}

#[test]
fn our_client_shows_its_certificate_and_hears_why_it_is_refused() {
    let files = Files::new("gnutls-server-mtls");
    let ca = files.ca();
    let arguments = [
        "--require-client-cert",
        "--verify-client-cert",
        "--x509cafile",
        text(&ca),
    ];
    let Some((_server, port)) = gnutls_serv(&files, &arguments) else {
        return;
    };
    let identity = files.authority.sign(&["client.test"]).identity();
    let connector = files.connector().client_certificate(identity).build();
    let answered = exchange(&connector.expect("it is valid"), port, "hello");
    assert_eq!(answered.expect("it is answered").answer, "hello");
    let connector = files.connector().build().expect("it is valid");
    let error = exchange(&connector, port, "hello")
        .err()
        .expect("one is required");
    assert!(
        error.contains("it sent alert certificate_required (116)"),
        "{error}"
    );
}
