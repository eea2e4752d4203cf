use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::ProxyError;

/// Bytes of type and length before each value.
const HEAD: usize = 3;

/// Something that a proxy says of a connection beyond its addresses (§2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlv {
    /// What it is.
    pub kind: TlvType,
    /// Its value.
    pub value: Bytes,
}

/// What a [`Tlv`] is. Types that have no name here are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlvType(pub u8);

impl TlvType {
    /// The protocol that the client agreed on, as in the TLS extension (§2.2.1).
    pub const ALPN: Self = Self(0x01);
    /// The host name that the client asked for, as in SNI (§2.2.2).
    pub const AUTHORITY: Self = Self(0x02);
    /// The checksum of the header (§2.2.3). It is checked, and not kept.
    pub const CRC32C: Self = Self(0x03);
    /// Padding (§2.2.4). It is not kept.
    pub const NOOP: Self = Self(0x04);
    /// What the proxy calls the connection, up to 128 bytes (§2.2.5).
    pub const UNIQUE_ID: Self = Self(0x05);
    /// What the client's TLS was like (§2.2.6): an [`Ssl`].
    pub const SSL: Self = Self(0x20);
    /// In SSL: the version, such as `TLSv1.3`.
    pub const SSL_VERSION: Self = Self(0x21);
    /// In SSL: the common name of the client's certificate.
    pub const SSL_CN: Self = Self(0x22);
    /// In SSL: the cipher.
    pub const SSL_CIPHER: Self = Self(0x23);
    /// In SSL: what the proxy's certificate was signed with.
    pub const SSL_SIG_ALG: Self = Self(0x24);
    /// In SSL: the key of the proxy's certificate.
    pub const SSL_KEY_ALG: Self = Self(0x25);
    /// The network namespace (§2.2.7).
    pub const NETNS: Self = Self(0x30);

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::ALPN => "ALPN",
            Self::AUTHORITY => "AUTHORITY",
            Self::CRC32C => "CRC32C",
            Self::NOOP => "NOOP",
            Self::UNIQUE_ID => "UNIQUE_ID",
            Self::SSL => "SSL",
            Self::SSL_VERSION => "SSL_VERSION",
            Self::SSL_CN => "SSL_CN",
            Self::SSL_CIPHER => "SSL_CIPHER",
            Self::SSL_SIG_ALG => "SSL_SIG_ALG",
            Self::SSL_KEY_ALG => "SSL_KEY_ALG",
            Self::NETNS => "NETNS",
            _ => return None,
        })
    }
}

impl fmt::Display for TlvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "TLV {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for TlvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the client's TLS was like, on its way to the proxy (§2.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssl {
    /// What the client did.
    pub client: SslClient,
    /// 0 if the client presented a certificate that was verified.
    pub verify: u32,
    /// What is known of it.
    pub tlvs: Vec<Tlv>,
}

/// What a client did, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SslClient(pub u8);

impl SslClient {
    /// It used TLS.
    pub const SSL: u8 = 1;
    /// It presented a certificate on this connection.
    pub const CERT_CONN: u8 = 2;
    /// It presented a certificate in this session.
    pub const CERT_SESS: u8 = 4;

    /// Whether all of these bits are set.
    pub fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
}

impl Ssl {
    /// The version of TLS, such as `TLSv1.3`, if it is a text.
    pub fn version(&self) -> Option<&str> {
        self.text(TlvType::SSL_VERSION)
    }

    /// The common name of the client's certificate, if it is a text.
    pub fn common_name(&self) -> Option<&str> {
        self.text(TlvType::SSL_CN)
    }

    /// The cipher, if it is a text.
    pub fn cipher(&self) -> Option<&str> {
        self.text(TlvType::SSL_CIPHER)
    }

    /// Whether the client presented a certificate that was verified. `verify` alone is 0 as well for
    /// clients that presented none.
    pub fn is_verified(&self) -> bool {
        self.verify == 0 && self.client.0 & (SslClient::CERT_CONN | SslClient::CERT_SESS) != 0
    }

    fn text(&self, kind: TlvType) -> Option<&str> {
        let tlv = self.tlvs.iter().find(|tlv| tlv.kind == kind)?;
        std::str::from_utf8(&tlv.value).ok()
    }

    pub(super) fn parse(value: &Bytes) -> Result<Self, ProxyError> {
        const FIXED: usize = 5;
        let Some((&[client, a, b, c, d], _)) = value.split_first_chunk::<FIXED>() else {
            return Err(ProxyError::TlvLength {
                kind: TlvType::SSL,
                length: value.len(),
                expected: "5 or more",
            });
        };
        Ok(Self {
            client: SslClient(client),
            verify: u32::from_be_bytes([a, b, c, d]),
            tlvs: Tlv::parse_all(value.slice(FIXED..))?,
        })
    }

    /// The value of a [`TlvType::SSL`].
    pub fn to_tlv(&self) -> Tlv {
        let mut value = BytesMut::new();
        value.put_u8(self.client.0);
        value.put_u32(self.verify);
        self.tlvs.iter().for_each(|tlv| tlv.write(&mut value));
        Tlv {
            kind: TlvType::SSL,
            value: value.freeze(),
        }
    }
}

impl Tlv {
    /// A value of some kind.
    pub fn new(kind: TlvType, value: impl Into<Bytes>) -> Self {
        Self {
            kind,
            value: value.into(),
        }
    }

    pub(super) fn parse_all(mut bytes: Bytes) -> Result<Vec<Self>, ProxyError> {
        let mut tlvs = Vec::new();
        while !bytes.is_empty() {
            let Some((&[kind, high, low], _)) = bytes.split_first_chunk::<HEAD>() else {
                return Err(ProxyError::TlvHeader(bytes.len()));
            };
            let (kind, length) = (TlvType(kind), usize::from(u16::from_be_bytes([high, low])));
            let mut rest = bytes.split_off(HEAD);
            if rest.len() < length {
                return Err(ProxyError::TlvTruncated(kind));
            }
            bytes = rest.split_off(length);
            tlvs.push(Self { kind, value: rest });
        }
        Ok(tlvs)
    }

    /// What writing it takes.
    pub(super) fn written_len(&self) -> usize {
        HEAD + self.value.len()
    }

    /// What is longer than a length can say is cut: [`ProxyHeader`](super::ProxyHeader) refuses to
    /// send it.
    pub(super) fn write(&self, output: &mut BytesMut) {
        let length = self.value.len().min(usize::from(u16::MAX));
        output.put_u8(self.kind.0);
        output.put_u16(length as u16);
        output.put_slice(&self.value[..length]);
    }
}
