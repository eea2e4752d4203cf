//! The applications around the multiplexer: a client that notes what it hears, and a server that
//! echoes, or sends all it has.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use protosocket::{ActionId, CloseReason, ConnectionStats, Host, HostContext, Rejected};
use tokio::sync::Notify;

use crate::mux::{Command, Event, Mux, MuxError};

/// What a host has seen, for its test to look at.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) events: Vec<Event>,
    pub(crate) rejected: Vec<Rejected<Command>>,
    pub(crate) error: Option<MuxError>,
}

impl Notes {
    /// Everything that was received on a stream.
    pub(crate) fn received(&self, stream: u32) -> Vec<u8> {
        let data = self.events.iter().filter_map(|event| match event {
            Event::Data(id, payload) if *id == stream => Some(payload),
            _ => None,
        });
        data.flatten().copied().collect()
    }
}

/// Notes that can be waited for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Notes>, Notify)>);

impl Log {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.0.lock().expect("nothing panics under it")
    }

    /// Wait until the notes say so.
    pub(crate) async fn until(&self, condition: impl Fn(&Notes) -> bool) {
        loop {
            let noted = self.0.1.notified();
            if condition(&self.lock()) {
                return;
            }
            noted.await;
        }
    }

    fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.lock());
        self.0.1.notify_one();
    }
}

/// Issues the commands that come through the channel, and consumes at once what it receives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Client(pub(crate) Log);

impl Host<Mux> for Client {
    type Message = Command;

    fn on_event(&mut self, context: &mut HostContext<'_, Mux>, event: Event) {
        if let Event::Data(stream, payload) = &event {
            // A stream may have been forgotten meanwhile; then its credit is of no interest.
            let _ = context.command(Command::Consumed(*stream, payload.len()));
        }
        self.0.note(|notes| notes.events.push(event));
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Mux>, _: ActionId, (): ()) {}

    fn on_message(&mut self, context: &mut HostContext<'_, Mux>, command: Command) {
        if let Err(rejected) = context.command(command) {
            self.0.note(|notes| notes.rejected.push(rejected));
        }
    }

    fn on_end(&mut self, _: &CloseReason, _: &ConnectionStats, error: Option<&MuxError>) {
        self.0.note(|notes| notes.error = error.copied());
    }
}

/// What a server does with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Send back what comes, and grant credit for it once it has left.
    Echo,
    /// Send so many bytes, half a window at a time, whatever comes.
    Source(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    service: Service,
    pub(crate) log: Log,
    /// What each stream still has to send.
    left: std::collections::BTreeMap<u32, usize>,
}

impl Server {
    pub(crate) fn new(service: Service) -> Self {
        Self {
            service,
            log: Log::default(),
            left: Default::default(),
        }
    }

    fn refill(&mut self, context: &mut HostContext<'_, Mux>, stream: u32, size: usize) {
        let Some(left) = self.left.get_mut(&stream) else {
            return;
        };
        let size = size.min(*left);
        *left -= size;
        let payload = Bytes::from(vec![stream as u8; size]);
        context
            .command(Command::Send(stream, payload))
            .expect("a stream with something left is open");
        if *left == 0 {
            self.left.remove(&stream);
            context
                .command(Command::Finish(stream))
                .expect("it has not been finished before");
        }
    }
}

impl Host<Mux> for Server {
    type Message = Command;

    fn on_event(&mut self, context: &mut HostContext<'_, Mux>, event: Event) {
        match (&event, self.service) {
            (Event::Data(stream, payload), Service::Echo) => context
                .command(Command::Send(*stream, payload.clone()))
                .expect("a client finishes after its data"),
            // The stream may have ended with these bytes.
            (Event::Sent(stream, size), Service::Echo) => {
                let _ = context.command(Command::Consumed(*stream, *size));
            }
            (Event::Finished(stream), Service::Echo) => context
                .command(Command::Finish(*stream))
                .expect("it has not been finished before"),
            (Event::Opened(stream), Service::Source(size)) => {
                self.left.insert(*stream, size);
                self.refill(context, *stream, 64);
            }
            (Event::Sent(stream, size), Service::Source(_)) => self.refill(context, *stream, *size),
            (Event::Cancelled(stream), _) => {
                self.left.remove(stream);
            }
            _ => {}
        }
        self.log.note(|notes| notes.events.push(event));
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Mux>, _: ActionId, (): ()) {}

    fn on_message(&mut self, context: &mut HostContext<'_, Mux>, command: Command) {
        if let Err(rejected) = context.command(command) {
            self.log.note(|notes| notes.rejected.push(rejected));
        }
    }

    fn on_end(&mut self, _: &CloseReason, _: &ConnectionStats, error: Option<&MuxError>) {
        self.log.note(|notes| notes.error = error.copied());
    }
}
