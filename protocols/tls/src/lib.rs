//! TLS 1.2 and 1.3 below any `protosocket` connection, with `rustls`.
//!
//! An `Acceptor` stands on a listener, a `Connector` on a connector; what comes out is a
//! `TlsStream`, over which any codec and reactor run. Handshakes happen off the accept path, in
//! the time and number that a server's configuration allows. Every graceful end says so to the
//! peer (`close_notify`), and an end without that is an error: nobody can cut a stream short
//! unnoticed. Whatever fails says why, for people: see `Error`.
//!
//! ```no_run
//! use protosocket::{Layered, TcpConnector, TcpOptions, TcpSocketListener};
//! use protosocket_tls::{Acceptor, Connector, Identity, Roots, ring};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let acceptor = Acceptor::builder(ring())
//!     .certificate(Identity::pem_files("chain.pem", "key.pem"))
//!     .build()?;
//! let listener = TcpSocketListener::listen("0.0.0.0:8443".parse()?, TcpOptions::new())?;
//! let listener = Layered::new(listener, acceptor); // a listener like any other
//!
//! let connector = Connector::builder(ring())
//!     .server_name("example.org")
//!     .roots(Roots::from_pem_file("authority.pem")?)
//!     .build()?;
//! let connector = Layered::new(TcpConnector::new("127.0.0.1:8443".parse()?), connector);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! | feature | |
//! |---|---|
//! | none | what can be told from bytes: [`ClientHello`], [`Alert`], [`Speech`]; no runtime |
//! | `client`, `server` | the two sides (default) |
//! | `ring` | cryptography by ring (default) |
//! | `aws-lc-rs` | cryptography by AWS-LC |
//! | `web-roots` | the authorities that Mozilla trusts, compiled in |
//! | `dev-certificate` | a certificate for development in one line |

mod data;
pub use data::{
    Alert, ClientHello, ClientHelloError, MAX_CLIENT_HELLO, Parsed, ProtocolVersion, Speech,
};

#[cfg(any(feature = "client", feature = "server"))]
mod alpn;

#[cfg(any(feature = "client", feature = "server"))]
mod config_error;
#[cfg(any(feature = "client", feature = "server"))]
pub use config_error::ConfigError;

#[cfg(any(feature = "client", feature = "server"))]
mod error;
#[cfg(any(feature = "client", feature = "server"))]
pub use error::Error;

#[cfg(any(feature = "client", feature = "server"))]
mod farewell;

#[cfg(any(feature = "client", feature = "server"))]
mod identity;
#[cfg(any(feature = "client", feature = "server"))]
pub use identity::Identity;

#[cfg(any(feature = "client", feature = "server"))]
mod key_log;

#[cfg(any(feature = "client", feature = "server"))]
mod pem;

#[cfg(any(feature = "client", feature = "server"))]
mod provider;
#[cfg(any(feature = "client", feature = "server"))]
pub use provider::Provider;

#[cfg(any(feature = "client", feature = "server"))]
mod roots;
#[cfg(any(feature = "client", feature = "server"))]
pub use roots::Roots;

#[cfg(any(feature = "client", feature = "server"))]
mod stream;
#[cfg(any(feature = "client", feature = "server"))]
pub use stream::TlsStream;

#[cfg(any(feature = "client", feature = "server"))]
mod versions;

#[cfg(any(feature = "client", feature = "server"))]
mod watched;

#[cfg(all(feature = "ring", any(feature = "client", feature = "server")))]
mod ring;
#[cfg(all(feature = "ring", any(feature = "client", feature = "server")))]
pub use ring::ring;

#[cfg(all(feature = "aws-lc-rs", any(feature = "client", feature = "server")))]
mod aws_lc_rs;
#[cfg(all(feature = "aws-lc-rs", any(feature = "client", feature = "server")))]
pub use aws_lc_rs::aws_lc_rs;

#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
pub use server::{Accept, Acceptor, AcceptorBuilder, AlpnPolicy, Certificates, SessionPolicy};

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
pub use client::{Connect, Connector, ConnectorBuilder};

#[cfg(feature = "web-roots")]
mod web_roots;
#[cfg(feature = "web-roots")]
pub use web_roots::web_roots;

#[cfg(feature = "dev-certificate")]
mod development;
#[cfg(feature = "dev-certificate")]
pub use development::{DevelopmentCertificate, development_certificate};

/// The types of keys and certificates, and the configurations that can be brought along.
#[cfg(any(feature = "client", feature = "server"))]
pub use rustls;

/// The example of the README, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
