use std::{
    fmt,
    fs::File,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protosocket::{Accepted, Alarm, ConnectionConfig, Refusal, SocketListener};

use crate::{
    DrainReport, Serve,
    admission::{Admission, Admitted},
    registry::{Bounds, Registry},
};

/// How often the lack of something is logged at the most.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Connections that one poll accepts before it lets other tasks run.
const ACCEPTS_PER_POLL: usize = 64;

/// The first wait after an error that will not go away by itself, and the longest: after the
/// cause is gone, the server accepts again within that time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// A server: a future to be spawned, which accepts connections until it is drained.
///
/// It ends when a [`ServerHandle`] has drained it, and returns the report. Dropping it closes the
/// listener; connections live on in their own tasks, and can still be drained.
#[must_use = "a server does nothing unless it is polled"]
pub struct ProtosocketServer<C: Serve> {
    connector: Arc<C>,
    /// `None` once the server accepts no more.
    listener: Option<C::Listener>,
    registry: Arc<Registry>,
    backoff: Backoff,
    /// Resolves when a drain begins.
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Resolves when it is done.
    drained: Option<Pin<Box<dyn Future<Output = DrainReport> + Send>>>,
}

/// Waiting out the lack of something.
#[derive(Default)]
struct Backoff {
    /// How long the last wait was.
    last: Duration,
    alarm: Option<Pin<Box<dyn Alarm>>>,
    /// When it was last logged: peers that open connections at the limit must not fill the log.
    warned: Option<Instant>,
    /// A file descriptor kept to accept, and close, those that would otherwise hang while there
    /// is none.
    reserve: Option<File>,
}

impl<C: Serve> ProtosocketServer<C> {
    pub(crate) fn new(
        listener: C::Listener,
        connector: C,
        config: ConnectionConfig,
        bounds: Bounds,
    ) -> Self {
        tracing::info!("the server accepts connections");
        let registry = Registry::new(config, bounds);
        let mut draining = registry.watch_draining();
        Self {
            connector: Arc::new(connector),
            listener: Some(listener),
            registry,
            backoff: Backoff {
                reserve: reserve(),
                ..Backoff::default()
            },
            draining: Box::pin(async move {
                // An error says that the registry is gone, and this future is part of it.
                let _ = draining.wait_for(|draining| *draining).await;
            }),
            drained: None,
        }
    }

    /// A handle to drain this server with.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            registry: self.registry.clone(),
        }
    }

    /// The listener, until a drain has begun.
    pub fn listener(&self) -> Option<&C::Listener> {
        self.listener.as_ref()
    }

    /// Accept what there is. `Ready` when this poll has accepted enough.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut failures = 0;
        for _ in 0..ACCEPTS_PER_POLL {
            if self.poll_backoff(cx).is_pending() {
                return Poll::Pending;
            }
            let Some(listener) = &mut self.listener else {
                return Poll::Pending;
            };
            match listener.poll_accept(cx) {
                Poll::Ready(Ok(accepted)) => {
                    self.backoff.last = Duration::ZERO;
                    self.admit(accepted);
                }
                Poll::Ready(Err(error)) => {
                    failures += 1;
                    // LIMIT: errors that are said to pass by themselves and do not.
                    let passes = concerns_one_connection(&error) && failures < ACCEPTS_PER_POLL;
                    self.on_accept_error(cx, &error, passes);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        // There may be more, unless the last was an error that takes time.
        self.poll_backoff(cx)
    }

    fn admit(&mut self, accepted: Accepted<<C::Listener as SocketListener>::Establish>) {
        let Accepted { peer, establish } = accepted;
        let is_proxy = self.listener.as_ref().is_some_and(|it| it.is_proxy(&peer));
        let registration = match self.registry.admit(&peer, is_proxy) {
            Ok(registration) => registration,
            Err(refusal) => {
                tracing::debug!(%peer, refusal = refusal.name(), "a connection was refused");
                if let Some(observer) = self.registry.config().observer() {
                    observer.refused(Some(&peer), refusal);
                }
                return;
            }
        };
        let connection = Admitted::new(establish, Admission::new(peer, registration));
        let connector = &self.connector;
        let spawned = catch_unwind(AssertUnwindSafe(|| C::serve(connector, connection)));
        if spawned.is_err() {
            // A connection that it took along has been counted on its way out.
            tracing::error!("spawn_connection panicked");
        }
    }

    /// An error concerns the connection that was to be accepted, or the whole program; it is
    /// never the end of the server.
    fn on_accept_error(&mut self, cx: &mut Context<'_>, error: &io::Error, passes: bool) {
        if passes {
            tracing::debug!(%error, "a connection was gone before it was accepted");
            self.refused(Refusal::Accept);
            return;
        }
        let now = self.registry.config().clock().now();
        let quiet = self.backoff.warned.is_some_and(|at| now < at + WARN_EVERY);
        if !quiet {
            self.backoff.warned = Some(now);
            tracing::warn!(%error, "cannot accept connections, trying again");
        }
        if self.backoff.last == BACKOFF.1 {
            self.shed(cx);
        } else {
            self.refused(Refusal::Resources);
        }
        let wait = (self.backoff.last * 2).clamp(BACKOFF.0, BACKOFF.1);
        self.backoff.last = wait;
        self.backoff.alarm = Some(self.registry.config().clock().alarm(now + wait));
    }

    /// The lack lasts: accept with the descriptor in reserve and close, so that peers learn that
    /// they are not served instead of hanging.
    fn shed(&mut self, cx: &mut Context<'_>) {
        let mut shed = 0;
        while shed < ACCEPTS_PER_POLL && self.backoff.reserve.take().is_some() {
            let Some(listener) = &mut self.listener else {
                return;
            };
            let accepted = listener.poll_accept(cx);
            let more = matches!(accepted, Poll::Ready(Ok(_)));
            drop(accepted);
            self.backoff.reserve = reserve();
            if !more {
                return;
            }
            shed += 1;
            self.refused(Refusal::Resources);
        }
    }

    fn poll_backoff(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(alarm) = &mut self.backoff.alarm {
            if alarm.as_mut().poll_due(cx).is_pending() {
                return Poll::Pending;
            }
            self.backoff.alarm = None;
            if self.backoff.reserve.is_none() {
                self.backoff.reserve = reserve();
            }
        }
        Poll::Ready(())
    }

    fn refused(&self, refusal: Refusal) {
        if let Some(observer) = self.registry.config().observer() {
            observer.refused(None, refusal);
        }
    }
}

/// Any descriptor will do.
fn reserve() -> Option<File> {
    File::open(if cfg!(windows) { "NUL" } else { "/dev/null" }).ok()
}

/// Whether an accept error says nothing about the next accept. What is not known waits: a listener
/// that fails at once, over and over, must not keep a core busy.
fn concerns_one_connection(error: &io::Error) -> bool {
    /// Errors of the network on a new connection that Linux reports by `accept`, and for which
    /// the standard library has no name: ENONET, EPROTO, ENOPROTOOPT, EOPNOTSUPP, EHOSTDOWN. MIPS
    /// and SPARC number them otherwise; there they wait, as what is not known does.
    const OF_LINUX: [i32; 5] = [64, 71, 92, 95, 112];
    let is_of_linux = cfg!(any(target_os = "linux", target_os = "android"))
        && cfg!(not(any(
            target_arch = "mips",
            target_arch = "mips32r6",
            target_arch = "mips64",
            target_arch = "mips64r6",
            target_arch = "sparc",
            target_arch = "sparc64",
        )))
        && (error.raw_os_error()).is_some_and(|number| OF_LINUX.contains(&number));
    is_of_linux
        || matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::NetworkDown
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::TimedOut
        )
}

