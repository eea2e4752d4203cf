use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};

use super::{ProxyError, ProxyHeader};
use crate::transport::{Establisher, Transport};

/// Sends a header before anything else.
///
/// An [`Establisher`] for a [`Layered`](crate::Layered) connector: the streams that it opens are as
/// they were, and have said who is behind them. A proxy makes one for each client.
///
/// ```
/// use protosocket::{Layered, TcpConnector, proxy::{Addresses, ProxyHeader, ProxySender}};
///
/// # fn example() -> Option<()> {
/// let client = "192.0.2.7:40000".parse().ok()?;
/// let asked_for = "198.51.100.1:443".parse().ok()?;
/// let header = ProxyHeader::proxy(Addresses::tcp(client, asked_for)?);
/// let server = "127.0.0.1:6379".parse().ok()?;
/// let connector = Layered::new(TcpConnector::new(server), ProxySender::v2(&header).ok()?);
/// # Some(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct ProxySender {
    header: Bytes,
}

impl ProxySender {
    /// Send `header` as a line of version 1.
    ///
    /// # Errors
    /// As for [`ProxyHeader::to_v1`].
    pub fn v1(header: &ProxyHeader) -> Result<Self, ProxyError> {
        let header = header.to_v1()?;
        Ok(Self { header })
    }

    /// Send `header` in the binary form of version 2.
    ///
    /// # Errors
    /// As for [`ProxyHeader::to_v2`].
    pub fn v2(header: &ProxyHeader) -> Result<Self, ProxyError> {
        let header = header.to_v2()?;
        Ok(Self { header })
    }
}

impl<S: Transport> Establisher<S> for ProxySender {
    type Stream = S;
    type Establish = WriteHeader<S>;

    fn establish(&self, stream: S) -> WriteHeader<S> {
        WriteHeader {
            stream: Some(stream),
            header: self.header.clone(),
        }
    }
}

/// Writes a header to a stream that has just been opened.
pub struct WriteHeader<S> {
    /// `None` when it is done.
    stream: Option<S>,
    /// What is left of it.
    header: Bytes,
}

impl<S: Transport> Future for WriteHeader<S> {
    type Output = io::Result<S>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let stream = this.stream.as_mut().expect("polled after it was done");
        while !this.header.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &this.header))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => this.header.advance(written),
            }
        }
        ready!(Pin::new(stream).poll_flush(cx))?;
        let stream = this.stream.take();
        Poll::Ready(Ok(stream.expect("it was there to be written to")))
    }
}

impl<S> fmt::Debug for WriteHeader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteHeader")
            .field("left", &self.header.len())
            .finish_non_exhaustive()
    }
}
