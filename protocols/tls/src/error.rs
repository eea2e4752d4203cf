use std::{io, sync::Arc};

use protosocket::Lingering;
use rustls::{AlertDescription, CertificateError, PeerIncompatible};

use crate::{Alert, Speech, alpn::Protocols};

/// Why a handshake failed, or why an established connection ended that had better not.
///
/// It is what an [`io::Error`] of this crate's streams, acceptor and connector holds: see
/// [`Error::of`]. A handshake that fails is a connection that a server refused, and an
/// [`EstablishError`](protosocket::EstablishError); a stream that fails is the
/// [`CloseReason`](protosocket::CloseReason) of its connection.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer does not speak TLS. Perhaps it meant another port.
    #[error("the peer does not speak TLS: what it sent looks like {0}")]
    NotTls(Speech),
    /// The client offered application protocols, and none that this server speaks.
    #[error(
        "no application protocol (ALPN) in common: the client offers {}, this server speaks {} \
         (answered with alert {})",
        Protocols(.offered), Protocols(.supported), Alert::NO_APPLICATION_PROTOCOL
    )]
    NoApplicationProtocol {
        /// What the client offered.
        offered: Vec<Vec<u8>>,
        /// What this server speaks.
        supported: Vec<Vec<u8>>,
    },
    /// The server has chosen none of the application protocols, and one is required.
    #[error(
        "the server has chosen no application protocol (ALPN), although this side offers {} and \
         requires one (require_alpn)",
        Protocols(.offered)
    )]
    NoneChosen {
        /// What this side offered.
        offered: Vec<Vec<u8>>,
    },
    /// The client wants a server that is not here, and there is no certificate for all the others.
    #[error(
        "no certificate for {name} (answered with alert {alert})",
        name = wanted(.0.as_deref()),
        alert = Alert::UNRECOGNIZED_NAME
    )]
    UnknownServerName(Option<String>),
    /// The peer gave the connection up and said why.
    #[error("the peer refused: it sent alert {alert}{meaning}", alert = .0, meaning = meaning(.0))]
    Refused(Alert),
    /// The peer's certificate was not accepted, or it sent none.
    #[error("the peer's certificate was not accepted: {problem}{}", sent(.alert))]
    Certificate {
        /// What is wrong with it.
        problem: String,
        /// The alert that told the peer.
        alert: Option<Alert>,
        /// What rustls says.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The two sides have nothing in common: versions, cipher suites, groups, signatures.
    #[error("the peer and this side have no TLS in common: {problem}{}", sent(.alert))]
    Incompatible {
        /// What they lack.
        problem: String,
        /// The alert that told the peer.
        alert: Option<Alert>,
        /// What rustls says.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The peer broke the rules of TLS, or somebody between changed what it sent.
    #[error("the peer broke the rules of TLS: {source}{}", sent(.alert))]
    Protocol {
        /// The alert that told the peer.
        alert: Option<Alert>,
        /// What rustls says.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The connection ended before the handshake was done.
    #[error("the peer ended the connection amid the handshake, without a word")]
    HandshakeCut,
    /// The connection ended without `close_notify`: what has come may not be all that was sent
    /// (RFC 8446 section 6.1). Its kind is `UnexpectedEof`.
    #[error(
        "the connection ended without close_notify: the peer broke off, or somebody cut the \
         stream short"
    )]
    Truncated,
    /// This side could not go on, and the peer is not to blame.
    #[error("TLS failed on this side: {0}")]
    Local(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// What `error` has to do with TLS; `None` if it is one of the stream below.
    pub fn of(error: &io::Error) -> Option<&Self> {
        let inner = error.get_ref()?;
        match inner.downcast_ref::<Lingering>() {
            Some(lingering) => Self::of(lingering.error()),
            None => inner.downcast_ref(),
        }
    }

    /// The alert that the peer was sent, if it is known which.
    pub fn alert_sent(&self) -> Option<Alert> {
        match self {
            Self::NoApplicationProtocol { .. } => Some(Alert::NO_APPLICATION_PROTOCOL),
            Self::UnknownServerName(_) => Some(Alert::UNRECOGNIZED_NAME),
            Self::Certificate { alert, .. }
            | Self::Incompatible { alert, .. }
            | Self::Protocol { alert, .. } => *alert,
            _ => None,
        }
    }

    /// The alert that the peer sent.
    pub fn alert_received(&self) -> Option<Alert> {
        match self {
            Self::Refused(alert) => Some(*alert),
            _ => None,
        }
    }

    /// What a failed handshake comes to, of which `beginning` are the first bytes that the peer
    /// sent.
    pub(crate) fn of_handshake(error: io::Error, beginning: &[u8]) -> io::Error {
        let tls = rustls_error(&error);
        let is_foreign = match tls {
            Some(tls) => matches!(
                tls,
                rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. }
            ),
            None => error.kind() == io::ErrorKind::UnexpectedEof,
        };
        if is_foreign && let Some(speech) = Speech::of(beginning) {
            return Self::NotTls(speech).into();
        }
        match tls {
            Some(tls) => Self::from_rustls(tls).into(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::HandshakeCut.into(),
            None => error,
        }
    }

    /// The alert that this failure of a handshake wants.
    pub(crate) fn alert_for_handshake(error: &io::Error) -> Option<Alert> {
        alert_for(rustls_error(error)?)
    }

    /// What the failure of an established stream comes to.
    pub(crate) fn of_stream(error: io::Error) -> io::Error {
        match rustls_error(&error) {
            Some(tls) => Self::from_rustls(tls).into(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Truncated.into(),
            None => error,
        }
    }

    fn from_rustls(error: &rustls::Error) -> Self {
        use rustls::Error as Tls;
        let alert = alert_for(error);
        let source = Arc::new(error.clone());
        match error {
            Tls::AlertReceived(alert) => Self::Refused(Alert(u8::from(*alert))),
            Tls::InvalidCertificate(problem) => Self::Certificate {
                problem: certificate_problem(problem),
                alert,
                source,
            },
            Tls::NoCertificatesPresented => Self::Certificate {
                problem: "it sent none, and one is required".to_owned(),
                alert,
                source,
            },
            Tls::PeerIncompatible(problem) => Self::Incompatible {
                problem: incompatibility(problem),
                alert,
                source,
            },
            Tls::InvalidMessage(_)
            | Tls::InappropriateMessage { .. }
            | Tls::InappropriateHandshakeMessage { .. }
            | Tls::PeerMisbehaved(_)
            | Tls::PeerSentOversizedRecord
            | Tls::DecryptError
            | Tls::NoApplicationProtocol
            | Tls::UnsupportedNameType => Self::Protocol { alert, source },
            _ => Self::Local(source),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::HandshakeCut | Error::Truncated => io::ErrorKind::UnexpectedEof,
            Error::Local(_) => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The alert that rustls sends for `error`, where that does not depend on anything else.
fn alert_for(error: &rustls::Error) -> Option<Alert> {
    use rustls::Error as Tls;
    Some(match error {
        Tls::InvalidCertificate(problem) => of(AlertDescription::from(problem.clone())),
        Tls::PeerSentOversizedRecord => Alert::RECORD_OVERFLOW,
        Tls::InvalidMessage(problem) => of(AlertDescription::from(*problem)),
        Tls::PeerIncompatible(problem) if is_about_version(problem) => Alert::PROTOCOL_VERSION,
        Tls::PeerIncompatible(_) => Alert::HANDSHAKE_FAILURE,
        Tls::NoApplicationProtocol => Alert::NO_APPLICATION_PROTOCOL,
        Tls::DecryptError => Alert::BAD_RECORD_MAC,
        Tls::InappropriateMessage { .. } | Tls::InappropriateHandshakeMessage { .. } => {
            Alert::UNEXPECTED_MESSAGE
        }
        _ => return None,
    })
}

fn of(alert: AlertDescription) -> Alert {
    Alert(u8::from(alert))
}

fn is_about_version(problem: &PeerIncompatible) -> bool {
    use PeerIncompatible as P;
    matches!(
        problem,
        P::ServerDoesNotSupportTls12Or13
            | P::ServerTlsVersionIsDisabledByOurConfig
            | P::SupportedVersionsExtensionRequired
            | P::Tls12NotOffered
            | P::Tls12NotOfferedOrEnabled
    )
}

/// What is wrong with a certificate, in words where rustls has none.
fn certificate_problem(problem: &CertificateError) -> String {
    let text = match problem {
        CertificateError::BadEncoding => "it is damaged",
        CertificateError::UnknownIssuer => "no authority that this side trusts has signed it",
        CertificateError::BadSignature => "it, or the handshake, is signed with another key",
        CertificateError::Revoked => "it was revoked",
        CertificateError::Other(other) => return other.to_string(),
        other => return other.to_string(),
    };
    text.to_owned()
}

fn incompatibility(problem: &PeerIncompatible) -> String {
    use PeerIncompatible as P;
    let text = match problem {
        problem if is_about_version(problem) => {
            "the peer speaks no version of TLS that this side allows (minimum_version)"
        }
        P::SignatureAlgorithmsExtensionRequired => {
            "the client names no kinds of signatures, as clients older than TLS 1.2 do"
        }
        P::NoCipherSuitesInCommon => "no cipher suite",
        P::NoKxGroupsInCommon | P::NamedGroupsExtensionRequired => "no group for the key exchange",
        P::NoSignatureSchemesInCommon | P::NoCertificateRequestSignatureSchemesInCommon => {
            "no kind of signature that a certificate of this side is good for"
        }
        other => return format!("{other:?}"),
    };
    text.to_owned()
}

fn wanted(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("the server name {name:?}"),
        None => "a client that names no server (SNI)".to_owned(),
    }
}

fn sent(alert: &Option<Alert>) -> String {
    alert.map_or(String::new(), |alert| {
        format!(" (answered with alert {alert})")
    })
}

fn meaning(alert: &Alert) -> String {
    alert
        .meaning()
        .map_or(String::new(), |text| format!(", {text}"))
}
