use rustls::RootCertStore;

use crate::Roots;

/// The authorities that Mozilla trusts for the web, as of the build of this program.
pub fn web_roots() -> Roots {
    Roots(RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    })
}
