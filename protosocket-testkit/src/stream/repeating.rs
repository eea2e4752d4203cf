//! A stream in memory that costs next to nothing, for what counts or times a connection.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that brings the same bytes again and again, as often as it is told to, and takes
/// everything that is written. Neither allocates.
#[derive(Debug)]
pub struct RepeatingStream(Rc<RefCell<State>>);

/// The other end of a [`RepeatingStream`].
#[derive(Debug)]
pub struct Repeater(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    /// The bytes, often enough in a row for one long read.
    bytes: Vec<u8>,
    /// Where they begin again.
    period: usize,
    /// Where in the first of them the next read begins.
    position: usize,
    /// What is still to be read, in bytes.
    unread: usize,
    written: usize,
    reader: Option<Waker>,
}

/// A stream of `bytes`, and its other end.
///
/// # Panics
/// If there are none: a read of nothing would be the end.
pub fn repeating_stream(bytes: &[u8]) -> (RepeatingStream, Repeater) {
    assert!(!bytes.is_empty(), "a stream repeats at least one byte");
    // A connection reads 128 KiB at once; what is shorter is read in more than one piece.
    let times = (128 * 1024 / bytes.len()).max(1) + 1;
    let state = Rc::new(RefCell::new(State {
        period: bytes.len(),
        bytes: bytes.repeat(times),
        position: 0,
        unread: 0,
        written: 0,
        reader: None,
    }));
    (RepeatingStream(state.clone()), Repeater(state))
}

impl Repeater {
    /// Let the bytes come this often again.
    pub fn send(&self, times: usize) {
        let mut state = self.0.borrow_mut();
        state.unread += times * state.period;
        let waker = state.reader.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// How much was written so far, in bytes.
    pub fn written(&self) -> usize {
        self.0.borrow().written
    }
}

impl AsyncRead for RepeatingStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        let ahead = &state.bytes[state.position..];
        let count = ahead.len().min(state.unread).min(buffer.remaining());
        if count == 0 {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        buffer.put_slice(&ahead[..count]);
        state.unread -= count;
        state.position = (state.position + count) % state.period;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RepeatingStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().written += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn the_bytes_come_as_often_as_they_were_sent_however_they_are_read() {
        let (stream, repeater) = repeating_stream(b"abc");
        let mut stream = pin!(stream);
        let mut cx = Context::from_waker(Waker::noop());
        let mut received = Vec::new();
        repeater.send(2);
        repeater.send(1);
        for size in [2, 5, 100] {
            let mut memory = vec![0; size];
            let mut buffer = ReadBuf::new(&mut memory);
            assert!(stream.as_mut().poll_read(&mut cx, &mut buffer).is_ready());
            received.extend_from_slice(buffer.filled());
        }
        assert_eq!(received, b"abcabcabc");
        let mut memory = [0; 1];
        let mut buffer = ReadBuf::new(&mut memory);
        assert!(stream.as_mut().poll_read(&mut cx, &mut buffer).is_pending());
        assert!(stream.as_mut().poll_write(&mut cx, b"12").is_ready());
        assert_eq!(repeater.written(), 2);
    }
}
