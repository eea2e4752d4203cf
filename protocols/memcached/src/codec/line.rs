use protosocket::{DecodeError, SendBuffer};

/// Looks for the end of a line, and for none of it twice.
#[derive(Debug, Clone, Default)]
pub(super) struct LineSearch {
    /// How far the front of the input is known to hold no end.
    scanned: usize,
}

impl LineSearch {
    /// Where the line feed of the first line stands. Until [`found`](Self::found) is told, it is
    /// found again at once.
    ///
    /// # Errors
    /// The peer is to blame: the line is longer than `limit`, its ending not counted.
    #[inline]
    pub(super) fn find(
        &mut self,
        bytes: &[u8],
        limit: impl FnOnce() -> usize,
    ) -> Result<Option<usize>, DecodeError> {
        let unseen = &bytes[self.scanned.min(bytes.len())..];
        let found = unseen.iter().position(|byte| *byte == b'\n');
        let end = found.map(|offset| self.scanned + offset);
        self.scanned = end.unwrap_or(bytes.len());
        let line = match end {
            Some(end) => without_return(&bytes[..end]).len(),
            // A carriage return at the end may belong to the ending.
            None => bytes.len().saturating_sub(1),
        };
        // Whatever the limit is, it is not below this.
        if line > SHORT {
            // LIMIT: max_line or max_retrieval_line.
            let limit = limit();
            if line > limit {
                return Err(DecodeError::malformed(format!(
                    "line too long: it has more than {limit} bytes"
                )));
            }
        }
        Ok(end)
    }

    /// The line has been used up.
    pub(super) fn found(&mut self) {
        self.scanned = 0;
    }
}

/// Lines up to this length are below every limit, in bytes.
pub(super) const SHORT: usize = 512;

/// A line without the carriage return of its ending.
#[inline]
pub(super) fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A decimal number of digits alone.
#[inline]
pub(super) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// A decimal number that may be negative.
pub(super) fn signed(word: &[u8]) -> Option<i64> {
    match word.strip_prefix(b"-") {
        Some(digits) => 0_i64.checked_sub_unsigned(number(digits)?),
        None => number(word)?.try_into().ok(),
    }
}

/// A byte of a text: nothing in it ends its line.
pub(super) fn without_control(byte: u8) -> u8 {
    match byte.is_ascii_control() {
        true => b' ',
        false => byte,
    }
}

/// A byte of a word: nothing in it ends that.
pub(super) fn without_blank(byte: u8) -> u8 {
    match without_control(byte) {
        b' ' => b'_',
        byte => byte,
    }
}

/// Append a decimal number.
#[inline]
pub(super) fn put_number(output: &mut SendBuffer, mut number: u64) {
    // As many digits as the largest has.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    output.put_slice(&digits[at..]);
}

/// Append a decimal number that may be negative.
pub(super) fn put_signed(output: &mut SendBuffer, number: i64) {
    if number < 0 {
        output.put_u8(b'-');
    }
    put_number(output, number.unsigned_abs());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c7_numbers_are_digits_and_fit() {
        for (word, expected) in [
            (&b"0"[..], Some(0)),
            (b"00", Some(0)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"99999999999999999999999999", None),
            (b"", None),
            (b"+1", None),
            (b"-1", None),
            (b"1 ", None),
            (b"1a", None),
            (b"0x10", None),
        ] {
            assert_eq!(number(word), expected, "{}", word.escape_ascii());
        }
        for (word, expected) in [
            (&b"-1"[..], Some(-1)),
            (b"-0", Some(0)),
            (b"9223372036854775807", Some(i64::MAX)),
            (b"9223372036854775808", None),
            (b"-9223372036854775808", Some(i64::MIN)),
            (b"-9223372036854775809", None),
            (b"--1", None),
            (b"-", None),
        ] {
            assert_eq!(signed(word), expected, "{}", word.escape_ascii());
        }
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for value in [0, 1, 9, 10, 12_345, u64::MAX] {
            let mut output = SendBuffer::new();
            put_number(&mut output, value);
            assert_eq!(number(output.contiguous()), Some(value));
        }
        for value in [0, -1, i64::MAX, i64::MIN] {
            let mut output = SendBuffer::new();
            put_signed(&mut output, value);
            assert_eq!(signed(output.contiguous()), Some(value));
        }
    }

    #[test]
    fn c4_a_line_that_arrives_byte_by_byte_is_searched_once() {
        let mut search = LineSearch::default();
        let text = b"get key";
        for size in 1..=text.len() {
            let found = search.find(&text[..size], || SHORT).unwrap();
            assert_eq!((found, search.scanned), (None, size));
        }
        // A line feed among what was looked at is not found: nobody looks there again.
        assert_eq!(search.find(b"get\nkey\n", || SHORT).unwrap(), Some(7));
    }
}
