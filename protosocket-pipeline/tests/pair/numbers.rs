//! The protocol of these tests: lines that are answered with themselves.

use protosocket::{EncodeError, LinesCodec, SendBuffer};
use protosocket_pipeline::{Expect, Protocol, Received};

/// Lines. The reply to a request is the request; one that begins with `quiet` has none.
pub(crate) struct Echoes;

impl Protocol for Echoes {
    type Request = String;
    type Reply = String;
    type Expected = String;
    type Decoder = LinesCodec;

    fn decoder(&mut self) -> LinesCodec {
        LinesCodec::new()
    }

    fn encode(&mut self, request: &String, output: &mut SendBuffer) -> Result<(), EncodeError> {
        output.put_slice(request.as_bytes());
        output.put_slice(b"\n");
        Ok(())
    }

    fn expect(&mut self, request: &String) -> Expect<Self> {
        match request.starts_with("quiet") {
            true => Expect::Nothing(request.clone()),
            false => Expect::Reply(request.clone()),
        }
    }

    fn receive(&mut self, expected: Option<&mut String>, line: String) -> Received<String> {
        match expected {
            Some(expected) if *expected != line => {
                Received::Unexpected(format!("{line} for {expected}").into())
            }
            _ => Received::Reply(line),
        }
    }
}
