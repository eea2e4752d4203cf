use std::{env, path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    server::{
        NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier,
    },
};

use super::{Acceptor, Certificates};
use crate::{ConfigError, Identity, ProtocolVersion, Provider, Roots, alpn, key_log::KeyLogFile};

/// Configures the TLS of a server. What cannot work is refused by [`build`](Self::build).
///
/// | setting | default | |
/// |---|---|---|
/// | [`certificate`](Self::certificate) | - | for everybody without one of his own |
/// | [`certificate_for`](Self::certificate_for) | - | for names (SNI) |
/// | [`require_client_certificate`](Self::require_client_certificate) | off | who has none is refused |
/// | [`accept_client_certificate`](Self::accept_client_certificate) | off | who has a wrong one is refused |
/// | [`alpn_protocols`](Self::alpn_protocols) | none | the first of them that the client offers is chosen |
/// | [`alpn_policy`](Self::alpn_policy) | refuse a mismatch | what becomes of clients that offer others, or nothing |
/// | [`minimum_version`](Self::minimum_version) | TLS 1.2 | |
/// | [`sessions`](Self::sessions) | 4,096 remembered | resumption without a handshake |
/// | [`key_log`](Self::key_log) | off | secrets for Wireshark |
///
/// Early data (0-RTT) is never accepted: it can be replayed, and what it says would be done twice
/// (RFC 8446 section 8). Renegotiation is never done.
#[derive(Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct AcceptorBuilder {
    provider: Provider,
    identities: Vec<(Vec<String>, Identity)>,
    resolver: Option<Arc<dyn ResolvesServerCert>>,
    clients: Clients,
    alpn_protocols: Vec<Vec<u8>>,
    alpn_policy: AlpnPolicy,
    minimum_version: ProtocolVersion,
    sessions: SessionPolicy,
    key_log: Option<PathBuf>,
}

/// Whose certificates are asked for.
#[derive(Debug)]
enum Clients {
    Any,
    WithCertificate { roots: Roots, required: bool },
}

/// What becomes of clients with whom no application protocol can be agreed upon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AlpnPolicy {
    /// A client that offers only others is refused, with the alert `no_application_protocol`
    /// (RFC 7301 section 3.2). One that offers nothing is let in: it may be older than ALPN.
    #[default]
    RefuseMismatch,
    /// A client that offers nothing is refused as well.
    Require,
    /// Both are let in, without a protocol that was agreed upon.
    Optional,
}

/// How clients may resume the session of an earlier connection, which saves both sides the
/// signatures of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionPolicy {
    /// The server remembers so many sessions, and forgets the oldest for a new one: about 200
    /// bytes for each and the certificates of its client. A connection of TLS 1.3 leaves two. They
    /// end with the program.
    Remember(usize),
    /// The server seals each session into a ticket that the client keeps: no memory at all. The
    /// keys are made anew every six hours and last for twelve; they end with the program.
    Tickets,
    /// Each connection has a handshake of its own.
    Off,
}

impl Default for SessionPolicy {
    /// A megabyte or so, and clients that come back within the last two thousand connections are
    /// known.
    fn default() -> Self {
        Self::Remember(4096)
    }
}

impl AcceptorBuilder {
    pub(super) fn new(provider: Provider) -> Self {
        Self {
            provider,
            identities: Vec::new(),
            resolver: None,
            clients: Clients::Any,
            alpn_protocols: Vec::new(),
            alpn_policy: AlpnPolicy::default(),
            minimum_version: ProtocolVersion::TLS_1_2,
            sessions: SessionPolicy::default(),
            key_log: None,
        }
    }

    /// Be `identity` to everybody without a certificate of his own: clients that name no server,
    /// or one that is not known. Without it, these are refused with the alert `unrecognized_name`.
    pub fn certificate(mut self, identity: Identity) -> Self {
        self.identities.push((Vec::new(), identity));
        self
    }

