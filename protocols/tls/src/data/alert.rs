use std::fmt;

/// Why a side of a TLS connection ends it (RFC 8446 section 6). A value that is not known here
/// keeps its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Alert(pub u8);

/// Defines a constant for each alert, and the table of their names and meanings.
macro_rules! alerts {
    ($($constant:ident = $code:literal, $name:literal, $meaning:literal;)*) => {
        impl Alert {
            $(
                #[doc = concat!("`", $name, "`: ", $meaning, ".")]
                pub const $constant: Self = Self($code);
            )*

            /// Its name in the RFCs, or `None` if it is not known.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($name),)*
                    _ => None,
                }
            }

            /// What its sender wants to say, for people; or `None` if it is not known.
            pub fn meaning(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($meaning),)*
                    _ => None,
                }
            }
        }
    };
}

alerts! {
    CLOSE_NOTIFY = 0, "close_notify", "its sender has finished";
    UNEXPECTED_MESSAGE = 10, "unexpected_message", "a message came that does not belong there";
    BAD_RECORD_MAC = 20, "bad_record_mac", "a record could not be decrypted";
    RECORD_OVERFLOW = 22, "record_overflow", "a record was longer than records may be";
    HANDSHAKE_FAILURE = 40, "handshake_failure", "the two sides have no cryptography in common";
    BAD_CERTIFICATE = 42, "bad_certificate", "the certificate is damaged, or not for this name";
    UNSUPPORTED_CERTIFICATE = 43, "unsupported_certificate", "the certificate is of a kind that is not supported, or for another purpose";
    CERTIFICATE_REVOKED = 44, "certificate_revoked", "the certificate was revoked";
    CERTIFICATE_EXPIRED = 45, "certificate_expired", "the certificate has expired, or is not valid yet";
    CERTIFICATE_UNKNOWN = 46, "certificate_unknown", "the certificate was not accepted";
    ILLEGAL_PARAMETER = 47, "illegal_parameter", "a field had a value that it may not have";
    UNKNOWN_CA = 48, "unknown_ca", "the authority that signed the certificate is not known";
    ACCESS_DENIED = 49, "access_denied", "the certificate is valid, but its owner is not let in";
    DECODE_ERROR = 50, "decode_error", "a message could not be decoded";
    DECRYPT_ERROR = 51, "decrypt_error", "a signature or a key exchange was wrong";
    PROTOCOL_VERSION = 70, "protocol_version", "the two sides have no version of TLS in common";
    INSUFFICIENT_SECURITY = 71, "insufficient_security", "stronger cryptography is asked for";
    INTERNAL_ERROR = 80, "internal_error", "something failed that has nothing to do with the peer";
    INAPPROPRIATE_FALLBACK = 86, "inappropriate_fallback", "an older version was tried without need";
    USER_CANCELED = 90, "user_canceled", "its sender gave the handshake up";
    NO_RENEGOTIATION = 100, "no_renegotiation", "a handshake on an established connection is refused";
    MISSING_EXTENSION = 109, "missing_extension", "an extension is missing that must be there";
    UNSUPPORTED_EXTENSION = 110, "unsupported_extension", "an extension came that was not offered";
    UNRECOGNIZED_NAME = 112, "unrecognized_name", "there is no server of that name";
    BAD_CERTIFICATE_STATUS_RESPONSE = 113, "bad_certificate_status_response", "the OCSP response is wrong";
    UNKNOWN_PSK_IDENTITY = 115, "unknown_psk_identity", "the shared key is not known";
    CERTIFICATE_REQUIRED = 116, "certificate_required", "a client certificate is required";
    NO_APPLICATION_PROTOCOL = 120, "no_application_protocol", "the two sides have no application protocol (ALPN) in common";
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "alert {:#04x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Alert;

    #[test]
    fn alerts_have_names_and_unknown_ones_their_number() {
        assert_eq!(Alert(116), Alert::CERTIFICATE_REQUIRED);
        assert_eq!(
            Alert::NO_APPLICATION_PROTOCOL.to_string(),
            "no_application_protocol (120)"
        );
        assert_eq!(Alert(0xee).to_string(), "alert 0xee");
        assert_eq!((Alert(0xee).name(), Alert(0xee).meaning()), (None, None));
    }
}
