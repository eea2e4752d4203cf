use std::sync::Arc;

use crate::Provider;

/// Cryptography by AWS-LC, with post-quantum key exchange (X25519MLKEM768).
pub fn aws_lc_rs() -> Provider {
    Provider {
        crypto: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        tickets: Some(rustls::crypto::aws_lc_rs::Ticketer::new),
    }
}
