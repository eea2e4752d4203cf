use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use protosocket::{Establisher, Transport};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::FallibleConnect};

use super::ConnectorBuilder;
use crate::{Error, Provider, TlsStream, farewell::Farewell, watched::Watched};

/// Does the client's side of TLS on opened streams. Cheap to clone.
///
/// Put it onto a connector with [`Layered`](protosocket::Layered), which also bounds the time that
/// a handshake takes.
#[derive(Clone)]
pub struct Connector {
    connector: TlsConnector,
    server_name: ServerName<'static>,
    trusts_anybody: bool,
    requires_alpn: bool,
}

impl Connector {
    /// Configure one. The cryptography is given by name, such as `ring`.
    pub fn builder(provider: Provider) -> ConnectorBuilder {
        ConnectorBuilder::new(provider)
    }

    /// Use a configuration of rustls as it is, for the server of this name.
    pub fn from_config(config: Arc<ClientConfig>, server_name: ServerName<'static>) -> Self {
        Self {
            connector: TlsConnector::from(config),
            server_name,
            trusts_anybody: false,
            requires_alpn: false,
        }
    }

    pub(super) fn new(config: ClientConfig, server_name: ServerName<'static>) -> Self {
        Self::from_config(Arc::new(config), server_name)
    }

    pub(super) fn trusting_anybody(mut self, trusts_anybody: bool) -> Self {
        self.trusts_anybody = trusts_anybody;
        self
    }

    pub(super) fn requiring_alpn(mut self, requires_alpn: bool) -> Self {
        self.requires_alpn = requires_alpn;
        self
    }
}

impl<S: Transport> Establisher<S> for Connector {
    type Stream = TlsStream<S>;
    type Establish = Connect<S>;

    fn establish(&self, stream: S) -> Connect<S> {
        if self.trusts_anybody {
            let peer = stream.peer_address();
            tracing::warn!(%peer, "the certificate of the server is not checked at all");
        }
        let name = self.server_name.clone();
        let handshake = self.connector.connect(name, Watched::new(stream));
        let required = self.requires_alpn.then(|| self.connector.config().clone());
        Connect {
            stage: Stage::Handshake(Box::new(handshake.into_fallible())),
            required,
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("server_name", &self.server_name)
            .field("trusts_anybody", &self.trusts_anybody)
            .finish_non_exhaustive()
    }
}

/// A handshake of a client.
pub struct Connect<S> {
    stage: Stage<S>,
    /// Of which one application protocol must be chosen.
    required: Option<Arc<ClientConfig>>,
}

enum Stage<S> {
    Handshake(Box<FallibleConnect<Watched<S>>>),
    /// It has failed.
    Failed(Farewell<Watched<S>>),
    /// It is done, and what it has come to will not do.
    Declined(Box<Farewell<TlsStream<S>>>),
}

impl<S: Transport> Future for Connect<S> {
    type Output = io::Result<TlsStream<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            this.stage = match &mut this.stage {
                Stage::Handshake(handshake) => match ready!(Pin::new(&mut **handshake).poll(cx)) {
                    Ok(stream) => match &this.required {
                        Some(config) if stream.get_ref().1.alpn_protocol().is_none() => {
                            let offered = config.alpn_protocols.clone();
                            let error = Error::NoneChosen { offered };
                            let stream = TlsStream::new(stream);
                            Stage::Declined(Box::new(Farewell::new(stream, None, error.into())))
                        }
                        _ => return Poll::Ready(Ok(TlsStream::new(stream))),
                    },
                    Err((error, stream)) => Stage::Failed(Farewell::after(stream, error)),
                },
                Stage::Failed(farewell) => {
                    let (_, error) = ready!(farewell.poll_error(cx));
                    return Poll::Ready(Err(error));
                }
                Stage::Declined(farewell) => {
                    let (_, error) = ready!(Pin::new(&mut **farewell).poll(cx));
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl<S> fmt::Debug for Connect<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::Handshake(_) => "Connect(in the handshake)",
            Stage::Failed(_) | Stage::Declined(_) => "Connect(failed)",
        })
    }
}
