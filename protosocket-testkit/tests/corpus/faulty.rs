//! Lines, and a codec that breaks its contract when a line tells it to.

use protosocket::{DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer};

/// Lines that end with a line feed. `!FAULT` makes the decoder commit that fault; the messages
/// `empty`, `refuse` and `explode` make the encoder write nothing, fail and panic.
#[derive(Debug)]
pub(crate) struct Faulty;

impl Decoder for Faulty {
    type Message = String;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<String>, DecodeError> {
        let Some(end) = input.bytes().iter().position(|byte| *byte == b'\n') else {
            return Ok(Decoded::Need(input.len() + 1));
        };
        let line = String::from_utf8_lossy(&input.bytes()[..end]).into_owned();
        let Some(fault) = line.strip_prefix('!') else {
            input.advance(end + 1);
            return Ok(Decoded::Message(line));
        };
        let (name, argument) = fault.split_once(' ').unwrap_or((fault, ""));
        match name {
            "need" => match number(argument) {
                size if (1..=input.len()).contains(&size) => {
                    input.advance(size);
                    Ok(Decoded::Message(format!("{size} bytes")))
                }
                size => Ok(Decoded::Need(size)),
            },
            "given" => Ok(Decoded::Need(input.len())),
            "more" => Ok(Decoded::Need(input.len() + 1)),
            "nothing" => Ok(Decoded::Message("nothing".to_owned())),
            "advance" => {
                input.advance(number(argument).saturating_add(input.len()));
                Ok(Decoded::Message("too far".to_owned()))
            }
            "take" => {
                let _ = input.take(number(argument) + input.len());
                Ok(Decoded::Message("too much".to_owned()))
            }
            // What is skipped counts from the beginning of this line.
            "skip" => Ok(Decoded::Skip(number(argument) as u64)),
            "panic" => panic!("a decoder panics, as the corpus asks"),
            "error" => Err(DecodeError::other(argument.to_owned())),
            "malformed" => Err(DecodeError::malformed(argument.to_owned())),
            other => unreachable!("the corpus asks for a fault {other:?}"),
        }
    }
}

fn number(text: &str) -> usize {
    match text {
        "max" => usize::MAX,
        number => number.parse().expect("the corpus gives numbers"),
    }
}

impl Encoder for Faulty {
    type Message = String;

    fn encode(&mut self, message: String, output: &mut SendBuffer) -> Result<(), EncodeError> {
        match message.as_str() {
            "empty" => {}
            "refuse" => {
                output.put_slice(b"half of it");
                return Err(EncodeError::invalid("the corpus asks for it"));
            }
            "explode" => panic!("an encoder panics, as the corpus asks"),
            line => {
                output.put_slice(line.as_bytes());
                output.put_slice(b"\r\n");
            }
        }
        Ok(())
    }
}
