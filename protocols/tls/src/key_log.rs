use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use rustls::KeyLog;

use crate::ConfigError;

/// Appends the secrets of each session to a file, in the format of `SSLKEYLOGFILE`, with which
/// Wireshark decrypts what it has captured.
pub(crate) struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self, ConfigError> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        // Who can read it can read everything that these sessions say.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path);
        tracing::warn!(path = %path.display(), "the secrets of all TLS sessions are written to a file");
        match file {
            Ok(file) => Ok(Self(Mutex::new(file))),
            Err(source) => Err(ConfigError::File { path, source }),
        }
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", Hex(client_random), Hex(secret));
        // One write per line, so that those of several programs do not mix.
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "cannot write to the key log");
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogFile")
    }
}
