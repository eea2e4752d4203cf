//! How a corpus writes bytes down.

use bytes::{BufMut, Bytes, BytesMut};

use super::toml_view::Value;
use crate::Random;

/// LIMIT: what one case may send, so that a slip of the pen does not eat the machine's memory.
const MOST: usize = 256 * 1024 * 1024;

/// The bytes that a value describes: one piece, or several in a row.
pub(super) fn bytes(value: Value<'_>) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    for piece in value.one_or_more() {
        put(piece, &mut bytes)?;
    }
    Ok(bytes.freeze())
}

fn put(piece: Value<'_>, bytes: &mut BytesMut) -> Result<(), String> {
    if piece.is_text() {
        bytes.put_slice(piece.text()?.as_bytes());
        return Ok(());
    }
    let table = piece.table()?;
    let hex = table.read("hex", |value| hex(value.text()?))?;
    let repeat = table.read("repeat", self::bytes)?;
    let times = table.read("times", Value::size)?;
    let garbage = table.read("garbage", Value::size)?;
    let seed = table.read("seed", Value::count)?;
    let counting = table.read("counting", Value::size)?;
    table.finish()?;
    match (hex, (repeat, times), (garbage, seed), counting) {
        (Some(hex), (None, None), (None, None), None) => bytes.put_slice(&hex),
        (None, (Some(part), Some(times)), (None, None), None) => {
            check_size(part.len().checked_mul(times))?;
            for _ in 0..times {
                bytes.put_slice(&part);
            }
        }
        (None, (None, None), (Some(count), Some(seed)), None) => {
            check_size(Some(count))?;
            bytes.put_slice(&Random::new(seed).bytes(count));
        }
        (None, (None, None), (None, None), Some(count)) => {
            check_size(Some(count))?;
            bytes.extend((0..count).map(|index| index as u8));
        }
        _ => {
            return Err(
                "a piece is a string, { hex }, { repeat, times }, { garbage, seed } or \
                 { counting }"
                    .to_owned(),
            );
        }
    }
    check_size(Some(bytes.len()))
}

fn check_size(size: Option<usize>) -> Result<(), String> {
    match size {
        Some(size) if size <= MOST => Ok(()),
        _ => Err(format!("a case sends at most {MOST} bytes")),
    }
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let pair = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        (pair.len() == 2).then(|| u8::from_str_radix(pair, 16).ok())?
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
    bytes.ok_or_else(|| format!("expected pairs of hex digits, found {text:?}"))
}
