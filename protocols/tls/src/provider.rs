use std::{fmt, sync::Arc};

use rustls::{crypto::CryptoProvider, server::ProducesTickets};

/// The cryptography that TLS is made with. It is always named, never found in a global variable,
/// so that no dependency elsewhere in a program can change it.
///
/// `ring` is the one for most.
#[derive(Clone)]
pub struct Provider {
    pub(crate) crypto: Arc<CryptoProvider>,
    pub(crate) tickets: Option<MakeTickets>,
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

    /// What rustls is given.
    pub fn crypto(&self) -> &Arc<CryptoProvider> {
        &self.crypto
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
