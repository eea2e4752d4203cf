use std::fmt;

/// A version of TLS, by its number on the wire. One that is not known here keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolVersion(pub u16);

impl ProtocolVersion {
    /// SSL 3.0, which nobody should speak.
    pub const SSL_3_0: Self = Self(0x0300);
    /// TLS 1.0, deprecated by RFC 8996.
    pub const TLS_1_0: Self = Self(0x0301);
    /// TLS 1.1, deprecated by RFC 8996.
    pub const TLS_1_1: Self = Self(0x0302);
    /// TLS 1.2 (RFC 5246).
    pub const TLS_1_2: Self = Self(0x0303);
    /// TLS 1.3 (RFC 8446).
    pub const TLS_1_3: Self = Self(0x0304);
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SSL_3_0 => f.write_str("SSL 3.0"),
            Self(version @ 0x0301..=0x0304) => write!(f, "TLS 1.{}", version - 0x0301),
            Self(version) => write!(f, "version {version:#06x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProtocolVersion;

    #[test]
    fn versions_print_as_people_know_them() {
        assert_eq!(ProtocolVersion::TLS_1_0.to_string(), "TLS 1.0");
        assert_eq!(ProtocolVersion::TLS_1_3.to_string(), "TLS 1.3");
        assert_eq!(ProtocolVersion(0x7f1c).to_string(), "version 0x7f1c");
    }
}
