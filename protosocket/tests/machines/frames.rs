//! Nine bytes of head (kind, stream, length) and a payload: what both machines speak.

use bytes::{BufMut, Bytes};
use protosocket::{DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer};

/// LIMIT: what a frame carries at most, in bytes.
const MAX_PAYLOAD: usize = 16 * 1024;
const HEAD: usize = 9;

/// Everything that is said on the wire. Stream 0 stands for the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Begin a stream; the opener takes `credit` bytes at first.
    Open {
        stream: u32,
        credit: u32,
    },
    Data {
        stream: u32,
        payload: Bytes,
    },
    /// The sender of this takes so many bytes more.
    Credit {
        stream: u32,
        amount: u32,
    },
    /// No more data this way.
    Close {
        stream: u32,
    },
    /// The stream is over, both ways.
    Cancel {
        stream: u32,
    },
    /// No stream above `last` will be served, and none is begun after this.
    Goodbye {
        last: u32,
    },
    Ping,
    Pong,
    /// The last word before the connection is closed, for people.
    Fault {
        why: Bytes,
    },
    /// Ask a relay to connect to an address.
    Connect {
        address: Bytes,
    },
    /// It is connected.
    Connected,
}

impl Frame {
    pub(crate) fn data(stream: u32, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Self::Data { stream, payload }
    }

    pub(crate) fn fault(why: &'static str) -> Self {
        let why = Bytes::from_static(why.as_bytes());
        Self::Fault { why }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Frames;

impl Decoder for Frames {
    type Message = Frame;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Frame>, DecodeError> {
        let Some(&head) = input.bytes().first_chunk::<HEAD>() else {
            return Ok(Decoded::Need(HEAD));
        };
        let word = |at| u32::from_be_bytes(std::array::from_fn(|index| head[at + index]));
        let (kind, stream, length) = (head[0], word(1), word(5) as usize);
        if length > MAX_PAYLOAD {
            return Err(DecodeError::TooLarge {
                size: length as u64,
                limit: MAX_PAYLOAD as u64,
            });
        }
        if input.len() < HEAD + length {
            return Ok(Decoded::Need(HEAD + length));
        }
        input.advance(HEAD);
        let payload = input.take(length);
        let number = || match payload.first_chunk() {
            Some(bytes) if payload.len() == 4 => Ok(u32::from_be_bytes(*bytes)),
            _ => Err(DecodeError::malformed("a number has four bytes")),
        };
        Ok(Decoded::Message(match kind {
            1 => {
                let credit = number()?;
                Frame::Open { stream, credit }
            }
            2 => Frame::Data { stream, payload },
            3 => {
                let amount = number()?;
                Frame::Credit { stream, amount }
            }
            4 => Frame::Close { stream },
            5 => Frame::Cancel { stream },
            6 => Frame::Goodbye { last: stream },
            7 => Frame::Ping,
            8 => Frame::Pong,
            9 => Frame::Fault { why: payload },
            10 => Frame::Connect { address: payload },
            11 => Frame::Connected,
            _ => return Err(DecodeError::malformed(format!("no frame has kind {kind}"))),
        }))
    }
}

impl Encoder for Frames {
    type Message = Frame;

    fn encode(&mut self, frame: Frame, output: &mut SendBuffer) -> Result<(), EncodeError> {
        let mut number = [0; 4];
        let mut of = |value: u32| {
            (&mut number[..]).put_u32(value);
            Bytes::copy_from_slice(&number)
        };
        let (kind, stream, payload) = match frame {
            Frame::Open { stream, credit } => (1, stream, of(credit)),
            Frame::Data { stream, payload } => (2, stream, payload),
            Frame::Credit { stream, amount } => (3, stream, of(amount)),
            Frame::Close { stream } => (4, stream, Bytes::new()),
            Frame::Cancel { stream } => (5, stream, Bytes::new()),
            Frame::Goodbye { last } => (6, last, Bytes::new()),
            Frame::Ping => (7, 0, Bytes::new()),
            Frame::Pong => (8, 0, Bytes::new()),
            Frame::Fault { why } => (9, 0, why),
            Frame::Connect { address } => (10, 0, address),
            Frame::Connected => (11, 0, Bytes::new()),
        };
        output.put_u8(kind);
        output.put_u32(stream);
        output.put_u32(payload.len() as u32);
        output.put_bytes(payload);
        Ok(())
    }
}
