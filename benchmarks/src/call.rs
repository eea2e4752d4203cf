//! The calls: their messages, and the wire of those systems that frame them as protosocket-prost
//! does, with the length of the message as a varint in front of it.

use std::io;

use bytes::Bytes;
use prost::Message;

use crate::frame::Framing;

/// The control code of a message that is nothing else.
pub(crate) const NORMAL: u32 = 0;

/// The control code that ends a call before it is done.
pub(crate) const CANCEL: u32 = 1;

/// The control code behind the last item of a stream.
pub(crate) const END: u32 = 2;

/// What is called for: the body, once or as many times as there are `items`, or nothing at all.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    /// Relates the response to it.
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    /// One of the control codes.
    #[prost(uint32, tag = "2")]
    pub(crate) code: u32,
    /// What comes back.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) body: Bytes,
    /// Zero for a unary call, or else how long the stream is.
    #[prost(uint32, tag = "4")]
    pub(crate) items: u32,
    /// Whether the call is never answered.
    #[prost(bool, tag = "5")]
    pub(crate) never: bool,
}

/// What comes back.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    /// That of the request.
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    /// One of the control codes.
    #[prost(uint32, tag = "2")]
    pub(crate) code: u32,
    /// The body of the request.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) body: Bytes,
}

impl Request {
    /// Asks for a body, without an id.
    pub(crate) fn unary(body: Bytes) -> Self {
        Self {
            body,
            ..Self::default()
        }
    }

    /// Asks for that many items, without an id.
    pub(crate) fn stream(body: Bytes, items: u32) -> Self {
        Self {
            body,
            items,
            ..Self::default()
        }
    }

    /// The items of the stream that it asks for.
    pub(crate) fn into_items(self) -> Items {
        Items {
            item: Response {
                id: self.id,
                code: NORMAL,
                body: self.body,
            },
            left: self.items,
        }
    }
}

impl From<Request> for Response {
    /// The answer to a unary call.
    #[inline]
    fn from(request: Request) -> Self {
        Self {
            id: request.id,
            code: NORMAL,
            body: request.body,
        }
    }
}

impl Response {
    /// A message with a control code and no body.
    pub(crate) fn control(id: u64, code: u32) -> Self {
        Self {
            id,
            code,
            body: Bytes::new(),
        }
    }
}

/// The items of a stream, of which the end is no item.
#[derive(Debug)]
pub(crate) struct Items {
    item: Response,
    left: u32,
}

impl Items {
    /// The call that they answer.
    pub(crate) fn id(&self) -> u64 {
        self.item.id
    }

    /// The next item, for those who need no item of their own.
    #[inline]
    pub(crate) fn next_ref(&mut self) -> Option<&Response> {
        self.left = self.left.checked_sub(1)?;
        Some(&self.item)
    }
}

impl Iterator for Items {
    type Item = Response;

    #[inline]
    fn next(&mut self) -> Option<Response> {
        self.next_ref().cloned()
    }
}

/// Appends a message with its length in front.
#[inline]
pub(crate) fn encode(message: &impl Message, out: &mut Vec<u8>) {
    message
        .encode_length_delimited(out)
        .expect("a vector has room for every message");
}

/// Takes a message out of its frame.
///
/// # Errors
///
/// `InvalidData` if it is no message.
#[inline]
pub(crate) fn decode<M: Message + Default>(frame: &[u8]) -> io::Result<M> {
    M::decode(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The framing of the calls.
#[derive(Debug, Default)]
pub(crate) struct Varint;

/// Bytes of the longest length that is not over every limit.
const LONGEST_VARINT: usize = 4;

impl Framing for Varint {
    #[inline]
    fn announced(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
        let mut length = 0;
        for (at, byte) in bytes.iter().take(LONGEST_VARINT).enumerate() {
            length |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(Some((at + 1, length)));
            }
        }
        if bytes.len() < LONGEST_VARINT {
            return Ok(None);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the peer announces a message with a length of more than {LONGEST_VARINT} bytes"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::frame::Inbox;

    #[test]
    fn calls_survive_every_split() {
        let expected = [0, 1, 127, 128, 300].map(|length| Request {
            id: 1 << length.min(60),
            ..Request::stream(vec![7; length].into(), 3)
        });
        let mut wire = Vec::new();
        for request in &expected {
            encode(request, &mut wire);
        }
        for split in 0..=wire.len() {
            let mut inbox = Inbox::<Varint>::default();
            let mut got: Vec<Request> = Vec::new();
            for mut part in [&wire[..split], &wire[split..]] {
                let mut cx = Context::from_waker(Waker::noop());
                while !part.is_empty() {
                    assert!(inbox.poll_read(&mut part, &mut cx).is_ready());
                }
                while let Some(frame) = inbox.next_payload().expect("short frames") {
                    got.push(decode(frame).expect("a request"));
                }
            }
            assert_eq!(got, expected, "split at {split}");
        }
    }

    #[test]
    fn a_length_that_never_ends_is_an_error() {
        assert!(matches!(Varint::announced(&[0x80; 3]), Ok(None)));
        let error = Varint::announced(&[0x80; 4]).expect_err("longer than every limit");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_stream_has_as_many_items_as_it_was_asked_for() {
        let request = Request {
            id: 7,
            ..Request::stream(vec![7; 5].into(), 3)
        };
        let items: Vec<Response> = request.clone().into_items().collect();
        assert_eq!(items, vec![Response::from(request); 3]);
    }
}
