//! A peer that a test plays by hand, message by message, on the other end of a stream.

use std::{future::Future, io::IoSlice, time::Duration};

use bytes::BytesMut;
use protosocket::{Codec, Decoded, Decoder, Encoder, Input, SendBuffer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The test's end of a stream, and the bytes of it that no message has claimed.
pub struct ScriptedPeer<S, C> {
    /// The test's end.
    pub stream: S,
    /// What both ends speak.
    pub codec: C,
    /// Bytes that were read and not decoded.
    pub unread: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Codec> ScriptedPeer<S, C> {
    /// A peer that has said and heard nothing.
    pub fn new(stream: S, codec: C) -> Self {
        Self {
            stream,
            codec,
            unread: BytesMut::new(),
        }
    }

    /// Say this.
    ///
    /// # Panics
    /// If it cannot be encoded, or the other end has gone.
    pub async fn send(&mut self, message: <C as Encoder>::Message) {
        let mut buffer = SendBuffer::new();
        buffer
            .encode(&mut self.codec, message)
            .expect("a test sends what can be encoded");
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = buffer.io_slices(&mut slices);
        for slice in &slices[..filled] {
            self.stream.write_all(slice).await.expect("the peer reads");
        }
    }

    /// The next message, or `None` when the peer has finished in order.
    pub async fn receive(&mut self) -> Option<<C as Decoder>::Message> {
        loop {
            let decoded = self
                .codec
                .decode(&mut Input::from_buffer(&mut self.unread))
                .expect("the peer keeps to the protocol");
            if let Decoded::Message(message) = decoded {
                return Some(message);
            }
            let count = self.stream.read_buf(&mut self.unread).await;
            if count.expect("the peer does not reset") == 0 {
                assert!(self.unread.is_empty(), "the peer ended inside a message");
                return None;
            }
        }
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> Vec<<C as Decoder>::Message> {
        let mut rest = Vec::new();
        while let Some(message) = self.receive().await {
            rest.push(message);
        }
        rest
    }
}

/// Wait for what needs no time. On a paused clock, which moves only when nothing else can, this
/// fails when somebody was not woken.
pub async fn within<F: Future>(future: F) -> F::Output {
    let done = tokio::time::timeout(Duration::from_secs(1), future).await;
    done.expect("somebody was not woken")
}
