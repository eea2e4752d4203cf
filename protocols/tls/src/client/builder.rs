use std::{env, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName},
    sign::SingleCertAndKey,
};

use super::{
    Connector,
    trust::{Trust, sha256},
};
use crate::{ConfigError, Identity, ProtocolVersion, Provider, Roots, alpn, key_log::KeyLogFile};

/// Configures the TLS of a client. What cannot work is refused by [`build`](Self::build).
///
/// | setting | default | |
/// |---|---|---|
/// | [`server_name`](Self::server_name) | required | whose certificate the server must have; sent as SNI |
/// | [`roots`](Self::roots) | - | the authorities that may vouch for it |
/// | [`pin_certificate`](Self::pin_certificate), [`pin_sha256`](Self::pin_sha256) | - | or: exactly this certificate |
/// | [`client_certificate`](Self::client_certificate) | none | who this side is |
/// | [`alpn_protocols`](Self::alpn_protocols) | none | what is offered |
/// | [`require_alpn`](Self::require_alpn) | off | refuse a server that chooses none of them |
/// | [`minimum_version`](Self::minimum_version) | TLS 1.2 | |
/// | [`sessions`](Self::sessions) | 256 | servers whose sessions are remembered |
/// | [`key_log`](Self::key_log) | off | secrets for Wireshark |
///
/// Roots or pins must be given; there is no default that trusts anybody. Early data (0-RTT) is
/// never sent.
#[derive(Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct ConnectorBuilder {
    provider: Provider,
    server_name: Option<String>,
    roots: Option<Roots>,
    pinned: Vec<CertificateDer<'static>>,
    pins: Vec<[u8; 32]>,
    trusts_anybody: bool,
    identity: Option<Identity>,
    alpn_protocols: Vec<Vec<u8>>,
    requires_alpn: bool,
    minimum_version: ProtocolVersion,
    sessions: usize,
    key_log: Option<PathBuf>,
}

impl ConnectorBuilder {
    pub(super) fn new(provider: Provider) -> Self {
        Self {
            provider,
            server_name: None,
            roots: None,
            pinned: Vec::new(),
            pins: Vec::new(),
            trusts_anybody: false,
            identity: None,
            alpn_protocols: Vec::new(),
            requires_alpn: false,
            minimum_version: ProtocolVersion::TLS_1_2,
            sessions: 256,
            key_log: None,
        }
    }

    /// The name, or the address, that the server's certificate must be for, wherever the
    /// connection goes. A name is also sent, so that the server can choose (SNI).
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Trust certificates that one of these authorities has signed. Given twice, the last counts.
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Trust exactly this certificate, whatever its name and its dates: the server must have its
    /// key. Several may be pinned, so that one can follow another. With
    /// [`roots`](Self::roots), both must hold.
    pub fn pin_certificate(mut self, certificate: CertificateDer<'static>) -> Self {
        self.pinned.push(certificate);
        self
    }

    /// The same by the SHA-256 of the certificate in its binary form, which `openssl x509
    /// -fingerprint -sha256` prints.
    pub fn pin_sha256(mut self, fingerprint: [u8; 32]) -> Self {
        self.pins.push(fingerprint);
        self
    }

    /// Trust anybody: for development, never for anything else. Whoever stands between can read
    /// and change everything. Each connection logs a warning.
    pub fn dangerous_accept_any_certificate(mut self) -> Self {
        self.trusts_anybody = true;
        self
    }

    /// Be `identity` to servers that ask for a certificate.
    pub fn client_certificate(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Offer these application protocols (RFC 7301), the preferred one first. A server that knows
    /// none of them refuses, or chooses none.
    pub fn alpn_protocols<I>(mut self, protocols: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Vec<u8>>,
    {
        self.alpn_protocols = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Refuse a server that has chosen none of the application protocols: one that knows nothing of
    /// ALPN would be spoken to in a protocol that it may not speak.
    pub fn require_alpn(mut self) -> Self {
        self.requires_alpn = true;
        self
    }

    /// The oldest version that is spoken: TLS 1.2, which is what rustls has, or TLS 1.3.
    pub fn minimum_version(mut self, version: ProtocolVersion) -> Self {
        self.minimum_version = version;
        self
    }

    /// Remember the sessions of so many servers, up to eight of each, and resume them; 0 for none.
    pub fn sessions(mut self, servers: usize) -> Self {
        self.sessions = servers;
        self
    }

    /// Append the secrets of all sessions to this file, for Wireshark. Who can read it can read
    /// everything that they say.
    pub fn key_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.key_log = Some(path.into());
        self
    }

    /// The same for the file that the environment variable `SSLKEYLOGFILE` names, if it does.
    pub fn key_log_from_environment(mut self) -> Self {
        self.key_log = env::var_os("SSLKEYLOGFILE").map(PathBuf::from);
        self
    }

    /// Load and check everything.
    ///
    /// # Errors
    /// What cannot work: files, certificates, keys, names, nobody to trust. This program is to
    /// blame, or who set it up.
    pub fn build(mut self) -> Result<Connector, ConfigError> {
        alpn::check(&self.alpn_protocols)?;
        let name = self.server_name.take().ok_or(ConfigError::NoServerName)?;
        let server_name = match ServerName::try_from(name.clone()) {
            Ok(name) => name,
            Err(_) => {
                let problem = "a host name or an address is wanted";
                return Err(ConfigError::ServerName { name, problem });
            }
        };
        let verifier = self.verifier()?;
        let builder = ClientConfig::builder_with_provider(self.provider.crypto().clone())
            .with_protocol_versions(self.minimum_version.and_above()?)
            .map_err(|error| ConfigError::Rustls(error.into()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            Some(identity) => {
                let key = identity.bytes()?.load(&identity.place(), &self.provider)?;
                let key = Arc::unwrap_or_clone(key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = match self.sessions {
            0 => Resumption::disabled(),
            // LIMIT: sessions that are remembered.
            servers => Resumption::in_memory_sessions(servers * SESSIONS_PER_SERVER),
        };
        config.enable_early_data = false;
        if let Some(path) = self.key_log {
            config.key_log = Arc::new(KeyLogFile::open(path)?);
        }
        config.alpn_protocols = self.alpn_protocols;
        Ok(Connector::new(config, server_name)
            .trusting_anybody(self.trusts_anybody)
            .requiring_alpn(self.requires_alpn))
    }

    fn verifier(&mut self) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
        let mut pins = std::mem::take(&mut self.pins);
        for certificate in &self.pinned {
            pins.push(sha256(&self.provider, certificate)?);
        }
        if !pins.is_empty() {
            // Found out here rather than in the first handshake.
            sha256(&self.provider, b"")?;
        }
        let authorities = match self.roots.take() {
            Some(roots) => {
                let crypto = self.provider.crypto().clone();
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots.into_store()?, crypto)
                        .build();
                let verifier: Arc<dyn ServerCertVerifier> =
                    verifier.map_err(|error| ConfigError::Rustls(error.into()))?;
                Some(verifier)
            }
            None => None,
        };
        match (authorities, pins.is_empty(), self.trusts_anybody) {
            (Some(authorities), true, false) => Ok(authorities),
            (None, true, false) => Err(ConfigError::NoTrust),
            (Some(_), _, true) | (None, false, true) => Err(ConfigError::ContradictingTrust),
            (authorities, ..) => Ok(Arc::new(Trust {
                provider: self.provider.clone(),
                pins,
                authorities,
            })),
        }
    }
}

/// How many sessions rustls keeps of a server, and counts its servers by.
const SESSIONS_PER_SERVER: usize = 8;
