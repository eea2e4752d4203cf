use crate::Provider;

/// Cryptography by the library *ring*: fast, small, builds everywhere. It has no post-quantum key
/// exchange.
pub fn ring() -> Provider {
    Provider::with_tickets(
        rustls::crypto::ring::default_provider(),
        rustls::crypto::ring::Ticketer::new,
    )
}
