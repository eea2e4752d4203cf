use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error, PemObject},
};

use crate::ConfigError;

/// The longest file of certificates or keys that is read, in bytes. All of Mozilla's authorities
/// have a quarter of that.
const MAX_FILE: u64 = 1024 * 1024;

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::File {
        path: PathBuf::from(path),
        source,
    };
    // A device or a pipe in its place would be read for ever.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        let what = format!("it is no file of at most {MAX_FILE} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    fs::read(path).map_err(failed)
}

/// The certificates in `pem`, of which there is at least one.
pub(crate) fn certificates(
    pem: &[u8],
    place: &str,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(ConfigError::NoCertificate(place.to_owned()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(broken(&error, place)),
    }
}

/// The first private key in `pem`.
pub(crate) fn key(pem: &[u8], place: &str) -> Result<PrivateKeyDer<'static>, ConfigError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound => ConfigError::NoKey(place.to_owned()),
        error => broken(&error, place),
    })
}

/// What is wrong, without a word of what stands there: it may be a key.
fn broken(error: &Error, place: &str) -> ConfigError {
    ConfigError::Pem {
        place: place.to_owned(),
        problem: match error {
            Error::MissingSectionEnd { .. } => "it ends amid a section".to_owned(),
            Error::IllegalSectionStart { .. } => "a section begins wrongly".to_owned(),
            Error::Base64Decode(_) => "what is in a section is no base64".to_owned(),
            _ => "it is no PEM".to_owned(),
        },
    }
}
