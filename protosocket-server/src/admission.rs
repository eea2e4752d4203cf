use std::{
    fmt,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use protosocket::{ConnectionConfig, Establish, EstablishError, PeerAddress, Refusal, Transport};

use crate::{WrongProtocol, registry::Registration};

/// A connection that was accepted, has its place in the server's table, and is yet to be
/// established: what a server hands to [`Serve`](crate::Serve).
///
/// Dropping it closes the connection and counts it as refused.
#[must_use = "a connection that is dropped is refused"]
pub struct Admitted<F> {
    establish: F,
    admission: Admission,
}

impl<F> Admitted<F> {
    pub(crate) fn new(establish: F, admission: Admission) -> Self {
        Self {
            establish,
            admission,
        }
    }

    /// Who connected, as far as it is known.
    pub fn peer(&self) -> &PeerAddress {
        &self.admission.peer
    }
}

impl<F> fmt::Debug for Admitted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted")
            .field("peer", self.peer())
            .finish_non_exhaustive()
    }
}

/// What goes along with a connection from stage to stage until it is established: its place in
/// the table, and what is left of its time.
///
/// Whoever drops it has refused the connection.
#[derive(Debug)]
pub(crate) struct Admission {
    /// `None` when the connection was refused, or is one.
    registration: Option<Registration>,
    peer: PeerAddress,
    config: ConnectionConfig,
    /// Of all stages together, once there was something to wait for.
    deadline: Option<Instant>,
}

impl Admission {
    pub(crate) fn new(peer: PeerAddress, registration: Registration) -> Self {
        Self {
            config: registration.registry().config().clone(),
            registration: Some(registration),
            peer,
            deadline: None,
        }
    }

    /// What the connection will be configured with.
    pub(crate) fn config(&self) -> &ConnectionConfig {
        &self.config
    }

    /// Another configuration for the connection. Its handshake has that of the server.
    pub(crate) fn set_config(&mut self, config: ConnectionConfig) {
        self.config = config;
    }

    /// It is established: here is its place.
    pub(crate) fn into_registration(mut self) -> Registration {
        let mut registration = self.registration.take().expect("it was not refused");
        registration.end_handshake();
        registration
    }

    pub(crate) fn refuse(mut self, refusal: Refusal) {
        self.tell(refusal);
    }

    /// Say why the handshake failed. The refusal that it comes to.
    pub(crate) fn explain(&self, error: &EstablishError) -> Refusal {
        tracing::debug!(peer = %self.peer, %error, "a connection was not established");
        if let Some(registration) = &self.registration
            && let Some(observer) = registration.registry().config().observer()
        {
            observer.handshake_failed(&self.peer, error);
        }
        match error {
            EstablishError::Io(error) if is_wrong_protocol(error) => Refusal::Protocol,
            _ => Refusal::Handshake,
        }
    }

    fn tell(&mut self, refusal: Refusal) {
        let Some(mut registration) = self.registration.take() else {
            return;
        };
        if let Some(observer) = registration.registry().config().observer() {
            observer.refused(Some(&self.peer), refusal);
        }
        registration.end(None);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.tell(match std::thread::panicking() {
            true => Refusal::Panicked,
            false => Refusal::Dropped,
        });
    }
}

/// One stage on the way to a connection: accepting TLS, reading a proxy header, sniffing.
///
/// Dropping it closes the stream before anybody is told.
pub(crate) struct Stage<F> {
    establish: Establish<F>,
    admission: Admission,
}

impl<F> Stage<F> {
    pub(crate) fn new(admitted: Admitted<F>) -> Self {
        let Admitted {
            establish,
            admission,
        } = admitted;
        let registration = admission.registration.as_ref();
        let registration = registration.expect("it was not refused");
        // A route's limits are about its connections. Until there is one, the server's count.
        let config = registration.registry().config().clone();
        let establish = Establish::new(establish, config, registration.handle().clone())
            .with_deadline(admission.deadline);
        Self {
            establish,
            admission,
        }
    }

    pub(crate) fn peer(&self) -> &PeerAddress {
        &self.admission.peer
    }

    /// Drive it: the stream, or why there will be none. Whoever is given the reason is to
    /// [`refuse`](Self::refuse) the connection.
    pub(crate) fn poll<S>(&mut self, cx: &mut Context<'_>) -> Poll<Result<S, Refusal>>
    where
        F: Future<Output = io::Result<S>> + Unpin,
        S: Transport,
    {
        let Self {
            establish,
            admission,
        } = self;
        let registration = admission.registration.as_mut();
        let registration = registration.expect("it was not refused");
        // A handshake is foreign code: its panic ends this connection, and nothing else.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *establish).poll(cx)));
        let established = match polled {
            Ok(Poll::Pending) => {
                registration.begin_handshake();
                return Poll::Pending;
            }
            Ok(Poll::Ready(established)) => established,
            Err(_) => return Poll::Ready(Err(panicked())),
        };
        admission.deadline = establish.deadline();
        let peer = &mut admission.peer;
        Poll::Ready(match established {
            Ok(stream) => {
                // A proxy's header may have named the client: it is this whom limits are about. A
                // stream that knows less than its listener did names nobody.
                let named = stream.peer_address();
                if registration.is_proxy() || matches!(named, PeerAddress::Ip(_)) {
                    *peer = named;
                }
                match registration.identify(peer) {
                    Ok(()) => Ok(stream),
                    Err(refusal) => {
                        tracing::debug!(%peer, refusal = refusal.name(), "a connection was refused");
                        Err(refusal)
                    }
                }
            }
            Err(EstablishError::Aborted) => {
                tracing::debug!(%peer, "a connection was aborted before it was established");
                Err(registration.refusal())
            }
            Err(error) => Err(admission.explain(&error)),
        })
    }

    /// What the next stage goes on with.
    pub(crate) fn into_admission(self) -> Admission {
        self.admission
    }

    /// Close the stream, and tell that the connection was refused.
    pub(crate) fn refuse(self, refusal: Refusal) {
        let Self {
            establish,
            admission,
        } = self;
        drop(establish);
        admission.refuse(refusal);
    }
}

/// Code that makes connections, or decides about them, has panicked.
pub(crate) fn panicked() -> Refusal {
    tracing::error!("the code that makes connections panicked");
    Refusal::Panicked
}

fn is_wrong_protocol(error: &io::Error) -> bool {
    (error.get_ref()).is_some_and(|source| source.is::<WrongProtocol>())
}
