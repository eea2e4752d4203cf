use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{ConfigError, Identity};

/// A new certificate for these names, signed by itself: for development and tests. A client
/// trusts it as its own authority, or pins it.
///
/// # Errors
/// A name that is none.
pub fn development_certificate<I>(names: I) -> Result<DevelopmentCertificate, ConfigError>
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let names: Vec<String> = names.into_iter().map(Into::into).collect();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)
        .map_err(|error| ConfigError::Development(error.to_string()))?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der())
        .map_err(|error| ConfigError::Development(error.to_owned()))?;
    Ok(DevelopmentCertificate {
        identity: Identity::der(vec![cert.der().clone()], key),
        pem: cert.pem(),
        certificate: cert.der().clone(),
    })
}

/// What [`development_certificate`] made.
#[derive(Debug, Clone)]
pub struct DevelopmentCertificate {
    /// For the server.
    pub identity: Identity,
    /// The certificate in its binary form.
    pub certificate: CertificateDer<'static>,
    /// The certificate as PEM, for clients.
    pub pem: String,
}
