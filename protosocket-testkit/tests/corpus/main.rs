//! The corpus of what is here without any protocol: transport, framework, ready-made codecs.

mod echo;
mod faulty;
mod format;
mod index;
mod memory;
mod runners;
mod sockets;
mod transport;

use bytes::{Bytes, BytesMut};
use protosocket::{LengthDelimitedCodec, LinesCodec, U32, Varint};
use protosocket_testkit::{
    Exchange, FramedEcho, LineEcho,
    corpus::{Case, Corpus},
};

#[global_allocator]
static ALLOCATOR: &protosocket_testkit::CountingAllocator =
    &protosocket_testkit::INSTRUMENTED_SYSTEM;

/// Where the files are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

fn corpus(name: &str) -> Corpus {
    Corpus::load_all(FOLDER, &[name]).unwrap()
}

fn lines(_case: &Case) -> LinesCodec {
    LinesCodec::new().max_length(64)
}

#[expect(clippy::ptr_arg, reason = "a runner gives a reference to a message")]
fn line(message: &String) -> Bytes {
    message.clone().into()
}

fn length_u32(case: &Case) -> LengthDelimitedCodec<U32> {
    match case.setting() {
        "short" => LengthDelimitedCodec::new().max_length(1000),
        _ => LengthDelimitedCodec::new(),
    }
}

fn length_varint(case: &Case) -> LengthDelimitedCodec<Varint> {
    match case.setting() {
        "short" => LengthDelimitedCodec::new().max_length(1000),
        _ => LengthDelimitedCodec::new(),
    }
}

/// The exchange with a server that echoes payloads behind a varint of length.
#[derive(Debug, Clone, Copy)]
struct VarintEcho;

impl Exchange for VarintEcho {
    fn request(&mut self, sequence: u64) -> Bytes {
        [&[8][..], &sequence.to_be_bytes()].concat().into()
    }

    fn response(&mut self, unread: &mut BytesMut) -> Result<Option<u64>, String> {
        if unread.len() < 9 {
            return Ok(None);
        }
        let response = unread.split_to(9);
        match response.split_first_chunk() {
            Some((&[8], number)) => {
                let number = number.try_into().map(u64::from_be_bytes);
                number.map(Some).map_err(|error| error.to_string())
            }
            _ => Err(format!("expected eight bytes, got {response:?}")),
        }
    }
}

#[test]
fn lines_decoder() {
    corpus("lines").run_decoder(lines, line).expect_all();
}

#[test]
fn lines_server() {
    let report = corpus("lines").run_server(|| LineEcho, |setup| echo::serve(setup, lines));
    report.expect_all();
}

#[test]
fn lines_client() {
    corpus("lines").run_codec_client(lines, line).expect_all();
}

#[test]
fn length_u32_decoder() {
    let report = corpus("length_u32").run_decoder(length_u32, Bytes::clone);
    report.expect_all();
}

#[test]
fn length_u32_server() {
    let report = corpus("length_u32")
        .run_server(FramedEcho::default, |setup| echo::serve(setup, length_u32));
    report.expect_all();
}

#[test]
fn length_u32_client() {
    let report = corpus("length_u32").run_codec_client(length_u32, Bytes::clone);
    report.expect_all();
}

#[test]
fn length_varint_decoder() {
    let report = corpus("length_varint").run_decoder(length_varint, Bytes::clone);
    report.expect_all();
}

#[test]
fn length_varint_server() {
    let report = corpus("length_varint")
        .run_server(|| VarintEcho, |setup| echo::serve(setup, length_varint));
    report.expect_all();
}

#[test]
fn length_varint_client() {
    let report = corpus("length_varint").run_codec_client(length_varint, Bytes::clone);
    report.expect_all();
}

#[test]
fn framework_decoder() {
    let report = corpus("framework").run_decoder(|_| faulty::Faulty, line);
    report.expect_all();
}

#[test]
fn framework_server() {
    let report =
        corpus("framework").run_server(|| LineEcho, |setup| echo::serve(setup, |_| faulty::Faulty));
    report.expect_all();
}

#[test]
fn framework_client() {
    let report = corpus("framework").run_client(|setup| echo::connect(setup, faulty::Faulty));
    report.expect_all();
}

#[test]
fn transport_server() {
    let report = corpus("transport").run_server(|| LineEcho, transport::serve);
    report.expect_all();
}

#[test]
fn transport_client() {
    corpus("transport")
        .run_client(transport::connect)
        .expect_all();
}
