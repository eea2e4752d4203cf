//! Bad input as data: requests against decoder and server, responses against decoder and client.

use std::{future::Future, net::SocketAddr, time::SystemTime};

use bytes::{Bytes, BytesMut};
use protosocket::{Backoff, Encoder, Reconnect, SendBuffer, TcpConnector};
use protosocket_memcached::{
    Client, ClientCodec, ErrorReply, Refused, Request, RequestDecoder, RequestEncoder, Response,
    ResponseEncoder, ServerCodec, client::PipelineConfig, server::Connector,
};
use protosocket_server::ProtosocketServerConfig;
use protosocket_testkit::{
    Exchange,
    corpus::{Case, ClientSetup, Corpus, RuleIndex, ServerSetup},
};

#[path = "../examples/server/memory.rs"]
mod memory;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn load(file: &str) -> Corpus {
    Corpus::load_all(FOLDER, &[file]).unwrap()
}

fn decoder(case: &Case) -> RequestDecoder {
    match case.setting() {
        "small" => RequestDecoder::new()
            .max_value(100)
            .max_skipped(1000)
            .max_retrieval_line(4096),
        _ => RequestDecoder::new(),
    }
}

fn server_codec(case: &Case) -> ServerCodec {
    (ResponseEncoder, decoder(case))
}

fn encoded<E: Encoder>(mut encoder: E, message: E::Message) -> Bytes {
    let mut output = SendBuffer::new();
    output.encode(&mut encoder, message).unwrap();
    // None of them is large enough for a segment of its own.
    output.contiguous().clone().into()
}

fn describe_request(message: &Result<Request, Refused>) -> Bytes {
    let refused = match message {
        Ok(request) => return encoded(RequestEncoder, request.clone()),
        Err(refused) => refused,
    };
    let kind = match refused.error {
        ErrorReply::Unknown => "ERROR",
        ErrorReply::Client(_) => "CLIENT_ERROR",
        ErrorReply::Server(_) => "SERVER_ERROR",
    };
    let noreply = if refused.noreply { " noreply" } else { "" };
    format!("{kind}{noreply}").into()
}

fn describe_response(response: &Response) -> Bytes {
    encoded(ResponseEncoder, response.clone())
}

#[test]
fn requests_against_a_decoder() {
    let report = load("requests").run_decoder(server_codec, describe_request);
    report.expect_all();
}

#[test]
fn requests_against_a_server() {
    load("requests").run_server(|| Canary, serve).expect_all();
}

#[test]
fn responses_against_a_decoder() {
    let report = load("responses").run_decoder(|_| ClientCodec::default(), describe_response);
    report.expect_all();
}

#[test]
fn responses_against_a_client_that_listens() {
    let report = load("responses").run_codec_client(|_| ClientCodec::default(), describe_response);
    report.expect_all();
}

#[test]
fn answers_against_our_client() {
    load("answers").run_client(ask).expect_all();
}

#[test]
fn every_rule_is_proven_where_it_applies() {
    let corpus = Corpus::load_all(FOLDER, &["requests", "responses", "answers"]).unwrap();
    let index = RuleIndex::load(format!("{FOLDER}/rules.toml"), corpus.cases()).unwrap();
    let rules = ["C1", "C2", "C3", "C4", "C5", "C6", "C7"];
    assert_eq!(index.gaps(ROOT, &rules), [""; 0], "{index}");
}

fn serve(setup: ServerSetup) -> (SocketAddr, impl Future<Output = ()>) {
    let cache = memory::Memory::new(64 << 20, SystemTime::now);
    let connector = Connector::new(move |_| cache.clone()).decoder(decoder(&setup.case));
    let config = ProtosocketServerConfig::default()
        .limits(setup.limits)
        .observer(setup.observer);
    let server = config.bind_tcp(([127, 0, 0, 1], 0).into(), connector);
    let server = server.expect("a port is free");
    let listener = server.listener().expect("it is bound");
    let address = listener.local_address().expect("it is bound");
    (address, async move {
        server.await;
    })
}

/// Asks what its case says, and waits for as long as the connection lives.
async fn ask(setup: ClientSetup) {
    let config = PipelineConfig::new().connection(setup.config).unwrap();
    let connector = TcpConnector::new(setup.address);
    let reconnect = Reconnect::new(connector, Backoff::default()).unwrap();
    let (client, driver) = Client::connect(reconnect, &config);
    let driver = tokio::task::spawn_local(driver);
    match setup.case.setting() {
        "get" => drop(client.get("a").await),
        "set" => drop(client.set("a", "x").await),
        "stats" => drop(client.stats(None).await),
        _ => {}
    }
    let _ = driver.await;
    drop(client);
}

/// Stores its number as the flags of an item, and reads it back.
struct Canary;

impl Exchange for Canary {
    fn request(&mut self, sequence: u64) -> Bytes {
        format!("set canary {sequence} 0 0 noreply\r\n\r\nget canary\r\n").into()
    }

    fn response(&mut self, unread: &mut BytesMut) -> Result<Option<u64>, String> {
        let end = b" 0\r\n\r\nEND\r\n";
        let Some(at) = unread.windows(end.len()).position(|part| part == end) else {
            return Ok(None);
        };
        let response = unread.split_to(at + end.len());
        let text = String::from_utf8_lossy(&response[..at]);
        let number = text.strip_prefix("VALUE canary ");
        let number = number.and_then(|number| number.parse().ok());
        number
            .map(Some)
            .ok_or_else(|| format!("expected its item, got {text:?}"))
    }
}
