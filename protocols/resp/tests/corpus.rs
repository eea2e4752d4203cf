//! Bad input as data: commands against decoder and server, values against decoder, a client that
//! listens and our client.

use std::{future::Future, net::SocketAddr};

use bytes::{Buf, Bytes, BytesMut};
use protosocket::{
    Backoff, EncodeError, Encoder, ReactorStatus, Reconnect, SendBuffer, TcpConnector,
};
use protosocket_resp::{
    ClientCodec, ClientConfig, Command, Connector, Handler, PipelineConfig, Reply, Request,
    RequestDecoder, Value, ValueDecoder, connect,
};
use protosocket_server::ProtosocketServerConfig;
use protosocket_testkit::{
    Exchange,
    corpus::{Case, ClientSetup, Corpus, RuleIndex, ServerSetup},
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn load(file: &str) -> Corpus {
    Corpus::load_all(FOLDER, &[file]).unwrap()
}

fn requests(case: &Case) -> RequestDecoder {
    match case.setting() {
        "stranger" => RequestDecoder::new().require_authentication(),
        _ => RequestDecoder::new(),
    }
}

fn arguments(request: &Request) -> Bytes {
    request.args().collect::<Vec<_>>().join(&b","[..]).into()
}

/// As the corpus shows a value.
fn shown(value: &Value) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let all = |values: &[Value]| values.iter().map(shown).collect::<Vec<_>>().join(" ");
    let entries = |entries: &[(Value, Value)]| {
        let entries = entries
            .iter()
            .flat_map(|(key, value)| [shown(key), shown(value)]);
        entries.collect::<Vec<_>>().join(" ")
    };
    match value {
        Value::Null => "_".into(),
        Value::Simple(bytes) => format!("+{}", text(bytes)),
        Value::Error(error) => format!("-{error}"),
        Value::Integer(number) => format!(":{number}"),
        Value::Bulk(bytes) => format!("${}", text(bytes)),
        Value::Array(items) => format!("[{}]", all(items)),
        Value::Boolean(value) => format!("#{value}"),
        Value::Double(number) => format!(",{number}"),
        Value::BigNumber(digits) => format!("({}", text(digits)),
        Value::Verbatim(kind, bytes) => {
            format!("={}:{}", String::from_utf8_lossy(kind), text(bytes))
        }
        Value::Map(map) => format!("{{{}}}", entries(map)),
        Value::Set(items) => format!("~[{}]", all(items)),
        Value::Push(items) => format!(">[{}]", all(items)),
        Value::Attributed(it) => format!("|{{{}}} {}", entries(&it.0), shown(&it.1)),
    }
}

fn decoder() -> ValueDecoder {
    ValueDecoder::new()
        .max_values(1000)
        .max_length(2 * 1024 * 1024)
}

fn values(_: &Case) -> ClientCodec {
    ClientCodec::new(decoder())
}

/// Says nothing: a decoder alone.
struct Mute;

impl Encoder for Mute {
    type Message = Bytes;

    fn encode(&mut self, message: Bytes, output: &mut SendBuffer) -> Result<(), EncodeError> {
        output.put_bytes(message);
        Ok(())
    }
}

/// Answers with its arguments, whoever asks, as long as they say so.
struct Echo;

impl Handler for Echo {
    fn call(&mut self, request: &Request, reply: &mut Reply<'_>) -> ReactorStatus {
        reply.payload(arguments(request));
        ReactorStatus::Continue
    }

    fn authenticate(&mut self, _user: &[u8], _password: &[u8]) -> bool {
        true
    }
}

/// Says who it is, whether the server asks or not, and asks it to echo numbers.
struct Numbers;

impl Exchange for Numbers {
    fn request(&mut self, sequence: u64) -> Bytes {
        format!("AUTH canary\r\n*1\r\n$20\r\n{sequence:020}\r\n").into()
    }

    fn response(&mut self, unread: &mut BytesMut) -> Result<Option<u64>, String> {
        // Either +OK, or an error that nobody asks.
        let authenticated = unread.iter().position(|&byte| byte == b'\n');
        let Some(start) = authenticated.map(|end| end + 1) else {
            return Ok(None);
        };
        if unread.len() < start + 27 {
            return Ok(None);
        }
        unread.advance(start);
        let mut response = unread.split_to(27);
        response.advance(5);
        let text = String::from_utf8_lossy(&response[..20]).into_owned();
        text.parse().map(Some).map_err(|_| format!("got {text:?}"))
    }
}

fn serve(setup: ServerSetup) -> (SocketAddr, impl Future<Output = ()>) {
    let connector = Connector::new(|_, _| Echo).decoder(requests(&setup.case));
    let server = ProtosocketServerConfig::default()
        .limits(setup.limits)
        .observer(setup.observer)
        .bind_tcp(([127, 0, 0, 1], 0).into(), connector)
        .expect("a port is free");
    let listener = server.listener().expect("it listens");
    let address = listener.local_address().expect("it is bound");
    (address, async move {
        server.await;
    })
}

/// Asks, and waits for as long as the connection lives.
async fn ask(setup: ClientSetup) {
    let pipeline = PipelineConfig::new().connection(setup.config).unwrap();
    let config = ClientConfig::new().pipeline(pipeline).decoder(decoder());
    let reconnect = Reconnect::new(TcpConnector::new(setup.address), Backoff::new()).unwrap();
    let (client, _pushes, driver) = connect(reconnect, &config);
    let driver = tokio::task::spawn_local(driver);
    let _ = client.call(Command::new("GET").arg("key")).await;
    let _ = driver.await;
}

#[test]
fn requests_against_a_decoder() {
    let report = load("requests").run_decoder(|case| (Mute, requests(case)), arguments);
    report.expect_all();
}

#[test]
fn requests_against_a_server() {
    load("requests").run_server(|| Numbers, serve).expect_all();
}

#[test]
fn values_against_a_decoder() {
    let report = load("values").run_decoder(values, |value| shown(value).into());
    report.expect_all();
}

#[test]
fn values_against_a_client_that_listens() {
    let report = load("values").run_codec_client(values, |value| shown(value).into());
    report.expect_all();
}

#[test]
fn replies_against_our_client() {
    load("replies").run_client(ask).expect_all();
}

#[test]
fn every_rule_is_proven_where_it_applies() {
    let corpus = Corpus::load_all(FOLDER, &["requests", "values", "replies"]).unwrap();
    let index = RuleIndex::load(format!("{FOLDER}/rules.toml"), corpus.cases()).unwrap();
    let rules = ["R1", "R2", "R3", "R4", "R5", "R6", "R7"];
    assert_eq!(index.gaps(ROOT, &rules), [""; 0], "{index}");
}
