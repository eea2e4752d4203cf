use protosocket::{EncodeError, Encoder, SendBuffer};

use super::line::{put_number, without_blank, without_control};
use crate::data::{ErrorReply, Response, Value};

/// What a server says.
///
/// What a server puts into words is its own, so control characters in it become blanks: a line stays
/// one.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseEncoder;

impl Encoder for ResponseEncoder {
    type Message = Response;

    #[inline]
    fn encode(&mut self, response: Response, output: &mut SendBuffer) -> Result<(), EncodeError> {
        match response {
            Response::Value(value) => put_value(output, value),
            Response::End => output.put_slice(b"END\r\n"),
            Response::Stored => output.put_slice(b"STORED\r\n"),
            Response::NotStored => output.put_slice(b"NOT_STORED\r\n"),
            Response::Exists => output.put_slice(b"EXISTS\r\n"),
            Response::NotFound => output.put_slice(b"NOT_FOUND\r\n"),
            Response::Deleted => output.put_slice(b"DELETED\r\n"),
            Response::Touched => output.put_slice(b"TOUCHED\r\n"),
            Response::Ok => output.put_slice(b"OK\r\n"),
            Response::Reset => output.put_slice(b"RESET\r\n"),
            Response::Number(number) => {
                put_number(output, number);
                output.put_slice(b"\r\n");
            }
            Response::Stat { name, value } => {
                output.put_slice(b"STAT ");
                let name = name.iter().copied().map(without_blank);
                output.contiguous().extend(name);
                output.put_u8(b' ');
                put_text(output, &value);
            }
            Response::Version(version) => {
                output.put_slice(b"VERSION ");
                put_text(output, &version);
            }
            Response::Error(ErrorReply::Unknown) => output.put_slice(b"ERROR\r\n"),
            Response::Error(ErrorReply::Client(what)) => {
                output.put_slice(b"CLIENT_ERROR ");
                put_text(output, what.as_bytes());
            }
            Response::Error(ErrorReply::Server(what)) => {
                output.put_slice(b"SERVER_ERROR ");
                put_text(output, what.as_bytes());
            }
        }
        Ok(())
    }
}

fn put_value(output: &mut SendBuffer, value: Value) {
    output.put_slice(b"VALUE ");
    output.put_slice(value.key.as_slice());
    output.put_u8(b' ');
    put_number(output, value.flags.into());
    output.put_u8(b' ');
    put_number(output, value.value.len() as u64);
    if let Some(unique) = value.cas {
        output.put_u8(b' ');
        put_number(output, unique);
    }
    output.put_slice(b"\r\n");
    output.put_bytes(value.value);
    output.put_slice(b"\r\n");
}

/// The rest of a line.
fn put_text(output: &mut SendBuffer, text: &[u8]) {
    let text = text.iter().copied().map(without_control);
    output.contiguous().extend(text);
    output.put_slice(b"\r\n");
}
