use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Instant,
};

use protosocket::{
    Alarm, CloseReason, Connection, Reconnect, ReconnectError, SocketConnector, channel,
};

use crate::{
    Error, PipelineClient, PipelineConfig, Protocol,
    engine::Engine,
    reactor::{PipelineReactor, Slot},
    table::Table,
};

/// A client of a server that `reconnect` connects to, and its driver: a future to be spawned, which
/// opens the first connection and each one after it, and carries the requests out.
///
/// Nothing happens before the driver is polled. It ends when the last [`PipelineClient`] has been
/// dropped, or the client was [closed](PipelineClient::close), and nothing is in flight. When it is
/// dropped before that, all requests fail. `reconnect` keeps its delays on a clock of its own, which
/// is that of tokio as well by default.
///
/// # Errors
/// Those of the driver: no connection could be opened in as many attempts as `reconnect` allows.
pub fn connect<P, C>(
    reconnect: Reconnect<C>,
    protocol: P,
    config: &PipelineConfig,
) -> (
    PipelineClient<P>,
    impl Future<Output = Result<(), Arc<ReconnectError>>> + use<P, C>,
)
where
    P: Protocol,
    C: SocketConnector,
{
    let table = Arc::new(Table::new(config));
    let client = PipelineClient::new(table.clone(), config);
    let engine = Engine::new(protocol, table, config);
    let driver = Driver {
        slot: Arc::new(Mutex::new(Some(Box::new(engine)))),
        config: config.clone(),
    };
    (client, driver.drive(reconnect))
}

/// Holds the engine between connections, and tells everybody when it is dropped.
struct Driver<P: Protocol> {
    slot: Slot<P>,
    config: PipelineConfig,
}

impl<P: Protocol> Driver<P> {
    async fn drive<C: SocketConnector>(
        self,
        mut reconnect: Reconnect<C>,
    ) -> Result<(), Arc<ReconnectError>> {
        loop {
            let connecting = self.connect(pin!(reconnect.connect())).await;
            let stream = match connecting {
                None => return Ok(()),
                Some(Ok(stream)) => stream,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the client gives up");
                    let error = Arc::new(error);
                    self.end(|_| Error::GaveUp(error.clone()));
                    return Err(error);
                }
            };
            let Some(mut engine) = self.take() else {
                unreachable!("{ENGINE}");
            };
            let decoder = engine.open();
            let slot = self.slot.clone();
            let reactor = PipelineReactor::new(engine, slot, self.config.max_in_flight);
            let codec = (crate::reactor::Unused, decoder);
            // Requests come through the table: the channel is closed from the beginning.
            let (_, outbound) = channel(1);
            Connection::over(stream, codec, reactor, outbound, &self.config.connection).await;
            if self.with_engine(|engine| engine.is_proved()) {
                reconnect.succeeded();
            }
        }
    }

    /// Wait for a connection, and meanwhile for requests and their deadlines. `None` if none is
    /// needed any more.
    async fn connect<F: Future>(&self, mut connecting: Pin<&mut F>) -> Option<F::Output> {
        let mut alarm = None;
        poll_fn(|cx| {
            let is_done = self.with_engine(|engine| self.attend(engine, &mut alarm, cx));
            match is_done {
                true => Poll::Ready(None),
                false => connecting.as_mut().poll(cx).map(Some),
            }
        })
        .await
    }

    /// Look after the requests that wait for a connection. Whether there will be no more.
    fn attend(
        &self,
        engine: &mut Engine<P>,
        alarm: &mut Option<(Instant, Pin<Box<dyn Alarm>>)>,
        cx: &mut Context<'_>,
    ) -> bool {
        let clock = self.config.connection.clock();
        engine.exchange(cx, clock.now());
        loop {
            if engine.is_done() {
                return true;
            }
            let Some(at) = engine.deadline() else {
                return false;
            };
            let (set, alarm) = alarm.get_or_insert_with(|| (at, clock.alarm(at)));
            if *set != at {
                alarm.as_mut().reset(at);
                *set = at;
            }
            if alarm.as_mut().poll_due(cx).is_pending() {
                return false;
            }
            // Without a connection, there is none to be ended.
            let _ = engine.on_deadline(at.max(clock.now()));
        }
    }

    fn take(&self) -> Option<Box<Engine<P>>> {
        self.slot
            .lock()
            .expect("no code that panics runs under it")
            .take()
    }

    /// Do something with the engine, which no connection has. It is out of its slot meanwhile, so
    /// that nothing that panics runs under the lock.
    fn with_engine<T>(&self, act: impl FnOnce(&mut Engine<P>) -> T) -> T {
        let mut guard = Returned {
            engine: Some(self.take().expect(ENGINE)),
            slot: &self.slot,
        };
        act(guard.engine.as_deref_mut().expect(ENGINE))
    }

    fn end(&self, error: impl Fn(crate::Execution) -> Error) {
        if let Some(mut engine) = self.take() {
            engine.end(error);
        }
    }
}

/// Puts the engine back into its slot, whatever panics.
struct Returned<'a, P: Protocol> {
    engine: Option<Box<Engine<P>>>,
    slot: &'a Slot<P>,
}

impl<P: Protocol> Drop for Returned<'_, P> {
    fn drop(&mut self) {
        let mut slot = self.slot.lock().expect("no code that panics runs under it");
        *slot = self.engine.take();
    }
}

impl<P: Protocol> Drop for Driver<P> {
    fn drop(&mut self) {
        // The driver is done, which leaves nobody waiting, or it was dropped.
        let reason = Arc::new(CloseReason::Dropped);
        self.end(|execution| Error::ConnectionLost {
            execution,
            reason: reason.clone(),
        });
    }
}

const ENGINE: &str = "the engine is in its slot while no connection has it";