impl<C: Serve> Unpin for ProtosocketServer<C> {}

impl<C: Serve> Future for ProtosocketServer<C> {
    type Output = DrainReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<DrainReport> {
        let this = &mut *self;
        if this.drained.is_none() && this.draining.as_mut().poll(cx).is_ready() {
            this.listener = None;
            this.registry.stop_listening();
            let handle = this.handle();
            this.drained = Some(Box::pin(async move { handle.drained().await }));
        }
        if let Some(drained) = &mut this.drained {
            return drained.as_mut().poll(cx);
        }
        if this.poll_accept(cx).is_ready() {
            // There may be more. The connections come first, and so does the I/O driver.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        Poll::Pending
    }
}

impl<C: Serve> Drop for ProtosocketServer<C> {
    fn drop(&mut self) {
        self.listener = None;
        self.registry.stop_listening();
    }
}

impl<C: Serve> fmt::Debug for ProtosocketServer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtosocketServer")
            .field("connections", &self.registry.len())
            .field("listening", &self.listener.is_some())
            .finish()
    }
}

/// Drains a server, from any task or thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    registry: Arc<Registry>,
}

impl ServerHandle {
    /// Stop accepting, let every connection finish what it has begun, cut off at `deadline` those
    /// that have not, and report.
    ///
    /// The listener's address is free when this returns. Draining again returns the same report,
    /// sooner if the deadline is earlier.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let clock = self.registry.config().clock();
        // Longer than anybody waits is as good as for ever.
        let deadline = deadline.min(Duration::from_secs(366 * 24 * 60 * 60));
        self.registry.begin_drain(clock.now() + deadline);
        self.drained().await
    }

    /// How many connections there are, those being established included.
    pub fn connections(&self) -> usize {
        self.registry.len()
    }

    /// Wait for the drain under way.
    async fn drained(&self) -> DrainReport {
        let mut report = self.registry.watch_report();
        let clock = self.registry.config().clock();
        let mut alarm = clock.alarm(clock.now() + self.registry.drain_wait());
        let mut done = pin!(report.wait_for(Option::is_some));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = done.as_mut().poll(cx) {
                // An error is impossible: this handle keeps the registry alive.
                let report = done.ok().and_then(|report| *report);
                return Poll::Ready(report.unwrap_or_default());
            }
            alarm
                .as_mut()
                .poll_due(cx)
                .map(|()| self.registry.give_up_drain())
        })
        .await
    }
}
