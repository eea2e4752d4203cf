use super::{DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer};

/// Lines of UTF-8 text: one message per line, without its ending.
///
/// A line ends with `\n` or `\r\n`; text that stands before the end of input without an ending is
/// a last line. Outbound lines get `\r\n`, or `\n` with [`line_feed`](Self::line_feed) unless they
/// end with a carriage return of their own.
#[derive(Debug, Clone)]
pub struct LinesCodec {
    max_length: usize,
    ending: &'static [u8],
    /// How far the front of the input is known to hold no ending, so that a line that arrives
    /// byte by byte is searched once.
    scanned: usize,
}

impl LinesCodec {
    /// Lines of at most 64 KiB, far above what a person or a text protocol sends in one.
    pub fn new() -> Self {
        Self {
            max_length: 64 * 1024,
            ending: b"\r\n",
            scanned: 0,
        }
    }

    /// Refuse inbound lines above `max_length` bytes, their ending not counted.
    #[must_use]
    pub fn max_length(mut self, max_length: usize) -> Self {
        self.max_length = max_length;
        self
    }

    /// End outbound lines with `\n` instead of `\r\n`.
    #[must_use]
    pub fn line_feed(mut self) -> Self {
        self.ending = b"\n";
        self
    }

    fn check_length(&self, length: usize) -> Result<(), DecodeError> {
        if length > self.max_length {
            return Err(DecodeError::TooLarge {
                size: length as u64,
                limit: self.max_length as u64,
            });
        }
        Ok(())
    }

    fn text(&self, line: &[u8]) -> Result<String, DecodeError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.check_length(line.len())?;
        match std::str::from_utf8(line) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(DecodeError::malformed(format!(
                "a line must be UTF-8 text: {error}"
            ))),
        }
    }
}

impl Default for LinesCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for LinesCodec {
    type Message = String;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<String>, DecodeError> {
        let bytes = input.bytes();
        let unseen = &bytes[self.scanned.min(bytes.len())..];
        let Some(offset) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.scanned = bytes.len();
            // A carriage return at the end may belong to the ending.
            self.check_length(bytes.len().saturating_sub(1))?;
            return Ok(Decoded::Need(bytes.len() + 1));
        };
        let end = self.scanned + offset;
        self.scanned = 0;
        let line = self.text(&bytes[..end])?;
        input.advance(end + 1);
        Ok(Decoded::Message(line))
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<String>, DecodeError> {
        if input.is_empty() {
            return Ok(None);
        }
        self.scanned = 0;
        let line = self.text(input.bytes())?;
        input.advance(input.len());
        Ok(Some(line))
    }
}

impl Encoder for LinesCodec {
    type Message = String;

    fn encode(&mut self, message: String, output: &mut SendBuffer) -> Result<(), EncodeError> {
        if message.contains('\n') {
            return Err(EncodeError::invalid(
                "a line must not contain a line feed, it would become two",
            ));
        }
        // Behind a carriage return of the line's own, a line feed alone would take it along.
        let ending = match message.ends_with('\r') {
            true => b"\r\n",
            false => self.ending,
        };
        output.put_slice(message.as_bytes());
        output.put_slice(ending);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all(codec: &mut LinesCodec, bytes: &[u8]) -> Vec<String> {
        let mut input = Input::from_slice(bytes);
        let mut lines = Vec::new();
        while let Decoded::Message(line) = codec.decode(&mut input).unwrap() {
            lines.push(line);
        }
        lines.extend(codec.decode_end(&mut input).unwrap());
        lines
    }

    #[test]
    fn both_endings_and_a_last_line_without_one() {
        let lines = decode_all(&mut LinesCodec::new(), b"a\r\n\nb c\n\rlast");
        assert_eq!(lines, ["a", "", "b c", "\rlast"]);
    }

    #[test]
    fn d25_a_line_that_arrives_byte_by_byte_is_searched_once() {
        let mut codec = LinesCodec::new();
        let text = b"0123456789";
        for size in 1..=text.len() {
            let decoded = codec.decode(&mut Input::from_slice(&text[..size])).unwrap();
            assert_eq!(decoded, Decoded::Need(size + 1));
            assert_eq!(codec.scanned, size);
        }
        let decoded = codec.decode(&mut Input::from_slice(b"0123456789\n"));
        assert_eq!(decoded.unwrap(), Decoded::Message("0123456789".to_owned()));
        assert_eq!(codec.scanned, 0);
    }

    #[test]
    fn a_line_at_and_above_the_limit() {
        let mut codec = LinesCodec::new().max_length(3);
        assert_eq!(decode_all(&mut codec, b"abc\r\nabc"), ["abc", "abc"]);
        for long in [&b"abcd\n"[..], b"abcd\r\n", b"abcde"] {
            let mut codec = LinesCodec::new().max_length(3);
            let error = codec.decode(&mut Input::from_slice(long)).unwrap_err();
            assert!(matches!(error, DecodeError::TooLarge { limit: 3, .. }));
        }
    }

    #[test]
    fn a_carriage_return_at_the_end_of_a_line_survives_a_round_trip() {
        for mut codec in [LinesCodec::new(), LinesCodec::new().line_feed()] {
            let lines = decode_all(&mut codec, b"a\r\r\nb\r");
            assert_eq!(lines, ["a\r", "b"]);
            let mut output = SendBuffer::new();
            output.encode(&mut codec, "a\r".into()).unwrap();
            assert_eq!(decode_all(&mut codec, output.contiguous()), ["a\r"]);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_malformed() {
        let error = LinesCodec::new().decode(&mut Input::from_slice(b"\xff\n"));
        assert!(matches!(error, Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn a_line_feed_inside_an_outbound_line_is_refused() {
        let mut output = SendBuffer::new();
        let mut codec = LinesCodec::new();
        assert!(output.encode(&mut codec, "a\nb".into()).is_err());
        output.encode(&mut codec, "ab".into()).unwrap();
        output.encode(&mut codec.line_feed(), "c".into()).unwrap();
        assert_eq!(output.contiguous(), b"ab\r\nc\n");
    }
}
