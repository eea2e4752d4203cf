//! What is between messages and a socket: nothing, or TLS.

use std::future::{Future, ready};
use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::systems::provider;

/// Makes the stream of a client of a socket.
pub(super) trait Layer: Clone + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn wrap(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Nothing.
#[derive(Clone, Debug)]
pub(super) struct Plain;

impl Layer for Plain {
    type Stream = TcpStream;

    fn wrap(&self, stream: TcpStream) -> impl Future<Output = io::Result<TcpStream>> + Send {
        ready(Ok(stream))
    }
}

/// TLS 1.3 with the same cipher suite for all, and a handshake of its own for each connection.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    pub(super) fn new() -> io::Result<Self> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config).into()))
    }
}

impl Layer for Tls {
    type Stream = TlsStream<TcpStream>;

    fn wrap(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        let name = ServerName::try_from("localhost").expect("it is a name");
        self.0.connect(name, stream)
    }
}

/// Believes every certificate and every signature: the server has made its certificate a moment ago,
/// so nobody vouches for it, and the client is not to be the slower half of a handshake.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::client::Client;
    use super::super::message::Message;
    use super::super::tests::{systems_for, with_server};
    use super::*;

    #[test]
    fn every_system_over_tls_echoes_and_closes_when_its_client_has_finished() {
        for (system, start) in systems_for("tls-handshake/16") {
            let closed = with_server(start, async |address| {
                let client = Client::connect(address, &Tls::new()?, &Message::new(64), 1).await?;
                // Only a server that does not close needs any patience.
                timeout(Duration::from_secs(10), client.close()).await?
            });
            closed.expect(system.name);
        }
    }

    #[test]
    fn messages_of_all_sizes_come_back_over_tls() {
        for (system, start) in systems_for("tls/64B/1x1") {
            for (payload, in_flight) in [(0, 1), (64, 1_024), (1 << 20, 20)] {
                let latencies = with_server(start, async |address| {
                    let message = Message::new(payload);
                    let layer = Tls::new()?;
                    let mut client = Client::connect(address, &layer, &message, in_flight).await?;
                    client.run(Duration::from_millis(20)).await
                });
                let latencies = latencies.expect(system.name);
                assert!(latencies.len() >= in_flight as u64, "{}", system.name);
            }
        }
    }
}
