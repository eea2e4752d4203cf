use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use super::{ConnectionConfig, ConnectionHandle, Lingering};
use crate::{Alarm, Deadline, escaped::Escaped};

/// Makes a stream of what was accepted, within `handshake_timeout`.
///
/// TLS, proxy headers and protocol detection are such futures. Their time runs on the clock of
/// the configuration, and their [`ConnectionHandle`] ends them: a handshake that is drained or
/// aborted has promised nothing yet. One that fails with [`Lingering`] lets the peer read why, for
/// as long as `linger_timeout` and its own deadline allow.
pub struct Establish<F> {
    future: F,
    config: ConnectionConfig,
    handle: ConnectionHandle,
    deadline: Option<Instant>,
    alarm: Option<Pin<Box<dyn Alarm>>>,
    /// It has failed, and the peer may still be reading why.
    lingering: Option<Lingering>,
}

impl<F> Establish<F> {
    /// Drive `future`.
    pub fn new(future: F, config: ConnectionConfig, handle: ConnectionHandle) -> Self {
        Self {
            future,
            config,
            handle,
            deadline: None,
            alarm: None,
            lingering: None,
        }
    }

    /// Go on with the deadline of an earlier stage of the same handshake: all of them together
    /// have `handshake_timeout`.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// When the handshake will have taken too long. `None` until something had to be waited for.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The handshake has failed: linger, if that is wanted.
    fn fail(&mut self, error: io::Error) -> Result<(), EstablishError> {
        let lingering = error.downcast::<Lingering>().map_err(EstablishError::Io)?;
        let Some(timeout) = self.config.limits().linger_timeout else {
            return Err(EstablishError::Io(lingering.into_error()));
        };
        let clock = self.config.clock();
        let now = clock.now();
        let whole = self.config.limits().handshake_timeout;
        let deadline = self.deadline.or_else(|| whole.map(|whole| now + whole));
        let until = deadline.map_or(now + timeout, |deadline| deadline.min(now + timeout));
        self.alarm = Some(clock.alarm(until));
        self.lingering = Some(lingering);
        Ok(())
    }

    /// Why it has failed, once the peer has read that or has had its time.
    fn poll_lingering(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let (Some(lingering), Some(alarm)) = (&mut self.lingering, &mut self.alarm) else {
            return Poll::Pending;
        };
        let is_told = self.handle.is_aborted() || self.handle.drain_deadline().is_some();
        if !is_told
            && lingering.poll_end(cx).is_pending()
            && alarm.as_mut().poll_due(cx).is_pending()
        {
            return Poll::Pending;
        }
        let lingering = self.lingering.take();
        lingering.map_or(Poll::Pending, |it| Poll::Ready(it.into_error()))
    }
}

impl<F, S> Future for Establish<F>
where
    F: Future<Output = io::Result<S>> + Unpin,
{
    type Output = Result<S, EstablishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.handle.register(cx.waker());
        if this.lingering.is_some() {
            return this.poll_lingering(cx).map(|error| Err(error.into()));
        }
        if this.handle.is_aborted() || this.handle.drain_deadline().is_some() {
            return Poll::Ready(Err(EstablishError::Aborted));
        }
        if let Poll::Ready(result) = Pin::new(&mut this.future).poll(cx) {
            return match result {
                Ok(stream) => Poll::Ready(Ok(stream)),
                Err(error) => match this.fail(error) {
                    Ok(()) => this.poll_lingering(cx).map(|error| Err(error.into())),
                    Err(error) => Poll::Ready(Err(error)),
                },
            };
        }
        let Some(timeout) = this.config.limits().handshake_timeout else {
            return Poll::Pending;
        };
        let clock = this.config.clock();
        let deadline = *this.deadline.get_or_insert_with(|| clock.now() + timeout);
        let alarm = this.alarm.get_or_insert_with(|| clock.alarm(deadline));
        alarm
            .as_mut()
            .poll_due(cx)
            .map(|()| Err(EstablishError::Deadline(Deadline::Handshake)))
    }
}

impl<F: fmt::Debug> fmt::Debug for Establish<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Establish")
            .field("future", &self.future)
            .finish_non_exhaustive()
    }
}

/// Why a stream was not established. Nothing was received or sent for the application.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EstablishError {
    /// The handshake failed.
    #[error("the handshake failed: {}", Escaped(.0))]
    Io(#[from] io::Error),
    /// The peer took too long.
    #[error(transparent)]
    Deadline(Deadline),
    /// It was drained, or told to end at once.
    #[error("the handshake was aborted")]
    Aborted,
}
