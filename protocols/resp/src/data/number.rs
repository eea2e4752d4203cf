/// What stands behind the byte that tells a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// A number, and where what is behind its line begins.
    Number(i64, usize),
    /// The line has not arrived.
    Incomplete,
    /// It is no number of 64 bits in its shortest form, or ends in something else than `\r\n`.
    Malformed,
}

/// Read the number that begins `at`, up to the end of its line.
#[inline(always)]
pub(crate) fn header(bytes: &[u8], at: usize) -> Header {
    // As a rule it is one digit or two.
    if let Some(&[first @ b'0'..=b'9', b'\r', b'\n']) = bytes.get(at..at + 3) {
        return Header::Number(i64::from(first - b'0'), at + 3);
    }
    long_header(bytes, at)
}

fn long_header(bytes: &[u8], at: usize) -> Header {
    let is_negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(is_negative);
    let mut value = 0_i64;
    let mut next = first;
    loop {
        match bytes.get(next) {
            None => return Header::Incomplete,
            Some(digit @ b'0'..=b'9') => {
                // Towards the side on which there is one number more. A zero in front is refused, so
                // that a number has twenty digits at most.
                let is_padded = next == first + 1 && bytes[first] == b'0';
                let digit = i64::from(digit - b'0');
                let longer = value.checked_mul(10).and_then(|it| it.checked_sub(digit));
                match longer {
                    Some(longer) if !is_padded => value = longer,
                    _ => return Header::Malformed,
                }
            }
            Some(b'\r') if next > first => break,
            Some(_) => return Header::Malformed,
        }
        next += 1;
    }
    let value = match is_negative {
        true => Some(value),
        false => value.checked_neg(),
    };
    match (bytes.get(next + 1), value) {
        (_, None) => Header::Malformed,
        (None, _) => Header::Incomplete,
        (Some(b'\n'), Some(value)) => Header::Number(value, next + 2),
        (Some(_), _) => Header::Malformed,
    }
}

/// Append `prefix`, the number and the end of the line.
#[inline]
pub(crate) fn write_header(output: &mut Vec<u8>, prefix: u8, number: usize) {
    if number < 10 {
        output.extend_from_slice(&[prefix, b'0' + number as u8, b'\r', b'\n']);
    } else {
        write_integer(output, prefix, number as i64);
    }
}

/// Append `prefix`, the number and the end of the line.
#[inline]
pub(crate) fn write_integer(output: &mut Vec<u8>, prefix: u8, number: i64) {
    // A prefix, a sign, nineteen digits and the end of the line.
    let mut line = [0; 23];
    line[21..].copy_from_slice(b"\r\n");
    let mut at = 21;
    let mut left = number.unsigned_abs();
    loop {
        at -= 1;
        line[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        line[at] = b'-';
    }
    at -= 1;
    line[at] = prefix;
    output.extend_from_slice(&line[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let numbers = [
            0,
            1,
            9,
            10,
            -1,
            -10,
            12_345,
            i64::MAX,
            i64::MIN,
            1_000_000_007,
        ];
        for number in numbers {
            let mut line = Vec::new();
            write_integer(&mut line, b':', number);
            assert_eq!(&line[1..], format!("{number}\r\n").as_bytes());
            assert_eq!(header(&line, 1), Header::Number(number, line.len()));
            for cut in 1..line.len() {
                assert_eq!(header(&line[..cut], 1), Header::Incomplete);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let lines = [
            "\r\n",
            "-\r\n",
            "+1\r\n",
            "01\r\n",
            "-01\r\n",
            "1 \r\n",
            "1\n",
            "1\rx",
            "a\r\n",
            "9223372036854775808\r\n",
            "-9223372036854775809\r\n",
            "99999999999999999999\r\n",
            "1\n\r\n",
            "--1\r\n",
        ];
        for line in lines {
            assert_eq!(header(line.as_bytes(), 0), Header::Malformed, "{line:?}");
        }
        // Zeros without end are refused at the second.
        assert_eq!(header(b"00", 0), Header::Malformed);
    }
}
