use std::sync::Arc;

use crate::Provider;

/// Cryptography by the library *ring*: fast, small, builds everywhere. It has no post-quantum key
/// exchange.
pub fn ring() -> Provider {
    Provider {
        crypto: Arc::new(rustls::crypto::ring::default_provider()),
        tickets: Some(rustls::crypto::ring::Ticketer::new),
    }
}
