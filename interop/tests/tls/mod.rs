//! What the tests of TLS with foreign programs share: a server and a client of ours, and files
//! with certificates for the others.

#![expect(dead_code, reason = "each test uses a part of it")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protosocket::{
    Layered, LinesCodec, MessageReactor, ReactorContext, ReactorStatus, SendError, Sender,
    SocketConnector, StreamWithAddress, TcpConnector, TcpOptions, TcpSocketListener,
};
use protosocket_server::{ProtosocketServerConfig, ServerConnection, ServerConnector};
use protosocket_testkit::Recorder;
use protosocket_tls::{Acceptor, AcceptorBuilder, Connector, ConnectorBuilder, TlsStream, ring};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};

#[path = "../../../protocols/tls/tests/tls/pki.rs"]
pub(crate) mod pki;

use pki::{Authority, Signed};

/// The name that servers have here.
pub(crate) const NAME: &str = "server.test";

/// An authority, and a folder for what it has signed, removed with its test.
pub(crate) struct Files {
    pub(crate) authority: Authority,
    folder: PathBuf,
}

impl Files {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("protosocket-interop-{}-{test}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
        let files = Self {
            authority: Authority::new(),
            folder,
        };
        fs::write(files.path("ca.pem"), files.authority.pem()).expect("it is writable");
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The certificate of the authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Write a certificate and its key, and give their paths.
    pub(crate) fn write(&self, name: &str, signed: &Signed) -> (PathBuf, PathBuf) {
        let (chain, key) = (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        );
        fs::write(&chain, &signed.chain_pem).expect("it is writable");
        fs::write(&key, &signed.key_pem).expect("it is writable");
        (chain, key)
    }

    /// A server with a certificate for [`NAME`], to be changed.
    pub(crate) fn acceptor(&self) -> AcceptorBuilder {
        Acceptor::builder(ring()).certificate(self.authority.sign(&[NAME]).identity())
    }

    /// A client that trusts the authority, to be changed.
    pub(crate) fn connector(&self) -> ConnectorBuilder {
        let connector = Connector::builder(ring()).server_name(NAME);
        connector.roots(self.authority.roots())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A server of ours in a runtime of its own: it echoes lines, and answers the end of a head of
/// HTTP with a page.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) record: Arc<Recorder>,
    runtime: Runtime,
}

type Listener = Layered<TcpSocketListener, Acceptor>;
type Stream = TlsStream<StreamWithAddress<TcpStream>>;

impl Server {
    pub(crate) fn start(acceptor: AcceptorBuilder) -> Self {
        let acceptor = acceptor.build().expect("it is valid");
        let runtime = Runtime::new().expect("there are threads");
        let entered = runtime.enter();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpSocketListener::listen(any, TcpOptions::new()).expect("a port is free");
        let address = listener.local_address().expect("it is bound");
        let record = Arc::new(Recorder::new());
        let server = ProtosocketServerConfig::default()
            .observer(record.clone())
            .build_server(Layered::new(listener, acceptor), Echoes)
            .expect("the configuration is valid");
        tokio::spawn(server);
        drop(entered);
        Self {
            address,
            record,
            runtime,
        }
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// Wait until so many connections have ended or were refused, and tell how.
    pub(crate) fn ends(&self, count: usize) -> Vec<(String, String)> {
        self.runtime.block_on(async {
            let ended = self.record.until_ended(count);
            let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
            ended.expect("they take too long");
        });
        let endings = self.record.endings().into_iter();
        endings.map(|ending| (ending.end, ending.text)).collect()
    }
}

struct Echoes;

impl ServerConnector for Echoes {
    type Codec = LinesCodec;
    type Reactor = Echo;
    type SocketListener = Listener;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new()
    }

    fn new_reactor(&self, _: Sender<String>, stream: &Stream) -> Echo {
        Echo {
            about: format!("{stream:?}"),
        }
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

struct Echo {
    about: String,
}

impl MessageReactor for Echo {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        line: String,
    ) -> ReactorStatus {
        match &*line {
            // The end of the head of a request.
            "" => {
                for line in ["HTTP/1.0 200 OK", "", &self.about] {
                    let _ = context.reply(line.to_owned());
                }
                ReactorStatus::Disconnect
            }
            line if line.starts_with("GET /") || line.contains(": ") => ReactorStatus::Continue,
            line => context.reply(format!("echo {line}")),
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        line: String,
    ) -> Result<(), SendError<String>> {
        context.send(line)
    }
}

/// What a client of ours finds: the stream for as long as it lives, and what was answered.
pub(crate) struct Exchange {
    pub(crate) answer: String,
    pub(crate) about: String,
}

/// Connect a client of ours, say a line, hear one, and end in order.
pub(crate) fn exchange(connector: &Connector, port: u16, line: &str) -> Result<Exchange, String> {
    let runtime = Runtime::new().expect("there are threads");
    let exchange = async {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let connector = Layered::new(TcpConnector::new(address), connector.clone());
        let mut stream = connector
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        let text = |error: std::io::Error| error.to_string();
        stream
            .write_all(format!("{line}\n").as_bytes())
            .await
            .map_err(text)?;
        stream.flush().await.map_err(text)?;
        let mut answer = Vec::new();
        while !answer.contains(&b'\n') {
            if stream.read_buf(&mut answer).await.map_err(text)? == 0 {
                return Err("an end in order".to_owned());
            }
        }
        stream.shutdown().await.map_err(text)?;
        let alpn = stream.alpn_protocol().unwrap_or_default();
        Ok(Exchange {
            answer: String::from_utf8_lossy(&answer).trim().to_owned(),
            about: format!("{stream:?} {}", alpn.escape_ascii()),
        })
    };
    runtime.block_on(async {
        let exchange = tokio::time::timeout(Duration::from_secs(30), exchange).await;
        exchange.expect("it takes too long")
    })
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}
