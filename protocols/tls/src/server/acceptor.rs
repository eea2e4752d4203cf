use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use protosocket::{Establisher, Lingering, Transport};
use rustls::ServerConfig;
use tokio_rustls::{LazyConfigAcceptor, server::FallibleAccept};

use super::{AcceptorBuilder, AlpnPolicy, Certificates};
use crate::{Error, Provider, TlsStream, farewell::Farewell, watched::Watched};

/// Does the server's side of TLS on accepted streams. Cheap to clone.
///
/// Put it onto a listener with [`Layered`](protosocket::Layered). How long a handshake may take,
/// and how many there may be, is said by the server's configuration: `handshake_timeout` and
/// `max_handshakes`. Until it is done, a connection holds at most 64 KiB of what its peer sent, and
/// about 10 KiB in all after a usual ClientHello.
#[derive(Debug, Clone)]
pub struct Acceptor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Arc<ServerConfig>,
    /// For clients that offer protocols of which none is spoken, if they are let in.
    without_alpn: Option<Arc<ServerConfig>>,
    requires_alpn: bool,
    certificates: Option<Certificates>,
}

impl Acceptor {
    /// Configure one. The cryptography is given by name, such as `ring`.
    pub fn builder(provider: Provider) -> AcceptorBuilder {
        AcceptorBuilder::new(provider)
    }

    /// Use a configuration of rustls as it is.
    pub fn from_config(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(Shared {
            config,
            without_alpn: None,
            requires_alpn: false,
            certificates: None,
        }))
    }

    pub(super) fn new(
        config: ServerConfig,
        certificates: Option<Certificates>,
        policy: AlpnPolicy,
    ) -> Self {
        let without_alpn = (policy == AlpnPolicy::Optional).then(|| {
            let mut config = config.clone();
            config.alpn_protocols.clear();
            Arc::new(config)
        });
        Self(Arc::new(Shared {
            config: Arc::new(config),
            without_alpn,
            requires_alpn: policy == AlpnPolicy::Require,
            certificates,
        }))
    }

    /// The certificates, to replace them while the server runs; `None` if a resolver or a
    /// configuration of rustls was brought along.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.0.certificates.as_ref()
    }
}

impl Shared {
    /// How to go on with a client that has said this, or why not.
    fn choose(&self, hello: &rustls::server::ClientHello<'_>) -> Result<&Arc<ServerConfig>, Error> {
        if let Some(certificates) = &self.certificates
            && !certificates.knows(hello.server_name())
        {
            let name = hello.server_name().map(str::to_owned);
            return Err(Error::UnknownServerName(name));
        }
        let supported = &self.config.alpn_protocols;
        let mut offers = false;
        let mut has_common = false;
        for protocol in hello.alpn().into_iter().flatten() {
            offers = true;
            has_common |= supported.iter().any(|it| it == protocol);
        }
        if supported.is_empty() || has_common || !(offers || self.requires_alpn) {
            return Ok(&self.config);
        }
        self.without_alpn
            .as_ref()
            .ok_or_else(|| Error::NoApplicationProtocol {
                offered: hello.alpn().into_iter().flatten().map(Into::into).collect(),
                supported: supported.clone(),
            })
    }
}

impl<S: Transport + Send> Establisher<S> for Acceptor {
    type Stream = TlsStream<S>;
    type Establish = Accept<S>;

    fn establish(&self, stream: S) -> Accept<S> {
        let hello = LazyConfigAcceptor::new(Default::default(), Watched::new(stream));
        Accept {
            shared: self.0.clone(),
            stage: Stage::Hello(Box::new(hello)),
        }
    }
}

/// A handshake of a server.
pub struct Accept<S> {
    shared: Arc<Shared>,
    stage: Stage<S>,
}

enum Stage<S> {
    /// Waiting for the client's first message.
    Hello(Box<LazyConfigAcceptor<Watched<S>>>),
    /// The rest of the handshake.
    Handshake(Box<FallibleAccept<Watched<S>>>),
    /// It has failed.
    Farewell(Farewell<Watched<S>>),
}

impl<S: Transport> Accept<S> {
    fn poll_hello(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stage<S>>> {
        let Stage::Hello(acceptor) = &mut self.stage else {
            unreachable!("only called in this stage");
        };
        let start = match ready!(Pin::new(&mut **acceptor).poll(cx)) {
            Ok(start) => start,
            Err(error) => {
                let Some(stream) = acceptor.take_io() else {
                    return Poll::Ready(Err(error));
                };
                return Poll::Ready(Ok(Stage::Farewell(Farewell::after(stream, error))));
            }
        };
        Poll::Ready(Ok(match self.shared.choose(&start.client_hello()) {
            Ok(config) => {
                let config = config.clone();
                Stage::Handshake(Box::new(start.into_stream(config).into_fallible()))
            }
            Err(error) => {
                let alert = error.alert_sent();
                Stage::Farewell(Farewell::new(start.io, alert, error.into()))
            }
        }))
    }
}

impl<S: Transport + Send> Future for Accept<S> {
    type Output = io::Result<TlsStream<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            this.stage = match &mut this.stage {
                Stage::Hello(_) => ready!(this.poll_hello(cx))?,
                Stage::Handshake(handshake) => match ready!(Pin::new(&mut **handshake).poll(cx)) {
                    Ok(stream) => return Poll::Ready(Ok(TlsStream::new(stream))),
                    Err((error, stream)) => Stage::Farewell(Farewell::after(stream, error)),
                },
                Stage::Farewell(farewell) => {
                    let (stream, error) = ready!(farewell.poll_error(cx));
                    return Poll::Ready(Err(Lingering::after(error, stream)));
                }
            }
        }
    }
}

impl<S> fmt::Debug for Accept<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::Hello(_) => "Accept(waiting for the ClientHello)",
            Stage::Handshake(_) => "Accept(in the handshake)",
            Stage::Farewell(_) => "Accept(failed)",
        })
    }
}
