//! A message that carries a text, and its codec.

use bytes::Buf;
use protosocket::{DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer};
use protosocket_rpc::{Message, ProtosocketControlCode};

pub(crate) const NORMAL: u8 = 0;
pub(crate) const CANCEL: u8 = 1;
pub(crate) const END: u8 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) id: u64,
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Text {
    pub(crate) fn new(id: u64, code: u8, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { id, code, text }
    }
}

impl Message for Text {
    fn message_id(&self) -> u64 {
        self.id
    }

    fn control_code(&self) -> ProtosocketControlCode {
        ProtosocketControlCode::from_u8(self.code)
    }

    fn set_message_id(&mut self, message_id: u64) {
        self.id = message_id;
    }

    fn cancelled(message_id: u64) -> Self {
        Self::new(message_id, CANCEL, "")
    }

    fn ended(message_id: u64) -> Self {
        Self::new(message_id, END, "")
    }
}

/// The length of what follows in two bytes, the id in eight, the code in one, and the text.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextCodec;

/// A text that cannot be encoded.
pub(crate) const UNSPEAKABLE: &str = "unspeakable";

impl Decoder for TextCodec {
    type Message = Text;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Text>, DecodeError> {
        let mut bytes = input.bytes();
        let Some(prefix) = bytes.first_chunk() else {
            return Ok(Decoded::Need(2));
        };
        let length = usize::from(u16::from_be_bytes(*prefix));
        if length < 9 {
            return Err(DecodeError::malformed(format!(
                "a message has 9 bytes or more, not {length}"
            )));
        }
        if bytes.len() < 2 + length {
            return Ok(Decoded::Need(2 + length));
        }
        bytes.advance(2);
        let (id, code) = (bytes.get_u64(), bytes.get_u8());
        let text = String::from_utf8_lossy(&bytes[..length - 9]).into_owned();
        input.advance(2 + length);
        Ok(Decoded::Message(Text { id, code, text }))
    }
}

impl Encoder for TextCodec {
    type Message = Text;

    fn encode(&mut self, message: Text, output: &mut SendBuffer) -> Result<(), EncodeError> {
        output.put_u16(9 + message.text.len() as u16);
        output.put_u64(message.id);
        output.put_u8(message.code);
        if message.text == UNSPEAKABLE {
            return Err(EncodeError::invalid("nobody says that"));
        }
        output.put_slice(message.text.as_bytes());
        Ok(())
    }
}

pub(crate) fn encoded(messages: impl IntoIterator<Item = Text>) -> Vec<u8> {
    let mut buffer = SendBuffer::new();
    for message in messages {
        buffer.encode(&mut TextCodec, message).expect("it is short");
    }
    std::mem::take(buffer.contiguous())
}

/// The messages in `bytes`, of which the last may be cut.
pub(crate) fn decoded(bytes: &[u8]) -> Vec<Text> {
    let mut input = Input::from_slice(bytes);
    let mut messages = Vec::new();
    while let Decoded::Message(message) = TextCodec.decode(&mut input).expect("it is sound") {
        messages.push(message);
    }
    messages
}
