//! Commands as people type them: words between blanks, with quotes as a shell has them.

use protosocket::DecodeError;

use crate::{Request, data::write_header};

/// The words of a line as a command, or `None` if there is no word.
pub(super) fn words(line: &[u8]) -> Result<Option<Request>, DecodeError> {
    let mut bytes = Vec::new();
    let mut count = 0;
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let mut word = Vec::new();
        rest = next_word(rest, &mut word)?;
        if count == 0 {
            refuse_http(&word)?;
        }
        write_header(&mut bytes, b'$', word.len());
        bytes.extend_from_slice(&word);
        bytes.extend_from_slice(b"\r\n");
        count += 1;
        rest = rest.trim_ascii_start();
    }
    Ok((count > 0).then(|| Request::new(bytes.into(), 0, count)))
}

/// Append the word that `line` begins with to `word`. Returns what is behind it.
fn next_word<'a>(line: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], DecodeError> {
    let mut rest = line;
    loop {
        rest = match rest {
            [] => return Ok(rest),
            [blank, ..] if blank.is_ascii_whitespace() => return Ok(rest),
            [quote @ (b'"' | b'\''), quoted @ ..] => {
                let behind = quoted_part(quoted, *quote, word)?;
                match behind.first() {
                    Some(byte) if !byte.is_ascii_whitespace() => return Err(unbalanced()),
                    _ => return Ok(behind),
                }
            }
            [byte, behind @ ..] => {
                word.push(*byte);
                behind
            }
        };
    }
}

/// Append what stands up to the next `quote`. Returns what is behind that.
fn quoted_part<'a>(
    mut rest: &'a [u8],
    quote: u8,
    word: &mut Vec<u8>,
) -> Result<&'a [u8], DecodeError> {
    loop {
        rest = match rest {
            [] => return Err(unbalanced()),
            [end, behind @ ..] if *end == quote => return Ok(behind),
            [b'\\', b'\'', behind @ ..] if quote == b'\'' => {
                word.push(b'\'');
                behind
            }
            [b'\\', b'x', high, low, behind @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) << 4 | hex(*low));
                behind
            }
            [b'\\', escaped, behind @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                behind
            }
            [byte, behind @ ..] => {
                word.push(*byte);
                behind
            }
        };
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

fn unbalanced() -> DecodeError {
    DecodeError::malformed("unbalanced quotes in request")
}

/// A page that a browser shows can have it send requests here, whose bodies would be commands.
fn refuse_http(word: &[u8]) -> Result<(), DecodeError> {
    let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
    match is(b"post") || is(b"host:") || is(b"pri") {
        true => Err(DecodeError::malformed(
            "this looks like HTTP, and is no place for it",
        )),
        false => Ok(()),
    }
}