    /// Be `identity` to clients that name one of `names`: each the name of a host, or `*.` and a
    /// domain, for every host directly below it. The certificate must be for them.
    pub fn certificate_for<I>(mut self, names: I, identity: Identity) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let names = names.into_iter().map(Into::into).collect();
        self.identities.push((names, identity));
        self
    }

    /// Ask `resolver` for certificates, instead of those above. It is called in the handshake, so
    /// it must be quick; if it panics, that handshake has failed.
    pub fn resolver(mut self, resolver: Arc<dyn ResolvesServerCert>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Let in only clients with a certificate that one of `roots` has signed.
    pub fn require_client_certificate(mut self, roots: Roots) -> Self {
        self.clients = Clients::WithCertificate {
            roots,
            required: true,
        };
        self
    }

    /// Ask clients for a certificate that one of `roots` has signed, and let in those without one.
    /// See [`TlsStream::peer_certificates`](crate::TlsStream::peer_certificates).
    pub fn accept_client_certificate(mut self, roots: Roots) -> Self {
        self.clients = Clients::WithCertificate {
            roots,
            required: false,
        };
        self
    }

    /// The application protocols that are spoken (RFC 7301), the preferred one first.
    pub fn alpn_protocols<I>(mut self, protocols: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Vec<u8>>,
    {
        self.alpn_protocols = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// What becomes of clients with whom no application protocol can be agreed upon.
    pub fn alpn_policy(mut self, policy: AlpnPolicy) -> Self {
        self.alpn_policy = policy;
        self
    }

    /// The oldest version that is spoken: TLS 1.2, which is what rustls has, or TLS 1.3.
    pub fn minimum_version(mut self, version: ProtocolVersion) -> Self {
        self.minimum_version = version;
        self
    }

    /// How clients may resume sessions.
    pub fn sessions(mut self, policy: SessionPolicy) -> Self {
        self.sessions = policy;
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
    /// What cannot work: files, certificates, keys, names. This program is to blame, or who set it
    /// up.
    pub fn build(self) -> Result<Acceptor, ConfigError> {
        alpn::check(&self.alpn_protocols)?;
        let crypto = self.provider.crypto().clone();
        let builder = ServerConfig::builder_with_provider(crypto.clone())
            .with_protocol_versions(self.minimum_version.and_above()?)
            .map_err(|error| ConfigError::Rustls(error.into()))?;
        let builder = match self.clients {
            Clients::Any => builder.with_no_client_auth(),
            Clients::WithCertificate { roots, required } => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots.into_store()?, crypto);
                let verifier = match required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| ConfigError::Rustls(error.into()))?,
                )
            }
        };
        let mut certificates = None;
        let mut config = match self.resolver {
            Some(resolver) => builder.with_cert_resolver(resolver),
            None if self.identities.is_empty() => return Err(ConfigError::NoIdentity),
            None => {
                let loaded = Certificates::load(self.provider.clone(), self.identities)?;
                certificates = Some(loaded.clone());
                builder.with_cert_resolver(Arc::new(loaded))
            }
        };
        config.session_storage = match self.sessions {
            SessionPolicy::Remember(0) => return Err(ConfigError::Zero("remembered sessions")),
            // LIMIT: sessions that are remembered.
            SessionPolicy::Remember(sessions) => ServerSessionMemoryCache::new(sessions),
            SessionPolicy::Tickets => {
                let tickets = self.provider.tickets.ok_or(ConfigError::NoTickets)?;
                config.ticketer = tickets().map_err(|error| ConfigError::Rustls(error.into()))?;
                Arc::new(NoServerSessionStorage {})
            }
            SessionPolicy::Off => {
                config.send_tls13_tickets = 0;
                Arc::new(NoServerSessionStorage {})
            }
        };
        config.max_early_data_size = 0;
        if let Some(path) = self.key_log {
            config.key_log = Arc::new(KeyLogFile::open(path)?);
        }
        config.alpn_protocols = self.alpn_protocols;
        Ok(Acceptor::new(config, certificates, self.alpn_policy))
    }
}
