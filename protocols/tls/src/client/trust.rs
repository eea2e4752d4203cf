//! Whom a client believes.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{hash::HashAlgorithm, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{ConfigError, Provider};

/// Believes whoever has the key of a certificate with one of these fingerprints and, if there are
/// authorities as well, is vouched for by them. With neither, it believes anybody.
pub(super) struct Trust {
    pub(super) provider: Provider,
    /// SHA-256 of certificates. Empty: any.
    pub(super) pins: Vec<[u8; 32]>,
    pub(super) authorities: Option<Arc<dyn ServerCertVerifier>>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.pins.is_empty() {
            let hash = sha256(&self.provider, certificate);
            let hash = hash.map_err(|error| Error::General(error.to_string()))?;
            if !self.pins.contains(&hash) {
                let other = rustls::OtherError(Arc::new(OtherPin(hash)));
                return Err(CertificateError::Other(other).into());
            }
        }
        match &self.authorities {
            Some(them) => them.verify_server_cert(certificate, intermediates, name, ocsp, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.crypto().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.crypto().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let crypto = self.provider.crypto();
        crypto.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("pins", &self.pins.len())
            .field("authorities", &self.authorities.is_some())
            .finish_non_exhaustive()
    }
}

/// The SHA-256 of `bytes`, by whichever cipher suite has it.
pub(super) fn sha256(provider: &Provider, bytes: &[u8]) -> Result<[u8; 32], ConfigError> {
    let mut suites = provider.crypto().cipher_suites.iter();
    let hash = suites
        .find_map(|suite| {
            let hash = suite.tls13()?.common.hash_provider;
            (hash.algorithm() == HashAlgorithm::SHA256).then_some(hash)
        })
        .ok_or(ConfigError::NoSha256)?;
    let output = hash.hash(bytes);
    Ok(output.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// The fingerprint of a certificate that is none of those that are pinned.
#[derive(Debug)]
struct OtherPin([u8; 32]);

impl fmt::Display for OtherPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is none of those that are pinned, its SHA-256 is ")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::error::Error for OtherPin {}
