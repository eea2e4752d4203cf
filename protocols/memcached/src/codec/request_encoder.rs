use protosocket::{EncodeError, Encoder, SendBuffer};

use super::line::{put_number, put_signed};
use crate::data::{Arithmetic, Key, Request, Retrieve, Store, StoreMode};

/// What a client says.
///
/// Keys were checked when they were made, and everything else is numbers and bytes that are counted,
/// so nothing that a user gives becomes a command.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestEncoder;

impl Encoder for RequestEncoder {
    type Message = Request;

    /// # Errors
    /// The caller is to blame: a retrieval without keys, or a group of `stats` that is no words.
    fn encode(&mut self, request: Request, output: &mut SendBuffer) -> Result<(), EncodeError> {
        let noreply = request.is_noreply() && !matches!(request, Request::Quit);
        match request {
            Request::Retrieve(request) => return retrieve(request, output),
            Request::Store(request) => {
                store(request, output);
                return Ok(());
            }
            Request::Delete { key, .. } => put_verb(output, b"delete", &key),
            Request::Arithmetic {
                key,
                operation,
                delta,
                ..
            } => {
                let verb = match operation {
                    Arithmetic::Increment => b"incr",
                    Arithmetic::Decrement => b"decr",
                };
                put_verb(output, verb, &key);
                output.put_u8(b' ');
                put_number(output, delta);
            }
            Request::Touch {
                key, expiration, ..
            } => {
                put_verb(output, b"touch", &key);
                output.put_u8(b' ');
                put_signed(output, expiration.to_wire());
            }
            Request::FlushAll { when, .. } => {
                output.put_slice(b"flush_all");
                if let Some(when) = when {
                    output.put_u8(b' ');
                    put_signed(output, when.to_wire());
                }
            }
            Request::Version => output.put_slice(b"version"),
            Request::Verbosity { level, .. } => {
                output.put_slice(b"verbosity ");
                put_number(output, level.into());
            }
            Request::Stats { group: None } => output.put_slice(b"stats"),
            Request::Stats { group: Some(group) } => {
                if group.trim_ascii().is_empty() || group.iter().any(u8::is_ascii_control) {
                    return Err(EncodeError::invalid(
                        "a group of statistics is words without control characters",
                    ));
                }
                output.put_slice(b"stats ");
                output.put_slice(&group);
            }
            Request::Quit => output.put_slice(b"quit"),
        }
        if noreply {
            output.put_slice(b" noreply");
        }
        output.put_slice(b"\r\n");
        Ok(())
    }
}

fn retrieve(request: Retrieve, output: &mut SendBuffer) -> Result<(), EncodeError> {
    if request.keys.is_empty() {
        return Err(EncodeError::invalid("a retrieval needs a key"));
    }
    match (request.touch, request.with_cas) {
        (None, false) => output.put_slice(b"get "),
        (None, true) => output.put_slice(b"gets "),
        (Some(expiration), with_cas) => {
            output.put_slice(if with_cas { b"gats " } else { b"gat " });
            put_signed(output, expiration.to_wire());
            output.put_u8(b' ');
        }
    }
    output.put_slice(request.keys.text());
    output.put_slice(b"\r\n");
    Ok(())
}

fn store(request: Store, output: &mut SendBuffer) {
    put_verb(output, request.mode.verb(), &request.key);
    output.put_u8(b' ');
    put_number(output, request.flags.into());
    output.put_u8(b' ');
    put_signed(output, request.expiration.to_wire());
    output.put_u8(b' ');
    put_number(output, request.value.len() as u64);
    if let StoreMode::Cas(unique) = request.mode {
        output.put_u8(b' ');
        put_number(output, unique);
    }
    if request.noreply {
        output.put_slice(b" noreply");
    }
    output.put_slice(b"\r\n");
    output.put_bytes(request.value);
    output.put_slice(b"\r\n");
}

fn put_verb(output: &mut SendBuffer, verb: &[u8], key: &Key) {
    output.put_slice(verb);
    output.put_u8(b' ');
    output.put_slice(key.as_slice());
}
