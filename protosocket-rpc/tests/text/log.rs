//! What is logged.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// What no log may say.
pub(crate) const SECRET: &str = "swordfish";

/// Counts events, and looks for the secret in them.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
pub(crate) struct Lines {
    counts: BTreeMap<Level, usize>,
    /// Texts with the secret in them.
    pub(crate) leaks: Vec<String>,
}

impl Log {
    pub(crate) fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, level: Level) -> usize {
        self.lines().counts.get(&level).copied().unwrap_or(0)
    }
}

impl Visit for Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{field}={value:?}");
        if text.contains(SECRET) {
            self.leaks.push(text);
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut *self.lines());
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut lines = self.lines();
        *lines.counts.entry(*event.metadata().level()).or_default() += 1;
        event.record(&mut *lines);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
