use rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

use crate::{ConfigError, ProtocolVersion};

/// What rustls speaks, the latest first.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

impl ProtocolVersion {
    /// What rustls speaks of this version and those above.
    pub(crate) fn and_above(
        self,
    ) -> Result<&'static [&'static SupportedProtocolVersion], ConfigError> {
        match self {
            Self::TLS_1_2 => Ok(&VERSIONS),
            Self::TLS_1_3 => Ok(&VERSIONS[..1]),
            version => Err(ConfigError::Version(version)),
        }
    }
}
