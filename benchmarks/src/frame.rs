//! The wire of every echo: a big-endian `u32` length, then that many bytes of payload.
//!
//! The client and the hand-written loop read through the same [`Inbox`] and write through the same
//! [`Outbox`]; those of the calls do so too, with a [`Framing`] of their own.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes in front of each payload.
pub(crate) const HEADER: usize = size_of::<u32>();

/// What one read may return at first: enough for a few hundred small messages, and all that an
/// idle connection pays.
const SMALLEST_READ: usize = 16 << 10;

/// What one read may return at most while messages are small. Larger reads fall out of the
/// second-level cache.
const LARGEST_READ: usize = 256 << 10;

// LIMIT: the largest message that is measured, with the fields around the body of a call; a buffer
// grows as far as that.
const LARGEST_PAYLOAD: usize = (1 << 20) + 64;

/// The first byte of a message that a server takes and does not answer. All others are echoed.
pub(crate) const SILENT: u8 = 0;

/// Whether a server is to send this message back.
#[inline]
pub(crate) fn wants_reply(payload: &[u8]) -> bool {
    payload.first() != Some(&SILENT)
}

/// Appends one message to `out`.
#[inline]
pub(crate) fn encode(payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("the payload came out of a frame");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The length that is announced at the front of `bytes`, once the header is complete.
#[inline]
pub(crate) fn announced_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    Some(u32::from_be_bytes(*header) as usize)
}

/// Where payloads begin and end.
pub(crate) trait Framing: Default {
    /// Bytes of the header at the front of `bytes`, and of the payload behind it, once both are known.
    ///
    /// # Errors
    ///
    /// When no peer can have meant that header.
    fn announced(bytes: &[u8]) -> io::Result<Option<(usize, usize)>>;
}

/// The framing of the echoes.
#[derive(Debug, Default)]
pub(crate) struct U32;

impl Framing for U32 {
    #[inline]
    fn announced(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
        Ok(announced_length(bytes).map(|length| (HEADER, length)))
    }
}

/// Bytes that were read and not yet taken as frames, in a buffer that grows while reads fill it.
#[derive(Debug, Default)]
pub(crate) struct Inbox<F = U32> {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    framing: PhantomData<F>,
}

impl<F: Framing> Inbox<F> {
    /// Reads once. Zero bytes mean that the peer has closed its side.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub(crate) fn poll_read<S>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        self.make_room();
        let mut free = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(stream).poll_read(cx, &mut free))?;
        let count = free.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Takes the next complete payload.
    ///
    /// # Errors
    ///
    /// `InvalidData` when the peer announces a payload that no buffer of ours can hold, and those of
    /// the framing.
    #[inline]
    pub(crate) fn next_payload(&mut self) -> io::Result<Option<&[u8]>> {
        let unread = &self.bytes[self.start..self.end];
        let Some((header, length)) = F::announced(unread)? else {
            return Ok(None);
        };
        if length > LARGEST_PAYLOAD {
            return Err(too_long(length));
        }
        match unread.get(header..header + length) {
            Some(payload) => {
                self.start += header + length;
                Ok(Some(payload))
            }
            None => Ok(None),
        }
    }

    /// Moves the unread rest to the front, doubles the buffer if the last read filled it, and makes
    /// it large enough for the message that has begun.
    fn make_room(&mut self) {
        let filled = self.end == self.bytes.len();
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut wanted = self.bytes.len();
        if filled && wanted < LARGEST_READ {
            wanted = (wanted * 2).max(SMALLEST_READ);
        }
        if let Ok(Some((header, length))) = F::announced(&self.bytes[..self.end]) {
            wanted = wanted.max(header + length.min(LARGEST_PAYLOAD));
        }
        if wanted > self.bytes.len() {
            self.bytes.resize(wanted, 0);
        }
    }
}

#[cold]
fn too_long(length: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the peer announces {length} bytes, the limit is {LARGEST_PAYLOAD}"),
    )
}

