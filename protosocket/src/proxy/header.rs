use std::{
    fmt,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    path::PathBuf,
};

use bytes::Bytes;

use super::{ProxyError, Ssl, Tlv, TlvType, v1, v2};
use crate::{PeerAddress, escaped::Escaped};

/// What a proxy says of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    pub(super) is_local: bool,
    pub(super) addresses: Addresses,
    pub(super) tlvs: Vec<Tlv>,
    pub(super) has_checksum: bool,
}

/// Between whom the proxied connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Addresses {
    /// The proxy does not say, or the connection is none of a stream.
    Unknown,
    /// TCP over IPv4.
    Tcp4 {
        /// Who opened the connection: the client.
        source: SocketAddrV4,
        /// To whom.
        destination: SocketAddrV4,
    },
    /// TCP over IPv6. Scope and flow are not known.
    Tcp6 {
        /// Who opened the connection: the client.
        source: SocketAddrV6,
        /// To whom.
        destination: SocketAddrV6,
    },
    /// A Unix socket.
    Unix {
        /// Who opened the connection, which seldom has a path.
        source: UnixAddress,
        /// To whom.
        destination: UnixAddress,
    },
}

impl Addresses {
    /// TCP between two addresses of one family. Of two families there is no header: `None`.
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Option<Self> {
        match (source, destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => Some(Self::Tcp4 {
                source,
                destination,
            }),
            (SocketAddr::V6(source), SocketAddr::V6(destination)) => Some(Self::Tcp6 {
                source,
                destination,
            }),
            _ => None,
        }
    }

    /// Who opened the connection.
    pub fn source(&self) -> Option<PeerAddress> {
        self.of_both(|source, _| source, |source, _| source)
    }

    /// To whom.
    pub fn destination(&self) -> Option<PeerAddress> {
        self.of_both(|_, destination| destination, |_, destination| destination)
    }

    fn of_both(
        &self,
        ip: impl Fn(SocketAddr, SocketAddr) -> SocketAddr,
        unix: impl for<'a> Fn(&'a UnixAddress, &'a UnixAddress) -> &'a UnixAddress,
    ) -> Option<PeerAddress> {
        match self {
            Self::Unknown => None,
            Self::Tcp4 {
                source,
                destination,
            } => Some(ip((*source).into(), (*destination).into()).into()),
            Self::Tcp6 {
                source,
                destination,
            } => Some(ip((*source).into(), (*destination).into()).into()),
            Self::Unix {
                source,
                destination,
            } => Some(PeerAddress::Unix(unix(source, destination).path())),
        }
    }
}

/// The address of a Unix socket: 108 bytes, of which those behind the last that is not zero do not
/// count. Empty if the socket has none.
#[derive(Clone, PartialEq, Eq)]
pub struct UnixAddress(Bytes);

impl UnixAddress {
    /// Bytes of one, on the wire.
    pub(super) const LENGTH: usize = 108;

    /// An address of these bytes, or `None` if there are more than 108 of them.
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let mut bytes = bytes.into();
        let end = bytes.iter().rposition(|byte| *byte != 0);
        bytes.truncate(end.map_or(0, |last| last + 1));
        (bytes.len() <= Self::LENGTH).then_some(Self(bytes))
    }

    /// Its bytes. One that begins with a zero is abstract, and no path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path, if it is one.
    pub fn path(&self) -> Option<PathBuf> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let path = &self.0[..end.unwrap_or(self.0.len())];
        (!path.is_empty()).then(|| PathBuf::from(&*String::from_utf8_lossy(path)))
    }
}

impl fmt::Debug for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(String::from_utf8_lossy(&self.0)))
    }
}

impl ProxyHeader {
    /// The most bytes that a header of version 2 can have: 16 and what 16 bits can announce.
    pub const LONGEST: usize = 16 + u16::MAX as usize;

    /// The connection is the proxy's own, such as a health check.
    pub fn local() -> Self {
        Self {
            is_local: true,
            ..Self::proxy(Addresses::Unknown)
        }
    }

    /// The connection is on behalf of another.
    pub fn proxy(addresses: Addresses) -> Self {
        Self {
            is_local: false,
            addresses,
            tlvs: Vec::new(),
            has_checksum: false,
        }
    }

    /// Say this, too. Only version 2 can.
    #[must_use]
    pub fn with_tlv(mut self, kind: TlvType, value: impl Into<Bytes>) -> Self {
        self.tlvs.push(Tlv::new(kind, value));
        self
    }

    /// Say what the client's TLS was like, too. Only version 2 can.
    #[must_use]
    pub fn with_ssl(mut self, ssl: &Ssl) -> Self {
        self.tlvs.push(ssl.to_tlv());
        self
    }

    /// Send a checksum, too. Only version 2 can.
    #[must_use]
    pub fn with_checksum(mut self) -> Self {
        self.has_checksum = true;
        self
    }

    /// Whether the connection is the proxy's own: its real addresses count.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Between whom the proxied connection is.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Who is at the other end of the proxied connection, if the proxy says so.
    pub fn client(&self) -> Option<PeerAddress> {
        self.addresses.source()
    }

    /// What the proxy says beyond that, in its order; not checksum and padding.
    pub fn tlvs(&self) -> &[Tlv] {
        &self.tlvs
    }

    /// Whether the header had a checksum, which was right, or is to be sent with one.
    pub fn has_checksum(&self) -> bool {
        self.has_checksum
    }

    /// The first value of this kind.
    pub fn tlv(&self, kind: TlvType) -> Option<&Bytes> {
        let found = self.tlvs.iter().find(|tlv| tlv.kind == kind);
        found.map(|tlv| &tlv.value)
    }

    /// The protocol that the client agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tlv(TlvType::ALPN).map(|value| &value[..])
    }

    /// The host name that the client asked for.
    pub fn authority(&self) -> Option<&str> {
        let value = self.tlv(TlvType::AUTHORITY)?;
        std::str::from_utf8(value).ok()
    }

    /// What the proxy calls the connection.
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(TlvType::UNIQUE_ID).map(|value| &value[..])
    }

    /// What the client's TLS was like.
    pub fn ssl(&self) -> Option<Ssl> {
        Ssl::parse(self.tlv(TlvType::SSL)?).ok()
    }

    /// The header that `bytes` begin with, and how many of them it takes. `None` if more are
    /// needed. A header of more than `max_header` bytes is refused as soon as it says so.
    ///
    /// # Errors
    /// What is wrong with it, as soon as that is certain: [`ProxyError::Missing`] if it is no
    /// header at all.
    pub fn parse(bytes: &[u8], max_header: usize) -> Result<Option<(Self, usize)>, ProxyError> {
        if v1::begins(bytes) {
            v1::parse(bytes)
        } else if v2::begins(bytes) {
            v2::parse(bytes, max_header)
        } else {
            Err(ProxyError::Missing)
        }
    }

    /// The header as a line of version 1. An address that is no TCP one is `UNKNOWN`.
    ///
    /// # Errors
    /// The caller is to blame: this version has no TLVs, no checksum and no LOCAL.
    pub fn to_v1(&self) -> Result<Bytes, ProxyError> {
        v1::write(self)
    }

    /// The header in the binary form of version 2.
    ///
    /// # Errors
    /// The caller is to blame: there is more to say than fits into a header.
    pub fn to_v2(&self) -> Result<Bytes, ProxyError> {
        v2::write(self)
    }
}
