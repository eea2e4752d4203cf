//! curl with our server, and what Wireshark makes of it with our key log.

mod tls;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use interop::programs::{Program, find};
use tls::{Files, NAME, Server, text};

/// `curl` for a page of `server`, on a port that may be another's.
fn curl(files: &Files, port: &str, arguments: &[&str]) -> Option<Program> {
    let mut command = Command::new(find("curl")?);
    command
        .args(["--silent", "--show-error", "--noproxy", "*"])
        .args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")])
        .args(["--cacert", text(&files.ca())])
        .args(arguments);
    Some(Program::start(&mut command))
}

#[test]
fn it_fetches_a_page_in_both_versions() {
    let files = Files::new("curl");
    let server = Server::start(files.acceptor().alpn_protocols(["http/1.1"]));
    let port = server.port();
    let url = format!("https://{NAME}:{port}/");
    for (arguments, spoken) in [
        (["--tlsv1.3", "--tls-max", "1.3", &url], "TLS13_"),
        (["--tlsv1.2", "--tls-max", "1.2", &url], "TLS_ECDHE_"),
    ] {
        let Some(curl) = curl(&files, &port, &arguments) else {
            return;
        };
        let page = curl.finish();
        assert!(page.contains(spoken) && page.contains(NAME), "{page}");
    }
    let ends = server.ends(2);
    assert!(ends.iter().all(|end| end.0 == "disconnect"), "{ends:?}");
}

#[test]
fn l6_plain_http_and_clients_that_do_not_trust_us_are_told_apart() {
    let files = Files::new("curl-refused");
    let server = Server::start(files.acceptor());
    let port = server.port();
    let Some(plain) = curl(&files, &port, &[&format!("http://{NAME}:{port}/")]) else {
        return;
    };
    plain.finish();
    let ends = server.ends(1);
    assert!(ends[0].1.contains("looks like HTTP"), "{ends:?}");
    let stranger = Files::new("curl-stranger");
    let stranger = curl(&stranger, &port, &[&format!("https://{NAME}:{port}/")]);
    let said = stranger.expect("it was found before").finish();
    assert!(said.contains("certificate"), "{said}");
    let ends = server.ends(2);
    assert!(
        ends[1].1.contains("it sent alert unknown_ca (48)"),
        "{ends:?}"
    );
}

#[test]
fn tshark_reads_what_was_captured_with_our_key_log() {
    let Some(tshark) = find("tshark") else { return };
    let files = Files::new("tshark");
    for version in ["1.3", "1.2"] {
        let keys = files.path(&format!("keys-{version}"));
        let server = Server::start(files.acceptor().key_log(&keys));
        let tap = Tap::new(server.address);
        let port = tap.address.port().to_string();
        let url = format!("https://{NAME}:{port}/");
        let Some(curl) = curl(&files, &port, &["--tls-max", version, &url]) else {
            return;
        };
        let page = curl.finish();
        assert!(page.contains(NAME), "{page}");
        server.ends(1);
        let capture = files.path("capture.pcap");
        fs::write(&capture, tap.capture()).expect("it is writable");
        let mut command = Command::new(&tshark);
        command
            .args(["-r", text(&capture), "-d", "tcp.port==443,tls"])
            .args(["-o", &format!("tls.keylog_file:{}", text(&keys))])
            .args(["-q", "-z", "follow,tls,ascii,0"]);
        let read = Program::start(&mut command).finish();
        for part in ["GET / HTTP/1.1", "HTTP/1.0 200 OK"] {
            assert!(read.contains(part), "{version}: {part}: {read}");
        }
    }
}

/// Stands between a client and a server, and keeps what they say as a capture would.
struct Tap {
    address: SocketAddr,
    said: Arc<Mutex<Said>>,
}

/// Bytes in the order of their coming, and whether they are the client's.
type Said = Vec<(bool, Vec<u8>)>;

impl Tap {
    /// Between one client and the server at `to`.
    fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let said = Arc::new(Mutex::new(Said::new()));
        let kept = said.clone();
        thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client comes");
            let server = TcpStream::connect(to).expect("it listens");
            let copy = |mut from: TcpStream, mut to: TcpStream, is_client: bool| {
                let kept = kept.clone();
                thread::spawn(move || {
                    let mut buffer = [0; 1400];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        let bytes = buffer[..count].to_vec();
                        kept.lock().expect("nobody panics").push((is_client, bytes));
                        if to.write_all(&buffer[..count]).is_err() {
                            return;
                        }
                    }
                    // The other side may have ended first.
                    let _ = to.shutdown(Shutdown::Write);
                });
            };
            let (c, s) = (client.try_clone(), server.try_clone());
            copy(c.expect("it is open"), s.expect("it is open"), true);
            copy(server, client, false);
        });
        Self { address, said }
    }

    /// What was said, as the file of a capture: IPv4 packets (link type 101), one after the other.
    fn capture(&self) -> Vec<u8> {
        let mut file = Vec::new();
        for number in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 101_u32] {
            file.extend(number.to_le_bytes());
        }
        let mut sequence = [1_u32, 1];
        let mut packet = |is_client: bool, flags: u8, bytes: &[u8], time: u32| {
            let (mine, other) = match is_client {
                true => (0, 1),
                false => (1, 0),
            };
            let (from, to) = match is_client {
                true => (50_000_u16, 443_u16),
                false => (443, 50_000),
            };
            let length = (40 + bytes.len()) as u32;
            for number in [time, 0, length, length] {
                file.extend(number.to_le_bytes());
            }
            file.extend([0x45, 0]);
            file.extend((length as u16).to_be_bytes());
            file.extend([0, 0, 0, 0, 64, 6, 0, 0]);
            file.extend([127, 0, 0, 1, 127, 0, 0, 1]);
            file.extend(from.to_be_bytes());
            file.extend(to.to_be_bytes());
            file.extend(sequence[mine].to_be_bytes());
            file.extend(sequence[other].to_be_bytes());
            file.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            file.extend(bytes);
            sequence[mine] += bytes.len() as u32 + u32::from(flags & SYN != 0);
        };
        packet(true, SYN, b"", 0);
        packet(false, SYN | ACK, b"", 0);
        let said = self.said.lock().expect("nobody panics");
        for (time, (is_client, bytes)) in said.iter().enumerate() {
            packet(*is_client, ACK | PUSH, bytes, time as u32);
        }
        file
    }
}

const SYN: u8 = 0x02;
const PUSH: u8 = 0x08;
const ACK: u8 = 0x10;
