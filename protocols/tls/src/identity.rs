use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use crate::{ConfigError, Provider, pem};

/// A certificate with its chain and its private key: who this side is.
#[derive(Clone, PartialEq)]
pub struct Identity(Source);

#[derive(Clone, PartialEq)]
enum Source {
    Files {
        chain: PathBuf,
        key: PathBuf,
    },
    Pem {
        chain: Vec<u8>,
        key: Vec<u8>,
    },
    Der {
        chain: Vec<CertificateDer<'static>>,
        key: Arc<PrivateKeyDer<'static>>,
    },
}

impl Identity {
    /// Read PEM files: the certificate first, behind it those that lead to the authority, and in
    /// the other file (or the same) the private key, not encrypted: PKCS #8, PKCS #1 (RSA) or
    /// SEC 1 (EC).
    ///
    /// They are read when acceptor or connector are built, and by a server again when it reloads.
    pub fn pem_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self(Source::Files {
            chain: chain.into(),
            key: key.into(),
        })
    }

    /// The same from memory.
    pub fn pem(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self(Source::Pem {
            chain: chain.into(),
            key: key.into(),
        })
    }

    /// Certificates and key in their binary form.
    pub fn der(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self(Source::Der {
            chain,
            key: Arc::new(key),
        })
    }

    pub(crate) fn place(&self) -> String {
        match &self.0 {
            Source::Files { chain, .. } => chain.display().to_string(),
            Source::Pem { .. } | Source::Der { .. } => "a certificate in memory".to_owned(),
        }
    }

    /// What it is made of, read anew if it comes from files.
    pub(crate) fn bytes(&self) -> Result<Self, ConfigError> {
        Ok(match &self.0 {
            Source::Files { chain, key } => Self::pem(pem::read(chain)?, pem::read(key)?),
            Source::Pem { .. } | Source::Der { .. } => self.clone(),
        })
    }

    /// Parse it, and check that the key belongs to the certificate.
    pub(crate) fn load(
        &self,
        place: &str,
        provider: &Provider,
    ) -> Result<Arc<CertifiedKey>, ConfigError> {
        let (chain, key) = match &self.0 {
            Source::Files { chain, key } => {
                let key_place = key.display().to_string();
                (
                    pem::certificates(&pem::read(chain)?, place)?,
                    pem::key(&pem::read(key)?, &key_place)?,
                )
            }
            Source::Pem { chain, key } => (pem::certificates(chain, place)?, pem::key(key, place)?),
            Source::Der { chain, key } => (chain.clone(), key.clone_key()),
        };
        if chain.is_empty() {
            return Err(ConfigError::NoCertificate(place.to_owned()));
        }
        CertifiedKey::from_der(chain, key, provider.crypto())
            .map(Arc::new)
            .map_err(|source| ConfigError::Key {
                place: place.to_owned(),
                source: source.into(),
            })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.place())
    }
}
