use std::{fmt, sync::Arc};

use rustls::{
    crypto::{CryptoProvider, hash::HashAlgorithm},
    server::ProducesTickets,
};

use crate::ConfigError;

/// The cryptography that TLS is made with. It is always named, never found in a global variable,
/// so that no dependency elsewhere in a program can change it.
///
/// [`ring`](crate::ring) is the one for most.
#[derive(Clone)]
pub struct Provider {
    crypto: Arc<CryptoProvider>,
    tickets: Option<MakeTickets>,
}

/// Makes keys to seal session tickets with.
pub(crate) type MakeTickets = fn() -> Result<Arc<dyn ProducesTickets>, rustls::Error>;

impl Provider {
    /// Another implementation, or a choice of cipher suites and groups of a known one.
    ///
    /// It has no keys for session tickets: servers remember sessions instead.
    pub fn custom(crypto: CryptoProvider) -> Self {
        Self {
            crypto: Arc::new(crypto),
            tickets: None,
        }
    }

    pub(crate) fn with_tickets(crypto: CryptoProvider, tickets: MakeTickets) -> Self {
        Self {
            crypto: Arc::new(crypto),
            tickets: Some(tickets),
        }
    }

    /// What rustls is given.
    pub fn crypto(&self) -> &Arc<CryptoProvider> {
        &self.crypto
    }

    pub(crate) fn tickets(&self) -> Result<Arc<dyn ProducesTickets>, ConfigError> {
        let make = self.tickets.ok_or(ConfigError::NoTickets)?;
        make().map_err(|error| ConfigError::Rustls(error.into()))
    }

    /// The SHA-256 of `bytes`, by whichever cipher suite has it.
    pub(crate) fn sha256(&self, bytes: &[u8]) -> Result<[u8; 32], ConfigError> {
        let mut suites = self.crypto.cipher_suites.iter();
        let hash = suites
            .find_map(|suite| {
                let hash = suite.tls13()?.common.hash_provider;
                (hash.algorithm() == HashAlgorithm::SHA256).then_some(hash)
            })
            .ok_or(ConfigError::NoSha256)?;
        let output = hash.hash(bytes);
        Ok(output.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("cipher_suites", &self.crypto.cipher_suites)
            .field("tickets", &self.tickets.is_some())
            .finish()
    }
}
