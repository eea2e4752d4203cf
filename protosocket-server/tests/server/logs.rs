//! F26: what peers do is nothing that a log has to fill up with.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use protosocket::{Refusal, SocketConnector, memory_listener};
use protosocket_server::ProtosocketServerConfig;
use tokio::io::AsyncWriteExt;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::common::{Client, Connector, Record, lock, until};

/// Counts events, and looks at what they say.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    counts: BTreeMap<String, usize>,
    /// Texts with control characters in them.
    dangerous: Vec<String>,
    bytes: usize,
}

impl Log {
    fn count(&self, level: Level) -> usize {
        let lines = lock(&self.0);
        lines.counts.get(level.as_str()).copied().unwrap_or(0)
    }
}

impl Visit for Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{field}={value:?}");
        self.bytes += text.len();
        if text.chars().any(char::is_control) {
            self.dangerous.push(text);
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut *lock(&self.0));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut lines = lock(&self.0);
        let level = event.metadata().level().as_str().to_owned();
        *lines.counts.entry(level).or_default() += 1;
        event.record(&mut *lines);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn f26_10000_bad_connections_are_no_warnings_and_write_no_line_of_their_own() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let record = Arc::new(Record::default());
    let (listener, connector) = memory_listener(256);
    let config = ProtosocketServerConfig::default().observer(record.clone());
    let _server = Connector::new().serve(config, listener);
    for number in 0..10_000 {
        let mut stream = connector.connect().await.expect("the server listens");
        let bad: &[u8] = match number % 4 {
            // What would begin a line of its own, and clear a screen.
            0 => b"quote\r\nERROR all is lost\x1b[2J\0\n",
            1 => b"half of a line \x1b[31m",
            2 => &[b'x'; 200],
            _ => b"",
        };
        stream.write_all(bad).await.expect("there is room");
        drop(stream);
    }
    until(|| record.opened() == 10_000 && record.events().len() == 20_000).await;
    assert!(record.closed("decode") >= 2_500);
    for level in [Level::WARN, Level::ERROR] {
        assert_eq!(log.count(level), 0, "{level}");
    }
    assert_eq!(log.count(Level::INFO), 1, "the server accepts");
    assert!(log.count(Level::DEBUG) >= 10_000, "who wants to know can");
    let lines = lock(&log.0);
    assert_eq!(lines.dangerous, [""; 0]);
    assert!(lines.bytes < 10_000 * 2_000, "{} bytes", lines.bytes);
}

#[tokio::test]
async fn f26_refusals_are_no_warnings() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let record = Arc::new(Record::default());
    let (listener, connector) = memory_listener(256);
    let config = ProtosocketServerConfig::default()
        .observer(record.clone())
        .max_connections(1);
    let _server = Connector::new().serve(config, listener);
    let mut first = Client::new(connector.connect().await.expect("the server listens"));
    assert!(first.is_served().await);
    for _ in 0..1_000 {
        let stream = connector.connect().await.expect("the server listens");
        assert_eq!(Client::new(stream).line().await, None);
    }
    assert_eq!(record.refused(Refusal::Connections), 1_000);
    assert_eq!(log.count(Level::WARN) + log.count(Level::ERROR), 0);
}
