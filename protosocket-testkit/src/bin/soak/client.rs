//! A connection to the server, from the side that tests it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::protocol::{MAX_PAYLOAD, Request};

/// Addresses that connections come from: the ports of one are too few for those that the kernel
/// keeps in `TIME_WAIT` for a minute.
const SOURCES: u8 = 16;

/// How long any answer may take before it is lost, and connecting before it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Connects, from one of [`SOURCES`] addresses that `index` picks.
///
/// # Errors
///
/// When the server refuses, does not answer within [`PATIENCE`], or descriptors or ports run out.
pub(crate) async fn connect(address: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let source = Ipv4Addr::new(127, 0, 0, 2 + (index % usize::from(SOURCES)) as u8);
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    let stream = within(socket.connect(address)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits no longer than [`PATIENCE`].
///
/// # Errors
///
/// Those of `future`, and [`io::ErrorKind::TimedOut`].
pub(crate) async fn within<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("nothing came within {PATIENCE:?}"),
        )),
    }
}

/// Requests and answers over a stream.
#[derive(Debug)]
pub(crate) struct Link<S = TcpStream> {
    stream: S,
    unread: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
        }
    }

    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// Sends a request with a payload of `size` bytes.
    ///
    /// # Errors
    ///
    /// Those of the stream, and no progress within [`PATIENCE`].
    pub(crate) async fn send(&mut self, request: Request, size: usize) -> io::Result<()> {
        self.send_bytes(request.frame(size)).await
    }

    /// Sends any bytes.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub(crate) async fn send_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        within(async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    /// The next answer: its number and the size of its payload.
    ///
    /// # Errors
    ///
    /// Those of the stream, its end, an answer that is none, and nothing within [`PATIENCE`].
    pub(crate) async fn answer(&mut self) -> io::Result<(u64, usize)> {
        let answer = within(self.next_answer()).await?;
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// As [`answer`](Self::answer) for whoever waits for the end as well: `None` is that.
    ///
    /// # Errors
    ///
    /// Those of the stream, an answer that is none, and one that was cut off.
    pub(crate) async fn next_answer(&mut self) -> io::Result<Option<(u64, usize)>> {
        loop {
            if let Some(&length) = self.unread.first_chunk() {
                let length = u32::from_be_bytes(length) as usize;
                if !(8..=MAX_PAYLOAD).contains(&length) {
                    let what = format!("an answer of {length} bytes was announced");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                if self.unread.len() >= 4 + length {
                    let mut payload = self.unread.split_to(4 + length);
                    payload.advance(4);
                    let number = payload.get_u64() & (u64::MAX >> 8);
                    if self.unread.is_empty() {
                        // An idle connection of a test holds no buffer either.
                        self.unread = BytesMut::new();
                    }
                    return Ok(Some((number, length)));
                }
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return match self.unread.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Waits for the answer to request `number`.
    ///
    /// # Errors
    ///
    /// As [`answer`](Self::answer), and an answer to something else or of another size.
    pub(crate) async fn expect(&mut self, number: u64, size: usize) -> io::Result<()> {
        let answer = self.answer().await?;
        if answer == (number, size) {
            return Ok(());
        }
        let (got, length) = answer;
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected the answer to {number} of {size} bytes, got {got} of {length}"),
        ))
    }

    /// Sends an echo with a payload of `size` bytes, and waits for it.
    ///
    /// # Errors
    ///
    /// As [`expect`](Self::expect).
    pub(crate) async fn exchange(&mut self, number: u64, size: usize) -> io::Result<()> {
        self.send(Request::echo(number), size).await?;
        self.expect(number, size).await
    }

    /// Reads to the end: what the server does when it has said all.
    ///
    /// # Errors
    ///
    /// Those of the stream, and a byte that was not expected.
    pub(crate) async fn expect_end(&mut self) -> io::Result<()> {
        if self.unread.is_empty() && within(self.stream.read_buf(&mut self.unread)).await? == 0 {
            return Ok(());
        }
        let what = format!("expected the end, got {} bytes", self.unread.len());
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// Says that no request follows.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        within(self.stream.shutdown()).await
    }
}

impl Link {
    /// Ends it with a reset.
    pub(crate) fn reset(self) {
        // One that the server has reset already refuses options: then there is nothing to do.
        let _: io::Result<()> = self.stream.set_zero_linger();
    }
}
