//! The corpus, at each level at which it makes sense.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use protosocket::{EncodeError, Encoder, ReactorStatus, SendBuffer};
use protosocket_resp::{
    ClientCodec, Connector, Handler, Reply, Request, RequestDecoder, Value, ValueDecoder,
};
use protosocket_server::ProtosocketServerConfig;
use protosocket_testkit::{
    Exchange,
    corpus::{Case, Corpus},
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

fn corpus(name: &str) -> Corpus {
    Corpus::load_all(FOLDER, &[name]).unwrap()
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

fn values(_: &Case) -> ClientCodec {
    ClientCodec::new(
        ValueDecoder::new()
            .max_values(1000)
            .max_length(2 * 1024 * 1024),
    )
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

/// Answers with its arguments.
struct Echo;

impl Handler for Echo {
    fn call(&mut self, request: &Request, reply: &mut Reply<'_>) -> ReactorStatus {
        reply.payload(arguments(request));
        ReactorStatus::Continue
    }
}

/// Asks a server that echoes for numbers.
struct Numbers;

impl Exchange for Numbers {
    fn request(&mut self, sequence: u64) -> Bytes {
        format!("*1\r\n$20\r\n{sequence:020}\r\n").into()
    }

    fn response(&mut self, unread: &mut BytesMut) -> Result<Option<u64>, String> {
        if unread.len() < 27 {
            return Ok(None);
        }
        let mut response = unread.split_to(27);
        response.advance(5);
        let text = String::from_utf8_lossy(&response[..20]).into_owned();
        text.parse().map(Some).map_err(|_| format!("got {text:?}"))
    }
}

#[test]
fn the_corpus_of_requests_against_a_decoder() {
    let report = corpus("requests").run_decoder(|case| (Mute, requests(case)), arguments);
    report.expect_all();
}

#[test]
fn the_corpus_of_requests_against_a_server() {
    // A stranger is served nothing, the canary included.
    let corpus = corpus("requests").only(|case| case.setting() != "stranger");
    let report = corpus.run_server(
        || Numbers,
        |setup| {
            let decoder = requests(&setup.case);
            let server = ProtosocketServerConfig::default()
                .limits(setup.limits)
                .observer(setup.observer)
                .bind_tcp(
                    SocketAddr::from(([127, 0, 0, 1], 0)),
                    Connector::new(|_, _| Echo).decoder(decoder),
                )
                .expect("a port is free");
            let listener = server.listener().expect("it listens");
            (listener.local_address().expect("it is bound"), server)
        },
    );
    report.expect_all();
}

#[test]
fn the_corpus_of_values_against_a_decoder() {
    let report = corpus("values").run_decoder(values, |value| shown(value).into());
    report.expect_all();
}

#[test]
fn the_corpus_of_values_against_a_client() {
    let report = corpus("values").run_codec_client(values, |value| shown(value).into());
    report.expect_all();
}
