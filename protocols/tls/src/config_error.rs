use std::{error::Error, io, path::PathBuf};

/// A certificate, a key or a setting cannot be used. This program, or who set it up, is to blame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is no PEM, or ends amid it.
    #[error("{place}: {problem}")]
    Pem {
        /// The file, or what it was for.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no certificate where one is wanted.
    #[error("{0}: no certificate (\"-----BEGIN CERTIFICATE-----\")")]
    NoCertificate(String),
    /// There is no private key where one is wanted.
    #[error("{0}: no private key (\"-----BEGIN PRIVATE KEY-----\", RSA or EC)")]
    NoKey(String),
    /// The key is not that of the certificate.
    #[error(
        "{place}: the private key does not belong to the certificate, or is of no use: {source}"
    )]
    Key {
        /// Where they come from.
        place: String,
        /// What rustls says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A certificate of an authority cannot be used.
    #[error("{place}: not a certificate of an authority: {source}")]
    Root {
        /// Where it comes from.
        place: String,
        /// What rustls says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A list of authorities is empty, so that nobody could be trusted.
    #[error("there is no authority to trust: give roots")]
    NoRoots,
    /// A server has no certificate.
    #[error("a server needs a certificate: give `certificate` or `certificate_for`")]
    NoIdentity,
    /// A client does not know whom it talks to.
    #[error(
        "a client needs the name of the server (`server_name`), to check its certificate against"
    )]
    NoServerName,
    /// It says neither whom it trusts nor that it trusts anybody.
    #[error(
        "a client must say which certificates it trusts: roots, a pin, or, in development, any"
    )]
    NoTrust,
    /// It trusts anybody and somebody in particular.
    #[error(
        "dangerous_accept_any_certificate leaves roots and pins without meaning: give one of them"
    )]
    ContradictingTrust,
    /// Something is no name of a server.
    #[error("{name:?} is no name of a server: {problem}")]
    ServerName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A name was given two certificates.
    #[error("{0:?} has two certificates")]
    NameTwice(String),
    /// A certificate is not for the name that it was given for.
    #[error("the certificate of {place} is not for the name {name:?}: {source}")]
    WrongName {
        /// Where it comes from.
        place: String,
        /// The name.
        name: String,
        /// What rustls says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An application protocol is empty or longer than 255 bytes (RFC 7301 section 3.1).
    #[error("an application protocol has 1 to 255 bytes, this one {0}")]
    ApplicationProtocol(usize),
    /// A version that rustls does not speak.
    #[error("{0} is not supported: TLS 1.2 and TLS 1.3 are")]
    Version(crate::ProtocolVersion),
    /// A provider that was put together by hand has no keys for tickets.
    #[error("this cryptography has no session tickets: remember sessions instead")]
    NoTickets,
    /// A provider that was put together by hand has no SHA-256.
    #[error("this cryptography has no SHA-256, which pins are made of")]
    NoSha256,
    /// A number that must not be 0 is.
    #[error("{0} must not be 0")]
    Zero(&'static str),
    /// The certificate for development could not be made.
    #[error("cannot make a certificate for development: {0}")]
    Development(String),
    /// rustls refuses the configuration.
    #[error("TLS cannot be configured: {0}")]
    Rustls(Box<dyn Error + Send + Sync>),
}