/// Encoded messages in one contiguous buffer, as far as they are not written yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    /// Appends a message.
    #[inline]
    pub(crate) fn push(&mut self, payload: &[u8]) {
        encode(payload, &mut self.bytes);
    }

    /// Where messages of another framing are appended.
    #[inline]
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes in the buffer.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Ready when everything is written.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub(crate) fn poll_write<S>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while self.written < self.bytes.len() {
            let unsent = &self.bytes[self.written..];
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, unsent))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.bytes.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn read_all(inbox: &mut Inbox, mut bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        while !bytes.is_empty() {
            assert!(inbox.poll_read(&mut bytes, &mut cx).is_ready());
        }
    }

    fn payloads(inbox: &mut Inbox) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while let Some(payload) = inbox.next_payload().expect("short payloads") {
            payloads.push(payload.to_vec());
        }
        payloads
    }

    #[test]
    fn frames_survive_every_split() {
        let expected = [b"".to_vec(), b"a".to_vec(), vec![7; 40], b"end".to_vec()];
        let mut wire = Vec::new();
        for payload in &expected {
            encode(payload, &mut wire);
        }
        for first in 0..=wire.len() {
            for second in first..=wire.len() {
                let mut inbox = Inbox::default();
                let mut got = Vec::new();
                for part in [&wire[..first], &wire[first..second], &wire[second..]] {
                    read_all(&mut inbox, part);
                    got.extend(payloads(&mut inbox));
                }
                assert_eq!(got, expected, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn the_buffer_grows_while_reads_fill_it_and_to_the_size_of_a_large_message() {
        let mut inbox = Inbox::default();
        let mut wire = Vec::new();
        encode(b"small", &mut wire);
        for _ in 0..100 {
            read_all(&mut inbox, &wire);
            assert_eq!(payloads(&mut inbox).len(), 1);
        }
        assert_eq!(inbox.bytes.len(), SMALLEST_READ);

        for (length, size) in [
            (LARGEST_READ - HEADER, LARGEST_READ),
            (LARGEST_PAYLOAD, HEADER + LARGEST_PAYLOAD),
        ] {
            let mut wire = Vec::new();
            encode(&vec![1; length], &mut wire);
            for _ in 0..3 {
                read_all(&mut inbox, &wire);
                assert_eq!(payloads(&mut inbox), [vec![1; length]]);
            }
            assert_eq!(inbox.bytes.len(), size);
        }
    }

    #[test]
    fn only_a_message_that_begins_with_zero_is_not_answered() {
        assert!(!wants_reply(&[SILENT, 1]));
        assert!(wants_reply(&[1, SILENT]));
        assert!(wants_reply(b""));
    }

    /// Takes one byte, then is not ready, then takes one byte.
    #[derive(Default)]
    struct Trickle {
        taken: Vec<u8>,
        ready: bool,
    }

    impl AsyncWrite for Trickle {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.ready = !self.ready;
            if !self.ready {
                return Poll::Pending;
            }
            self.taken.extend_from_slice(&bytes[..1]);
            Poll::Ready(Ok(1))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn partial_writes_continue_where_they_stopped() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = Trickle::default();
        let mut outbox = Outbox::default();
        outbox.push(b"first");
        assert!(outbox.poll_write(&mut stream, &mut cx).is_pending());
        outbox.push(b"second");
        while outbox.poll_write(&mut stream, &mut cx).is_pending() {}
        assert_eq!(stream.taken, b"\0\0\0\x05first\0\0\0\x06second");
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn a_payload_over_the_limit_is_an_error() {
        let mut inbox = Inbox::default();
        let length = u32::try_from(LARGEST_PAYLOAD + 1).expect("far below 4 GiB");
        read_all(&mut inbox, &length.to_be_bytes());
        let error = inbox.next_payload().expect_err("one byte too many");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_length_needs_the_whole_header() {
        assert_eq!(announced_length(&[0, 0, 1]), None);
        assert_eq!(announced_length(&[0, 0, 1, 2]), Some(258));
    }
}
