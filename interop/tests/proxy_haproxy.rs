//! The PROXY protocol with haproxy: its headers to our server, and those of our connector to it.
//! curl sends one, too.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use interop::programs::{Program, find, free_port};
use protosocket::{
    Layered, LinesCodec, MessageReactor, PeerAddress, ReactorContext, ReactorStatus, SendError,
    Sender, SocketConnector, SocketListener, TcpConnector, TcpOptions, TcpSocketListener,
    Transport,
    proxy::{Addresses, Network, ProxyAcceptor, ProxyHeader, ProxySender},
};
use protosocket_server::{ProtosocketServerConfig, ServerConnection, ServerConnector};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    runtime::Runtime,
};

/// How long a test waits before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

type Listener = Layered<TcpSocketListener, ProxyAcceptor>;
type Stream = <Listener as SocketListener>::Stream;
type Headers = Arc<Mutex<Vec<Option<ProxyHeader>>>>;

/// Tells everybody who they are: `who`, or the end of the head of an HTTP request.
struct WhoAmI {
    headers: Headers,
}

struct Teller {
    peer: PeerAddress,
}

impl ServerConnector for WhoAmI {
    type Codec = LinesCodec;
    type Reactor = Teller;
    type SocketListener = Listener;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new()
    }

    fn new_reactor(&self, _: Sender<String>, stream: &Stream) -> Teller {
        lock(&self.headers).push(stream.header().cloned());
        Teller {
            peer: stream.peer_address(),
        }
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

impl MessageReactor for Teller {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> ReactorStatus {
        match message.as_str() {
            "who" => context.reply(self.peer.to_string()),
            "" => {
                let answer = ["HTTP/1.0 200 OK", "", &self.peer.to_string()];
                for line in answer {
                    // Said or not, this is the end.
                    let _ = context.reply(line.to_owned());
                }
                ReactorStatus::Disconnect
            }
            _ => ReactorStatus::Continue,
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> Result<(), SendError<String>> {
        context.send(message)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Our server, which wants a header from 127.0.0.1, in a runtime of its own.
struct Ours {
    runtime: Runtime,
    address: SocketAddr,
    headers: Headers,
}

impl Ours {
    fn start() -> Self {
        let runtime = Runtime::new().expect("there are threads");
        let _entered = runtime.enter();
        let any = "127.0.0.1:0".parse().expect("it is an address");
        let listener = TcpSocketListener::listen(any, TcpOptions::new()).expect("a port is free");
        let address = listener.local_address().expect("it is bound");
        let loopback: Network = "127.0.0.0/8".parse().expect("it is a network");
        let listener = Layered::new(listener, ProxyAcceptor::strict([loopback]));
        let headers = Headers::default();
        let connector = WhoAmI {
            headers: headers.clone(),
        };
        let server = ProtosocketServerConfig::default().build_server(listener, connector);
        runtime.spawn(server.expect("the configuration is valid"));
        drop(_entered);
        Self {
            runtime,
            address,
            headers,
        }
    }

    /// The header of the last connection for which `wanted` holds, once there is one.
    fn header(&self, wanted: impl Fn(&ProxyHeader) -> bool) -> ProxyHeader {
        let begun = Instant::now();
        loop {
            let headers = lock(&self.headers).clone();
            let found = headers.into_iter().flatten().rfind(&wanted);
            if let Some(header) = found {
                return header;
            }
            assert!(begun.elapsed() < PATIENCE, "no such header came");
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// A folder for the files of one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("haproxy-{name}"));
    fs::create_dir_all(&folder).expect("the folder is ours");
    folder
}

/// haproxy in front of ours: what is said to `bind`, and how the server is called.
fn haproxy(name: &str, ours: &Ours, bind: &str, server: &str) -> Option<(Program, SocketAddr)> {
    let program = find("haproxy")?;
    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let config = format!(
        "global\n  maxconn 100\n\
         defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n\
         listen proxy\n  bind {address} {bind}\n  unique-id-format id-%pid-%cp\n  \
         server ours {} {server}\n",
        ours.address
    );
    let file = folder(name).join("haproxy.cfg");
    fs::write(&file, config).expect("the folder is ours");
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file);
    Some((Program::serve(&mut command, port), address))
}

/// What ours says who this is, and who it is.
fn ask(address: SocketAddr) -> (String, SocketAddr) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let own = stream.local_addr().expect("it is connected");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it is a socket");
    stream.write_all(b"who\n").expect("it is read");
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .expect("it is answered");
    (line.trim_end().to_owned(), own)
}

#[test]
fn haproxy_tells_ours_its_clients_in_version_1() {
    let ours = Ours::start();
    let Some((_haproxy, address)) = haproxy("v1", &ours, "", "send-proxy") else {
        return;
    };
    let (told, own) = ask(address);
    assert_eq!(told, own.to_string());
    let header = ours.header(|header| header.client() == Some(own.into()));
    assert_eq!(header.addresses().destination(), Some(address.into()));
    assert!(header.tlvs().is_empty());
}

#[test]
fn haproxy_tells_ours_its_clients_in_version_2_with_an_id_and_a_checksum() {
    let ours = Ours::start();
    let options = "send-proxy-v2 proxy-v2-options unique-id,crc32c";
    let Some((_haproxy, address)) = haproxy("v2", &ours, "", options) else {
        return;
    };
    let (told, own) = ask(address);
    assert_eq!(told, own.to_string());
    let header = ours.header(|header| header.client() == Some(own.into()));
    assert_eq!(header.addresses().destination(), Some(address.into()));
    assert!(header.has_checksum());
    let id = String::from_utf8_lossy(header.unique_id().expect("it was sent")).into_owned();
    assert!(
        id.starts_with("id-") && id.ends_with(&format!("-{}", own.port())),
        "{id}"
    );
}

#[test]
fn haproxy_checks_the_health_of_ours_on_its_own_behalf() {
    let ours = Ours::start();
    let options = "send-proxy-v2 check inter 100ms";
    let Some((_haproxy, address)) = haproxy("check", &ours, "", options) else {
        return;
    };
    let header = ours.header(ProxyHeader::is_local);
    assert_eq!(header.client(), None);
    let (told, own) = ask(address);
    assert_eq!(told, own.to_string());
}

#[test]
fn haproxy_tells_ours_what_the_tls_of_its_clients_is_like() {
    let Some(openssl) = find("openssl") else {
        return;
    };
    let ours = Ours::start();
    let folder = folder("tls");
    let pem = folder.join("both.pem");
    let made = Command::new(&openssl)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-keyout"])
        .arg(&pem)
        .arg("-out")
        .arg(folder.join("certificate.pem"))
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("it runs").success());
    let certificate = fs::read(folder.join("certificate.pem")).expect("it was written");
    let key = fs::read(&pem).expect("it was written");
    fs::write(&pem, [key, certificate].concat()).expect("the folder is ours");

    let bind = format!("ssl crt {} alpn lines", pem.display());
    let options = "send-proxy-v2-ssl proxy-v2-options ssl,cert-cn,ssl-cipher,authority,crc32c";
    let Some((_haproxy, address)) = haproxy("tls", &ours, &bind, options) else {
        return;
    };
    let mut client = Command::new(openssl);
    client.args(["s_client", "-quiet", "-servername", "lines.example"]);
    client
        .args(["-alpn", "lines", "-connect"])
        .arg(address.to_string());
    let mut client = Program::start(&mut client);
    client.say("who\n");

    let header = ours.header(|header| header.ssl().is_some());
    let told = header.client().expect("it is an address").to_string();
    client.hear(&told);
    assert_eq!(header.authority(), Some("lines.example"));
    assert_eq!(header.alpn(), Some(&b"lines"[..]));
    let ssl = header.ssl().expect("it was sent");
    assert!(ssl.client.has(1) && !ssl.is_verified());
    assert_eq!(ssl.version(), Some("TLSv1.3"));
    assert!(
        ssl.cipher()
            .is_some_and(|cipher| cipher.starts_with("TLS_"))
    );
}

#[test]
fn haproxy_believes_what_our_connector_says() {
    let ours = Ours::start();
    let Some((_haproxy, address)) = haproxy("accept", &ours, "accept-proxy", "send-proxy-v2")
    else {
        return;
    };
    for (client, server) in [
        ("192.0.2.1:40000", "198.51.100.1:443"),
        ("[2001:db8::1]:40000", "[2001:db8::2]:443"),
    ] {
        let [client, server] = [client, server].map(|text| text.parse().expect("it is one"));
        let addresses = Addresses::tcp(client, server).expect("they are of one family");
        let header = ProxyHeader::proxy(addresses);
        for sender in [
            ProxySender::v1(&header),
            ProxySender::v2(&header),
            ProxySender::v2(&header.clone().with_checksum()),
        ] {
            let sender = sender.expect("it fits");
            let connector = Layered::new(TcpConnector::new(address), sender);
            let told = ours.runtime.block_on(async {
                let mut stream = connector.connect().await.expect("it listens");
                stream.write_all(b"who\n").await.expect("it is read");
                let mut line = String::new();
                let answer = tokio::io::BufReader::new(stream).read_line(&mut line).await;
                answer.map(|_| line).expect("it is answered")
            });
            assert_eq!(told.trim_end(), client.to_string());
            let seen = ours.header(|seen| seen.client() == Some(client.into()));
            assert_eq!(seen.addresses(), header.addresses());
        }
    }
}

#[test]
fn curl_is_told_who_it_is() {
    let Some(curl) = find("curl") else { return };
    let ours = Ours::start();
    let output = Command::new(curl)
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--haproxy-protocol",
        ])
        .args(["--noproxy", "*", "--write-out", "%{local_ip}:%{local_port}"])
        .arg(format!("http://{}/", ours.address))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let [told, own] = lines[..] else {
        panic!("not answered: {output:?}");
    };
    assert_eq!(told, own);
}
