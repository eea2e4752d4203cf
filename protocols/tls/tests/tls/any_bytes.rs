//! What holds of `ClientHello::parse` for any bytes. The fuzz target `client_hello` shares it.

use protosocket_tls::{ClientHello, Parsed};

/// Parse `bytes`, and their beginnings.
///
/// # Panics
/// If what is made of a beginning contradicts what is made of all.
pub(crate) fn check(bytes: &[u8]) {
    let whole = ClientHello::parse(bytes);
    let mut missing = 0;
    // Long inputs are looked at in steps, so that their time does not grow with their square.
    for cut in (0..bytes.len()).step_by(1 + bytes.len() / 256) {
        match ClientHello::parse(&bytes[..cut]) {
            Ok(Parsed::NeedMore(more)) => {
                assert!(
                    more > 0,
                    "nothing is missing at {cut}, and it is not complete"
                );
                missing = missing.max(cut + more);
            }
            Ok(hello) => assert_eq!(whole.as_ref(), Ok(&hello), "it changes behind {cut}"),
            Err(error) => {
                assert!(whole.is_err(), "{error} at {cut}, and {whole:?} in the end");
            }
        }
    }
    if let Ok(Parsed::ClientHello(hello)) = &whole {
        assert!(missing <= bytes.len(), "more was asked for than it takes");
        let name = hello.server_name().unwrap_or("a");
        assert!(!name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert!(!hello.versions().is_empty());
    }
}
