use std::fmt;

use crate::ConfigError;

/// Check what a caller gave as application protocols (RFC 7301 section 3.1).
pub(crate) fn check(protocols: &[Vec<u8>]) -> Result<(), ConfigError> {
    let is_wrong = |protocol: &&Vec<u8>| protocol.is_empty() || protocol.len() > 255;
    match protocols.iter().find(is_wrong) {
        Some(protocol) => Err(ConfigError::ApplicationProtocol(protocol.len())),
        None => Ok(()),
    }
}

/// Application protocols, for people. A peer may have chosen them, so that few are shown, and
/// nothing that a terminal would obey.
pub(crate) struct Protocols<'a>(pub(crate) &'a [Vec<u8>]);

/// How many are shown, and how much of each.
const SHOWN: (usize, usize) = (8, 32);

impl fmt::Display for Protocols<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, protocol) in self.0.iter().take(SHOWN.0).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let shown = &protocol[..protocol.len().min(SHOWN.1)];
            let cut = if shown.len() < protocol.len() {
                "…"
            } else {
                ""
            };
            write!(f, "{comma}{}{cut}", shown.escape_ascii())?;
        }
        match self.0.len().checked_sub(SHOWN.0) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}
