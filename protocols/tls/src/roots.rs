use std::{fmt, path::Path, sync::Arc};

use rustls::{RootCertStore, pki_types::CertificateDer};

use crate::{ConfigError, pem};

/// The authorities whose signatures are trusted.
#[derive(Clone)]
pub struct Roots(pub(crate) RootCertStore);

impl Roots {
    /// Nobody yet.
    pub fn new() -> Self {
        Self(RootCertStore::empty())
    }

    /// Those of a PEM file.
    ///
    /// # Errors
    /// What cannot be read, is no PEM, or no certificate of an authority.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        Self::read(&pem::read(path)?, &path.display().to_string())
    }

    /// Those of PEM in memory.
    ///
    /// # Errors
    /// What is no PEM, or no certificate of an authority.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::read(pem.as_ref(), IN_MEMORY)
    }

    fn read(pem: &[u8], place: &str) -> Result<Self, ConfigError> {
        let mut roots = Self::new();
        for certificate in pem::certificates(pem, place)? {
            roots.trust(certificate, place)?;
        }
        Ok(roots)
    }

    /// One more, in its binary form.
    ///
    /// # Errors
    /// What is no certificate of an authority.
    pub fn add(&mut self, certificate: CertificateDer<'_>) -> Result<(), ConfigError> {
        self.trust(certificate, IN_MEMORY)
    }

    fn trust(&mut self, certificate: CertificateDer<'_>, place: &str) -> Result<(), ConfigError> {
        self.0.add(certificate).map_err(|source| ConfigError::Root {
            place: place.to_owned(),
            source: source.into(),
        })
    }

    pub(crate) fn into_store(self) -> Result<Arc<RootCertStore>, ConfigError> {
        match self.0.is_empty() {
            true => Err(ConfigError::NoRoots),
            false => Ok(Arc::new(self.0)),
        }
    }
}

impl Default for Roots {
    fn default() -> Self {
        Self::new()
    }
}

const IN_MEMORY: &str = "an authority in memory";

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}
